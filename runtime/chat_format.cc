#include "runtime/chat_format.h"

#include <algorithm>
#include <array>
#include <optional>

#include "quant/error.h"

namespace quern {

namespace {

constexpr std::string_view kSystem = "system", kUser = "user", kAssistant = "assistant", kTool = "tool";

// ---- mistral-v1: mistral_common 1.11.7, MistralTokenizer.v1() (formats.md 3.4) ----

bool may_follow(std::string_view role, std::string_view previous) {
  if (previous == kAssistant) return role != kSystem;
  if (previous == kTool) return role == kAssistant || role == kTool;
  return role != kTool;
}

// mistral_common's checks in its order, with its words.
void check_mistral_v1(std::span<const ChatMessage> messages) {
  constexpr auto kRefused = ErrorCode::kMalformed;
  for (const ChatMessage& message : messages) {
    const bool known = message.role == kSystem || message.role == kUser || message.role == kAssistant ||
                       message.role == kTool;
    if (!known) fail(kRefused, "Unknown role '{}'", printable(message.role));
    if (message.prefix && message.role != kAssistant)
      fail(kRefused, "Only an assistant message can be a prefix");
  }
  if (messages.empty()) fail(kRefused, "Conversation must have at least one message");
  const ChatMessage& last = messages.back();
  if (messages.size() == 1 && last.role != kUser && last.role != kSystem) {
    fail(kRefused, "Conversation must start with a user message or system message");
  }
  if (last.role == kAssistant && !last.prefix) {
    fail(kRefused,
         "Expected last role User or Tool (or Assistant with prefix or continue_final_message set to True) "
         "for "
         "serving but got assistant");
  }
  for (size_t i = 1; i < messages.size(); ++i) {
    const std::string& role = messages[i].role;
    const std::string& previous = messages[i - 1].role;
    if (!may_follow(role, previous)) fail(kRefused, "Unexpected role '{}' after role '{}'", role, previous);
  }
  for (const ChatMessage& message : messages) {
    if (message.role == kTool) fail(kRefused, "Tools not implemented for tokenizer V1");
    if (message.role == kAssistant && message.content.empty()) {
      fail(kRefused, "Assistant message must have either content or tool_calls, but not both.");
    }
    if (message.prefix && &message != &last) {
      fail(kRefused, "Assistant message with prefix True must be last message");
    }
  }
}

// Appends `content` as a paragraph of its own; nothing when it is empty.
void join(std::string* text, std::string_view content) {
  if (!text->empty() && !content.empty()) *text += "\n\n";
  *text += content;
}

// One message per run of equal roles, without the system messages; the first is the user's.
std::vector<ChatMessage> aggregate(std::span<const ChatMessage> messages) {
  std::vector<ChatMessage> turns;
  std::string_view previous_role;
  for (const ChatMessage& message : messages) {
    if (message.role != kSystem) {
      if (message.role != previous_role) turns.push_back({message.role, "", false});
      join(&turns.back().content, message.content);
      turns.back().prefix |= message.prefix;
    }
    previous_role = message.role;
  }
  if (turns.empty() || turns.front().role != kUser) {
    turns.insert(turns.begin(), ChatMessage{std::string(kUser), "", false});
  }
  return turns;
}

std::vector<TokenId> encode_mistral_v1(const Tokenizer& tokenizer, std::span<const ChatMessage> messages) {
  check_mistral_v1(messages);
  std::string system;
  for (const ChatMessage& message : messages) {
    if (message.role == kSystem) join(&system, message.content);
  }
  std::vector<ChatMessage> turns = aggregate(messages);
  if (!system.empty()) turns.front().content = system + "\n\n" + turns.front().content;

  const Vocabulary& vocabulary = tokenizer.vocabulary();
  if (vocabulary.bos == kNoToken || vocabulary.eos == kNoToken) {
    fail(ErrorCode::kMalformed, "the chat format mistral-v1 needs a vocabulary with BOS and EOS tokens");
  }
  std::vector<TokenId> ids = {vocabulary.bos};
  for (const ChatMessage& turn : turns) {
    const bool is_user = turn.role == kUser;
    const std::vector<TokenId> turn_ids =
        tokenizer.encode_message(is_user ? "[INST] " + turn.content + " [/INST]" : turn.content);
    ids.insert(ids.end(), turn_ids.begin(), turn_ids.end());
    if (!is_user && !turn.prefix) ids.push_back(vocabulary.eos);
  }
  return ids;
}

constexpr std::array<ChatFormat, 1> kChatFormats = {{
    {"mistral-v1", "[INST] ... [/INST] as plain text: Mistral-7B-Instruct v0.1 and v0.2", encode_mistral_v1},
}};

// ---- templates ----

// A Jinja template in one spelling: no white space outside string literals, which are all in single quotes.
// (A literal that holds the other kind of quote comes out wrong, and the template is then not recognised.)
std::string one_spelling(std::string_view chat_template) {
  std::string out;
  char open_quote = 0;
  for (const char c : chat_template) {
    const bool is_quote = c == '\'' || c == '"';
    const bool is_space = c == ' ' || c == '\t' || c == '\r' || c == '\n';
    if (is_quote && (open_quote == 0 || open_quote == c)) {
      open_quote = open_quote == 0 ? c : '\0';
      out += '\'';
    } else if (open_quote != 0 || !is_space) {
      out += c;
    }
  }
  return out;
}

size_t count_of(std::string_view text, std::string_view part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + part.size())) ++n;
  return n;
}

// Two published templates describe this layout: that of Mistral-7B-Instruct-v0.1 and v0.2 at their release,
// and v0.2's later one with a system message. Others that write [INST] differ in what is asked here: v0.3 and
// later have tools, or no spaces inside the markers; Llama 2 has <<SYS>>, BOS in every turn, and trims.
bool describes_mistral_v1(std::string_view chat_template) {
  const std::string text = one_spelling(chat_template);
  const auto contains = [&text](std::string_view part) { return text.find(part) != text.npos; };
  for (const std::string_view foreign : {"[AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]",
                                         "[SYSTEM_PROMPT]", "<<SYS>>", "<|", "|trim", "strip(", "tools"}) {
    if (contains(foreign)) return false;
  }
  const size_t bos = text.find("bos_token");
  const bool bos_once_in_front = bos < text.find("formessagein") && count_of(text, "bos_token") == 1;
  const bool user_turn = contains("[INST] '+message['content']+' [/INST]'");
  const bool spaced_markers = count_of(text, "[INST]") == count_of(text, "[INST] '") &&
                              count_of(text, "[/INST]") == count_of(text, "' [/INST]'");
  const bool assistant_turn = contains("message['content']+eos_token");
  const bool system_turn =
      !contains("'system'") || contains("[INST] '+system_message+'\\n\\n'+message['content']+' [/INST]'");
  return bos_once_in_front && user_turn && spaced_markers && assistant_turn && system_turn;
}

}  // namespace

std::span<const ChatFormat> chat_formats() noexcept { return kChatFormats; }

const ChatFormat* find_chat_format(std::string_view name) noexcept {
  const auto* found = std::find_if(kChatFormats.begin(), kChatFormats.end(),
                                   [name](const ChatFormat& format) { return format.name == name; });
  return found == kChatFormats.end() ? nullptr : found;
}

std::string_view recognise_chat_format(const Vocabulary& vocabulary) {
  // Far beyond any real template; the file's length is not ours.
  constexpr size_t kMaxTemplateBytes = 64 * 1024;
  if (vocabulary.chat_template.size() > kMaxTemplateBytes || !describes_mistral_v1(vocabulary.chat_template))
    return "";
  // v0.3 was published with v0.2's template too, but its markers are tokens of their own.
  for (size_t id = 0; id < vocabulary.size(); ++id)
    if (vocabulary.pieces[id] == "[INST]") return "";
  return "mistral-v1";
}

}  // namespace quern
