#include "runtime/tokenizer/byte_pair_merger.h"

#include <algorithm>
#include <bit>

#include "quant/error.h"
#include "runtime/tokenizer/merge_queue.h"

namespace quern {
namespace {

// Up to here a scan for the lowest rank costs less than a queue.
constexpr size_t kShortSymbols = 32;
constexpr TokenId kGone = kNoToken - 1;  // merged into the symbol before it
constexpr size_t kMaxSymbols = size_t{1} << 26;

uint64_t pair_of(TokenId left, TokenId right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

// Fibonacci hashing; the low half is turned, because a product's high bits see little of it otherwise.
uint64_t hash_of(uint64_t pair) { return (pair ^ std::rotl(pair, 29)) * 0x9E3779B97F4A7C15u; }

}  // namespace

BytePairMerger::BytePairMerger(std::span<const PairMerge> merges) {
  const int bits = std::max(4, static_cast<int>(std::bit_width(merges.size() + merges.size() / 3)));
  shift_ = 64 - bits;
  table_.resize(size_t{1} << bits);
  for (const PairMerge& merge : merges) {
    const uint64_t pair = pair_of(merge.left, merge.right);
    size_t at = hash_of(pair) >> shift_;
    while (table_[at].pair != UINT64_MAX && table_[at].pair != pair) at = (at + 1) & (table_.size() - 1);
    if (table_[at].pair == UINT64_MAX) table_[at] = {pair, merge.rank, merge.merged};
  }
}

// An entry without rank where the two cannot be merged.
const BytePairMerger::Entry& BytePairMerger::find(TokenId left, TokenId right) const {
  const uint64_t pair = pair_of(left, right);
  size_t at = hash_of(pair) >> shift_;
  while (table_[at].pair != pair && table_[at].pair != UINT64_MAX) at = (at + 1) & (table_.size() - 1);
  return table_[at];
}

void BytePairMerger::merge(std::vector<TokenId>* symbols) const {
  if (symbols->size() < 2) return;
  symbols->size() <= kShortSymbols ? merge_short(symbols) : merge_long(symbols);
}

void BytePairMerger::merge_short(std::vector<TokenId>* symbols) const {
  TokenId* const ids = symbols->data();
  size_t n = symbols->size();
  uint32_t ranks[kShortSymbols];  // of the symbol and the one after it
  for (size_t i = 0; i + 1 < n; ++i) ranks[i] = find(ids[i], ids[i + 1]).rank;
  while (n > 1) {
    const auto best = static_cast<size_t>(std::min_element(ranks, ranks + n - 1) - ranks);
    if (ranks[best] == kNoRank) break;
    ids[best] = find(ids[best], ids[best + 1]).merged;
    std::copy(ids + best + 2, ids + n, ids + best + 1);
    std::copy(ranks + best + 1, ranks + n - 1, ranks + best);
    --n;
    if (best > 0) ranks[best - 1] = find(ids[best - 1], ids[best]).rank;
    if (best + 1 < n) ranks[best] = find(ids[best], ids[best + 1]).rank;
  }
  symbols->resize(n);
}

void BytePairMerger::merge_long(std::vector<TokenId>* symbols) const {
  const size_t n = symbols->size();
  if (n > kMaxSymbols) {
    fail(ErrorCode::kResource,
         "a word of {} bytes takes too much memory to tokenize (limit: {} bytes); put spaces or line breaks "
         "into the text",
         n, kMaxSymbols);
  }
  // Symbols stay where they are, each with the number of places that it has taken over, at its first and at
  // its last one: all that a merge needs lies close together.
  struct Place {
    TokenId id;
    uint32_t length;
  };
  std::vector<Place> places(n);
  for (size_t i = 0; i < n; ++i) places[i] = {(*symbols)[i], 1};
  // Rank above place: the leftmost of the lowest rank comes first. A rank that is no longer that of the
  // symbol at its place is stale.
  MergeQueue queue(n);
  const auto entry_of = [](uint32_t rank, size_t place) { return uint64_t{rank} << 32 | place; };
  const auto consider = [&](size_t left, size_t right) {
    const uint32_t rank = find(places[left].id, places[right].id).rank;
    if (rank != kNoRank) queue.push(entry_of(rank, left));
  };
  for (size_t i = 0; i + 1 < n; ++i) consider(i, i + 1);
  for (uint64_t top; queue.pop(&top);) {
    __builtin_prefetch(&places[static_cast<uint32_t>(queue.soon())]);
    const size_t place = static_cast<uint32_t>(top), next = place + places[place].length;
    if (places[place].id == kGone || next == n) continue;
    const Entry& merge = find(places[place].id, places[next].id);
    if (merge.rank == kNoRank || entry_of(merge.rank, place) != top) continue;
    const size_t after = next + places[next].length;
    places[next].id = kGone;
    places[place].id = merge.merged;
    places[place].length = places[after - 1].length = static_cast<uint32_t>(after - place);
    if (after != n) consider(place, after);
    if (place > 0) consider(place - places[place - 1].length, place);
  }
  symbols->clear();
  for (size_t i = 0; i < n; i += places[i].length) symbols->push_back(places[i].id);
}

}  // namespace quern
