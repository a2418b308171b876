// Attention's weighted sums: a tile's values times its probabilities, floats and Q8_0. Lanes are dims.
//
// Everything is anonymous (see tile.h).
#pragma once

#include "kernels/attention/product.h"

namespace quern::attention {
namespace {

// A tile's values as floats or f16.
template <class T>
struct FloatValues {
  static FloatBlock<T> block(const Tile& tile, const State&, size_t i) {
    return {tile.v + i * kAttentionTile * FloatBlock<T>::kStepBytes};
  }

  // The last block of a head_dim that is no multiple of 16, as floats and zeros: [kAttentionTile][16].
  template <class L>
  static void widen_last_block(const Tile& tile, const State& state, float* out) {
    const size_t width = state.head_dim % kKvBlockDims;
    const uint8_t* v = tile.v + (state.head_dim - width) * kAttentionTile * T::kBytes;
    __builtin_memset(out, 0, kAttentionTile * kKvBlockDims * sizeof(float));
    for (size_t key = tile.begin; key < tile.end; ++key)
      for (size_t d = 0; d < width; ++d)
        out[key * kKvBlockDims + d] = L::load1(T{}, v + (key * width + d) * T::kBytes);
  }
};

// A tile's values of Q8_0.
template <class L>
struct CodeValues {
  // Block i: 16 dims of the tile's values, two blocks to a group of 32 that shares its scales. The result
  // points to the group's scales as floats in state.value_scales, which the group's first block has written
  // there: blocks must be asked for in ascending order.
  static CodeBlock block(const Tile& tile, const State& state, size_t i) {
    constexpr size_t kGroupBlocks = kKvGroup / kKvBlockDims, kScaleBytes = 2 * kAttentionTile;
    const uint8_t* const group = tile.v + i / kGroupBlocks * (kScaleBytes + kAttentionTile * kKvGroup);
    for (size_t key = 0; key < kAttentionTile && i % kGroupBlocks == 0; key += L::kCount)
      L::store(state.value_scales + key, L::load(F16{}, group + 2 * key));
    return {group + kScaleBytes + i % kGroupBlocks * kAttentionTile * kKvBlockDims, state.value_scales};
  }

  template <class>
  static void widen_last_block(const Tile&, const State&, float*) {}  // there are none
};

// Step 5 for 16 dims of kRows rows from `row` on, which may see different keys: what all see together, what
// only some see row by row, in each row's ascending order. sums: of the first row.
template <class L, size_t kRows, size_t kAhead, class Block>
void weigh_rows(const Block& values, const Tile& tile, const State& state, size_t row, float* sums,
                size_t sums_stride) {
  const Range* const ranges = state.ranges + row;
  const float *const p = state.p + row * kAttentionTile, *const alpha = state.alpha + row;
  const auto together = [&](Range keys, const float* scale) {
    tile_product<L, kRows, true, kAhead>(values.from(keys.begin), keys.end - keys.begin, p + keys.begin,
                                         kAttentionTile, scale, sums, sums_stride);
  };
  if (tile.full) return together({0, kAttentionTile}, alpha);
  Range common = ranges[0];
  bool same = true;
  for (size_t r = 1; r < kRows; ++r) {
    same = same && ranges[r].begin == common.begin && ranges[r].end == common.end;
    if (ranges[r].begin > common.begin) common.begin = ranges[r].begin;
    if (ranges[r].end < common.end) common.end = ranges[r].end;
  }
  if (same) {
    if (!common.empty()) together(common, alpha);
    return;
  }
  const auto alone = [&](size_t r, uint32_t begin, uint32_t end, const float* scale) {
    tile_product<L, 1, true, 0>(values.from(begin), end - begin, p + r * kAttentionTile + begin,
                                kAttentionTile, scale, sums + r * sums_stride, sums_stride);
  };
  if (common.begin >= common.end) {
    for (size_t r = 0; r < kRows; ++r)
      if (!ranges[r].empty()) alone(r, ranges[r].begin, ranges[r].end, alpha + r);
    return;
  }
  // A product with 1 changes nothing: alpha comes in with a row's first keys.
  float scale[kRows];
  for (size_t r = 0; r < kRows; ++r) {
    scale[r] = alpha[r];
    if (ranges[r].begin == common.begin) continue;
    alone(r, ranges[r].begin, common.begin, alpha + r);
    scale[r] = 1;
  }
  together(common, scale);
  for (size_t r = 0; r < kRows; ++r) {
    scale[r] = 1;
    if (ranges[r].end != common.end) alone(r, common.end, ranges[r].end, scale + r);
  }
}

// A tile's block as floats: where it lies, or in scratch.
template <class L>
FloatBlock<F32> as_floats(FloatBlock<F32> values, const Tile&, const State&) {
  return values;
}
template <class L, class Block>
FloatBlock<F32> as_floats(const Block& values, const Tile& tile, const State& state) {
  widen_block<L>(values.from(tile.begin), tile.end - tile.begin, state.block + tile.begin * kKvBlockDims);
  return {bytes_of(state.block)};
}

// A block of floats for all rows.
template <class Config>
void weigh_dense(FloatBlock<F32> values, const Tile& tile, const State& state, float* sums,
                 size_t sums_stride) {
  for_row_groups<Config::kDenseGroup>(state.n_rows, [&]<size_t kRows>(size_t row) {
    weigh_rows<typename Config::Lanes, kRows, 0>(values, tile, state, row, sums + row * sums_stride,
                                                 sums_stride);
  });
}

// Dims beyond the last multiple of 16: through scratch, and sums as wide as a block.
template <class Config, class Values>
void weigh_last_block(const Tile& tile, const State& state) {
  const size_t n = state.head_dim, width = n % kKvBlockDims;
  Values::template widen_last_block<typename Config::Lanes>(tile, state, state.block);
  for (size_t row = 0; row < state.n_rows; ++row)
    for (size_t d = 0; d < width; ++d)
      state.edge[row * kKvBlockDims + d] = state.acc[row * n + n - width + d];
  weigh_dense<Config>({bytes_of(state.block)}, tile, state, state.edge, kKvBlockDims);
  for (size_t row = 0; row < state.n_rows; ++row)
    for (size_t d = 0; d < width; ++d)
      state.acc[row * n + n - width + d] = state.edge[row * kKvBlockDims + d];
}

// Step 5 for a tile. Values: FloatValues or CodeValues.
template <class Config, class Values>
void weigh_tile(const Tile& tile, const State& state) {
  using Lanes = typename Config::Lanes;
  const size_t n = state.head_dim, n_blocks = n / kKvBlockDims;
  if (state.n_rows <= Config::kDirectRows) {
    for_row_groups<Config::kDirectGroup>(state.n_rows, [&]<size_t kRows>(size_t row) {
      for (size_t i = 0; i < n_blocks; ++i)
        weigh_rows<Lanes, kRows, Config::kAhead>(Values::block(tile, state, i), tile, state, row,
                                                 state.acc + row * n + i * kKvBlockDims, n);
    });
  } else {
    for (size_t i = 0; i < n_blocks; ++i) {
      const FloatBlock<F32> values = as_floats<Lanes>(Values::block(tile, state, i), tile, state);
      weigh_dense<Config>(values, tile, state, state.acc + i * kKvBlockDims, n);
    }
  }
  if (n % kKvBlockDims != 0) weigh_last_block<Config, Values>(tile, state);
}

}  // namespace
}  // namespace quern::attention
