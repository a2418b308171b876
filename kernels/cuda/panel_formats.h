// Formats as kernels of the GPU read them from panels (quant/panel_runs.h): 32 columns of 16 rows are the A
// fragment of an mma. Lane 4g + t of a warp holds panel rows 2g and 2g + 1, which are rows g and g + 8 of the
// fragment, so that it reads 8 bytes at a time.
//
// A quantized format F has
//   kGroups              groups of 32 columns in a block
//   kBlockBytes          of 16 rows
//   kHasMinimum, kHasHalves  what its dot product has: a minimum; a scale for each 16 columns
//   kHasHalfMinima       with both: a factor of the minimum for each 16 columns
//   Words, load()        what lane 4g + t reads of a group
//   codes()              the fragment: codes less their offset
//   scale(), minimum()   D and mu of a row
//   half_scales()        sc0, sc1 of a row
//   half_minima()        mn0, mn1 of a row
#pragma once

#include "kernels/cuda/kernel_args.h"
#include "kernels/cuda/vocabulary.h"
#include "quant/code_values.h"

namespace quern::cuda {

// The words of rows 2g and 2g + 1 of a piece of 4 bytes a row.
QUERN_GPU_FN Words2 load_rows(const uint8_t* piece, int g) { return load_once(piece + g * 8); }
QUERN_GPU_FN float scale_of(const uint8_t* piece, int row) {
  return from_f16(load<uint16_t>(piece + row * 2));
}
// Bytes, each a code below 128, less kOffset: nothing is carried from one to the next.
template <uint32_t kOffset>
QUERN_GPU_FN uint32_t less(uint32_t codes) {
  return (codes + (0x80u - kOffset) * 0x01010101u) ^ 0x80808080u;
}
inline constexpr uint32_t kNibbles = 0x0f0f0f0fu;

inline constexpr uint32_t kOnes = 0x01010101u;

// What most formats do not have.
struct PlainFormat {
  static constexpr int kGroups = 1;
  static constexpr bool kHasMinimum = false, kHasHalves = false, kHasHalfMinima = false;
};

// Words of k = 4t.. and 16 + 4t.. of rows 2g and 2g + 1, where a group has eight pieces of its own.
struct WordsOfHalves {
  Words2 low, high;
};
QUERN_GPU_FN WordsOfHalves load_halves(const uint8_t* pieces, int step, int g, int t) {
  return {load_rows(pieces + t * step, g), load_rows(pieces + (4 + t) * step, g)};
}
// Of four pieces of nibbles: the low ones are k = 4t.., the high ones 16 + 4t...
QUERN_GPU_FN void nibbles_of(Words2 w, uint32_t (&a)[4]) {
  a[0] = w.x & kNibbles;
  a[1] = w.y & kNibbles;
  a[2] = w.x >> 4 & kNibbles;
  a[3] = w.y >> 4 & kNibbles;
}

struct Q4_0Format : PlainFormat {
  static constexpr auto& kMap = panel_runs::kQ4_0;
  static constexpr int kBlockBytes = panel_block_bytes(kMap);
  struct Words {
    Words2 q;
  };
  QUERN_GPU_FN static Words load(const uint8_t* block, int, int g, int t) {
    return {load_rows(block + panel_place(kMap, 2) + t * 64, g)};
  }
  QUERN_GPU_FN static void codes(const Words& w, int, int, uint32_t (&a)[4]) {
    nibbles_of(w.q, a);
    QUERN_GPU_UNROLL
    for (int i = 0; i < 4; ++i) a[i] = less<8>(a[i]);
  }
  QUERN_GPU_FN static float scale(const uint8_t* block, int, int row) {
    return scale_of(block + panel_place(kMap, 0), row);
  }
};

struct Q4_1Format : PlainFormat {
  static constexpr auto& kMap = panel_runs::kQ4_1;
  static constexpr int kBlockBytes = panel_block_bytes(kMap);
  static constexpr bool kHasMinimum = true;
  struct Words {
    Words2 q;
  };
  QUERN_GPU_FN static Words load(const uint8_t* block, int, int g, int t) {
    return {load_rows(block + panel_place(kMap, 4) + t * 64, g)};
  }
  QUERN_GPU_FN static void codes(const Words& w, int, int, uint32_t (&a)[4]) { nibbles_of(w.q, a); }
  QUERN_GPU_FN static float scale(const uint8_t* block, int, int row) {
    return scale_of(block + panel_place(kMap, 0), row);
  }
  QUERN_GPU_FN static float minimum(const uint8_t* block, int, int row) {
    return scale_of(block + panel_place(kMap, 2), row);
  }
};

// Nibbles and the fifth bits above them: bit 8i + s of a row's word belongs to code 4s + i.
struct WordsOfFiveBits {
  Words2 q, fifth;
};
QUERN_GPU_FN void five_bits_of(const WordsOfFiveBits& w, int t, uint32_t (&a)[4]) {
  nibbles_of(w.q, a);
  a[0] |= (w.fifth.x >> t & kOnes) << 4;
  a[1] |= (w.fifth.y >> t & kOnes) << 4;
  a[2] |= (w.fifth.x >> (4 + t) & kOnes) << 4;
  a[3] |= (w.fifth.y >> (4 + t) & kOnes) << 4;
}

struct Q5_0Format : PlainFormat {
  static constexpr auto& kMap = panel_runs::kQ5_0;
  static constexpr int kBlockBytes = panel_block_bytes(kMap);
  using Words = WordsOfFiveBits;
  QUERN_GPU_FN static Words load(const uint8_t* block, int, int g, int t) {
    return {load_rows(block + panel_place(kMap, 6) + t * 64, g), load_rows(block + panel_place(kMap, 2), g)};
  }
  QUERN_GPU_FN static void codes(const Words& w, int, int t, uint32_t (&a)[4]) {
    five_bits_of(w, t, a);
    QUERN_GPU_UNROLL
    for (int i = 0; i < 4; ++i) a[i] = less<16>(a[i]);
  }
  QUERN_GPU_FN static float scale(const uint8_t* block, int, int row) {
    return scale_of(block + panel_place(kMap, 0), row);
  }
};

struct Q5_1Format : PlainFormat {
  static constexpr auto& kMap = panel_runs::kQ5_1;
  static constexpr int kBlockBytes = panel_block_bytes(kMap);
  static constexpr bool kHasMinimum = true;
  using Words = WordsOfFiveBits;
  QUERN_GPU_FN static Words load(const uint8_t* block, int, int g, int t) {
    return {load_rows(block + panel_place(kMap, 8) + t * 64, g), load_rows(block + panel_place(kMap, 4), g)};
  }
  QUERN_GPU_FN static void codes(const Words& w, int, int t, uint32_t (&a)[4]) { five_bits_of(w, t, a); }
  QUERN_GPU_FN static float scale(const uint8_t* block, int, int row) {
    return scale_of(block + panel_place(kMap, 0), row);
  }
  QUERN_GPU_FN static float minimum(const uint8_t* block, int, int row) {
    return scale_of(block + panel_place(kMap, 2), row);
  }
};

struct Q8_0Format : PlainFormat {
  static constexpr auto& kMap = panel_runs::kQ8_0;
  static constexpr int kBlockBytes = panel_block_bytes(kMap);
  using Words = WordsOfHalves;
  QUERN_GPU_FN static Words load(const uint8_t* block, int, int g, int t) {
    return load_halves(block + panel_place(kMap, 2), 64, g, t);
  }
  QUERN_GPU_FN static void codes(const Words& w, int, int, uint32_t (&a)[4]) {
    a[0] = w.low.x;
    a[1] = w.low.y;
    a[2] = w.high.x;
    a[3] = w.high.y;
  }
  QUERN_GPU_FN static float scale(const uint8_t* block, int, int row) {
    return scale_of(block + panel_place(kMap, 0), row);
  }
};

// Two bits of each of 256 codes: two halves of 128, in them the bit pairs of four groups.
struct PairsOfBits {
  QUERN_GPU_FN static WordsOfHalves load(const uint8_t* pairs, int group, int g, int t) {
    return load_halves(pairs + group / 4 * 8 * 64, 64, g, t);
  }
  QUERN_GPU_FN static void codes(const WordsOfHalves& w, int group, uint32_t (&a)[4]) {
    const int shift = group % 4 * 2;
    const uint32_t words[4] = {w.low.x, w.low.y, w.high.x, w.high.y};
    QUERN_GPU_UNROLL
    for (int i = 0; i < 4; ++i) a[i] = words[i] >> shift & 0x03030303u;
  }
};

struct Q2_KFormat : PlainFormat {
  static constexpr auto& kMap = panel_runs::kQ2_K;
  static constexpr int kGroups = 8, kBlockBytes = panel_block_bytes(kMap);
  static constexpr bool kHasMinimum = true, kHasHalves = true, kHasHalfMinima = true;
  using Words = WordsOfHalves;
  QUERN_GPU_FN static Words load(const uint8_t* block, int group, int g, int t) {
    return PairsOfBits::load(block + panel_place(kMap, 16), group, g, t);
  }
  QUERN_GPU_FN static void codes(const Words& w, int group, int, uint32_t (&a)[4]) {
    PairsOfBits::codes(w, group, a);
  }
  QUERN_GPU_FN static float scale(const uint8_t* block, int, int row) {
    return scale_of(block + panel_place(kMap, 80), row);
  }
  QUERN_GPU_FN static float minimum(const uint8_t* block, int, int row) {
    return -scale_of(block + panel_place(kMap, 82), row);
  }
  // The scale in the low nibble, the minimum in the high one.
  QUERN_GPU_FN static int packed(const uint8_t* block, int group, int row, int half) {
    return block[panel_place(kMap, 0) + static_cast<size_t>((group * 2 + half) * 16 + row)];
  }
  QUERN_GPU_FN static void half_scales(const uint8_t* block, int group, int row, int (&s)[2]) {
    s[0] = packed(block, group, row, 0) & 15;
    s[1] = packed(block, group, row, 1) & 15;
  }
  QUERN_GPU_FN static void half_minima(const uint8_t* block, int group, int row, int (&m)[2]) {
    m[0] = packed(block, group, row, 0) >> 4;
    m[1] = packed(block, group, row, 1) >> 4;
  }
};

struct Q3_KFormat : PlainFormat {
  static constexpr auto& kMap = panel_runs::kQ3_K;
  static constexpr int kGroups = 8, kBlockBytes = panel_block_bytes(kMap);
  static constexpr bool kHasHalves = true;
  struct Words {
    WordsOfHalves pairs, masks;  // of masks a bit of each of the eight groups
  };
  QUERN_GPU_FN static Words load(const uint8_t* block, int group, int g, int t) {
    return {PairsOfBits::load(block + panel_place(kMap, 32), group, g, t),
            load_halves(block + panel_place(kMap, 0), 64, g, t)};
  }
  QUERN_GPU_FN static void codes(const Words& w, int group, int, uint32_t (&a)[4]) {
    PairsOfBits::codes(w.pairs, group, a);
    const uint32_t masks[4] = {w.masks.low.x, w.masks.low.y, w.masks.high.x, w.masks.high.y};
    QUERN_GPU_UNROLL
    for (int i = 0; i < 4; ++i) a[i] = less<4>(a[i] | (masks[i] >> group & kOnes) << 2);
  }
  QUERN_GPU_FN static float scale(const uint8_t* block, int, int row) {
    return scale_of(block + panel_place(kMap, 108), row);
  }
  QUERN_GPU_FN static void half_scales(const uint8_t* block, int group, int row, int (&s)[2]) {
    const auto byte = [&](int i) {
      return int{block[panel_place(kMap, 96) + static_cast<size_t>(i * 16 + row)]};
    };
    QUERN_GPU_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int j = group * 2 + half;
      const int low = j < 8 ? byte(j) & 15 : byte(j - 8) >> 4;
      s[half] = (low | (byte(8 + j % 4) >> (j / 4 * 2) & 3) << 4) - 32;
    }
  }
};

// Scales and minima of eight groups, six bits each in 12 pieces of a byte (quant/formats/formats.h).
struct ScalesAndMinima {
  QUERN_GPU_FN static int byte(const uint8_t* pieces, int i, int row) {
    return pieces[static_cast<size_t>(i * 16 + row)];
  }
  QUERN_GPU_FN static float scale(const uint8_t* pieces, int group, int row) {
    return to_float(group < 4 ? byte(pieces, group, row) & 63
                              : (byte(pieces, group + 4, row) & 15) | byte(pieces, group - 4, row) >> 6 << 4);
  }
  QUERN_GPU_FN static float minimum(const uint8_t* pieces, int group, int row) {
    return to_float(group < 4 ? byte(pieces, group + 4, row) & 63
                              : byte(pieces, group + 4, row) >> 4 | byte(pieces, group, row) >> 6 << 4);
  }
};

struct Q4_KFormat : PlainFormat {
  static constexpr auto& kMap = panel_runs::kQ4_K;
  static constexpr int kGroups = 8, kBlockBytes = panel_block_bytes(kMap);
  static constexpr bool kHasMinimum = true;
  using Words = WordsOfHalves;
  QUERN_GPU_FN static Words load(const uint8_t* block, int group, int g, int t) {
    return load_halves(block + panel_place(kMap, 16) + group / 2 * 8 * 64, 64, g, t);
  }
  QUERN_GPU_FN static void codes(const Words& w, int group, int, uint32_t (&a)[4]) {
    const int shift = group % 2 * 4;
    const uint32_t words[4] = {w.low.x, w.low.y, w.high.x, w.high.y};
    QUERN_GPU_UNROLL
    for (int i = 0; i < 4; ++i) a[i] = words[i] >> shift & kNibbles;
  }
  QUERN_GPU_FN static float scale(const uint8_t* block, int group, int row) {
    return mul(scale_of(block + panel_place(kMap, 0), row),
               ScalesAndMinima::scale(block + panel_place(kMap, 4), group, row));
  }
  QUERN_GPU_FN static float minimum(const uint8_t* block, int group, int row) {
    return -mul(scale_of(block + panel_place(kMap, 2), row),
                ScalesAndMinima::minimum(block + panel_place(kMap, 4), group, row));
  }
};

struct Q5_KFormat : PlainFormat {
  static constexpr auto& kMap = panel_runs::kQ5_K;
  static constexpr int kGroups = 8, kBlockBytes = panel_block_bytes(kMap);
  static constexpr bool kHasMinimum = true;
  struct Words {
    WordsOfHalves q, fifth;  // of fifth a bit of each of the eight groups
  };
  QUERN_GPU_FN static Words load(const uint8_t* block, int group, int g, int t) {
    constexpr int kStep = panel_step(kMap, 16);
    return {load_halves(block + panel_place(kMap, 48) + group / 2 * 64, kStep, g, t),
            load_halves(block + panel_place(kMap, 16), kStep, g, t)};
  }
  QUERN_GPU_FN static void codes(const Words& w, int group, int, uint32_t (&a)[4]) {
    const int shift = group % 2 * 4;
    const uint32_t q[4] = {w.q.low.x, w.q.low.y, w.q.high.x, w.q.high.y};
    const uint32_t fifth[4] = {w.fifth.low.x, w.fifth.low.y, w.fifth.high.x, w.fifth.high.y};
    QUERN_GPU_UNROLL
    for (int i = 0; i < 4; ++i) a[i] = (q[i] >> shift & kNibbles) | (fifth[i] >> group & kOnes) << 4;
  }
  QUERN_GPU_FN static float scale(const uint8_t* block, int group, int row) {
    return mul(scale_of(block + panel_place(kMap, 0), row),
               ScalesAndMinima::scale(block + panel_place(kMap, 4), group, row));
  }
  QUERN_GPU_FN static float minimum(const uint8_t* block, int group, int row) {
    return -mul(scale_of(block + panel_place(kMap, 2), row),
                ScalesAndMinima::minimum(block + panel_place(kMap, 4), group, row));
  }
};

struct Q6_KFormat : PlainFormat {
  static constexpr auto& kMap = panel_runs::kQ6_K;
  static constexpr int kGroups = 8, kBlockBytes = panel_block_bytes(kMap);
  static constexpr bool kHasHalves = true;
  struct Words {
    WordsOfHalves q, pairs;  // nibbles; the bit pairs above them
  };
  QUERN_GPU_FN static Words load(const uint8_t* block, int group, int g, int t) {
    constexpr int kStep = panel_step(kMap, 0);
    const uint8_t* const half = block + panel_place(kMap, 0) + group / 4 * 8 * kStep;  // of 128 weights
    return {load_halves(half + group % 2 * 64, kStep, g, t), load_halves(half + 2 * 64, kStep, g, t)};
  }
  QUERN_GPU_FN static void codes(const Words& w, int group, int, uint32_t (&a)[4]) {
    const int nibble = group % 4 / 2 * 4, pair = group % 4 * 2;
    const uint32_t q[4] = {w.q.low.x, w.q.low.y, w.q.high.x, w.q.high.y};
    const uint32_t pairs[4] = {w.pairs.low.x, w.pairs.low.y, w.pairs.high.x, w.pairs.high.y};
    QUERN_GPU_UNROLL
    for (int i = 0; i < 4; ++i)
      a[i] = less<32>((q[i] >> nibble & kNibbles) | (pairs[i] >> pair & 0x03030303u) << 4);
  }
  QUERN_GPU_FN static float scale(const uint8_t* block, int, int row) {
    return scale_of(block + panel_place(kMap, 208), row);
  }
  QUERN_GPU_FN static void half_scales(const uint8_t* block, int group, int row, int (&s)[2]) {
    const uint8_t* const scales = block + panel_place(kMap, 192) + static_cast<size_t>(group * 2 * 16 + row);
    s[0] = static_cast<int8_t>(scales[0]);
    s[1] = static_cast<int8_t>(scales[16]);
  }
};

// Values of nibbles out of a table of 16 bytes, four at a time.
struct NibbleTable {
  uint32_t words[4];
};
consteval NibbleTable table_of(const int8_t (&values)[16]) {
  NibbleTable table{};
  for (int i = 0; i < 16; ++i)
    table.words[i / 4] |= static_cast<uint32_t>(static_cast<uint8_t>(values[i])) << (i % 4 * 8);
  return table;
}
// nibbles: one a byte.
QUERN_GPU_FN uint32_t look_up(const NibbleTable& table, uint32_t nibbles) {
  const uint32_t pairs = nibbles | nibbles >> 4;  // nibbles 0, 1 in byte 0; 2, 3 in byte 2
  const uint32_t choice = (pairs & 0xffu) | (pairs >> 8 & 0xff00u);
  const uint32_t low = permute(table.words[0], table.words[1], choice & 0x7777u);
  const uint32_t high = permute(table.words[2], table.words[3], choice & 0x7777u);
  const uint32_t is_high = (nibbles >> 3 & kOnes) * 0xffu;
  return (low & ~is_high) | (high & is_high);
}
template <const auto& kValues>
QUERN_GPU_FN void values_of(Words2 w, uint32_t (&a)[4]) {
  constexpr NibbleTable kTable = table_of(kValues);
  nibbles_of(w, a);
  QUERN_GPU_UNROLL
  for (int i = 0; i < 4; ++i) a[i] = look_up(kTable, a[i]);
}

struct IQ4_NLFormat : Q4_0Format {
  QUERN_GPU_FN static void codes(const Words& w, int, int, uint32_t (&a)[4]) {
    values_of<kIq4Values>(w.q, a);
  }
};

struct IQ4_XSFormat : PlainFormat {
  static constexpr auto& kMap = panel_runs::kIQ4_XS;
  static constexpr int kGroups = 8, kBlockBytes = panel_block_bytes(kMap);
  struct Words {
    Words2 q;
  };
  QUERN_GPU_FN static Words load(const uint8_t* block, int group, int g, int t) {
    return {load_rows(block + panel_place(kMap, 8) + (group * 4 + t) * 64, g)};
  }
  QUERN_GPU_FN static void codes(const Words& w, int, int, uint32_t (&a)[4]) {
    values_of<kIq4Values>(w.q, a);
  }
  QUERN_GPU_FN static float scale(const uint8_t* block, int group, int row) {
    const int low = block[panel_place(kMap, 4) + static_cast<size_t>(group / 2 * 16 + row)];
    const int high = cuda::load<uint16_t>(block + panel_place(kMap, 2) + row * 2);
    const int scale = ((low >> (group % 2 * 4) & 15) | (high >> (2 * group) & 3) << 4) - 32;
    return mul(scale_of(block + panel_place(kMap, 0), row), to_float(scale));
  }
};

struct MXFP4Format : PlainFormat {
  static constexpr auto& kMap = panel_runs::kMXFP4;
  static constexpr int kBlockBytes = panel_block_bytes(kMap);
  struct Words {
    Words2 q;
  };
  QUERN_GPU_FN static Words load(const uint8_t* block, int, int g, int t) {
    return {load_rows(block + panel_place(kMap, 1) + t * 64, g)};
  }
  QUERN_GPU_FN static void codes(const Words& w, int, int, uint32_t (&a)[4]) {
    values_of<kMxfp4Values>(w.q, a);
  }
  QUERN_GPU_FN static float scale(const uint8_t* block, int, int row) {
    const uint32_t e = block[panel_place(kMap, 0) + static_cast<size_t>(row)];
    if (e == 255) return from_bits(0x7fc00000u);
    return from_bits(e < 2 ? 0x00200000u << e : (e - 1) << 23);
  }
};

// Float formats: [k][16 rows].
struct F32Format {
  static constexpr int kBytes = 4;
  QUERN_GPU_FN static float value(const uint8_t* p) { return load<float>(p); }
};
struct F16Format {
  static constexpr int kBytes = 2;
  QUERN_GPU_FN static float value(const uint8_t* p) { return from_f16(load<uint16_t>(p)); }
};
struct BF16Format {
  static constexpr int kBytes = 2;
  QUERN_GPU_FN static float value(const uint8_t* p) {
    return from_bits(static_cast<uint32_t>(load<uint16_t>(p)) << 16);
  }
};

}  // namespace quern::cuda
