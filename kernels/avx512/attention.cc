// Attention with AVX-512: kernels/attention's loops over sixteen lanes.
//
// One FMA of sixteen lanes starts per cycle and takes four, so four rows are as many chains as are needed.
// Eight rows that share a conversion read the cache once (eight heads, one thread on Zen 4, F16: 12.0 GB/s
// instead of 9.0 in groups of four; the FMAs allow 14.7).
#include "kernels/attention/segment.h"
#include "kernels/avx2/avx2_ops.h"
#include "kernels/avx512/avx512_kernels.h"
#include "kernels/avx512/float_lanes.h"

namespace quern::avx512 {

namespace {

using attention::Carver;
using attention::State;
using attention::Tile;

// Scores of a tile from Q8_0: keys are a panel of Q8_0, queries its activations.
struct CodeProducts {
  const uint8_t* tiles;  // of all rows

  static CodeProducts of(const State& state, Carver& carver) {
    const size_t n_rows = state.n_rows, head_dim = state.head_dim, n_groups = head_dim / kKvGroup;
    uint8_t* const tiles = attention::bytes_of(carver.floats(kTiles.bytes(n_rows, head_dim) / sizeof(float)));
    const QuantizedRows rows{reinterpret_cast<int8_t*>(carver.floats(n_rows * head_dim / 4)),
                             carver.floats(n_rows * n_groups),
                             reinterpret_cast<int16_t*>(carver.floats(n_rows * n_groups * 2))};
    avx2::quantize_activations(state.q, n_rows, head_dim, rows);
    kTiles.pack(rows, n_rows, head_dim, 0, n_rows, tiles);
    return {tiles};
  }

  void score_direct(const Tile& tile, const State& state) const {
    score(tile, state, tile.begin / kKvBlockKeys, (tile.end + kKvBlockKeys - 1) / kKvBlockKeys);
  }
  void score_dense(const Tile& tile, const State& state, size_t block) const {
    score(tile, state, block, block + 1);
  }

 private:
  void score(const Tile& tile, const State& state, size_t begin, size_t end) const {
    MatmulArgs args{};
    args.weights = tile.k;
    args.k = state.head_dim;
    args.row_begin = begin * kKvBlockKeys;
    args.row_end = end * kKvBlockKeys;
    args.n_tokens = state.n_rows;
    args.tiles = tiles;
    args.y = state.p;
    args.y_stride = kAttentionTile;
    matmul_q8_0(args);
  }
};

struct Config {
  using Lanes = Lanes16;
  using CodeKeys = CodeProducts;
  static constexpr size_t kDirectRows = 8, kDirectGroup = 8, kDenseGroup = 8;
  static constexpr size_t kAhead = 0;  // asking 0.5 to 16 KB ahead was slower by up to 10 % (Zen 4)
};

}  // namespace

void attend_segment(const AttentionArgs& args, size_t segment, float* part) noexcept {
  attention::attend<Config>(args, segment, part);
}

void merge_segment(const AttentionArgs& args, size_t segment, const float* part, float* total) noexcept {
  attention::merge<Lanes16>(args, segment, part, total);
}

}  // namespace quern::avx512
