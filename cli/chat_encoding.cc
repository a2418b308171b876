#include "cli/chat_encoding.h"

#include <algorithm>
#include <cstdlib>

#include "cli/report.h"
#include "cli/text_input.h"
#include "cli/thinking.h"
#include "quant/error.h"
#include "quant/gguf_files.h"
#include "quant/utf8.h"

namespace quern {
namespace {

constexpr const char* kOwnTemplate = "the file's chat template";

// "mistral-v1 (...), ..." for messages.
std::string chat_format_names(const Vocabulary* vocabulary = nullptr) {
  std::string names;
  for (const ChatFormat& format : chat_formats())
    if (vocabulary == nullptr || format.fits(*vocabulary))
      names += fmt::format("{}{} ({})", names.empty() ? "" : ", ", format.name, format.description);
  return names;
}

// The format called `name`. Throws kUsage with the list of formats.
const ChatFormat& require_chat_format(const std::string& name) {
  const ChatFormat* format = find_chat_format(name);
  if (format == nullptr)
    fail(ErrorCode::kUsage,
         "--chat-format: '{}' is unknown; without it the model's own chat template is run; there is {}",
         printable(name), chat_format_names());
  return *format;
}

// The built-in chat format whose published template the file has, or which a file without a template names;
// null: neither. Beside a template the name says what convert took that for; another may stand there since.
const ChatFormat* known_chat_format(const Vocabulary& vocabulary) {
  if (vocabulary.chat_template.empty()) return find_chat_format(vocabulary.chat_format);
  return find_chat_format(recognise_chat_format(vocabulary));
}

// The text that stands for a special token, as the vocabulary spells it; absent when it has none.
std::optional<std::string> spelling(const Tokenizer& tokenizer, TokenId id) {
  if (id == kNoToken) return std::nullopt;
  return tokenizer.piece(id);
}

const Json* find(const Json::Object& variables, std::string_view name) {
  for (const JsonMember& variable : variables)
    if (variable.key == name) return &variable.value;
  return nullptr;
}

// Tools are encoded differently by every version, and not by ours; documents are a template's affair.
void refuse_tools(const Json::Object& variables, std::string_view format) {
  const auto refuse = [format](std::string_view what) {
    fail(ErrorCode::kMalformed, "the chat format {} does not take {}; give --template FILE", format, what);
  };
  for (const char* name : {"tools", "functions", "documents"})
    if (is_given(find(variables, name))) refuse(name);
  const Json* messages = find(variables, "messages");
  if (messages != nullptr && calls_tools(*messages)) refuse("tools");
}

[[noreturn]] void fail_without_conversations(const Vocabulary& vocabulary) {
  const std::string formats = chat_format_names(&vocabulary);
  fail(ErrorCode::kUsage,
       "the file has no chat template, so how its conversations look is not known; give --template FILE{}{}",
       formats.empty() ? "; none of the formats of --chat-format fits its vocabulary"
                       : ", or, where the model was trained on it, --chat-format NAME: ",
       formats);
}

}  // namespace

void require_conversations(const ChatArguments& arguments, const std::string& path,
                           const ModelOptions& options) {
  if (!arguments.format.empty() || arguments.template_file) return;
  std::unique_ptr<GgufFiles> files;
  try {
    files = std::make_unique<GgufFiles>(path);
  } catch (const Error&) {
    return;
  }
  const GgufReader& gguf = files->gguf();
  const ConversationKeys keys = read_conversation_keys(gguf, {});
  if (keys.chat_template.empty() && find_chat_format(keys.chat_format) != nullptr) return;
  try {
    if (!keys.chat_template.empty()) {
      const ChatTemplate parsed(keys.chat_template, kOwnTemplate);
      return;
    }
  } catch (const Error& problem) {
    Model::check(path, options);  // a template does not matter where the model does not run at all
    fail(problem.code(), "{}; --template FILE runs another", problem.what());
  }
  if (!Model::check(path, options).empty()) return;  // it has no text at all
  const TensorView* const embedding = gguf.find_tensor("token_embd.weight");
  QUERN_CHECK(embedding != nullptr);  // checked
  fail_without_conversations(read_vocabulary(gguf, embedding->rows(), {}, options.pre_tokenizer));
}

void ChatArguments::declare(Arguments& arguments) {
  arguments.text("--chat-format", "NAME",
                 "Encode conversations as this format does (default: what the file says)", &format);
  arguments.text("--template", "FILE", "Run this Jinja chat template (default: the file's own)",
                 &template_file);
  arguments.text("--bos-text", "TEXT", "What a template sees as bos_token (default: the vocabulary's)",
                 &bos_text);
  arguments.text("--eos-text", "TEXT", "What a template sees as eos_token (default: the vocabulary's)",
                 &eos_text);
  arguments.text("--now", "DATE",
                 "The time that a template sees, YYYY-MM-DD or YYYY-MM-DDTHH:MM:SS, in UTC (also QUERN_NOW; "
                 "default: now, local time)",
                 &now);
}

void ChatArguments::check() {
  if (!format.empty() && template_file)
    fail(ErrorCode::kUsage,
         "--chat-format and --template exclude each other: a format is known by its name, a "
         "template is run");
  clock();
  if (!format.empty()) require_chat_format(format);
  if (!template_file) return;
  const std::string path = printable(*template_file, kPathBytes);
  template_text = read_bytes(*template_file);
  if (skip_byte_order_mark(&*template_text))
    print_notice("{}: the byte order mark at its start is left out", path);
  const ChatTemplate parsed(*template_text, path);
}

Clock ChatArguments::clock() const {
  const char* pinned = std::getenv("QUERN_NOW");
  if (!now && (pinned == nullptr || *pinned == '\0')) return Clock();
  const std::string text = now ? *now : pinned;
  const std::optional<Clock> clock = Clock::parse(text);
  if (!clock)
    fail(ErrorCode::kUsage, "{}: expected YYYY-MM-DD or YYYY-MM-DDTHH:MM:SS, found '{}'",
         now ? "--now" : "QUERN_NOW", printable(text));
  return *clock;
}

ChatEncoding::ChatEncoding(const ChatArguments& arguments, const Tokenizer& tokenizer,
                           std::string_view fallback)
    : tokenizer_(tokenizer),
      bos_text_(arguments.bos_text ? arguments.bos_text : spelling(tokenizer, tokenizer.vocabulary().bos)),
      eos_text_(arguments.eos_text ? arguments.eos_text : spelling(tokenizer, tokenizer.vocabulary().eos)),
      clock_(arguments.clock()) {
  const Vocabulary& vocabulary = tokenizer.vocabulary();
  if (arguments.template_file) {
    use_template(arguments.template_text.value(), printable(*arguments.template_file, kPathBytes));
  } else if (!arguments.format.empty()) {
    format_ = &require_chat_format(arguments.format);
  } else if (const ChatFormat* known = known_chat_format(vocabulary)) {
    format_ = known;
    choice_ = fmt::format("chat format: {} (override: --chat-format, --template)", known->name);
  } else if (!vocabulary.chat_template.empty()) {
    use_template(vocabulary.chat_template, kOwnTemplate);
    choice_ = fmt::format(
        "chat template: the file's own{} (override: --template, --chat-format)",
        vocabulary.chat_format.empty()
            ? ""
            : fmt::format(", which is not that of {}, as the file says", printable(vocabulary.chat_format)));
  } else if (!fallback.empty()) {
    format_ = &require_chat_format(std::string(fallback));
    choice_ =
        fmt::format("chat format: {} (the file names none; override: --chat-format, --template)", fallback);
  } else {
    fail_without_conversations(vocabulary);
  }
}

void ChatEncoding::use_template(const std::string& source, const std::string& where) {
  template_.emplace(source, where);
  thinks_ = knows_thought(source);
  tool_syntax_ = tool_syntax_of(source);
  if (tool_syntax_ == nullptr || tool_syntax_->mark().empty()) return;
  const auto texts = tool_syntax_->texts();
  for (TokenId id = 0; id < static_cast<TokenId>(tokenizer_.size()); ++id) {
    if (!tokenizer_.is_control(id)) continue;
    const std::string_view piece = tokenizer_.piece(id);
    if (!piece.empty() && std::any_of(texts.begin(), texts.end(),
                                      [&](std::string_view text) { return text.find(piece) != text.npos; }))
      call_tokens_.push_back(id);
  }
}

std::vector<RenderedSpan> ChatEncoding::run(const Json::Object& variables) const {
  std::vector<std::pair<std::string, std::string>> own_texts;
  Json::Object others;
  const auto take = [&](const std::string& name, const std::optional<std::string>& text) {
    if (text) own_texts.emplace_back(name, *text);
  };
  take("bos_token", bos_text_);
  take("eos_token", eos_text_);
  for (const JsonMember& variable : variables) {
    const bool is_taken = std::any_of(own_texts.begin(), own_texts.end(),
                                      [&](const auto& own) { return own.first == variable.key; });
    if (!is_taken) others.push_back(variable);
  }
  return template_->render(others, own_texts, clock_);
}

std::vector<TokenId> ChatEncoding::encode(const Json::Object& variables) const {
  if (format_ != nullptr) {
    refuse_tools(variables, format_->name);
    const Json* messages = find(variables, "messages");
    return format_->encode(tokenizer_, chat_messages(messages != nullptr ? *messages : Json(), "messages"));
  }
  const std::vector<RenderedSpan> spans = run(variables);
  std::vector<TextSpan> texts;
  for (const RenderedSpan& span : spans)
    texts.push_back({span.text, span.from_template ? TextRole::kTemplate : TextRole::kMessage});
  std::vector<TokenId> ids = tokenizer_.encode(texts);
  const Vocabulary& vocabulary = tokenizer_.vocabulary();
  const bool adds_bos = vocabulary.add_bos && vocabulary.bos != kNoToken;
  if (adds_bos && (ids.empty() || ids.front() != vocabulary.bos)) ids.insert(ids.begin(), vocabulary.bos);
  return ids;
}

std::vector<TokenId> ChatEncoding::encode(std::span<const ChatMessage> messages) const {
  if (format_ != nullptr) return format_->encode(tokenizer_, messages);
  Json::Array list;
  for (const ChatMessage& message : messages)
    list.push_back(Json(Json::Object{{"role", Json(message.role)}, {"content", Json(message.content)}}));
  return encode(Json::Object{{"messages", Json(std::move(list))}, {"add_generation_prompt", Json(true)}});
}

std::string ChatEncoding::render(const Json::Object& variables) const {
  if (format_ != nullptr)
    fail(ErrorCode::kUsage,
         "--render shows what a template prints, and {} is a format, not a template; give "
         "--template FILE",
         format_->name);
  return join_spans(run(variables));
}

}  // namespace quern
