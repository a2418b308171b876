// The merge loop of byte pair encoding (Sennrich, Haddow, Birch: Neural Machine Translation of Rare Words
// with Subword Units, 2016): as long as neighbours can be merged, those of the lowest rank are, the leftmost
// first.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "quant/vocabulary.h"

namespace quern {

struct PairMerge {
  TokenId left = kNoToken, right = kNoToken;
  TokenId merged = kNoToken;
  uint32_t rank = 0;  // merges of one rank are as good as each other: the leftmost comes first
};

// Immutable, thread-safe.
class BytePairMerger {
 public:
  // Of several merges of one pair the first counts.
  explicit BytePairMerger(std::span<const PairMerge> merges);

  // Replaces the symbols of a word by what merging makes of them. kNoToken stays as it is. Time: about
  // linear in them. Throws kResource for more than 2^26 symbols, whose merging would take more than 2 GiB.
  void merge(std::vector<TokenId>* symbols) const;

 private:
  static constexpr uint32_t kNoRank = UINT32_MAX;
  struct Entry {
    uint64_t pair = UINT64_MAX;  // left above, right below; no pair: kNoToken twice
    uint32_t rank = kNoRank;
    TokenId merged = kNoToken;
  };

  const Entry& find(TokenId left, TokenId right) const;
  void merge_short(std::vector<TokenId>* symbols) const;
  void merge_long(std::vector<TokenId>* symbols) const;

  std::vector<Entry> table_;  // open addressing; a power of two, at most three quarters full
  int shift_ = 0;             // of a hash, to an index
};

}  // namespace quern
