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
