#include "runtime/engine/speculation.h"

#include <algorithm>
#include <bit>

namespace quern {

PassCosts::PassCosts(std::span<const double> seconds) {
  for (size_t i = 0; i < std::min(seconds.size(), kMaxRows); ++i) add(i + 1, seconds[i]);
  learns_ = false;
}

void PassCosts::add(size_t rows, double seconds) {
  if (!learns_ || rows == 0 || rows > kMaxRows) return;
  Entry& entry = entries_[rows];
  // A pass that something else held up counts, but not for all that it took.
  constexpr double kOutlier = 1.5;
  constexpr size_t kMemory = 8;  // measurements
  if (entry.n > 0) seconds = std::min(seconds, kOutlier * entry.seconds);
  entry.n = std::min(entry.n + 1, kMemory);
  entry.seconds += (seconds - entry.seconds) / static_cast<double>(entry.n);
  entry.measured = ++n_measured_;
  constexpr size_t kInterval = 64;
  if (n_measured_ % kInterval == 0) forget_rare();
}

// A number of rows that was held up when it was tried would not be tried again; but for the least, which the
// others are measured by.
void PassCosts::forget_rare() {
  constexpr size_t kFew = 3, kLong = 64;
  bool is_least = true;
  for (Entry& entry : entries_) {
    if (entry.n == 0) continue;
    if (!is_least && entry.n < kFew && entry.measured + kLong <= n_measured_) entry = {};
    is_least = false;
  }
}

double PassCosts::of(size_t rows) const {
  size_t below = std::min(rows, kMaxRows), above = rows;
  while (below > 0 && entries_[below].n == 0) --below;
  while (above <= kMaxRows && entries_[above].n == 0) ++above;
  const auto assumed = [](size_t n) { return 1 + kAssumed * static_cast<double>(n - 1); };
  if (below == 0) return above > kMaxRows ? 0 : entries_[above].seconds * assumed(rows) / assumed(above);
  const double start = entries_[below].seconds;
  if (below == rows) return start;
  double each = 0;  // of a row more
  if (above <= kMaxRows) {
    each = (entries_[above].seconds - start) / static_cast<double>(above - below);
  } else {
    size_t least = 1;
    while (entries_[least].n == 0) ++least;
    each = least < below ? (start - entries_[least].seconds) / static_cast<double>(below - least)
                         : start / assumed(below) * kAssumed;
  }
  return start + std::max(each, 0.0) * static_cast<double>(rows - below);
}

size_t GuessRates::class_of(size_t match_length) {
  return std::min<size_t>(static_cast<size_t>(std::bit_width(match_length - 1)), kClasses - 1);
}

double GuessRates::of(size_t match_length) const {
  const Count& count = counts_[class_of(match_length)];
  return count.came_true / count.all;
}

void GuessRates::add(size_t match_length, bool came_true) {
  constexpr double kKept = 1 - 1.0 / 32;  // of earlier ones: texts change from quoting to their own words
  Count& count = counts_[class_of(match_length)];
  count.came_true = count.came_true * kKept + (came_true ? 1 : 0);
  count.all = count.all * kKept + 1;
}

void Guesser::read(std::span<const TokenId> tokens) {
  for (const TokenId token : tokens) automaton_.push(token);
}

void Guesser::push(TokenId token) {
  if (const size_t length = automaton_.match_length(); length > 0) rates_.add(length, guess(0) == token);
  automaton_.push(token);
}

std::span<const double> Guesser::chances(size_t most) {
  constexpr double kHardly = 0.02;
  chances_.clear();
  const size_t length = automaton_.match_length();
  if (length == 0) return {};
  double all = 1;
  for (size_t i = 0; i < std::min(most, kMostGuesses); ++i) {
    all *= rates_.of(length + i);
    if (all < kHardly) break;
    chances_.push_back(all);
  }
  return chances_;
}

void choose_drafts(std::span<Draft> drafts, size_t rows, size_t most_rows, double slowest,
                   const PassCosts& costs) {
  most_rows = std::min(most_rows, PassCosts::kMaxRows);
  for (Draft& draft : drafts) draft.n = 0;
  if (rows == 0 || rows > most_rows) return;
  const double without = costs.of(rows);
  if (without <= 0) return;
  // The likeliest first; of one sequence these are the first anyway.
  std::vector<std::pair<double, Draft*>> guesses;
  for (Draft& draft : drafts)
    for (const double chance : draft.chances) guesses.emplace_back(chance, &draft);
  std::stable_sort(guesses.begin(), guesses.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  constexpr double kNoise = 1.05;
  double tokens = static_cast<double>(rows), best = kNoise * tokens / without;
  size_t n_best = 0;
  for (size_t n = 1; n <= guesses.size() && rows + n <= most_rows; ++n) {
    tokens += guesses[n - 1].first;
    const double seconds = costs.of(rows + n);
    if (seconds > slowest * without) break;
    if (tokens / seconds <= best) continue;
    best = tokens / seconds;
    n_best = n;
  }
  for (size_t i = 0; i < n_best; ++i) ++guesses[i].second->n;
}

}  // namespace quern
