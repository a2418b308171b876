// Unpackers of the K formats and of TQ2_0: blocks of 256 weights, eight groups of 32. What an unpacker is:
// unpack.md.
//
// Everything is anonymous (see nibbles.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/compiler.h"
#include "kernels/unpack/nibbles.h"
#include "quant/panel_runs.h"

namespace quern::unpack {
namespace {

// A byte of each row as integers, from a plane of 16 bytes.
template <class V>
QUERN_INLINE typename V::Bits plane(const uint8_t* planes, size_t i, size_t r) {
  return V::bytes(planes + kPanelRows * i + V::kRows * r);
}

// Q4_K's and Q5_K's scales and minima of six bits (quant/formats/formats.h, load_scale_min), as planes of
// bytes.
template <class V>
struct SixBits {
  using Bits = typename V::Bits;
  static QUERN_INLINE Bits number(Bits low, Bits high) {
    return V::merge(V::both(low, V::splat32(15)), V::right(high, 2), V::splat32(0x30));
  }
  static QUERN_INLINE Bits scale(const uint8_t* planes, size_t g, size_t r) {
    if (g < 4) return V::both(plane<V>(planes, g, r), V::splat32(63));
    return number(plane<V>(planes, g + 4, r), plane<V>(planes, g - 4, r));
  }
  static QUERN_INLINE Bits minimum(const uint8_t* planes, size_t g, size_t r) {
    if (g < 4) return V::both(plane<V>(planes, g + 4, r), V::splat32(63));
    return number(V::right(plane<V>(planes, g + 4, r), 4), plane<V>(planes, g, r));
  }
};

// Numbers in front: f16 d and dmin, then 12 planes.
template <class V, const auto& kMap>
struct ScaledByGroup {
  static constexpr size_t kBytes = panel_block_bytes(kMap), kScale = panel_place(kMap, 0),
                          kMinimum = panel_place(kMap, 2), kNumbers = panel_place(kMap, 4);
  static constexpr size_t kGroups = 8, kSums = 1, kMinima = 1;
  static constexpr bool kTable = false;
  static constexpr int kOffset = 0;
  static QUERN_INLINE typename V::Floats scale(const uint8_t* block, size_t g, size_t r) {
    return V::times(f16<V>(block + kScale, r), V::to_floats(SixBits<V>::scale(block + kNumbers, g, r)));
  }
  static QUERN_INLINE typename V::Floats minimum(const uint8_t* block, size_t g, size_t r) {
    const auto number = V::to_floats(SixBits<V>::minimum(block + kNumbers, g, r));
    return V::times(V::negated(f16<V>(block + kMinimum, r)), number);
  }
};

// Pairs of groups in nibbles.
template <class V>
struct Q4_K : ScaledByGroup<V, panel_runs::kQ4_K> {
  static constexpr size_t kSteps = panel_place(panel_runs::kQ4_K, 16), kTogether = 2;
  static constexpr int kBits = 4;
  static QUERN_INLINE typename V::Bits codes(const uint8_t* block, size_t part, size_t j, size_t s,
                                             size_t r) {
    const auto x = V::load(block + kSteps + 64 * (8 * part + s) + 4 * V::kRows * r);
    return V::both(j == 0 ? x : V::right(x, 4), V::splat(15));
  }
};

// The same with a fifth bit, of all groups in one byte.
template <class V>
struct Q5_K : ScaledByGroup<V, panel_runs::kQ5_K> {
  static constexpr size_t kSteps = panel_place(panel_runs::kQ5_K, 16),
                          kStepBytes = panel_step(panel_runs::kQ5_K, 16), kTogether = 8;
  static constexpr int kBits = 5;
  static QUERN_INLINE typename V::Bits codes(const uint8_t* block, size_t, size_t j, size_t s, size_t r) {
    const uint8_t* step = block + kSteps + kStepBytes * s + 4 * V::kRows * r;
    const auto qh = V::load(step), x = V::load(step + 64 + 64 * (j / 2));
    const auto moved = j <= 4 ? V::left(qh, 4 - j) : V::right(qh, j - 4);
    return V::merge(V::both(j % 2 == 0 ? x : V::right(x, 4), V::splat(15)), moved, V::splat(16));
  }
};

// Two scales a group: f16 d, and an integer for every 16 weights. Bits of one byte are codes of four groups,
// a part: 128 weights.
template <class V>
struct Q6_K {
  static constexpr const auto& kMap = panel_runs::kQ6_K;
  static constexpr size_t kBytes = panel_block_bytes(kMap), kScale = panel_place(kMap, 208),
                          kSubScales = panel_place(kMap, 192), kSteps = panel_place(kMap, 0),
                          kStepBytes = panel_step(kMap, 0), kPartBytes = panel_place(kMap, 64) - kSteps;
  static constexpr size_t kGroups = 8, kTogether = 4, kSums = 2, kMinima = 0;
  static constexpr int kBits = 6, kOffset = 32;

  static QUERN_INLINE typename V::Floats scale(const uint8_t* block, size_t, size_t r) {
    return f16<V>(block + kScale, r);
  }
  // Of the first (half 0) and the second 16 weights of group g.
  static QUERN_INLINE typename V::Bits sub_scale(const uint8_t* block, size_t g, size_t half, size_t r) {
    return V::signed_bytes(block + kSubScales + kPanelRows * (2 * g + half) + V::kRows * r);
  }
  static QUERN_INLINE typename V::Bits codes(const uint8_t* block, size_t part, size_t j, size_t s,
                                             size_t r) {
    const uint8_t* step = block + kSteps + kPartBytes * part + kStepBytes * s + 4 * V::kRows * r;
    const auto low = V::load(step + 64 * (j % 2)), high = V::load(step + 128);
    const auto moved = j == 0   ? V::left(high, 4)
                       : j == 1 ? V::left(high, 2)
                       : j == 2 ? high
                                : V::right(high, 2);
    return V::merge(V::both(j < 2 ? low : V::right(low, 4), V::splat(15)), moved, V::splat(0x30));
  }
};

// Step s of a half's four groups: bit pairs.
template <class V>
QUERN_INLINE typename V::Bits bit_pairs(const uint8_t* steps, size_t part, size_t j, size_t s, size_t r) {
  return V::both(V::right(V::load(steps + 64 * (8 * part + s) + 4 * V::kRows * r), 2 * j), V::splat(3));
}

template <class V>
struct Q3_K {
  static constexpr const auto& kMap = panel_runs::kQ3_K;
  static constexpr size_t kBytes = panel_block_bytes(kMap), kScale = panel_place(kMap, 108),
                          kNumbers = panel_place(kMap, 96), kMask = panel_place(kMap, 0),
                          kSteps = panel_place(kMap, 32);
  static constexpr size_t kGroups = 8, kTogether = 4, kSums = 2, kMinima = 0;
  static constexpr int kBits = 3, kOffset = 4;

  static QUERN_INLINE typename V::Floats scale(const uint8_t* block, size_t, size_t r) {
    return f16<V>(block + kScale, r);
  }
  // Six bits (quant/formats/q3_k.cc), minus 32.
  static QUERN_INLINE typename V::Bits sub_scale(const uint8_t* block, size_t g, size_t half, size_t r) {
    const size_t i = 2 * g + half;
    const auto low = V::right(plane<V>(block + kNumbers, i % 8, r), 4 * (i / 8));
    const auto high = V::left(plane<V>(block + kNumbers, 8 + i % 4, r), 4);
    const auto number = V::merge(V::both(low, V::splat32(15)), V::right(high, 2 * (i / 4)), V::splat32(0x30));
    return V::minus(number, V::splat32(32));
  }
  static QUERN_INLINE typename V::Bits codes(const uint8_t* block, size_t part, size_t j, size_t s,
                                             size_t r) {
    const size_t g = 4 * part + j;
    const auto mask = V::load(block + kMask + 64 * s + 4 * V::kRows * r);
    const auto moved = g <= 2 ? V::left(mask, 2 - g) : V::right(mask, g - 2);
    return V::merge(bit_pairs<V>(block + kSteps, part, j, s, r), moved, V::splat(4));
  }
};

template <class V>
struct Q2_K {
  static constexpr const auto& kMap = panel_runs::kQ2_K;
  static constexpr size_t kBytes = panel_block_bytes(kMap), kScale = panel_place(kMap, 80),
                          kMinimum = panel_place(kMap, 82), kNumbers = panel_place(kMap, 0),
                          kSteps = panel_place(kMap, 16);
  static constexpr size_t kGroups = 8, kTogether = 4, kSums = 2, kMinima = 2;
  static constexpr int kBits = 2, kOffset = 0;

  static QUERN_INLINE typename V::Floats scale(const uint8_t* block, size_t, size_t r) {
    return f16<V>(block + kScale, r);
  }
  static QUERN_INLINE typename V::Bits sub_scale(const uint8_t* block, size_t g, size_t half, size_t r) {
    return V::both(plane<V>(block + kNumbers, 2 * g + half, r), V::splat32(15));
  }
  static QUERN_INLINE typename V::Floats minimum(const uint8_t* block, size_t, size_t r) {
    return V::negated(f16<V>(block + kMinimum, r));
  }
  static QUERN_INLINE typename V::Bits sub_minimum(const uint8_t* block, size_t g, size_t half, size_t r) {
    return V::right(plane<V>(block + kNumbers, 2 * g + half, r), 4);
  }
  static QUERN_INLINE typename V::Bits codes(const uint8_t* block, size_t part, size_t j, size_t s,
                                             size_t r) {
    return bit_pairs<V>(block + kSteps, part, j, s, r);
  }
};

// Ternary weights: one scale for all groups, codes of -1, 0, 1 in bit pairs as Q2_K's; 7 added to them makes
// the offset one that sums start from.
template <class V>
struct TQ2_0 {
  static constexpr const auto& kMap = panel_runs::kTQ2_0;
  static constexpr size_t kBytes = panel_block_bytes(kMap), kScale = panel_place(kMap, 64),
                          kSteps = panel_place(kMap, 0);
  static constexpr size_t kGroups = 8, kTogether = 4, kSums = 1, kMinima = 0;
  static constexpr bool kTable = false;
  static constexpr int kBits = 4, kOffset = 8;

  static QUERN_INLINE typename V::Floats scale(const uint8_t* block, size_t, size_t r) {
    return f16<V>(block + kScale, r);
  }
  static QUERN_INLINE typename V::Bits codes(const uint8_t* block, size_t part, size_t j, size_t s,
                                             size_t r) {
    return V::plus(bit_pairs<V>(block + kSteps, part, j, s, r), V::splat(7));
  }
};

}  // namespace
}  // namespace quern::unpack
