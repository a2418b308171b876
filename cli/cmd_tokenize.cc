// quern tokenize: text or a conversation -> ids and pieces, and back.
#include <filesystem>
#include <utility>

#include "cli/chat_encoding.h"
#include "cli/chat_messages.h"
#include "cli/command.h"
#include "cli/model_progress.h"
#include "cli/parse.h"
#include "cli/report.h"
#include "cli/session_options.h"
#include "cli/text_input.h"
#include "convert/tokenizer_export.h"
#include "convert/tokenizer_file.h"
#include "quant/json/json_writer.h"
#include "quant/mapped_file.h"
#include "runtime/tokenizer/tokenizer.h"

namespace quern {
namespace {

struct Options {
  std::string model, pre_tokenizer;
  ChatArguments conversation;
  TextInput input;
  std::optional<std::string> chat, decode;
  bool no_bos = false, parse_special = false, json = false, render = false;
};

bool parse(std::span<const std::string> arguments, Options* options) {
  Arguments parser("tokenize",
                   "Shows the token ids that a text or a conversation becomes, or the text of ids.",
                   "  quern tokenize model.gguf -p \"Hello world\"\n"
                   "  quern tokenize tokenizer.json -f text.txt --no-bos --json\n"
                   "  quern tokenize qwen.tiktoken --pre qwen2 -p \"Hello world\"\n"
                   "  quern tokenize model.gguf --chat messages.json\n"
                   "  quern tokenize model.gguf --decode 1,22557,1526");
  parser.positional(
      "SOURCE",
      "A GGUF file, tokenizer.model, tokenizer.json, tekken.json, a tiktoken rank file (with --pre), or a "
      "checkpoint folder; known by what is in it",
      &options->model);
  add_text_input(parser, &options->input, "-p");
  add_parse_special(parser, &options->parse_special);
  parser.flag("--no-bos", "Without the tokens that the vocabulary adds to a text (begin, end)",
              &options->no_bos);
  parser.text("--chat", "FILE",
              "The ids that `chat` would feed for a list of {\"role\", \"content\"}, or for {\"messages\", "
              "\"tools\", ...}",
              &options->chat);
  options->conversation.declare(parser);
  parser.flag("--render", "With --chat: print what the chat template makes of it instead of ids",
              &options->render);
  declare_pre_tokenizer(parser, &options->pre_tokenizer);
  parser.text("--decode", "N,N,...", "Print the text of these ids", &options->decode);
  parser.flag("--json", "Print {\"ids\": [...], \"pieces\": [...]}", &options->json);
  if (!parser.parse(arguments)) return false;
  if (int{options->input.given()} + int{options->chat.has_value()} + int{options->decode.has_value()} > 1)
    fail(ErrorCode::kUsage, "--prompt or --file, --chat and --decode exclude each other");
  // A text has no template: who gives one expects to see it run.
  const ChatArguments& conversation = options->conversation;
  for (const auto& [name, given] : {std::pair("--render", options->render),
                                    {"--template", conversation.template_file.has_value()},
                                    {"--chat-format", !conversation.format.empty()},
                                    {"--bos-text", conversation.bos_text.has_value()},
                                    {"--eos-text", conversation.eos_text.has_value()},
                                    {"--now", conversation.now.has_value()}})
    if (given && !options->chat) fail(ErrorCode::kUsage, "{} needs --chat", name);
  for (const auto& [name, given] :
       {std::pair("--parse-special", options->parse_special), {"--no-bos", options->no_bos}})
    if (given && (options->chat || options->decode))
      fail(ErrorCode::kUsage, "{} is about a text, of --prompt or --file", name);
  options->conversation.check();
  return true;
}

// What a path holds, a folder's files or one of its own.
struct Source {
  Vocabulary vocabulary;
  bool is_bare = false;  // a SentencePiece model alone, which does not say which conversations it is for
};

Source read_source(const Options& options) {
  require_model_path(options.model);
  std::error_code ignored;
  if (std::filesystem::is_directory(options.model, ignored))
    return {read_folder_tokenizer(options.model, options.pre_tokenizer, notice), false};
  const MappedFile file(options.model);
  const bool is_bare = recognise_tokenizer_file(file.bytes()) == TokenizerFile::kSentencePiece;
  return {read_tokenizer_file(file.bytes(), options.model, options.pre_tokenizer, notice), is_bare};
}

// A bare tokenizer.model does not say which conversations it is for; Mistral's first vocabulary does by
// itself.
ChatEncoding chat_encoding(const Options& options, const Tokenizer& tokenizer, bool bare) {
  constexpr const char* kFirst = "mistral-v1";
  const bool is_first = bare && find_chat_format(kFirst)->fits(tokenizer.vocabulary());
  ChatEncoding encoding(options.conversation, tokenizer, is_first ? kFirst : "");
  if (!encoding.choice().empty()) notice(encoding.choice());
  return encoding;
}

void require_ids_in_range(std::span<const TokenId> ids, const Tokenizer& tokenizer) {
  for (const TokenId id : ids)
    if (static_cast<size_t>(id) >= tokenizer.size())
      fail(ErrorCode::kUsage, "--decode: id {} is not below the vocabulary's size {}", id, tokenizer.size());
}

void print_ids(std::span<const TokenId> ids, const Tokenizer& tokenizer) {
  for (const TokenId id : ids) {
    const std::string& piece = tokenizer.piece(id);
    print_out("{:>6}  {}\n", id, printable(piece, piece.size()));
  }
}

void print_json(std::span<const TokenId> ids, const Tokenizer& tokenizer) {
  JsonWriter json;
  json.begin_object().key("ids").begin_array();
  for (const TokenId id : ids) json.value(id);
  json.end_array().key("pieces").begin_array();
  for (const TokenId id : ids) json.value(tokenizer.piece(id));
  write_out(json.end_array().end_object().text() + "\n");
}

// As it is; a terminal's prompt begins on a line of its own.
void write_text(const std::string& text) {
  write_out(text);
  if (stdout_is_terminal() && !text.ends_with('\n')) write_out("\n");
}

void print_text(std::span<const TokenId> ids, const Tokenizer& tokenizer, bool json) {
  const std::string text = tokenizer.decode(ids);
  if (json) {
    JsonWriter object;
    write_out(object.begin_object().field("text", text).end_object().text() + "\n");
    return;
  }
  write_text(text);
}

}  // namespace

int run_tokenize(std::span<const std::string> arguments) {
  Options options;
  if (!parse(arguments, &options)) return 0;
  std::vector<TokenId> ids;
  if (options.decode) ids = parse_ids("--decode", *options.decode);  // refused before anything is read
  Source source = read_source(options);
  const bool bare = source.is_bare;
  const std::unique_ptr<Tokenizer> made = make_tokenizer(std::move(source.vocabulary));
  const Tokenizer& tokenizer = *made;
  if (options.decode) {
    require_ids_in_range(ids, tokenizer);
    print_text(ids, tokenizer, options.json);
    return 0;
  }
  if (options.chat) {
    const ChatEncoding encoding = chat_encoding(options, tokenizer, bare);
    const Json::Object variables = parse_chat_document(read_bytes(*options.chat), *options.chat);
    if (options.render) {
      write_text(encoding.render(variables));
      return 0;
    }
    ids = encoding.encode(variables);
  } else {
    const std::string text = read_text(options.input, TextRule::kExact);
    const TextRole role = role_of(options.parse_special);
    ids = options.no_bos ? tokenizer.encode(text, role) : tokenizer.encode_document(text, role);
  }
  options.json ? print_json(ids, tokenizer) : print_ids(ids, tokenizer);
  return 0;
}

}  // namespace quern
