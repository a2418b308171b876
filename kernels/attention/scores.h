// Attention's scores: query x key products of a tile, lanes are keys. Floats here; Q8_0 by a set's own
// CodeKeys, since sets multiply integers in different ways.
//
// Everything is anonymous (see tile.h).
#pragma once

#include <type_traits>

#include "kernels/attention/product.h"

namespace quern::attention {
namespace {

// Scores of a tile from floats. T: F16 or F32.
template <class Config, class T>
struct FloatKeys {
  using Lanes = typename Config::Lanes;

  static FloatKeys of(const State&, Carver&) { return {}; }

  // Few rows: scores straight from the cache.
  void score_direct(const Tile& tile, const State& state) const {
    for_row_groups<Config::kDirectGroup>(state.n_rows, [&]<size_t kRows>(size_t row) {
      for (size_t block = tile.begin / kKvBlockKeys; block * kKvBlockKeys < tile.end; ++block)
        score<kRows, Config::kAhead>(keys_of(tile, state, block), state, row, block);
    });
  }

  // Many rows: one block, through scratch.
  void score_dense(const Tile& tile, const State& state, size_t block) const {
    FloatBlock<F32> keys{bytes_of(state.block)};
    if constexpr (std::is_same_v<T, F32>)
      keys = keys_of(tile, state, block);
    else
      widen_block<Lanes>(keys_of(tile, state, block), state.head_dim, state.block);
    for_row_groups<Config::kDenseGroup>(state.n_rows, [&]<size_t kRows>(size_t row) {
      if (tile.full || sees_block(state, row, kRows, block)) score<kRows, 0>(keys, state, row, block);
    });
  }

 private:
  static FloatBlock<T> keys_of(const Tile& tile, const State& state, size_t block) {
    return {tile.k + block * kKvBlockKeys * state.head_dim * T::kBytes};
  }
  template <size_t kRows, size_t kAhead, class Block>
  static void score(const Block& keys, const State& state, size_t row, size_t block) {
    tile_product<Lanes, kRows, false, kAhead>(
        keys, state.head_dim, state.q + row * state.head_dim, state.head_dim, nullptr,
        state.p + row * kAttentionTile + block * kKvBlockKeys, kAttentionTile);
  }
};

// Steps 1 and 2: scores of all keys of a tile that some row sees, and of others in the same blocks. Keys:
// FloatKeys, or a set's CodeKeys, which has the same members.
template <class Config, class Keys>
void score_tile(const Keys& keys, const Tile& tile, const State& state) {
  if (state.n_rows <= Config::kDirectRows) return keys.score_direct(tile, state);
  for (size_t block = tile.begin / kKvBlockKeys; block * kKvBlockKeys < tile.end; ++block)
    keys.score_dense(tile, state, block);
}

}  // namespace
}  // namespace quern::attention
