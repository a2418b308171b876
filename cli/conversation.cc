#include "cli/conversation.h"

#include "quant/error.h"

namespace quern {

std::vector<TokenId> Conversation::ask(std::string message, size_t* n_dropped) {
  QUERN_CHECK(turns_.empty() || turns_.back().answered);
  turns_.push_back({std::move(message), {}, false});
  const std::vector<Turn> all = turns_;
  std::vector<TokenId> ids = encode_(messages());
  for (*n_dropped = 0; ids.size() + reserve_ > context_ && turns_.size() > 1; ++*n_dropped) {
    turns_.erase(turns_.begin());
    ids = encode_(messages());
  }
  // A message that is too long by itself must not cost the turns before it.
  if (ids.size() >= context_) {
    turns_ = all;
    *n_dropped = 0;
  }
  return ids;
}

void Conversation::answer(std::string text) {
  QUERN_CHECK(!turns_.empty() && !turns_.back().answered);
  turns_.back().assistant = std::move(text);
  turns_.back().answered = true;
}

void Conversation::withdraw() {
  QUERN_CHECK(!turns_.empty() && !turns_.back().answered);
  turns_.pop_back();
}

bool Conversation::undo() {
  if (turns_.empty()) return false;
  turns_.pop_back();
  return true;
}

std::optional<std::string> Conversation::take_back() {
  if (turns_.empty()) return std::nullopt;
  std::string message = std::move(turns_.back().user);
  turns_.pop_back();
  return message;
}

void Conversation::load(std::span<const ChatMessage> messages) {
  std::string system;
  std::vector<Turn> turns;
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    const bool awaits_answer = !turns.empty() && !turns.back().answered;
    if (message.role == "system" && i == 0) {
      system = message.content;
    } else if (message.role == "user" && !awaits_answer) {
      turns.push_back({message.content, {}, false});
    } else if (message.role == "assistant" && awaits_answer) {
      turns.back().assistant = message.content;
      turns.back().answered = true;
    } else {
      fail(ErrorCode::kMalformed,
           "message {} is of the role '{}': a conversation to go on with has a system message at most, then "
           "users and answers in turn",
           i, printable(message.role));
    }
  }
  if (!turns.empty() && !turns.back().answered)
    fail(ErrorCode::kMalformed, "the last message has no answer; leave it out and ask it again");
  system_ = std::move(system);
  turns_ = std::move(turns);
}

std::vector<ChatMessage> Conversation::messages() const {
  std::vector<ChatMessage> messages;
  if (!system_.empty()) messages.push_back({"system", system_});
  for (const Turn& turn : turns_) {
    messages.push_back({"user", turn.user});
    if (turn.answered) messages.push_back({"assistant", turn.assistant});
  }
  return messages;
}

}  // namespace quern
