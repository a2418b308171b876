// Attention's scores with AVX2: query x key products of a tile, floats and Q8_0. Lanes are keys.
//
// Q8_0: keys as pairs of int16, two codes of each: vpmaddwd gives a key's exact sum with two query codes in
// its lane (with int8 pairs, vpsignb and vpmaddubsw need half as many instructions again per product).
//
// Everything is anonymous (see unpack.h). Included by kernels/avx2/attention.cc only.
#pragma once

#include <type_traits>

#include "kernels/avx2/attention_tile.h"
#include "kernels/avx2/code_pairs.h"

namespace quern::avx2 {
namespace {

// Scores of kBlocks neighbouring blocks of 16 keys for kRows rows. q: of the first row. ahead: prefetched; as
// many bytes as the keys take.
template <class T, size_t kRows, size_t kBlocks, bool kPrefetch>
QUERN_KERNEL void score_floats(const uint8_t* k, const uint8_t* ahead, const float* q, size_t head_dim,
                               float* scores) {
  __m256 s[kRows][kBlocks][2];
  QUERN_UNROLL
  for (size_t r = 0; r < kRows; ++r) {
    QUERN_UNROLL
    for (size_t b = 0; b < kBlocks; ++b) s[r][b][0] = s[r][b][1] = _mm256_setzero_ps();
  }
  constexpr size_t kDimBytes = kKvBlockKeys * T::kBytes;
  const size_t block_bytes = head_dim * kDimBytes;
  const auto add_dim = [&](size_t d) QUERN_INLINED {
    QUERN_UNROLL
    for (size_t b = 0; b < kBlocks; ++b) {
      const uint8_t* const keys = k + b * block_bytes + d * kDimBytes;
      const __m256 low = T::load8(keys), high = T::load8(keys + 8 * T::kBytes);
      QUERN_UNROLL
      for (size_t r = 0; r < kRows; ++r) {
        const __m256 query = _mm256_broadcast_ss(q + r * head_dim + d);
        s[r][b][0] = _mm256_fmadd_ps(query, low, s[r][b][0]);
        s[r][b][1] = _mm256_fmadd_ps(query, high, s[r][b][1]);
      }
    }
  };
  constexpr size_t kLineDims = kCacheLine / kDimBytes;  // F16: 2, F32: 1
  size_t d = 0;
  for (; d + kLineDims <= head_dim; d += kLineDims) {
    if (kPrefetch) {
      QUERN_UNROLL
      for (size_t b = 0; b < kBlocks; ++b) prefetch(ahead + b * block_bytes + d * kDimBytes);
    }
    QUERN_UNROLL
    for (size_t i = 0; i < kLineDims; ++i) add_dim(d + i);
  }
  for (; d < head_dim; ++d) add_dim(d);
  QUERN_UNROLL
  for (size_t r = 0; r < kRows; ++r) {
    QUERN_UNROLL
    for (size_t b = 0; b < kBlocks; ++b) {
      float* const out = scores + r * kAttentionTile + b * kKvBlockKeys;
      _mm256_storeu_ps(out, s[r][b][0]);
      _mm256_storeu_ps(out + 8, s[r][b][1]);
    }
  }
}

// Adds two codes of 16 keys times two of each row's. q: row stride head_dim.
// Not matmul_q8_0.cc's step in assembly: with a row stride g++ then keeps an address for each row and step, a
// quarter more instructions for four rows.
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

// Scores of 16 keys of Q8_0 for kRows rows. panel: head_dim / 32 NarrowBlocks or WideBlocks. ahead:
// prefetched; as many bytes as the keys take.
template <class Block, size_t kRows, bool kPrefetch>
QUERN_KERNEL void score_codes(const uint8_t* panel, const uint8_t* ahead, const int16_t* q,
                              const float* q_scales, size_t head_dim, float* scores) {
  const size_t n_blocks = head_dim / kKvGroup;
  for (size_t block = 0; block < n_blocks; ++block, panel += Block::kBytes, q += kKvGroup) {
    Bits sum[kRows][2];
    QUERN_UNROLL
    for (size_t r = 0; r < kRows; ++r) sum[r][0] = sum[r][1] = _mm256_setzero_si256();
    QUERN_UNROLL
    for (size_t step = 0; step < 8; ++step) {
      if (kPrefetch) prefetch(ahead + block * Block::kBytes + 64 * step);
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

// Scores of a tile from one KvType's keys. T: F16 or F32.
template <class T>
struct FloatKeys {
  // Few rows: scores straight from the cache.
  static void score_direct(const Tile& tile, const State& state) {
    for_row_groups<kDirectGroup>(state.n_rows, [&]<size_t kRows>(size_t row) {
      constexpr size_t kBlocks = kDirectGroup / kRows;  // 4, 2, 1, 1
      const size_t end = (tile.end + kKvBlockKeys - 1) / kKvBlockKeys;
      size_t block = tile.begin / kKvBlockKeys;
      for (; block + kBlocks <= end; block += kBlocks) score_some<kRows, kBlocks>(tile, state, row, block);
      for (; block < end; ++block) score_some<kRows, 1>(tile, state, row, block);
    });
  }
  // Many rows: one block, through scratch.
  static void score_dense(const Tile& tile, const State& state, size_t block) {
    const size_t n = state.head_dim * kKvBlockKeys;
    const uint8_t* keys = tile.k + block * n * T::kBytes;
    if constexpr (!std::is_same_v<T, F32>) {
      for (size_t i = 0; i < n; i += 8) _mm256_storeu_ps(state.keys + i, T::load8(keys + i * T::kBytes));
      keys = bytes_of(state.keys);
    }
    for_row_groups<kDenseGroup>(state.n_rows, [&]<size_t kRows>(size_t row) {
      if (!tile.full && !sees_block(state, row, kRows, block)) return;
      score_floats<F32, kRows, 1, false>(keys, nullptr, state.q + row * state.head_dim, state.head_dim,
                                         state.p + row * kAttentionTile + block * kKvBlockKeys);
    });
  }

 private:
  template <size_t kRows, size_t kBlocks>
  static void score_some(const Tile& tile, const State& state, size_t row, size_t block) {
    const size_t at = block * state.head_dim * kKvBlockKeys * T::kBytes;
    score_floats<T, kRows, kBlocks, true>(tile.k + at, tile.v + at, state.q + row * state.head_dim,
                                          state.head_dim,
                                          state.p + row * kAttentionTile + block * kKvBlockKeys);
  }
};

struct CodeKeys {
  static void score_direct(const Tile& tile, const State& state) {
    const size_t panel_bytes = state.head_dim / kKvGroup * NarrowBlock::kBytes;
    for_row_groups<kDirectGroup>(state.n_rows, [&]<size_t kRows>(size_t row) {
      for (size_t block = tile.begin / kKvBlockKeys; block * kKvBlockKeys < tile.end; ++block)
        score_some<NarrowBlock, kRows, true>(tile.k + block * panel_bytes, tile.v + block * panel_bytes,
                                             state, row, block);
    });
  }
  static void score_dense(const Tile& tile, const State& state, size_t block) {
    const size_t n_blocks = state.head_dim / kKvGroup;
    uint8_t* const wide = bytes_of(state.keys);
    widen_blocks(tile.k + block * n_blocks * NarrowBlock::kBytes, n_blocks, wide);
    for_row_groups<kDirectGroup>(state.n_rows, [&]<size_t kRows>(size_t row) {
      if (!tile.full && !sees_block(state, row, kRows, block)) return;
      score_some<WideBlock, kRows, false>(wide, nullptr, state, row, block);
    });
  }

 private:
  template <class Block, size_t kRows, bool kPrefetch>
  static void score_some(const uint8_t* panel, const uint8_t* ahead, const State& state, size_t row,
                         size_t block) {
    score_codes<Block, kRows, kPrefetch>(panel, ahead, state.q_codes + row * state.head_dim,
                                         state.q_scales + row * (state.head_dim / kKvGroup), state.head_dim,
                                         state.p + row * kAttentionTile + block * kKvBlockKeys);
  }
};

// Steps 1 and 2: scores of all keys of a tile that some row sees, and of others in the same blocks. Keys:
// FloatKeys or CodeKeys.
template <class Keys>
void score_tile(const Tile& tile, const State& state) {
  if (state.n_rows <= kDirectRows) return Keys::score_direct(tile, state);
  for (size_t block = tile.begin / kKvBlockKeys; block * kKvBlockKeys < tile.end; ++block)
    Keys::score_dense(tile, state, block);
}

}  // namespace
}  // namespace quern::avx2
