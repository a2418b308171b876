// Events of answers on their way from the scheduler's thread to the connection's.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <utility>
#include <vector>

#include "runtime/engine/scheduler.h"

namespace quern {

// Thread-safe; one thread takes. Whoever listens to the scheduler shares its ownership: events may come after
// the connection has ended.
class AnswerMailbox {
 public:
  using Item = std::pair<size_t, AnswerEvent>;  // index: of the answer in its request

  void put(size_t index, const AnswerEvent& event);
  // What has come, in its order. Waits for something, but not longer than kWait: how soon the connection's
  // thread notices a client that is gone. Empty: nothing has come.
  std::vector<Item> take();

  static constexpr auto kWait = std::chrono::milliseconds(50);

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Item> items_;
};

}  // namespace quern
