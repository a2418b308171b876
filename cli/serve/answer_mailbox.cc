#include "cli/serve/answer_mailbox.h"

namespace quern {

void AnswerMailbox::put(size_t index, const AnswerEvent& event) {
  Item item(index, event);  // copied outside of the lock
  {
    const std::lock_guard lock(mutex_);
    items_.push_back(std::move(item));
  }
  changed_.notify_one();
}

std::vector<AnswerMailbox::Item> AnswerMailbox::take() {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, kWait, [this] { return !items_.empty(); });
  return std::exchange(items_, {});
}

}  // namespace quern
