// Unpackers of formats whose blocks are 32 weights: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, and of nibbles that stand
// for values of a table. What an unpacker is: unpack.md.
//
// Everything is anonymous: each file that is compiled for an instruction set has its own copy, so that the
// linker can never pick such a copy for code that runs on any CPU.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/compiler.h"
#include "quant/code_values.h"
#include "quant/panel_runs.h"

namespace quern::unpack {
namespace {

// Step s of 32 weights from their 16 bytes of nibbles: steps 0-3 are low nibbles, 4-7 the high ones of the
// same bytes.
template <class V>
QUERN_INLINE typename V::Bits nibbles(const uint8_t* steps, size_t s, size_t r) {
  const auto x = V::load(steps + 64 * (s % 4) + 4 * V::kRows * r);
  return V::both(s < 4 ? x : V::right(x, 4), V::splat(15));
}

// Step s's fifth bits at bit 4 of each byte (PanelRun::turned), merged into its nibbles.
template <class V>
QUERN_INLINE typename V::Bits five_bits(const uint8_t* turned, const uint8_t* steps, size_t s, size_t r) {
  const auto qh = V::load(turned + 4 * V::kRows * r);
  const auto moved = s <= 4 ? V::left(qh, 4 - s) : V::right(qh, s - 4);
  return V::merge(nibbles<V>(steps, s, r), moved, V::splat(16));
}

template <class V>
QUERN_INLINE typename V::Floats f16(const uint8_t* numbers, size_t r) {
  return V::f16(numbers + 2 * V::kRows * r);
}

// What all of them have: one group a block, a step of one group at a time, one sum, a scale in front.
template <class V>
struct Block32 {
  static constexpr size_t kGroups = 1, kTogether = 1, kSums = 1, kMinima = 0;
  static constexpr bool kTable = false;
  static QUERN_INLINE typename V::Floats scale(const uint8_t* block, size_t, size_t r) {
    return f16<V>(block, r);
  }
};

template <class V>
struct Q4_0 : Block32<V> {
  static constexpr size_t kBytes = panel_block_bytes(panel_runs::kQ4_0),
                          kSteps = panel_place(panel_runs::kQ4_0, 2);
  static constexpr int kBits = 4, kOffset = 8;
  static QUERN_INLINE typename V::Bits codes(const uint8_t* block, size_t, size_t, size_t s, size_t r) {
    return nibbles<V>(block + kSteps, s, r);
  }
};

template <class V>
struct Q4_1 : Block32<V> {
  static constexpr size_t kBytes = panel_block_bytes(panel_runs::kQ4_1),
                          kMinimum = panel_place(panel_runs::kQ4_1, 2),
                          kSteps = panel_place(panel_runs::kQ4_1, 4), kMinima = 1;
  static constexpr int kBits = 4, kOffset = 0;
  static QUERN_INLINE typename V::Floats minimum(const uint8_t* block, size_t, size_t r) {
    return f16<V>(block + kMinimum, r);
  }
  static QUERN_INLINE typename V::Bits codes(const uint8_t* block, size_t, size_t, size_t s, size_t r) {
    return nibbles<V>(block + kSteps, s, r);
  }
};

template <class V>
struct Q5_0 : Block32<V> {
  static constexpr size_t kBytes = panel_block_bytes(panel_runs::kQ5_0),
                          kTurned = panel_place(panel_runs::kQ5_0, 2),
                          kSteps = panel_place(panel_runs::kQ5_0, 6);
  static constexpr int kBits = 5, kOffset = 16;
  static QUERN_INLINE typename V::Bits codes(const uint8_t* block, size_t, size_t, size_t s, size_t r) {
    return five_bits<V>(block + kTurned, block + kSteps, s, r);
  }
};

template <class V>
struct Q5_1 : Block32<V> {
  static constexpr size_t kBytes = panel_block_bytes(panel_runs::kQ5_1),
                          kMinimum = panel_place(panel_runs::kQ5_1, 2),
                          kTurned = panel_place(panel_runs::kQ5_1, 4),
                          kSteps = panel_place(panel_runs::kQ5_1, 8), kMinima = 1;
  static constexpr int kBits = 5, kOffset = 0;
  static QUERN_INLINE typename V::Floats minimum(const uint8_t* block, size_t, size_t r) {
    return f16<V>(block + kMinimum, r);
  }
  static QUERN_INLINE typename V::Bits codes(const uint8_t* block, size_t, size_t, size_t s, size_t r) {
    return five_bits<V>(block + kTurned, block + kSteps, s, r);
  }
};

// Signed codes, with what the set wants added to signed codes.
template <class V>
struct Q8_0 : Block32<V> {
  static constexpr size_t kBytes = panel_block_bytes(panel_runs::kQ8_0),
                          kSteps = panel_place(panel_runs::kQ8_0, 2);
  static constexpr int kBits = 8, kOffset = V::kSignedOffset;
  static QUERN_INLINE typename V::Bits codes(const uint8_t* block, size_t, size_t, size_t s, size_t r) {
    const auto w = V::load(block + kSteps + 64 * s + 4 * V::kRows * r);
    return kOffset == 128 ? V::flip(w, V::splat(-128)) : w;
  }
};

// --- a table of signed values ---

// Values of codes with kOffset added, as bytes.
struct CodeBytes {
  alignas(16) uint8_t bytes[16];
};
constexpr CodeBytes code_bytes(const int8_t (&values)[16], int offset) {
  CodeBytes table{};
  for (size_t i = 0; i < 16; ++i) table.bytes[i] = static_cast<uint8_t>(values[i] + offset);
  return table;
}
template <int kOffset>
constexpr CodeBytes kIq4Bytes = code_bytes(kIq4Values, kOffset);
template <int kOffset>
constexpr CodeBytes kMxfp4Bytes = code_bytes(kMxfp4Values, kOffset);

template <class V>
struct IQ4_NL : Block32<V> {
  static constexpr size_t kBytes = panel_block_bytes(panel_runs::kIQ4_NL),
                          kSteps = panel_place(panel_runs::kIQ4_NL, 2);
  static constexpr int kBits = 8, kOffset = V::kSignedOffset;
  static QUERN_INLINE typename V::Bits codes(const uint8_t* block, size_t, size_t, size_t s, size_t r) {
    return V::lookup(kIq4Bytes<kOffset>.bytes, nibbles<V>(block + kSteps, s, r));
  }
};

// Its values are small: unsigned codes of five bits with an offset where signed ones would stay signed.
template <class V>
struct MXFP4 : Block32<V> {
  static constexpr size_t kBytes = panel_block_bytes(panel_runs::kMXFP4),
                          kSteps = panel_place(panel_runs::kMXFP4, 1);
  static constexpr bool kTable = true;
  static constexpr int kBits = 5, kOffset = V::kSignedOffset != 0 ? V::kSignedOffset : 12;
  static QUERN_INLINE typename V::Floats scale(const uint8_t* block, size_t, size_t r) {
    return V::powers(block + V::kRows * r);
  }
  static QUERN_INLINE typename V::Bits codes(const uint8_t* block, size_t, size_t, size_t s, size_t r) {
    return V::lookup(kMxfp4Bytes<kOffset>.bytes, nibbles<V>(block + kSteps, s, r));
  }
};

// Blocks of 256: eight groups, each with nibbles and a scale of six bits of its own.
template <class V>
struct IQ4_XS {
  static constexpr const auto& kMap = panel_runs::kIQ4_XS;
  static constexpr size_t kBytes = panel_block_bytes(kMap), kScale = panel_place(kMap, 0),
                          kHigh = panel_place(kMap, 2), kLow = panel_place(kMap, 4),
                          kSteps = panel_place(kMap, 8), kGroupBytes = 4 * panel_step(kMap, 8);
  static constexpr size_t kGroups = 8, kTogether = 1, kSums = 1, kMinima = 0;
  static constexpr int kBits = 8, kOffset = V::kSignedOffset;
  static QUERN_INLINE typename V::Floats scale(const uint8_t* block, size_t g, size_t r) {
    const auto low = V::right(V::bytes(block + kLow + kPanelRows * (g / 2) + V::kRows * r), 4 * (g % 2));
    const auto high = V::right(V::words(block + kHigh + 2 * V::kRows * r), 2 * g);
    const auto number = V::merge(V::both(low, V::made32(15)), V::left(high, 4), V::made32(0x30));
    return V::times(f16<V>(block + kScale, r), V::to_floats(V::minus(number, V::made32(32))));
  }
  static QUERN_INLINE typename V::Bits codes(const uint8_t* block, size_t g, size_t, size_t s, size_t r) {
    return V::lookup(kIq4Bytes<kOffset>.bytes, nibbles<V>(block + kSteps + kGroupBytes * g, s, r));
  }
};

}  // namespace
}  // namespace quern::unpack
