// Attention with AVX2, FMA and F16C: kernels/attention's loops over eight lanes.
//
// FMA takes four cycles and two start per cycle (Zen 2 and later, Intel since Haswell about the same): four
// rows are eight chains, as many as are needed; six are twelve accumulators, which with a block's lanes and a
// broadcast fill the sixteen registers.
#include "kernels/attention/segment.h"
#include "kernels/avx2/avx2_ops.h"
#include "kernels/avx2/code_pairs.h"
#include "kernels/avx2/float_lanes.h"

namespace quern::avx2 {

namespace {

using attention::Carver;
using attention::State;
using attention::Tile;

// Adds two codes of 16 keys times two of each row's. q: row stride head_dim.
// Not the step in assembly of products with Q8_0: with a row stride g++ then keeps an address for each row
// and step, a quarter more instructions for four rows.
template <size_t kRows>
QUERN_INLINE void add_pairs(const Codes& keys, const int16_t* q, size_t head_dim, Bits sum[kRows][2]) {
  Bits low = keys.rows[0], high = keys.rows[1];
  pin(low, high);
  QUERN_UNROLL
  for (size_t r = 0; r < kRows; ++r) {
    const Bits query = broadcast4(q + r * head_dim);
    sum[r][0] = _mm256_add_epi32(sum[r][0], _mm256_madd_epi16(low, query));
    sum[r][1] = _mm256_add_epi32(sum[r][1], _mm256_madd_epi16(high, query));
    pin(sum[r][0], sum[r][1]);
  }
}

// How far ahead few rows ask for the cache, in bytes: what one stream of packed weights is best with on Zen 3
// (matmul_driver.h). Of attention measured on Zen 4 only, where 0, 1536 and 16384 are within 5 %.
constexpr size_t kAhead = 1536;

// Scores of 16 keys of Q8_0 for kRows rows. panel: head_dim / 32 NarrowBlocks or WideBlocks.
template <class Block, size_t kRows, bool kPrefetch>
QUERN_KERNEL void score_codes(const uint8_t* panel, const int16_t* q, const float* q_scales, size_t head_dim,
                              float* scores) {
  const size_t n_blocks = head_dim / kKvGroup;
  for (size_t block = 0; block < n_blocks; ++block, panel += Block::kBytes, q += kKvGroup) {
    Bits sum[kRows][2];
    QUERN_UNROLL
    for (size_t r = 0; r < kRows; ++r) sum[r][0] = sum[r][1] = _mm256_setzero_si256();
    QUERN_UNROLL
    for (size_t step = 0; step < 8; ++step) {
      if (kPrefetch) prefetch(panel + kAhead + 64 * step);
      add_pairs<kRows>(Block::even(panel, step), q + 4 * step, head_dim, sum);
      add_pairs<kRows>(Block::odd(panel, step), q + 4 * step + 2, head_dim, sum);
    }
    QUERN_UNROLL
    for (size_t half = 0; half < 2; ++half) {
      const __m256 d = Block::scale(panel, half);
      QUERN_UNROLL
      for (size_t r = 0; r < kRows; ++r) {
        float* out = scores + r * kAttentionTile + 8 * half;
        const __m256 scale = _mm256_mul_ps(d, _mm256_broadcast_ss(q_scales + r * n_blocks + block));
        const __m256 before = block == 0 ? _mm256_setzero_ps() : _mm256_loadu_ps(out);
        _mm256_storeu_ps(out, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[r][half]), scale, before));
      }
    }
  }
}

// Scores of a tile from Q8_0: keys as pairs of int16, two codes of each: vpmaddwd gives a key's exact sum
// with two query codes in its lane (with int8 pairs, vpsignb and vpmaddubsw need half as many instructions
// again per product).
struct CodePairs {
  static constexpr size_t kGroup = 4;  // rows whose sums, two registers each, leave room for a step's keys
  const int16_t* q;                    // [n_rows, head_dim], of four codes 0, 2, 1, 3
  const float* q_scales;               // [n_rows, head_dim / 32]

  static CodePairs of(const State& state, Carver& carver) {
    const size_t n_rows = state.n_rows, head_dim = state.head_dim;
    int16_t* codes = reinterpret_cast<int16_t*>(carver.floats(n_rows * head_dim / 2));
    float* const scales = carver.floats(n_rows * (head_dim / kKvGroup));
    int8_t* const plain = reinterpret_cast<int8_t*>(carver.floats(head_dim / 4));
    int16_t* const sums = reinterpret_cast<int16_t*>(carver.floats(head_dim / 16));
    const CodePairs keys{codes, scales};
    for (size_t row = 0; row < n_rows; ++row) {
      quantize_activations(state.q + row * head_dim, 1, head_dim,
                           {plain, scales + row * (head_dim / kKvGroup), sums});
      for (size_t d = 0; d < head_dim; d += 4, codes += 4) {
        codes[0] = plain[d];
        codes[1] = plain[d + 2];
        codes[2] = plain[d + 1];
        codes[3] = plain[d + 3];
      }
    }
    return keys;
  }

  void score_direct(const Tile& tile, const State& state) const {
    const size_t panel_bytes = state.head_dim / kKvGroup * NarrowBlock::kBytes;
    attention::for_row_groups<kGroup>(state.n_rows, [&]<size_t kRows>(size_t row) {
      for (size_t block = tile.begin / kKvBlockKeys; block * kKvBlockKeys < tile.end; ++block)
        score_some<NarrowBlock, kRows, true>(tile.k + block * panel_bytes, state, row, block);
    });
  }

  void score_dense(const Tile& tile, const State& state, size_t block) const {
    const size_t n_blocks = state.head_dim / kKvGroup;
    uint8_t* const wide = attention::bytes_of(state.block);  // less than floats take
    widen_blocks(tile.k + block * n_blocks * NarrowBlock::kBytes, n_blocks, wide);
    attention::for_row_groups<kGroup>(state.n_rows, [&]<size_t kRows>(size_t row) {
      if (!tile.full && !attention::sees_block(state, row, kRows, block)) return;
      score_some<WideBlock, kRows, false>(wide, state, row, block);
    });
  }

 private:
  template <class Block, size_t kRows, bool kPrefetch>
  void score_some(const uint8_t* panel, const State& state, size_t row, size_t block) const {
    score_codes<Block, kRows, kPrefetch>(panel, q + row * state.head_dim,
                                         q_scales + row * (state.head_dim / kKvGroup), state.head_dim,
                                         state.p + row * kAttentionTile + block * kKvBlockKeys);
  }
};

struct Config {
  using Lanes = Lanes8;
  using CodeKeys = CodePairs;
  static constexpr size_t kDirectRows = 8;  // two tokens of four heads: a tile is converted twice
  static constexpr size_t kDirectGroup = 4, kAhead = avx2::kAhead, kDenseGroup = 6;
};

}  // namespace

void attend_segment(const AttentionArgs& args, size_t segment, float* part) noexcept {
  attention::attend<Config>(args, segment, part);
}

void merge_segment(const AttentionArgs& args, size_t segment, const float* part, float* total) noexcept {
  attention::merge<Lanes8>(args, segment, part, total);
}

}  // namespace quern::avx2
