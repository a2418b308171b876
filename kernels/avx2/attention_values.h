// Attention's weighted sums with AVX2: a tile's values times its probabilities, floats and Q8_0. Lanes are
// dims.
//
// Everything is anonymous (see unpack.h). Included by kernels/avx2/attention.cc only.
#pragma once

#include "kernels/avx2/attention_tile.h"
#include "kernels/avx2/unpack.h"

namespace quern::avx2 {
namespace {

// Values of a tile from some dim on, as floats or f16.
template <class T>
struct FloatValues {
  static constexpr size_t kElementBytes = T::kBytes;
  const uint8_t* v;
  size_t stride;  // from key to key, in elements

  static FloatValues of(const Tile& tile, const State& state) { return {tile.v, state.head_dim}; }
  QUERN_INLINE FloatValues at(size_t key, size_t d) const {
    return {v + (key * stride + d) * T::kBytes, stride};
  }
  QUERN_INLINE void next_key() { v += stride * T::kBytes; }
  QUERN_INLINE __m256 load8(size_t i) const { return T::load8(v + 8 * i * T::kBytes); }
  QUERN_INLINE float load1() const { return T::load1(v); }
};

// Values of Q8_0.
struct CodeValues {
  static constexpr size_t kElementBytes = 1;
  const int8_t* codes;
  const float* scales;  // of the group that the first dim is in
  size_t head_dim, dim;

  // Writes the scales of the tile's values to state.value_scales, as floats.
  static CodeValues of(const Tile& tile, const State& state) {
    const size_t n = kAttentionTile * (state.head_dim / kKvGroup);
    const uint8_t* d = tile.v + kAttentionTile * state.head_dim;
    for (size_t i = 0; i < n; i += 8) _mm256_storeu_ps(state.value_scales + i, load_f16(d + 2 * i));
    return {reinterpret_cast<const int8_t*>(tile.v), state.value_scales, state.head_dim, 0};
  }
  QUERN_INLINE CodeValues at(size_t key, size_t d) const {
    const size_t groups = head_dim / kKvGroup;
    return {codes + key * head_dim + d, scales + key * groups + (dim + d) / kKvGroup - dim / kKvGroup,
            head_dim, dim + d};
  }
  QUERN_INLINE void next_key() {
    codes += head_dim;
    scales += head_dim / kKvGroup;
  }
  // Dims from a multiple of 32 on; or fewer than 32 within one group.
  QUERN_INLINE __m256 load8(size_t i) const {
    const Bits wide = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes + 8 * i)));
    return _mm256_mul_ps(_mm256_cvtepi32_ps(wide), _mm256_broadcast_ss(scales + i / 4));
  }
};

// Step 5 for kVectors * 8 dims of kRows rows and n_keys keys. values: at the first of these. ahead: as many
// bytes, prefetched. acc: row stride head_dim.
template <class Values, size_t kRows, size_t kVectors, bool kPrefetch>
QUERN_KERNEL void weigh(const Values& values_in, const uint8_t* ahead, size_t n_keys, const float* p,
                        const float* alpha, size_t head_dim, float* acc) {
  Values values = values_in;
  __m256 a[kRows][kVectors];
  QUERN_UNROLL
  for (size_t r = 0; r < kRows; ++r) {
    QUERN_UNROLL
    for (size_t i = 0; i < kVectors; ++i)
      a[r][i] = _mm256_mul_ps(_mm256_loadu_ps(acc + r * head_dim + i * 8), _mm256_set1_ps(alpha[r]));
  }
  const auto add_key = [&](size_t j) QUERN_INLINED {
    // What is fewer stays in registers while the others come and go.
    if constexpr (kVectors <= kRows) {
      __m256 v[kVectors];
      QUERN_UNROLL
      for (size_t i = 0; i < kVectors; ++i) v[i] = values.load8(i);
      QUERN_UNROLL
      for (size_t r = 0; r < kRows; ++r) {
        const __m256 weight = _mm256_broadcast_ss(p + r * kAttentionTile + j);
        QUERN_UNROLL
        for (size_t i = 0; i < kVectors; ++i) a[r][i] = _mm256_fmadd_ps(weight, v[i], a[r][i]);
      }
    } else {
      __m256 weights[kRows];
      QUERN_UNROLL
      for (size_t r = 0; r < kRows; ++r) weights[r] = _mm256_broadcast_ss(p + r * kAttentionTile + j);
      QUERN_UNROLL
      for (size_t i = 0; i < kVectors; ++i) {
        const __m256 v = values.load8(i);
        QUERN_UNROLL
        for (size_t r = 0; r < kRows; ++r) a[r][i] = _mm256_fmadd_ps(weights[r], v, a[r][i]);
      }
    }
    values.next_key();
  };
  constexpr size_t kKeyBytes = kVectors * 8 * Values::kElementBytes;
  constexpr size_t kLineKeys = kKeyBytes < kCacheLine ? kCacheLine / kKeyBytes : 1;
  size_t j = 0;
  for (; j + kLineKeys <= n_keys; j += kLineKeys) {
    if (kPrefetch) {
      QUERN_UNROLL
      for (size_t line = 0; line < kLineKeys * kKeyBytes; line += kCacheLine) prefetch(ahead + line);
      ahead += kLineKeys * kKeyBytes;
    }
    QUERN_UNROLL
    for (size_t i = 0; i < kLineKeys; ++i) add_key(j + i);
  }
  for (; j < n_keys; ++j) add_key(j);
  QUERN_UNROLL
  for (size_t r = 0; r < kRows; ++r) {
    QUERN_UNROLL
    for (size_t i = 0; i < kVectors; ++i) _mm256_storeu_ps(acc + r * head_dim + i * 8, a[r][i]);
  }
}

// The same for a tile and kRows rows that may see different keys (full: all see all): what all see together,
// what only some see row by row, in each row's ascending order.
template <class Values, size_t kRows, size_t kVectors, bool kPrefetch>
void weigh_ranges(const Values& values, const uint8_t* ahead, bool full, const Range* ranges, const float* p,
                  const float* alpha, size_t head_dim, float* acc) {
  if (full)
    return weigh<Values, kRows, kVectors, kPrefetch>(values, ahead, kAttentionTile, p, alpha, head_dim, acc);
  Range common = ranges[0];
  bool same = true;
  for (size_t r = 1; r < kRows; ++r) {
    same = same && ranges[r].begin == common.begin && ranges[r].end == common.end;
    if (ranges[r].begin > common.begin) common.begin = ranges[r].begin;
    if (ranges[r].end < common.end) common.end = ranges[r].end;
  }
  if (same) {
    if (!common.empty())
      weigh<Values, kRows, kVectors, kPrefetch>(values.at(common.begin, 0), ahead, common.end - common.begin,
                                                p + common.begin, alpha, head_dim, acc);
    return;
  }
  const auto alone = [&](size_t r, uint32_t begin, uint32_t end, const float* scale) {
    weigh<Values, 1, kVectors, false>(values.at(begin, 0), nullptr, end - begin,
                                      p + r * kAttentionTile + begin, scale, head_dim, acc + r * head_dim);
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
  weigh<Values, kRows, kVectors, kPrefetch>(values.at(common.begin, 0), ahead, common.end - common.begin,
                                            p + common.begin, scale, head_dim, acc);
  for (size_t r = 0; r < kRows; ++r) {
    scale[r] = 1;
    if (ranges[r].end != common.end) alone(r, common.end, ranges[r].end, scale + r);
  }
}

// One dim beyond the last multiple of 8.
template <class T>
void weigh_one_dim(const FloatValues<T>& values, Range range, const float* p, float alpha, float* acc) {
  float a = *acc * alpha;
  for (size_t j = range.begin; j < range.end; ++j) a = __builtin_fmaf(p[j], values.at(j, 0).load1(), a);
  *acc = a;
}

// Dims beyond the last multiple of 8. Heads of codes have none.
template <class T>
void weigh_last_dims(const FloatValues<T>& values, size_t d, const State& state) {
  for (; d < state.head_dim; ++d)
    for (size_t row = 0; row < state.n_rows; ++row)
      if (!state.ranges[row].empty())
        weigh_one_dim(values.at(0, d), state.ranges[row], state.p + row * kAttentionTile, state.alpha[row],
                      state.acc + row * state.head_dim + d);
}
void weigh_last_dims(const CodeValues&, size_t, const State&) {}

// Few rows: values straight from the cache.
template <class Values>
void weigh_direct(const Values& values, const Tile& tile, const State& state) {
  const size_t head_dim = state.head_dim;
  for_row_groups<kDirectGroup>(state.n_rows, [&]<size_t kRows>(size_t row) {
    constexpr size_t kVectors = 8 / kRows;  // 8, 4, 2, 2
    const auto some = [&]<size_t kSome>(size_t d) {
      weigh_ranges<Values, kRows, kSome, true>(values.at(0, d),
                                               tile.next_k + d * kAttentionTile * Values::kElementBytes,
                                               tile.full, state.ranges + row, state.p + row * kAttentionTile,
                                               state.alpha + row, head_dim, state.acc + row * head_dim + d);
    };
    size_t d = 0;
    for (; d + 8 * kVectors <= head_dim; d += 8 * kVectors) some.template operator()<kVectors>(d);
    for (; d + 8 <= head_dim; d += 8) some.template operator()<1>(d);
  });
  weigh_last_dims(values, head_dim / 8 * 8, state);
}

// Many rows: through scratch, some dims at a time.
template <class Values>
void weigh_dense(const Values& values, const Tile& tile, const State& state) {
  const size_t head_dim = state.head_dim;
  const FloatValues<F32> slab{bytes_of(state.values), kSlabDims};
  const auto some = [&]<size_t kVectors>(size_t d) {
    for (size_t j = tile.begin; j < tile.end; ++j) {
      const auto from = values.at(j, d);
      QUERN_UNROLL
      for (size_t i = 0; i < kVectors; ++i)
        _mm256_storeu_ps(state.values + j * kSlabDims + 8 * i, from.load8(i));
    }
    for_row_groups<kDenseGroup>(state.n_rows, [&]<size_t kRows>(size_t row) {
      weigh_ranges<FloatValues<F32>, kRows, kVectors, false>(
          slab, nullptr, tile.full, state.ranges + row, state.p + row * kAttentionTile, state.alpha + row,
          head_dim, state.acc + row * head_dim + d);
    });
  };
  size_t d = 0;
  for (; d + kSlabDims <= head_dim; d += kSlabDims) some.template operator()<2>(d);
  if (d + 8 <= head_dim) {
    some.template operator()<1>(d);
    d += 8;
  }
  weigh_last_dims(values, d, state);
}

// Step 5 for a tile. Values: FloatValues or CodeValues.
template <class Values>
void weigh_tile(const Tile& tile, const State& state) {
  const Values values = Values::of(tile, state);
  if (state.n_rows <= kDirectRows)
    weigh_direct(values, tile, state);
  else
    weigh_dense(values, tile, state);
}

}  // namespace
}  // namespace quern::avx2
