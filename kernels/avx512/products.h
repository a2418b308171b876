// The loops over tiles that multiply a format's codes with vpdpbusd, by dot shape (kernels/unpack/unpack.md),
// and the walk over panels.
//
// A tile is 16 rows (lanes) x C tokens. The integer sum of a token starts from the bias that stands for the
// codes' offset, so codes stay unsigned, as vpdpbusd wants its first operand. For every token and group that
// is 8 vpdpbusd, a multiply and an FMA on the port that limits them (10 of 512 multiply-adds; a minimum is
// one FMA more, two scales are two multiplies more), everything else runs beside them.
//
// Everything is anonymous (see tile.h). Included by kernels/avx512/matmul_*.cc only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/avx512/avx512_kernels.h"
#include "kernels/avx512/tile.h"
#include "kernels/avx512/vector.h"

namespace quern::avx512 {
namespace {

template <class Format>
QUERN_INLINE Bits minimum_pairs(const uint8_t* block, size_t g) {
  if constexpr (Format::kFromMemory)
    return _mm512_or_si512(Format::sub_minimum(block, g, 0, 0),
                           Vector16::left(Format::sub_minimum(block, g, 1, 0), 16));
  else
    return load(block + Format::kMinimumPairs);
}

// What the sums of a group are scaled with, of 16 rows.
template <class Format>
struct Numbers {
  __m512 d, m;
  Bits low, high;
  Bits minima;  // of both halves, int16 each

  QUERN_INLINE Numbers(const uint8_t* block, size_t g) {
    d = Format::scale(block, g, 0);
    if constexpr (Format::kMinima != 0) m = Format::minimum(block, g, 0);
    if constexpr (Format::kSums == 2) {
      low = Format::sub_scale(block, g, 0, 0);
      high = Format::sub_scale(block, g, 1, 0);
    }
    if constexpr (Format::kMinima == 2) minima = minimum_pairs<Format>(block, g);
  }
  QUERN_INLINE void keep() {
    pin(d);
    if constexpr (Format::kMinima != 0) pin(m);
    if constexpr (Format::kSums == 2) {
      pin(low);
      pin(high);
    }
    if constexpr (Format::kMinima == 2) pin(minima);
  }
  // acc and what token c's sums of the group make. a: the tile's block of activations.
  template <int C>
  QUERN_INLINE __m512 add_to(__m512 acc, const Bits (&t)[Format::kSums], const uint8_t* a, size_t c) const {
    using Block = TileBlock<C>;
    Bits sum = t[0];
    if constexpr (Format::kSums == 2)
      sum = _mm512_add_epi32(_mm512_mullo_epi32(t[0], low), _mm512_mullo_epi32(t[1], high));
    const __m512 p = _mm512_mul_ps(d, broadcast_f32(a + Block::kScale + 4 * c));
    acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), p, acc);
    if constexpr (Format::kMinima == 1)
      acc = _mm512_fmadd_ps(m, broadcast_f32(a + Block::kScaledSum + 4 * c), acc);
    if constexpr (Format::kMinima == 2) {
      const __m512 s =
          _mm512_cvtepi32_ps(_mm512_madd_epi16(minima, broadcast_i32(a + Block::kHalfSums + 4 * c)));
      acc = _mm512_fmadd_ps(m, _mm512_mul_ps(broadcast_f32(a + Block::kScale + 4 * c), s), acc);
    }
    return acc;
  }
};

// Numbers of groups with two sums that fit in 16 bits: one multiply for both scales.
template <class Format>
struct PairedNumbers {
  __m512 d;
  Bits scales;  // of both halves, int16 each

  QUERN_INLINE explicit PairedNumbers(const uint8_t* group)
      : d(Format::scale(group, 0, 0)), scales(Format::sub_scale_pairs(group)) {}
  QUERN_INLINE void keep() {
    pin(d);
    pin(scales);
  }
  template <int C>
  QUERN_INLINE __m512 add_to(__m512 acc, const Bits (&t)[2], const uint8_t* a, size_t c) const {
    const Bits pairs = _mm512_mask_mov_epi16(_mm512_slli_epi32(t[1], 16), 0x55555555, t[0]);
    const __m512 p = _mm512_mul_ps(d, broadcast_f32(a + TileBlock<C>::kScale + 4 * c));
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_madd_epi16(pairs, scales)), p, acc);
  }
};

// Whether the sums of a group fit in 16 bits, for all of the tile's rows and tokens: no sum of 16 products is
// larger than the roots of both sums of squares multiplied.
template <class Format, int C>
QUERN_INLINE bool sums_fit_16_bits(const uint8_t* group, const uint8_t* a) {
  uint32_t of_codes, of_activations;
  __builtin_memcpy(&of_codes, group + Format::kSquareSum, sizeof of_codes);
  __builtin_memcpy(&of_activations, a + TileBlock<C>::kOfSet, sizeof of_activations);
  return uint64_t{of_codes} * of_activations <= uint64_t{32767} * 32767;
}

// What token c's sum starts from: of the whole group, or of its half (0 or 1) where each has a sum.
template <class Format, int C>
QUERN_INLINE Bits start_of(const uint8_t* a, size_t half, size_t c) {
  constexpr int kOffset = Format::kOffset;
  if constexpr (kOffset == 0) {
    return _mm512_setzero_si512();
  } else if constexpr (Format::kSums == 1) {
    return broadcast_i32(a + TileBlock<C>::bias(kOffset) + 4 * c);
  } else {
    static_assert(kOffset == 64 || kOffset == 32 || kOffset == 4);
    const Bits bias32 = broadcast_i32(a + TileBlock<C>::half_bias(half) + 4 * c);
    return kOffset == 4    ? _mm512_srai_epi32(bias32, 3)
           : kOffset == 64 ? _mm512_slli_epi32(bias32, 1)
                           : bias32;
  }
}

// Adds a group to the sums of C tokens.
template <class Format, int C, class NumbersOfGroup>
QUERN_INLINE void add_group(__m512 (&acc)[C], const Bits (&w)[8], const NumbersOfGroup& numbers,
                            const uint8_t* a) {
  constexpr size_t kSums = Format::kSums;
  QUERN_UNROLL
  for (size_t c = 0; c < C; ++c) {
    Bits t[kSums];
    QUERN_UNROLL
    for (size_t half = 0; half < kSums; ++half) {
      t[half] = start_of<Format, C>(a, half, c);
      pin(t[half]);
    }
    QUERN_UNROLL
    for (size_t i = 0; i < 8; ++i) {
      const size_t s = i % kSums * 4 + i / kSums;  // both sums in turn
      dot4(t[s / 4 % kSums], w[s], a + 32 * c + 4 * s);
    }
    acc[c] = numbers.template add_to<C>(acc[c], t, a, c);
    pin(acc[c]);
  }
}

// How far ahead of their use weights are asked for, in bytes, by tiles of some tokens to 8; the prefetcher
// does the rest. Zen 4, one thread, share of a plain read, without and with:
//   Q4_0  1 token 1.08, 1.06; 4 tokens 0.53, 0.63; 8 tokens 0.32, 0.41
//   Q8_0  1 token 1.09, 1.05; 4 tokens 0.87, 0.76; 8 tokens 0.50, 0.57
// One token of 4 and 5 bits is asked for all the same: no difference on two threads, and where neighbours are
// busy others have measured a gain of 4 to 10 %.
constexpr size_t kAhead = 4096;
template <class Format>
constexpr int kAheadFrom = Format::kBytes / Format::kGroups > 512 ? 8 : 1;

// Groups whose codes come out one by one: unpacked once for all C tokens.
template <class Format, int C>
QUERN_KERNEL void tile(const uint8_t* block, size_t n_blocks, const uint8_t* a, const Output& out) noexcept {
  static_assert(Format::kTogether == 1);
  [[maybe_unused]] const uint8_t* next = out.next;
  __m512 acc[C];
  QUERN_UNROLL
  for (size_t c = 0; c < C; ++c) acc[c] = out.start(c);
  for (; n_blocks != 0; --n_blocks, block += Format::kBytes) {
    for (size_t g = 0; g < Format::kGroups; ++g, a += TileBlock<C>::kBytes) {
      if constexpr (Format::kFromMemory && C >= kAheadFrom<Format> && C <= 8) {
        constexpr size_t kShare = Format::kBytes / Format::kGroups;
        QUERN_UNROLL
        for (size_t line = 0; line < kShare; line += 64)
          _mm_prefetch(reinterpret_cast<const char*>(block + kShare * g + kAhead + line), _MM_HINT_NTA);
      }
      if constexpr (!Format::kFromMemory && C == kTileTokens) {
        _mm_prefetch(reinterpret_cast<const char*>(next), _MM_HINT_T1);
        _mm_prefetch(reinterpret_cast<const char*>(next + 64 * kPanelsTogether), _MM_HINT_T1);
        _mm_prefetch(reinterpret_cast<const char*>(next + 64 * 2 * kPanelsTogether), _MM_HINT_T1);
        next += TileBlock<C>::kBytes;
      }
      Bits w[8];
      QUERN_UNROLL
      for (size_t s = 0; s < 8; ++s) {
        w[s] = Format::codes(block, g, 0, s, 0);
      }
      if constexpr (Format::kPaired) {
        if (sums_fit_16_bits<Format, C>(block, a)) {
          compiler_fence();  // g++ otherwise loads all tokens' scales before the branch, and spills
          PairedNumbers<Format> numbers(block);
          QUERN_UNROLL
          for (size_t s = 0; s < 8; ++s) pin(w[s]);
          numbers.keep();
          add_group<Format, C>(acc, w, numbers, a);
          continue;
        }
      }
      Numbers<Format> numbers(block, g);
      QUERN_UNROLL
      for (size_t s = 0; s < 8; ++s) pin(w[s]);
      numbers.keep();
      add_group<Format, C>(acc, w, numbers, a);
    }
  }
  QUERN_UNROLL
  for (size_t c = 0; c < C; ++c) out.store(c, acc[c]);
}

// Tiles that take groups together ask only where bytes are not read in address order: the masks of Q3_K,
// which both halves of a block take from the same lines (one token, share of a plain read: 0.70 instead of
// 0.27).
template <class Format>
constexpr bool kAskTogether = Format::kBits == 3;

// Groups whose codes come out of the same bytes, for one or two tokens, where memory is the limit: bytes are
// read once, line after line, for all groups of a part.
template <class Format, int C>
QUERN_KERNEL void tile_together(const uint8_t* block, size_t n_blocks, const uint8_t* a,
                                const Output& out) noexcept {
  constexpr size_t kSums = Format::kSums, kTogether = Format::kTogether, kGroupBytes = TileBlock<C>::kBytes;
  __m512 acc[C];
  QUERN_UNROLL
  for (size_t c = 0; c < C; ++c) acc[c] = out.start(c);
  for (; n_blocks != 0; --n_blocks, block += Format::kBytes) {
    QUERN_UNROLL
    for (size_t part = 0; part < Format::kGroups / kTogether; ++part, a += kTogether * kGroupBytes) {
      compiler_fence();  // g++ otherwise moves loads from part to part and spills
      Bits t[kTogether][C][kSums];
      QUERN_UNROLL
      for (size_t i = 0; i < kTogether * C * kSums; ++i) {
        const size_t j = i / (C * kSums), c = i / kSums % C, half = i % kSums;
        t[j][c][half] = start_of<Format, C>(a + j * kGroupBytes, half, c);
        pin(t[j][c][half]);
      }
      constexpr size_t kShare = Format::kBytes / (Format::kGroups / kTogether);
      QUERN_UNROLL
      for (size_t s = 0; s < 8; ++s) {
        if constexpr (kAskTogether<Format>) {
          QUERN_UNROLL_INNER
          for (size_t line = (kShare * s / 8 + 63) / 64; line * 64 < kShare * (s + 1) / 8; ++line)
            _mm_prefetch(reinterpret_cast<const char*>(block + kShare * part + kAhead + 64 * line),
                         _MM_HINT_NTA);
        }
        QUERN_UNROLL
        for (size_t j = 0; j < kTogether; ++j) {
          Bits w = Format::codes(block, part, j, s, 0);
          pin(w);
          QUERN_UNROLL
          for (size_t c = 0; c < C; ++c)
            dot4(t[j][c][s / 4 % kSums], w, a + j * kGroupBytes + 32 * c + 4 * s);
        }
      }
      QUERN_UNROLL
      for (size_t j = 0; j < kTogether; ++j) {
        const Numbers<Format> numbers(block, part * kTogether + j);
        QUERN_UNROLL
        for (size_t c = 0; c < C; ++c)
          acc[c] = numbers.template add_to<C>(acc[c], t[j][c], a + j * kGroupBytes, c);
      }
    }
  }
  QUERN_UNROLL
  for (size_t c = 0; c < C; ++c) out.store(c, acc[c]);
}

// A group taken apart once for many tokens, with the members of an unpacker: 16 f32 D, then what the shape
// has of 16 f32 minima, 16 pairs of minima, 16 pairs of int16 scales and the largest sum of squares of 16
// codes (uint32, and 60 bytes of nothing), then 8 steps of 16 rows x 4 codes.
template <size_t kSumsOf, int kOffsetOf, size_t kMinimaOf>
struct Expanded {
  static constexpr bool kFromMemory = false;
  static constexpr size_t kGroups = 1, kTogether = 1, kSums = kSumsOf, kMinima = kMinimaOf;
  static constexpr int kOffset = kOffsetOf;
  static constexpr bool kPaired = kSums == 2;
  static constexpr size_t kMinimum = 64, kMinimumPairs = 128, kSubScales = 64 + 64 * kMinima,
                          kSquareSum = kSubScales + 64, kSteps = kSubScales + (kSums == 2 ? 128 : 0),
                          kBytes = kSteps + 512;

  static QUERN_INLINE __m512 scale(const uint8_t* group, size_t, size_t) { return Vector16::floats(group); }
  static QUERN_INLINE __m512 minimum(const uint8_t* group, size_t, size_t) {
    return Vector16::floats(group + kMinimum);
  }
  static QUERN_INLINE Bits sub_scale(const uint8_t* group, size_t, size_t half, size_t) {
    const Bits pairs = sub_scale_pairs(group);
    return _mm512_srai_epi32(half == 0 ? _mm512_slli_epi32(pairs, 16) : pairs, 16);
  }
  static QUERN_INLINE Bits sub_scale_pairs(const uint8_t* group) { return load(group + kSubScales); }
  static QUERN_INLINE Bits codes(const uint8_t* group, size_t, size_t, size_t s, size_t) {
    return load(group + kSteps + 64 * s);
  }
};

// Codes of two and three bits times their scales fit in a byte: 0..45 of Q2_K, -124..128 of Q3_K, which stand
// with 127 added. So one sum is left of two, with the same I.
template <class Format>
constexpr bool kFolded = Format::kSums == 2 && Format::kBits <= 3;
template <class Format>
using ExpandedOf = Expanded<kFolded<Format> ? 1 : Format::kSums,
                            kFolded<Format> && Format::kOffset != 0 ? 127 : Format::kOffset, Format::kMinima>;

// (codes - kOffset) * scales, of bytes and 32-bit lanes of int8; kOffset != 0: with 127 added.
template <int kOffset>
QUERN_INLINE Bits fold(Bits codes, Bits scales) {
  const Bits byte = _mm512_and_si512(scales, _mm512_set1_epi32(0xff));
  const Bits even = _mm512_or_si512(byte, _mm512_slli_epi32(byte, 16)), odd = _mm512_slli_epi16(even, 8);
  Bits low = _mm512_maddubs_epi16(codes, even), high = _mm512_maddubs_epi16(codes, odd);
  if constexpr (kOffset != 0) {
    const Bits pair = _mm512_srai_epi16(odd, 8);  // the scale as int16, twice
    const Bits shift =
        _mm512_sub_epi16(_mm512_set1_epi16(127), _mm512_mullo_epi16(pair, _mm512_set1_epi16(kOffset)));
    low = _mm512_add_epi16(low, shift);
    high = _mm512_add_epi16(high, shift);
  }
  return _mm512_or_si512(low, _mm512_slli_epi16(high, 8));
}

template <class Format>
QUERN_KERNEL void expand(const uint8_t* block, size_t n_blocks, uint8_t* out) noexcept {
  using To = ExpandedOf<Format>;
  constexpr size_t kTogether = Format::kTogether, kParts = Format::kGroups / kTogether;
  for (; n_blocks != 0; --n_blocks, block += Format::kBytes, out += Format::kGroups * To::kBytes) {
    QUERN_UNROLL
    for (size_t part = 0; part < kParts; ++part) {
      compiler_fence();
      constexpr size_t kShare = Format::kBytes / kParts;
      QUERN_UNROLL
      for (size_t line = 0; line < kShare; line += 64) prefetch(block + kShare * part + kAhead + line);
      uint8_t* const groups = out + part * kTogether * To::kBytes;
      uint8_t* const steps = groups + To::kSteps;
      [[maybe_unused]] Bits squares[kTogether], largest[kTogether];  // sums of a half, of both
      QUERN_UNROLL
      for (size_t s = 0; s < 8; ++s) {
        QUERN_UNROLL
        for (size_t j = 0; j < kTogether; ++j) {
          Bits w = Format::codes(block, part, j, s, 0);
          if constexpr (To::kPaired) {
            const Bits size = _mm512_abs_epi8(_mm512_sub_epi8(w, Vector16::splat(Format::kOffset)));
            if (s % 4 == 0) squares[j] = _mm512_setzero_si512();
            squares[j] = _mm512_dpbusd_epi32(squares[j], size, size);
            if (s == 3) largest[j] = squares[j];
            if (s == 7) largest[j] = _mm512_max_epu32(largest[j], squares[j]);
          }
          if constexpr (kFolded<Format>)
            w = fold<Format::kOffset>(w, Format::sub_scale(block, part * kTogether + j, s / 4, 0));
          Vector16::store(steps + j * To::kBytes + 64 * s, w);
        }
      }
      if constexpr (To::kPaired) {
        QUERN_UNROLL
        for (size_t j = 0; j < kTogether; ++j) {
          const uint32_t sum = _mm512_reduce_max_epu32(largest[j]);
          __builtin_memcpy(groups + j * To::kBytes + To::kSquareSum, &sum, sizeof sum);
        }
      }
    }
    for (size_t g = 0; g < Format::kGroups; ++g) {
      uint8_t* const group = out + g * To::kBytes;
      const Numbers<Format> numbers(block, g);
      Vector16::store(group, numbers.d);
      if constexpr (To::kMinima != 0) Vector16::store(group + To::kMinimum, numbers.m);
      if constexpr (To::kMinima == 2) Vector16::store(group + To::kMinimumPairs, numbers.minima);
      if constexpr (To::kSums == 2) {
        Vector16::store(group + To::kSubScales,
                        _mm512_mask_mov_epi16(_mm512_slli_epi32(numbers.high, 16), 0x55555555, numbers.low));
      }
    }
  }
}

using TileFn = void (*)(const uint8_t* block, size_t n_blocks, const uint8_t* a, const Output& out) noexcept;

// The kernels of one format by the number of tokens, 1 to 16 (tile_width).
struct Tiles {
  TileFn by_tokens[kTileTokens + 1];
};

template <class Format>
constexpr Tiles kDirect = {{nullptr, tile<Format, 1>, tile<Format, 2>, tile<Format, 3>, tile<Format, 4>,
                            tile<Format, 8>, tile<Format, 8>, tile<Format, 8>, tile<Format, 8>,
                            tile<Format, 12>, tile<Format, 12>, tile<Format, 12>, tile<Format, 12>,
                            tile<Format, 16>, tile<Format, 16>, tile<Format, 16>, tile<Format, 16>}};

inline __mmask16 rows_of(const MatmulArgs& args, size_t row) {
  const size_t left = args.row_end - row;
  return static_cast<__mmask16>(left >= kPanelRows ? 0xffffu : (1u << left) - 1);
}

// Panels outermost: a panel's weights are read from memory once and meet all tiles of activations.
template <class Format>
void multiply_direct(const MatmulArgs& args) {
  const size_t groups = args.k / 32, n_blocks = groups / Format::kGroups;
  for (size_t row = args.row_begin; row < args.row_end; row += kPanelRows) {
    const uint8_t* panel = args.weights + row / kPanelRows * n_blocks * Format::kBytes;
    for (size_t token = 0; token < args.n_tokens; token += kTileTokens) {
      const size_t n = args.n_tokens - token < kTileTokens ? args.n_tokens - token : kTileTokens;
      const Output out{
          args.y + token * args.y_stride + row, args.y_stride, n, rows_of(args, row), args.add, args.factor};
      kDirect<Format>.by_tokens[n](panel, n_blocks, args.tiles + token * groups * kTokenBlockBytes, out);
    }
  }
}

// The same for one or two tokens of a format whose groups come out together.
template <class Format>
void multiply_together(const MatmulArgs& args) {
  const size_t n_blocks = args.k / 32 / Format::kGroups;
  const TileFn run = args.n_tokens == 1 ? tile_together<Format, 1> : tile_together<Format, 2>;
  for (size_t row = args.row_begin; row < args.row_end; row += kPanelRows) {
    const uint8_t* panel = args.weights + row / kPanelRows * n_blocks * Format::kBytes;
    run(panel, n_blocks, args.tiles,
        {args.y + row, args.y_stride, args.n_tokens, rows_of(args, row), args.add, args.factor});
  }
}

// More tokens: a chunk of k of some panels is taken apart once, into a buffer that stays in L2, and meets all
// tiles. A tile's activations come from L3 or from memory once for all of these panels: one panel after the
// other, 16 rows for every time they come, waits for them for a tenth of the time where the machine is idle,
// and for most of it where neighbours use L3, too (Zen 4, k = 14336; bench/README.md "What limits a kernel").
// What a chunk adds is kept between chunks, which changes no bit. Few tokens take blocks apart one by one, so
// that reading never pauses for long.
constexpr size_t kSlabTokens = 512;  // tokens that all panels see before the next ones come
constexpr size_t kChunkGroups = 32;

// Asks for part `i` of `n` of the bytes at p.
QUERN_INLINE void ask_for_part(const uint8_t* p, size_t n_bytes, size_t i, size_t n) {
  const size_t lines = (n_bytes + 63) / 64;
  for (size_t line = lines * i / n; line < lines * (i + 1) / n; ++line)
    _mm_prefetch(reinterpret_cast<const char*>(p + 64 * line), _MM_HINT_T1);
}

// Panels as multiply_expanded takes weights: 16 rows' blocks, and requests for them.
template <class Format>
struct Panels {
  static constexpr size_t kGroups = Format::kGroups;
  using Group = ExpandedOf<Format>;

  static QUERN_INLINE const uint8_t* at(const MatmulArgs& args, size_t row, size_t block) {
    return args.weights + (row / kPanelRows * (args.k / (32 * kGroups)) + block) * Format::kBytes;
  }
  static QUERN_INLINE void expand(const MatmulArgs& args, size_t row, size_t block, size_t n, uint8_t* out) {
    avx512::expand<Format>(at(args, row, block), n, out);
  }
  // Asks for part `i` of `parts` of n blocks.
  static QUERN_INLINE void ask_for(const MatmulArgs& args, size_t row, size_t block, size_t n, size_t i,
                                   size_t parts) {
    ask_for_part(at(args, row, block), n * Format::kBytes, i, parts);
  }
};

template <class Source>
void multiply_expanded(const MatmulArgs& args) {
  using Group = typename Source::Group;
  const size_t groups = args.k / 32, n_blocks = groups / Source::kGroups;
  const bool few = args.n_tokens <= kTileTokens;
  const size_t chunk = few ? 1 : kChunkGroups / Source::kGroups, together = few ? 1 : kPanelsTogether;
  alignas(64) uint8_t expanded[kPanelsTogether][kChunkGroups * Group::kBytes];
  alignas(64) float partial[kPanelsTogether][kSlabTokens * kPanelRows];
  static_assert(sizeof expanded + sizeof partial < kMatmulStackBytes);
  for (size_t slab = 0; slab < args.n_tokens; slab += kSlabTokens) {
    const size_t end = args.n_tokens - slab < kSlabTokens ? args.n_tokens : slab + kSlabTokens;
    const size_t n_tiles = (end - slab + kTileTokens - 1) / kTileTokens;
    for (size_t first_row = args.row_begin; first_row < args.row_end; first_row += together * kPanelRows) {
      const size_t panels_left = (args.row_end - first_row + kPanelRows - 1) / kPanelRows;
      const size_t n_panels = panels_left < together ? panels_left : together;
      for (size_t block = 0; block < n_blocks; block += chunk) {
        const size_t n = n_blocks - block < chunk ? n_blocks - block : chunk;
        for (size_t p = 0; p < n_panels; ++p)
          Source::expand(args, first_row + p * kPanelRows, block, n, expanded[p]);
        // The next chunk's weights come from memory meanwhile; after the last one, the next panels'.
        const bool more = block + n < n_blocks;
        const size_t next_row = more ? first_row : first_row + n_panels * kPanelRows,
                     next_block = more ? block + n : 0;
        for (size_t token = slab; token < end; token += kTileTokens) {
          const size_t tokens = end - token < kTileTokens ? end - token : kTileTokens;
          const uint8_t* const a = args.tiles + token * groups * kTokenBlockBytes +
                                   block * Source::kGroups * tile_width(tokens) * kTokenBlockBytes;
          const uint8_t* const next =
              token + kTileTokens < end ? a + kTileTokens * groups * kTokenBlockBytes : a;
          for (size_t p = 0; p < n_panels; ++p) {
            const size_t row = first_row + p * kPanelRows;
            Source::ask_for(args, next_row + p * kPanelRows, next_block, chunk, (token - slab) / kTileTokens,
                            n_tiles);
            const Output out{args.y + token * args.y_stride + row,
                             args.y_stride,
                             tokens,
                             rows_of(args, row),
                             args.add,
                             args.factor,
                             partial[p] + (token - slab) * kPanelRows,
                             block == 0,
                             block + n == n_blocks,
                             next + 64 * p};
            kDirect<Group>.by_tokens[tokens](expanded[p], n * Source::kGroups, a, out);
          }
        }
      }
    }
  }
}

// Tokens from which a format whose groups come out one by one is taken apart for all tiles.
constexpr size_t kExpandFrom = 64;

template <class Unpacker>
struct FromMemory : Unpacker {
  static constexpr bool kFromMemory = true, kPaired = false;
};

template <template <class> class Unpacker>
void multiply(const MatmulArgs& args) noexcept {
  using Format = FromMemory<Unpacker<Vector16>>;
  if constexpr (Format::kTogether == 1) {
    if (args.n_tokens < kExpandFrom) return multiply_direct<Format>(args);
  } else {
    if (args.n_tokens <= 2) return multiply_together<Format>(args);
  }
  multiply_expanded<Panels<Format>>(args);
}

// A row of the set's table.
template <template <class> class Unpacker>
constexpr MatmulKernel row_of(DType dtype) {
  return {dtype, TensorLayout::kPanels, multiply<Unpacker>, &kTiles, kPanelsTogether};
}

}  // namespace
}  // namespace quern::avx512
