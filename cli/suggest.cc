#include "cli/suggest.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace quern {
namespace {

// Insertions, deletions, substitutions (Levenshtein, "Binary codes capable of correcting deletions,
// insertions, and reversals", 1966), one row of the table at a time.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({substituted, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string_view closest(std::string_view word, std::span<const std::string> candidates) {
  constexpr size_t kLongestWord = 64;  // nobody misspells more than that; bounds the work
  if (word.size() > kLongestWord) return {};
  std::string_view best;
  // Only nearer ones count. Options are many, and their dashes say nothing: of their letters fewer may
  // differ.
  const size_t n_dashes = std::min(word.find_first_not_of('-'), word.size());
  size_t best_distance = n_dashes == 0 ? word.size() / 3 + 2 : (word.size() - n_dashes) / 3 + 1;
  for (const std::string& candidate : candidates) {
    const size_t distance = edit_distance(word, candidate);
    if (distance < best_distance && distance < candidate.size()) {
      best = candidate;
      best_distance = distance;
    }
  }
  // "--max", "q4": far from what they are the beginning of.
  constexpr size_t kLeastLetters = 2;
  if (!best.empty() || word.size() < n_dashes + kLeastLetters) return best;
  for (const std::string& candidate : candidates)
    if (candidate.starts_with(word)) return candidate;
  return {};
}

std::string suggestion(std::string_view word, std::span<const std::string> candidates) {
  const std::string_view near = closest(word, candidates);
  return near.empty() ? std::string() : fmt::format(" (did you mean '{}'?)", near);
}

}  // namespace quern
