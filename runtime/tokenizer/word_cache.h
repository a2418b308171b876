// The ids of short words met before in a text: most words of a text stand in it many times.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "quant/vocabulary.h"

namespace quern {

// Bounded: a new word takes the place of an older one. Not thread-safe; one a call.
class WordCache {
 public:
  static constexpr size_t kMaxWordBytes = 15;
  static constexpr size_t kMaxIds = 4;

  struct alignas(32) Word {
    std::array<uint64_t, 2> key{};       // zero: no word
    std::array<TokenId, kMaxIds> ids{};  // up to the first kNoToken
  };

  // For a text of this size. 64 Ki words of 32 bytes hold the words of most texts, and are asked for ahead.
  explicit WordCache(size_t text_bytes)
      : words_(std::bit_ceil(std::clamp<size_t>(text_bytes / 8, 16, size_t{1} << 16))),
        shift_(64 - std::countr_zero(words_.size())) {}

  // A word of 1 to kMaxWordBytes bytes as a number: its bytes, and how many they are.
  static std::array<uint64_t, 2> key_of(std::string_view word) {
    static_assert(std::endian::native == std::endian::little);
    const char* const begin = word.data();
    const size_t n = word.size();
    const uint64_t length = uint64_t{n} << 56;
    if (n > 8) return {load<uint64_t>(begin), load<uint64_t>(begin + n - 8) >> 8 * (16 - n) | length};
    if (n >= 4) return {load<uint32_t>(begin) | uint64_t{load<uint32_t>(begin + n - 4)} << 32, length};
    const auto byte = [begin](size_t i) { return uint64_t{static_cast<uint8_t>(begin[i])}; };
    return {byte(0) | byte(n / 2) << 8 | byte(n - 1) << 16, length};
  }

  // The place of the word with a key, which may hold another one.
  Word& place(const std::array<uint64_t, 2>& key) {
    const uint64_t hash = (key[0] ^ std::rotl(key[1], 31)) * 0x9E3779B97F4A7C15u;
    return words_[(hash ^ hash >> 32) * 0x9E3779B97F4A7C15u >> shift_];
  }

 private:
  template <class T>
  static T load(const char* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
  }

  std::vector<Word> words_;
  int shift_;
};

}  // namespace quern
