#include "runtime/mistral_format.h"

#include <algorithm>
#include <optional>

#include "quant/error.h"

namespace quern {

namespace {

constexpr std::string_view kSystem = "system", kUser = "user", kAssistant = "assistant", kTool = "tool";

bool may_follow(std::string_view role, std::string_view previous) {
  if (previous == kAssistant) return role != kSystem;
  if (previous == kTool) return role == kAssistant || role == kTool;
  return role != kTool;
}

// mistral_common's checks in its order, with its words.
void check(const MistralVersion& version, std::span<const ChatMessage> messages) {
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
    if (message.role == kTool && !version.markers_are_tokens)
      fail(kRefused, "Tools not implemented for tokenizer V1");
    if (message.role == kTool)
      fail(kRefused, "the chat format {} does not take tools; give --template FILE", version.name);
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

// One message per run of equal roles; system messages stay, each by itself, where they have a place, and go
// otherwise. Where they have none the first message is the user's.
std::vector<ChatMessage> aggregate(std::span<const ChatMessage> messages, bool system_has_a_place) {
  std::vector<ChatMessage> turns;
  std::string_view previous_role;
  for (const ChatMessage& message : messages) {
    if (message.role != kSystem) {
      if (message.role != previous_role) turns.push_back({message.role, "", false});
      join(&turns.back().content, message.content);
      turns.back().prefix |= message.prefix;
    } else if (system_has_a_place) {
      turns.push_back(message);
    }
    previous_role = message.role;
  }
  if (turns.empty() || (!system_has_a_place && turns.front().role != kUser)) {
    turns.insert(turns.begin(), ChatMessage{std::string(kUser), "", false});
  }
  return turns;
}

TokenId require_token(const MistralVersion& version, const Tokenizer& tokenizer, std::string_view piece) {
  const std::optional<TokenId> id = tokenizer.find(piece);
  if (!id || !tokenizer.is_control(*id))
    fail(ErrorCode::kMalformed, "the chat format {} needs the control token {}, which this vocabulary lacks",
         version.name, piece);
  return *id;
}

// The ids of one conversation, message by message.
class Encoder {
 public:
  Encoder(const MistralVersion& version, const Tokenizer& tokenizer)
      : version_(version), tokenizer_(tokenizer) {
    const Vocabulary& vocabulary = tokenizer.vocabulary();
    if (vocabulary.bos == kNoToken || vocabulary.eos == kNoToken)
      fail(ErrorCode::kMalformed, "the chat format {} needs a vocabulary with BOS and EOS tokens",
           version.name);
    if (version.markers_are_tokens) {
      begin_user_ = require_token(version, tokenizer, "[INST]");
      end_user_ = require_token(version, tokenizer, "[/INST]");
    }
    if (version.system_has_a_place) {
      begin_system_ = require_token(version, tokenizer, "[SYSTEM_PROMPT]");
      end_system_ = require_token(version, tokenizer, "[/SYSTEM_PROMPT]");
    }
    ids_ = {vocabulary.bos};
  }

  void add(const ChatMessage& turn) {
    if (turn.role == kUser) {
      if (version_.markers_are_tokens)
        add_between(begin_user_, turn.content, end_user_);
      else
        add_text("[INST] " + turn.content + " [/INST]");
    } else if (turn.role == kSystem) {
      add_between(begin_system_, turn.content, end_system_);
    } else {
      std::string_view text = turn.content;
      while (version_.markers_are_tokens && text.ends_with(' ')) text.remove_suffix(1);
      add_text(text);
      if (!turn.prefix) ids_.push_back(tokenizer_.vocabulary().eos);
    }
  }
  std::vector<TokenId> take() { return std::move(ids_); }

 private:
  void add_text(std::string_view text) {
    const std::vector<TokenId> ids = tokenizer_.encode_message(text);
    ids_.insert(ids_.end(), ids.begin(), ids.end());
  }
  void add_between(TokenId begin, std::string_view text, TokenId end) {
    ids_.push_back(begin);
    add_text(text);
    ids_.push_back(end);
  }

  const MistralVersion& version_;
  const Tokenizer& tokenizer_;
  TokenId begin_user_ = kNoToken, end_user_ = kNoToken, begin_system_ = kNoToken, end_system_ = kNoToken;
  std::vector<TokenId> ids_;
};

}  // namespace

std::vector<TokenId> encode_mistral(const MistralVersion& version, const Tokenizer& tokenizer,
                                    std::span<const ChatMessage> messages) {
  check(version, messages);
  std::vector<ChatMessage> turns = aggregate(messages, version.system_has_a_place);
  if (!version.system_has_a_place) {
    std::string system;
    for (const ChatMessage& message : messages)
      if (message.role == kSystem) join(&system, message.content);
    // v1 puts it before the first user's text, later versions before the last one's.
    const auto is_user = [](const ChatMessage& turn) { return turn.role == kUser; };
    const auto place = version.markers_are_tokens
                           ? std::find_if(turns.rbegin(), turns.rend(), is_user).base() - 1
                           : turns.begin();
    if (!system.empty()) place->content = system + "\n\n" + place->content;
  }
  Encoder encoder(version, tokenizer);
  for (const ChatMessage& turn : turns) encoder.add(turn);
  return encoder.take();
}

}  // namespace quern
