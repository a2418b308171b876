// Attention with AVX2, FMA and F16C: the scalar set's bits.
//
// The rows of a block are query heads of some tokens; all share one head's keys and values.
//
// Scores: lanes are keys (the cache interleaves K by 16), so the chain over head_dim that the definition asks
// for runs in 16 keys x rows independent lanes. Values: lanes are dims, the chain runs over keys. FMA takes
// four cycles and two start per cycle (Zen 2 and later, Intel since Haswell about the same), so each loop
// keeps eight or twelve accumulators; with the loaded values and a broadcast that fills the sixteen
// registers.
//
// Few rows (decode): a tile's keys and values are read where they lie and converted in registers, once for up
// to four rows. Long caches come from memory: while a tile's keys are scored its values are prefetched, while
// its values are weighed the next tile's keys are. Both in address order, so that the hardware's prefetchers
// follow (4 heads, F16, GB/s a core on Zen 4: none 8.5, keys in the order in which values are weighed 10.9,
// in address order 16.2).
//
// Many rows (prefill): 16 keys, and 16 dims of 64 values, are first converted into scratch that stays in the
// L1 cache while all rows pass over it, six at a time.
//
// Q8_0: keys as pairs of int16, two codes of each: vpmaddwd gives a key's exact sum with two query codes in
// its lane (with int8 pairs, vpsignb and vpmaddubsw need half as many instructions again per product).
#include <immintrin.h>

#include <type_traits>

#include "kernels/avx2/avx2_ops.h"
#include "kernels/avx2/code_pairs.h"
#include "kernels/avx2/exp2q.h"
#include "kernels/avx2/lanes.h"

namespace quern::avx2 {

namespace {

constexpr size_t kDirectRows = 8;   // up to so many rows read the cache where it lies
constexpr size_t kDirectGroup = 4;  // rows that share one conversion in registers
constexpr size_t kDenseGroup = 6;   // rows x two vectors of a tile in scratch
constexpr size_t kSlabDims = 16;    // dims of a tile's values that are converted at once
constexpr size_t kCacheLine = 64;

// Valid keys [begin, end) of a row within a tile, counted from the tile's first key. Empty: begin == end.
struct Range {
  uint32_t begin, end;
  bool empty() const { return begin == end; }
};

// Everything that attend_segment() carries from tile to tile, in the caller's scratch and part.
struct State {
  size_t n_rows, head_dim;
  const float* q;          // [n_rows, head_dim], scaled
  const int16_t* q_codes;  // Q8_0: [n_rows, head_dim], of four codes 0, 2, 1, 3
  const float* q_scales;   // Q8_0: [n_rows, head_dim / 32]
  float* p;                // [n_rows, kAttentionTile]: scores, then probabilities
  float* lanes;            // [n_rows, 16]
  float* alpha;            // [n_rows], of the tile
  Range* ranges;           // [n_rows], of the tile
  float* keys;             // a block of keys, converted; Q8_0: WideBlocks, which take no more
  float* values;           // [kAttentionTile, kSlabDims]
  float* value_scales;     // Q8_0: [kAttentionTile, head_dim / 32], of the tile
  float *acc, *m, *l;      // the part
};

// Takes arrays from scratch, each at the beginning of a cache line.
class Carver {
 public:
  explicit Carver(float* scratch) : next_(scratch) {}
  float* floats(size_t n) {
    float* const taken = next_;
    next_ += (n + 15) / 16 * 16;
    return taken;
  }

 private:
  float* next_;
};

QUERN_INLINE uint8_t* bytes_of(float* x) { return reinterpret_cast<uint8_t*>(x); }

// --- scores ---

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

// --- probabilities ---

float horizontal_max(__m256 x) {
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

// Lane i of the result is all ones where range.begin <= first_lane + i < range.end.
__m256 lanes_within(size_t first_lane, Range range) {
  const Bits lane = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
                                     _mm256_set1_epi32(static_cast<int>(first_lane)));
  const Bits too_low = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(range.begin)), lane);
  const Bits below_end = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(range.end)), lane);
  return _mm256_castsi256_ps(_mm256_andnot_si256(too_low, below_end));
}

// Steps 3 and 4 for one row: p: [kAttentionTile], scores in, probabilities out (+0 where no key is valid).
// kFull: all keys are valid.
template <bool kFull>
void softmax_row(Range range, float* p, float* lanes, float* m, float* alpha) {
  constexpr size_t kVectors = kAttentionTile / 8;
  __m256 s[kVectors];
  QUERN_UNROLL
  for (size_t i = 0; i < kVectors; ++i) s[i] = _mm256_loadu_ps(p + 8 * i);
  // A NaN may be lost in the maximum; it returns with its own probability below.
  __m256 largest[2];
  QUERN_UNROLL
  for (size_t i = 0; i < kVectors; ++i) {
    const __m256 valid =
        kFull ? s[i] : _mm256_blendv_ps(_mm256_set1_ps(-__builtin_inff()), s[i], lanes_within(8 * i, range));
    largest[i % 2] = i < 2 ? valid : _mm256_max_ps(largest[i % 2], valid);
  }
  const float tile_m = horizontal_max(_mm256_max_ps(largest[0], largest[1]));
  const float new_m = tile_m > *m ? tile_m : *m;
  const __m256 scale = exp2q_below_126(_mm256_set1_ps(*m - new_m));
  *alpha = _mm256_cvtss_f32(scale);
  *m = new_m;

  const __m256 top = _mm256_set1_ps(new_m);
  __m256 sum[2] = {_mm256_loadu_ps(lanes), _mm256_loadu_ps(lanes + 8)};
  QUERN_UNROLL
  for (size_t i = 0; i < kVectors; ++i) {
    __m256 e = exp2q_below_126(_mm256_sub_ps(s[i], top));
    if (!kFull) e = _mm256_and_ps(e, lanes_within(8 * i, range));
    _mm256_storeu_ps(p + 8 * i, e);
    sum[i % 2] = i < 2 ? _mm256_fmadd_ps(sum[i % 2], scale, e) : _mm256_add_ps(sum[i % 2], e);
  }
  _mm256_storeu_ps(lanes, sum[0]);
  _mm256_storeu_ps(lanes + 8, sum[1]);
}

// --- values ---

// Values of a tile from some dim on, as floats or f16.
template <class T>
struct FloatValues {
  static constexpr size_t kElementBytes = T::kBytes;
  const uint8_t* v;
  size_t stride;  // from key to key, in elements

  QUERN_INLINE FloatValues at(size_t key, size_t d) const {
    return {v + (key * stride + d) * T::kBytes, stride};
  }
  QUERN_INLINE void next_key() { v += stride * T::kBytes; }
  QUERN_INLINE __m256 load8(size_t i) const { return T::load8(v + 8 * i * T::kBytes); }
  QUERN_INLINE float load1() const { return T::load1(v); }
};

struct CodeValues {
  static constexpr size_t kElementBytes = 1;
  const int8_t* codes;
  const float* scales;  // of the group that the first dim is in
  size_t head_dim, dim;

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

// Calls f.template operator()<rows>(first_row) for groups of up to kMax rows.
template <size_t kMax, class F>
QUERN_INLINE void for_row_groups(size_t n_rows, F&& f) {
  static_assert(kMax == 4 || kMax == 6);
  size_t row = 0;
  for (; row + kMax <= n_rows; row += kMax) f.template operator()<kMax>(row);
  switch (n_rows - row) {
    case 5:
      if constexpr (kMax > 5) f.template operator()<5>(row);
      break;
    case 4:
      if constexpr (kMax > 4) f.template operator()<4>(row);
      break;
    case 3:
      f.template operator()<3>(row);
      break;
    case 2:
      f.template operator()<2>(row);
      break;
    case 1:
      f.template operator()<1>(row);
      break;
    default:
      break;
  }
}

// --- one tile ---

// One tile's keys and values in the cache, and what its valid keys are.
struct Tile {
  const uint8_t* k;
  const uint8_t* v;
  const uint8_t* next_k;  // the keys that are probably wanted next; any address
  size_t begin, end;      // keys that some row sees
  bool full;              // every row sees all
};

// True when some row of [row, row + n) sees a key of the block.
bool sees_block(const State& state, size_t row, size_t n, size_t block) {
  const size_t begin = block * kKvBlockKeys, end = begin + kKvBlockKeys;
  for (size_t r = row; r < row + n; ++r)
    if (state.ranges[r].begin < end && state.ranges[r].end > begin) return true;
  return false;
}

// How one KvType's tiles are read. T: F16 or F32.
template <class T>
struct FloatCache {
  using Values = FloatValues<T>;

  static void prepare_tile(const Tile&, const State&) {}
  static Values values(const Tile& tile, const State& state) { return {tile.v, state.head_dim}; }
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

struct CodeCache {
  using Values = CodeValues;

  // The scales of a tile's values as floats.
  static void prepare_tile(const Tile& tile, const State& state) {
    const size_t n = kAttentionTile * (state.head_dim / kKvGroup);
    const uint8_t* d = tile.v + kAttentionTile * state.head_dim;
    for (size_t i = 0; i < n; i += 8) _mm256_storeu_ps(state.value_scales + i, load_f16(d + 2 * i));
  }
  static Values values(const Tile& tile, const State& state) {
    return {reinterpret_cast<const int8_t*>(tile.v), state.value_scales, state.head_dim, 0};
  }
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

template <class Cache>
void weigh_direct(const Tile& tile, const State& state) {
  using Values = typename Cache::Values;
  const Values values = Cache::values(tile, state);
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

template <class Cache>
void weigh_dense(const Tile& tile, const State& state) {
  const typename Cache::Values values = Cache::values(tile, state);
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

template <class Cache>
void attend_tile(const Tile& tile, const State& state) {
  const bool direct = state.n_rows <= kDirectRows;
  Cache::prepare_tile(tile, state);
  if (direct) {
    Cache::score_direct(tile, state);
  } else {
    for (size_t block = tile.begin / kKvBlockKeys; block * kKvBlockKeys < tile.end; ++block)
      Cache::score_dense(tile, state, block);
  }
  for (size_t row = 0; row < state.n_rows; ++row) {
    const Range range = state.ranges[row];
    float *p = state.p + row * kAttentionTile, *lanes = state.lanes + row * 16;
    if (range.end - range.begin == kAttentionTile)
      softmax_row<true>(range, p, lanes, state.m + row, state.alpha + row);
    else if (!range.empty())
      softmax_row<false>(range, p, lanes, state.m + row, state.alpha + row);
  }
  if (direct)
    weigh_direct<Cache>(tile, state);
  else
    weigh_dense<Cache>(tile, state);
}

// --- one segment ---

// y = x * scale; y may be x.
void multiply(const float* x, float scale, size_t n, float* y) {
  const __m256 s = _mm256_set1_ps(scale);
  size_t d = 0;
  for (; d + 8 <= n; d += 8) _mm256_storeu_ps(y + d, _mm256_mul_ps(_mm256_loadu_ps(x + d), s));
  for (; d < n; ++d) y[d] = x[d] * scale;
}

void scale_queries(const AttentionArgs& args, float* q) {
  const size_t n = args.n_heads * args.head_dim;
  for (size_t t = 0; t < args.n_tokens; ++t) multiply(args.q + t * args.q_stride, args.kappa, n, q + t * n);
}

// Scaled queries as codes, in the order in which even_codes() and odd_codes() leave the keys'.
void quantize_queries(const float* q, size_t n_rows, size_t head_dim, Carver& carver, int16_t* codes,
                      float* scales) {
  int8_t* const plain = reinterpret_cast<int8_t*>(carver.floats(head_dim / 4));
  int16_t* const sums = reinterpret_cast<int16_t*>(carver.floats(head_dim / 16));
  for (size_t row = 0; row < n_rows; ++row) {
    quantize_activations(q + row * head_dim, 1, head_dim,
                         {plain, scales + row * (head_dim / kKvGroup), sums});
    for (size_t d = 0; d < head_dim; d += 4, codes += 4) {
      codes[0] = plain[d];
      codes[1] = plain[d + 2];
      codes[2] = plain[d + 1];
      codes[3] = plain[d + 3];
    }
  }
}

State prepare(const AttentionArgs& args, float* part) {
  const size_t n = args.head_dim, n_rows = args.n_tokens * args.n_heads;
  Carver carver(args.scratch);
  State state{};
  state.n_rows = n_rows;
  state.head_dim = n;
  float* const q = carver.floats(n_rows * n);
  scale_queries(args, q);
  state.q = q;
  state.p = carver.floats(n_rows * kAttentionTile);
  state.lanes = carver.floats(n_rows * 16);
  state.alpha = carver.floats(n_rows);
  state.ranges = reinterpret_cast<Range*>(carver.floats(n_rows * 2));
  state.keys = carver.floats(kKvBlockKeys * n);
  state.values = carver.floats(kAttentionTile * kSlabDims);
  if (args.type == KvType::kQ8_0) {
    int16_t* const codes = reinterpret_cast<int16_t*>(carver.floats(n_rows * n / 2));
    float* const scales = carver.floats(n_rows * (n / kKvGroup));
    state.value_scales = carver.floats(n / kKvGroup * kAttentionTile);
    quantize_queries(q, n_rows, n, carver, codes, scales);
    state.q_codes = codes;
    state.q_scales = scales;
  }
  state.acc = part;
  state.m = part + n_rows * n;
  state.l = state.m + n_rows;
  for (size_t row = 0; row < n_rows; ++row) state.m[row] = -__builtin_inff();
  __builtin_memset(state.acc, 0, n_rows * n * sizeof(float));
  __builtin_memset(state.lanes, 0, n_rows * 16 * sizeof(float));
  // Scores of blocks without a valid key are never computed: they are masked, but first they are read.
  __builtin_memset(state.p, 0, n_rows * kAttentionTile * sizeof(float));
  return state;
}

size_t larger(size_t a, size_t b) { return a > b ? a : b; }
size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

// The keys from `first` on that each row sees of a tile.
void find_ranges(const AttentionArgs& args, size_t first, const State& state) {
  Range* range = state.ranges;
  for (size_t t = 0; t < args.n_tokens; ++t) {
    const size_t position = args.position + t;
    const size_t begin = larger(first_visible_key(position, args.window), first);
    const size_t end = smaller(position + 1, first + kAttentionTile);
    Range seen{0, 0};
    if (begin < end) seen = {static_cast<uint32_t>(begin - first), static_cast<uint32_t>(end - first)};
    for (size_t h = 0; h < args.n_heads; ++h) *range++ = seen;
  }
}

template <class Cache>
void attend_segment_as(const AttentionArgs& args, size_t segment, float* part) {
  const State state = prepare(args, part);
  const size_t last = args.position + args.n_tokens - 1;
  const size_t begin = larger(first_visible_key(args.position, args.window), segment * kAttentionSegment);
  const size_t end = smaller(last + 1, (segment + 1) * kAttentionSegment);
  const size_t tile_bytes = kAttentionTile * kv_row_bytes(args.type, args.head_dim);
  for (size_t first = begin / kAttentionTile * kAttentionTile; first < end; first += kAttentionTile) {
    Tile tile;
    tile.k = kv_keys(args.cache, args.type, args.head_dim, first);
    tile.v = kv_values(args.cache, args.type, args.head_dim, first);
    // Behind a segment's values lie the next head's keys.
    tile.next_k = first + kAttentionTile < end ? tile.k + tile_bytes : tile.v + tile_bytes;
    tile.begin = larger(begin, first) - first;
    tile.end = smaller(end, first + kAttentionTile) - first;
    tile.full = args.position + 1 >= first + kAttentionTile && first_visible_key(last, args.window) <= first;
    find_ranges(args, first, state);
    attend_tile<Cache>(tile, state);
  }
  for (size_t row = 0; row < state.n_rows; ++row)
    state.l[row] =
        fold16(_mm256_loadu_ps(state.lanes + row * 16), _mm256_loadu_ps(state.lanes + row * 16 + 8));
}

}  // namespace

void attend_segment(const AttentionArgs& args, size_t segment, float* part) noexcept {
  if (args.type == KvType::kF16) attend_segment_as<FloatCache<F16>>(args, segment, part);
  if (args.type == KvType::kF32) attend_segment_as<FloatCache<F32>>(args, segment, part);
  if (args.type == KvType::kQ8_0) attend_segment_as<CodeCache>(args, segment, part);
}

void merge_segment(const AttentionArgs& args, size_t segment, const float* part, float* total) noexcept {
  const size_t n = args.head_dim, n_rows = args.n_tokens * args.n_heads;
  const float *const part_m = part + n_rows * n, *const part_l = part_m + n_rows;
  float *const total_m = total + n_rows * n, *const total_l = total_m + n_rows;
  for (size_t row = 0; row < n_rows; ++row) {
    const size_t t = row / args.n_heads, position = args.position + t;
    const size_t first = first_visible_key(position, args.window) / kAttentionSegment;
    const size_t last = position / kAttentionSegment;
    if (segment < first || segment > last) continue;
    const float* acc = part + row * n;
    float* const to = total + row * n;
    if (segment == first) {
      __builtin_memcpy(to, acc, n * sizeof(float));
      total_m[row] = part_m[row];
      total_l[row] = part_l[row];
    } else {
      const float new_m = part_m[row] > total_m[row] ? part_m[row] : total_m[row];
      const __m256 a = exp2q_below_126(_mm256_set1_ps(total_m[row] - new_m));
      const __m256 b = exp2q_below_126(_mm256_set1_ps(part_m[row] - new_m));
      const float alpha = _mm256_cvtss_f32(a), beta = _mm256_cvtss_f32(b);
      total_l[row] = __builtin_fmaf(total_l[row], alpha, part_l[row] * beta);
      total_m[row] = new_m;
      size_t d = 0;
      for (; d + 8 <= n; d += 8) {
        const __m256 added = _mm256_mul_ps(_mm256_loadu_ps(acc + d), b);
        _mm256_storeu_ps(to + d, _mm256_fmadd_ps(_mm256_loadu_ps(to + d), a, added));
      }
      for (; d < n; ++d) to[d] = __builtin_fmaf(to[d], alpha, acc[d] * beta);
    }
    if (segment == last)
      multiply(to, 1 / total_l[row], n, args.out + t * args.out_stride + row % args.n_heads * n);
  }
}

}  // namespace quern::avx2
