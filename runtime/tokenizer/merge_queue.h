// A queue of numbers, the lowest first, for as many as a word of megabytes has merges.
//
// A radix heap (Ahuja, Mehlhorn, Orlin, Tarjan: Faster Algorithms for the Shortest Path Problem, 1990) with
// digits of a byte: a number waits in the bucket of its highest byte that differs from the last numbers
// taken, and is moved to lower ones as these come near. Its time a number does not grow with the queue, as
// a binary heap's does, whose every level misses another cache. What is pushed below numbers that were taken
// already, which a radix heap has no place for, goes to a binary heap beside it.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <functional>
#include <queue>
#include <vector>

namespace quern {

class MergeQueue {
 public:
  // n_expected: numbers pushed before the first is taken. Few of them are the binary heap's alone.
  explicit MergeQueue(size_t n_expected) {
    if (n_expected < kFewNumbers) return;
    buckets_.resize(kLevels * 256);
    taken_to_ = 0;
  }

  void push(uint64_t number) {
    if (number <= taken_to_) return low_.push(number);
    wait(level_of(number), number);
  }

  // A number that is taken soon, for its memory to be fetched ahead: a guess.
  uint64_t soon() const {
    constexpr size_t kAhead = 8;
    return next_ + kAhead < run_.size() ? run_[next_ + kAhead] : run_.empty() ? 0 : run_.back();
  }

  // Takes the lowest number; false: there is none.
  bool pop(uint64_t* number) {
    const bool in_run = next_ < run_.size() || (low_.empty() && next_run());
    if (in_run && (low_.empty() || run_[next_] <= low_.top())) {
      *number = run_[next_++];
      return true;
    }
    if (low_.empty()) return false;
    *number = low_.top();
    low_.pop();
    return true;
  }

 private:
  static constexpr size_t kFewNumbers = 4096;  // a heap of these stays in the first-level cache
  static constexpr size_t kSortable = 4096;    // a bucket no larger is sorted, not moved on
  static constexpr int kLevels = 8;

  void wait(int level, uint64_t number) {
    const size_t bucket = static_cast<size_t>(level) * 256 + (number >> (8 * level) & 0xFF);
    buckets_[bucket].push_back(number);
    filled_[bucket / 64] |= uint64_t{1} << bucket % 64;
  }

  // Empties the lowest bucket into run_, sorted; false: there is none. Numbers up to the bucket's end are
  // low_'s from now on.
  bool next_run() {
    for (;;) {
      const auto word = std::find_if(filled_.begin(), filled_.end(), [](uint64_t bits) { return bits != 0; });
      if (word == filled_.end()) return false;
      const auto bucket =
          static_cast<size_t>(word - filled_.begin()) * 64 + static_cast<size_t>(std::countr_zero(*word));
      *word &= *word - 1;
      run_.clear();
      run_.swap(buckets_[bucket]);
      next_ = 0;
      const auto level = static_cast<int>(bucket / 256);
      const uint64_t below = (uint64_t{1} << (8 * level)) - 1;  // bits that the bucket's numbers differ in
      if (run_.size() <= kSortable || level == 0) {
        taken_to_ = run_[0] | below;
        // Of one rank, they come in the order of their places.
        if (!std::is_sorted(run_.begin(), run_.end())) std::sort(run_.begin(), run_.end());
        return true;
      }
      taken_to_ = run_[0] & ~below;  // no number of the bucket is lower
      for (const uint64_t number : run_) wait(level_of(number), number);
      run_.clear();
    }
  }

  // Of the highest byte that differs from taken_to_.
  int level_of(uint64_t number) const { return (63 - std::countl_zero((number ^ taken_to_) | 1)) / 8; }

  std::vector<std::vector<uint64_t>> buckets_;         // [kLevels, 256]
  std::array<uint64_t, kLevels * 256 / 64> filled_{};  // a bit a bucket
  uint64_t taken_to_ = UINT64_MAX;                     // what is pushed up to here is low_'s
  std::vector<uint64_t> run_;                          // sorted; taken from next_ on
  size_t next_ = 0;
  std::priority_queue<uint64_t, std::vector<uint64_t>, std::greater<>> low_;
};

}  // namespace quern
