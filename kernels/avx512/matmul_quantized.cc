// Quantized formats: one unpacker a format; one tile loop for formats with a scale per 32 weights, one for
// Q6_K.
//
// A tile is 16 rows (lanes) x C tokens. Weights are unpacked once per group of 32 and used for all C tokens.
// The integer sum of a token starts from the bias that stands for the codes' offset, so codes stay unsigned,
// as vpdpbusd wants its first operand. For every token that is 8 vpdpbusd, a multiply and an FMA on the port
// that limits them (10 of 512 multiply-adds), everything else runs beside them.
#include "kernels/avx512/avx512_kernels.h"
#include "kernels/avx512/tile.h"

namespace quern::avx512 {
namespace {

QUERN_INLINE Bits low_nibbles(Bits q) { return _mm512_and_si512(q, _mm512_set1_epi8(0x0f)); }
QUERN_INLINE Bits high_nibbles(Bits q) { return low_nibbles(_mm512_srli_epi16(q, 4)); }

// w[s] = codes of k = 4s .. 4s+3: the low nibbles of four steps, then the high ones.
QUERN_INLINE void load_nibbles(const uint8_t* steps, Bits (&w)[8]) {
  QUERN_UNROLL
  for (int j = 0; j < 4; ++j) {
    const Bits q = load(steps + 64 * j);
    w[j] = low_nibbles(q);
    w[4 + j] = high_nibbles(q);
  }
}

// Adds the fifth bits: bit s of each byte of `turned` (panel_layout.cc) belongs to step s.
QUERN_INLINE void add_fifth_bits(Bits turned, Bits (&w)[8]) {
  const Bits bit4 = _mm512_set1_epi8(0x10);
  QUERN_UNROLL
  for (int s = 0; s < 8; ++s) {
    const Bits moved = s <= 4 ? _mm512_slli_epi32(turned, 4 - s) : _mm512_srli_epi32(turned, s - 4);
    w[s] = _mm512_ternarylogic_epi32(w[s], moved, bit4, 0xf8);  // w | (moved & bit4)
  }
}

// How far ahead of their use weights are asked for, in bytes, by tiles of kAheadFrom to 8 tokens; the
// prefetcher does the rest. Zen 4, one thread, share of a plain read, without and with:
//   Q4_0  1 token 1.08, 1.06; 4 tokens 0.53, 0.63; 8 tokens 0.32, 0.41
//   Q8_0  1 token 1.09, 1.05; 4 tokens 0.87, 0.76; 8 tokens 0.50, 0.57
// One token of 4 and 5 bits is asked for all the same: no difference on two threads, and where neighbours are
// busy others have measured a gain of 4 to 10 %.
constexpr size_t kAhead = 4096;

// Formats with one scale per 32 weights. kBias: which row of a TileBlock a sum starts from, in units of 4 * C
// bytes behind the codes (9: -8 S, 10: -16 S, 11: -128 S); 0: from zero.
struct Q4_0 {
  static constexpr size_t kBlockBytes = 288, kBias = 9, kAheadFrom = 1;
  static constexpr bool kHasMin = false;
  static QUERN_INLINE void unpack(const uint8_t* block, Bits (&w)[8], __m512& d, __m512&) {
    d = load_f16(block);
    load_nibbles(block + 32, w);
  }
};

struct Q4_1 {
  static constexpr size_t kBlockBytes = 320, kBias = 0, kAheadFrom = 1;
  static constexpr bool kHasMin = true;
  static QUERN_INLINE void unpack(const uint8_t* block, Bits (&w)[8], __m512& d, __m512& m) {
    d = load_f16(block);
    m = load_f16(block + 32);
    load_nibbles(block + 64, w);
  }
};

struct Q5_0 {
  static constexpr size_t kBlockBytes = 352, kBias = 10, kAheadFrom = 1;
  static constexpr bool kHasMin = false;
  static QUERN_INLINE void unpack(const uint8_t* block, Bits (&w)[8], __m512& d, __m512&) {
    d = load_f16(block);
    const Bits turned = load(block + 32);
    load_nibbles(block + 96, w);
    add_fifth_bits(turned, w);
  }
};

struct Q5_1 {
  static constexpr size_t kBlockBytes = 384, kBias = 0, kAheadFrom = 1;
  static constexpr bool kHasMin = true;
  static QUERN_INLINE void unpack(const uint8_t* block, Bits (&w)[8], __m512& d, __m512& m) {
    d = load_f16(block);
    m = load_f16(block + 32);
    const Bits turned = load(block + 64);
    load_nibbles(block + 128, w);
    add_fifth_bits(turned, w);
  }
};

struct Q8_0 {
  static constexpr size_t kBlockBytes = 544, kBias = 11, kAheadFrom = 8;
  static constexpr bool kHasMin = false;
  static QUERN_INLINE void unpack(const uint8_t* block, Bits (&w)[8], __m512& d, __m512&) {
    d = load_f16(block);
    const Bits flip = _mm512_set1_epi8(static_cast<char>(0x80));  // code + 128
    QUERN_UNROLL
    for (int s = 0; s < 8; ++s) w[s] = _mm512_xor_si512(load(block + 32 + 64 * s), flip);
  }
};

template <class Format, int C>
QUERN_KERNEL void tile(const uint8_t* panel, size_t groups, const uint8_t* a, const Output& out) noexcept {
  using Block = TileBlock<C>;
  __m512 acc[C];
  QUERN_UNROLL
  for (int c = 0; c < C; ++c) acc[c] = _mm512_setzero_ps();
  for (size_t g = 0; g < groups; ++g, panel += Format::kBlockBytes, a += Block::kBytes) {
    if constexpr (C >= Format::kAheadFrom && C <= 8) {
      QUERN_UNROLL
      for (size_t line = 0; line < Format::kBlockBytes; line += 64)
        _mm_prefetch(reinterpret_cast<const char*>(panel + kAhead + line), _MM_HINT_NTA);
    }
    Bits w[8];
    __m512 d, m = _mm512_setzero_ps();
    Format::unpack(panel, w, d, m);
    QUERN_UNROLL
    for (int s = 0; s < 8; ++s) pin(w[s]);
    pin(d);
    QUERN_UNROLL
    for (int c = 0; c < C; ++c) {
      Bits t = _mm512_setzero_si512();
      if constexpr (Format::kBias != 0) t = broadcast_i32(a + 4 * C * Format::kBias + 4 * c);
      pin(t);
      QUERN_UNROLL
      for (int s = 0; s < 8; ++s) dot4(t, w[s], a + 32 * c + 4 * s);
      const __m512 p = _mm512_mul_ps(d, broadcast_f32(a + Block::kScale + 4 * c));
      acc[c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(t), p, acc[c]);
      if constexpr (Format::kHasMin)
        acc[c] = _mm512_fmadd_ps(m, broadcast_f32(a + Block::kScaledSum + 4 * c), acc[c]);
      pin(acc[c]);
    }
  }
  QUERN_UNROLL
  for (int c = 0; c < C; ++c) out.store(static_cast<size_t>(c), acc[c]);
}

// Q6_K: 8 groups a block; a scale for each 16 weights, so two sums a token. Group g takes its nibbles from
// one of two ql runs, low ones before high ones, and two bits of qh above them. Which ones is worked out by
// shifts that depend on g, so that the loop over groups is a loop: unrolled, g++ moves loads from group to
// group and spills.
struct Q6_K {
  static constexpr size_t kBlockBytes = 3360, kScales = 32, kSteps = 288, kHalfBytes = 1536, kStepBytes = 192;
};

QUERN_INLINE void unpack_q6_k(const uint8_t* block, size_t g, Bits (&w)[8]) {
  const size_t half = g / 4, part = g % 4;
  const uint8_t* const step = block + Q6_K::kSteps + half * Q6_K::kHalfBytes;
  const uint8_t* const ql = step + (part % 2) * 64;
  const __m128i nibble_shift = _mm_cvtsi32_si128(static_cast<int>(4 * (part / 2)));
  // Bits 2 part and 2 part + 1 of a byte to bits 4 and 5; what a rotation brings from other bytes is masked
  // away.
  const Bits turn = _mm512_set1_epi32(4 - 2 * static_cast<int>(part));
  QUERN_UNROLL
  for (size_t s = 0; s < 8; ++s) {
    const Bits nibble = low_nibbles(_mm512_srl_epi16(load(ql + Q6_K::kStepBytes * s), nibble_shift));
    const Bits high = _mm512_rolv_epi32(load(step + Q6_K::kStepBytes * s + 128), turn);
    w[s] = _mm512_ternarylogic_epi32(nibble, high, _mm512_set1_epi8(0x30), 0xf8);  // nibble | (high & 0x30)
  }
}

QUERN_INLINE Bits load_scales(const uint8_t* block, size_t sub_block) {
  const void* p = block + Q6_K::kScales + 16 * sub_block;
  return _mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}

template <int C>
QUERN_KERNEL void tile_q6_k(const uint8_t* panel, size_t groups, const uint8_t* a,
                            const Output& out) noexcept {
  using Block = TileBlock<C>;
  __m512 acc[C];
  QUERN_UNROLL
  for (int c = 0; c < C; ++c) acc[c] = _mm512_setzero_ps();
  for (size_t g = 0; g < groups; ++g, a += Block::kBytes) {
    const uint8_t* const block = panel + g / 8 * Q6_K::kBlockBytes;
    Bits w[8];
    unpack_q6_k(block, g % 8, w);
    Bits low = load_scales(block, 2 * (g % 8)), high = load_scales(block, 2 * (g % 8) + 1);
    __m512 d = load_f16(block);
    QUERN_UNROLL
    for (int s = 0; s < 8; ++s) pin(w[s]);
    pin(low);
    pin(high);
    pin(d);
    QUERN_UNROLL
    for (int c = 0; c < C; ++c) {
      Bits t0 = broadcast_i32(a + Block::kBias32Low + 4 * c),
           t1 = broadcast_i32(a + Block::kBias32High + 4 * c);
      pin(t0);
      pin(t1);
      QUERN_UNROLL
      for (int s = 0; s < 4; ++s) {
        dot4(t0, w[s], a + 32 * c + 4 * s);
        dot4(t1, w[4 + s], a + 32 * c + 16 + 4 * s);
      }
      const Bits sum = _mm512_add_epi32(_mm512_mullo_epi32(t0, low), _mm512_mullo_epi32(t1, high));
      const __m512 p = _mm512_mul_ps(d, broadcast_f32(a + Block::kScale + 4 * c));
      acc[c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), p, acc[c]);
      pin(acc[c]);
    }
  }
  QUERN_UNROLL
  for (int c = 0; c < C; ++c) out.store(static_cast<size_t>(c), acc[c]);
}

// The same for one or two tokens, where memory is the limit: a half's bytes are read once, line after line,
// for its four groups together.
template <int C>
QUERN_KERNEL void tile_q6_k_narrow(const uint8_t* panel, size_t groups, const uint8_t* a,
                                   const Output& out) noexcept {
  using Block = TileBlock<C>;
  __m512 acc[C];
  QUERN_UNROLL
  for (int c = 0; c < C; ++c) acc[c] = _mm512_setzero_ps();
  for (size_t g = 0; g < groups; g += 4, a += 4 * Block::kBytes) {
    const uint8_t* const block = panel + g / 8 * Q6_K::kBlockBytes;
    const size_t half = g / 4 % 2;
    const uint8_t* const steps = block + Q6_K::kSteps + half * Q6_K::kHalfBytes;
    Bits sums[2][4][C];  // of the first and the second 16 weights of each group
    QUERN_UNROLL
    for (size_t part = 0; part < 4; ++part) QUERN_UNROLL
    for (size_t c = 0; c < C; ++c) {
      sums[0][part][c] = broadcast_i32(a + part * Block::kBytes + Block::kBias32Low + 4 * c);
      sums[1][part][c] = broadcast_i32(a + part * Block::kBytes + Block::kBias32High + 4 * c);
      pin(sums[0][part][c]);
      pin(sums[1][part][c]);
    }
    QUERN_UNROLL
    for (size_t s = 0; s < 8; ++s) {
      const uint8_t* const step = steps + Q6_K::kStepBytes * s;
      const Bits q0 = load(step), q1 = load(step + 64), high = load(step + 128);
      const Bits mask = _mm512_set1_epi8(0x30);
      Bits w[4] = {_mm512_ternarylogic_epi32(low_nibbles(q0), _mm512_slli_epi32(high, 4), mask, 0xf8),
                   _mm512_ternarylogic_epi32(low_nibbles(q1), _mm512_slli_epi32(high, 2), mask, 0xf8),
                   _mm512_ternarylogic_epi32(high_nibbles(q0), high, mask, 0xf8),
                   _mm512_ternarylogic_epi32(high_nibbles(q1), _mm512_srli_epi32(high, 2), mask, 0xf8)};
      QUERN_UNROLL
      for (size_t part = 0; part < 4; ++part) {
        pin(w[part]);
        QUERN_UNROLL
        for (size_t c = 0; c < C; ++c)
          dot4(sums[s / 4][part][c], w[part], a + part * Block::kBytes + 32 * c + 4 * s);
      }
    }
    const __m512 d = load_f16(block);
    QUERN_UNROLL
    for (size_t part = 0; part < 4; ++part) {
      const Bits low = load_scales(block, 8 * half + 2 * part),
                 high = load_scales(block, 8 * half + 2 * part + 1);
      QUERN_UNROLL
      for (size_t c = 0; c < C; ++c) {
        const Bits sum = _mm512_add_epi32(_mm512_mullo_epi32(sums[0][part][c], low),
                                          _mm512_mullo_epi32(sums[1][part][c], high));
        const __m512 p = _mm512_mul_ps(d, broadcast_f32(a + part * Block::kBytes + Block::kScale + 4 * c));
        acc[c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), p, acc[c]);
      }
    }
  }
  QUERN_UNROLL
  for (int c = 0; c < C; ++c) out.store(static_cast<size_t>(c), acc[c]);
}

using TileFn = void (*)(const uint8_t* panel, size_t groups, const uint8_t* a, const Output& out) noexcept;

// The kernels of one format by the number of tokens, 1 to 16 (tile_width).
struct Tiles {
  TileFn by_tokens[kTileTokens + 1];
  size_t block_bytes, block_groups;
};

template <class Format>
constexpr Tiles kTiles = {
    {nullptr, tile<Format, 1>, tile<Format, 2>, tile<Format, 3>, tile<Format, 4>, tile<Format, 8>,
     tile<Format, 8>, tile<Format, 8>, tile<Format, 8>, tile<Format, 12>, tile<Format, 12>, tile<Format, 12>,
     tile<Format, 12>, tile<Format, 16>, tile<Format, 16>, tile<Format, 16>, tile<Format, 16>},
    Format::kBlockBytes,
    1};
constexpr Tiles kTilesQ6_K = {
    {nullptr, tile_q6_k_narrow<1>, tile_q6_k_narrow<2>, tile_q6_k<3>, tile_q6_k<4>, tile_q6_k<8>,
     tile_q6_k<8>, tile_q6_k<8>, tile_q6_k<8>, tile_q6_k<12>, tile_q6_k<12>, tile_q6_k<12>, tile_q6_k<12>,
     tile_q6_k<16>, tile_q6_k<16>, tile_q6_k<16>, tile_q6_k<16>},
    Q6_K::kBlockBytes,
    8};

// Panels outermost: a panel's weights are read from memory once and meet all tiles of activations, which
// stream from the last-level cache.
void multiply(const MatmulArgs& args, const Tiles& tiles) {
  const size_t groups = args.k / 32, panel_bytes = groups / tiles.block_groups * tiles.block_bytes;
  for (size_t row = args.row_begin; row < args.row_end; row += kPanelRows) {
    const uint8_t* panel = args.weights + row / kPanelRows * panel_bytes;
    const size_t left = args.row_end - row;
    const auto rows = static_cast<__mmask16>(left >= kPanelRows ? 0xffffu : (1u << left) - 1);
    for (size_t token = 0; token < args.n_tokens; token += kTileTokens) {
      const size_t n = args.n_tokens - token < kTileTokens ? args.n_tokens - token : kTileTokens;
      const Output out{args.y + token * args.y_stride + row, args.y_stride, n, rows, args.add};
      tiles.by_tokens[n](panel, groups, args.tiles + token * groups * kTokenBlockBytes, out);
    }
  }
}

}  // namespace

void matmul_q4_0(const MatmulArgs& args) noexcept { multiply(args, kTiles<Q4_0>); }
void matmul_q4_1(const MatmulArgs& args) noexcept { multiply(args, kTiles<Q4_1>); }
void matmul_q5_0(const MatmulArgs& args) noexcept { multiply(args, kTiles<Q5_0>); }
void matmul_q5_1(const MatmulArgs& args) noexcept { multiply(args, kTiles<Q5_1>); }
void matmul_q8_0(const MatmulArgs& args) noexcept { multiply(args, kTiles<Q8_0>); }
void matmul_q6_k(const MatmulArgs& args) noexcept { multiply(args, kTilesQ6_K); }

}  // namespace quern::avx512
