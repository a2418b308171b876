// What the formats with codebooks (IQ1, IQ2, IQ3) share: entries of a grid, and signs kept apart. Private to
// quant/ (see formats.h).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace quern::formats {

inline constexpr int8_t kIq2Values[3] = {8, 25, 43};
inline constexpr int8_t kIq3XxsValues[8] = {4, 12, 20, 28, 36, 44, 52, 62};
inline constexpr int8_t kIq3SValues[8] = {1, 3, 5, 7, 9, 11, 13, 15};

// Eight weights of a grid of pairs of bits; four of a grid of nibbles.
inline void expand_pairs(uint16_t entry, const int8_t (&values)[3], int8_t* out /* [8] */) {
  for (size_t k = 0; k < 8; ++k) out[k] = values[entry >> 2 * k & 3];
}
inline void expand_nibbles(uint16_t entry, const int8_t (&values)[8], int8_t* out /* [4] */) {
  for (size_t k = 0; k < 4; ++k) out[k] = values[entry >> 4 * k & 7];
}

// Bit k set: weight k is negative.
inline void apply_signs(uint8_t signs, int8_t* out /* [8] */) {
  for (size_t k = 0; k < 8; ++k)
    if ((signs >> k & 1) != 0) out[k] = static_cast<int8_t>(-out[k]);
}
// Seven bits of signs; the eighth makes the number of negative weights even.
inline uint8_t even_signs(uint32_t seven) {
  return static_cast<uint8_t>(seven | static_cast<uint32_t>(std::popcount(seven) & 1) << 7);
}

// 8 * (entry's weight, -1, 0 or 1) + shift: what stands for weight + shift / 8 of IQ1.
inline void expand_shifted(uint16_t entry, int shift, int8_t* out /* [8] */) {
  for (size_t k = 0; k < 8; ++k) out[k] = static_cast<int8_t>(8 * ((entry >> 2 * k & 3) - 1) + shift);
}

}  // namespace quern::formats
