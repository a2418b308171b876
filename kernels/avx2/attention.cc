// Attention with AVX2, FMA and F16C: the scalar set's bits.
//
// A tile's keys and values are loaded and converted once for up to four query heads. Scores: lanes are keys
// (the cache interleaves K by 16), so the chain over head_dim that the definition asks for runs in 16 keys x
// heads independent lanes. Values: lanes are dims, the chain runs over keys. FMA takes four cycles and two
// start per cycle (Zen 2 and later, Intel since Haswell about the same), so each loop keeps eight
// accumulators where the shape allows; with the loaded values and a broadcast that stays below sixteen
// registers. The pragmas keep those arrays in registers with g++ 12 (4 heads, F16, from memory: 16.2 instead
// of 14.1 GB/s a core).
//
// Long caches come from memory: while a tile's keys are scored its values are prefetched, while its values
// are weighed the next tile's keys are. Both in address order, so that the hardware's prefetchers follow (4
// heads, F16, GB/s a core on Zen 4: none 8.5, keys in the order in which values are weighed 10.9, in address
// order 16.2).
#include <immintrin.h>

#include "kernels/avx2/avx2_ops.h"
#include "kernels/avx2/exp2q.h"

namespace quern::avx2 {

namespace {

constexpr size_t kMaxGroup = 4;    // query heads that share one pass over a tile
constexpr size_t kBlockKeys = 16;  // keys that the cache interleaves
constexpr size_t kCacheLine = 64;

// Everything attend() carries from tile to tile, for all heads, in the caller's scratch.
struct State {
  float* q;        // [n_heads, head_dim], scaled
  float* acc;      // [n_heads, head_dim], of the segment
  float* p;        // [n_heads, kAttentionTile]: scores, then probabilities
  float* lanes;    // [n_heads, 16], of the segment
  float* m;        // [n_heads], of the segment
  float* alpha;    // [n_heads], of the tile
  float* total_m;  // [n_heads], over segments
  float* total_l;  // [n_heads]
};

State carve(const AttentionArgs& args) {
  const size_t n = args.n_heads, values = n * args.head_dim;
  State state;
  state.q = args.scratch;
  state.acc = state.q + values;
  state.p = state.acc + values;
  state.lanes = state.p + n * kAttentionTile;
  state.m = state.lanes + n * 16;
  state.alpha = state.m + n;
  state.total_m = state.alpha + n;
  state.total_l = state.total_m + n;
  return state;
}

// One tile: its first key, and the valid keys [begin, end) within it, counted from that key.
struct Tile {
  size_t first, begin, end;
};

struct F16 {
  using Bits = uint16_t;
  static __m256 load(const Bits* x) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
  }
  static float load_one(const Bits* x) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(*x))); }
};

struct F32 {
  using Bits = float;
  static __m256 load(const Bits* x) { return _mm256_loadu_ps(x); }
  static float load_one(const Bits* x) { return *x; }
};

// A hint: the address need not be valid.
template <class Element>
void prefetch(const Element* address) {
  _mm_prefetch(reinterpret_cast<const char*>(address), _MM_HINT_T0);
}

float horizontal_max(__m256 x) {
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

// Lane i of the result is all ones where begin <= first_lane + i < end.
__m256 lanes_within(size_t first_lane, size_t begin, size_t end) {
  const __m256i lane = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
                                        _mm256_set1_epi32(static_cast<int>(first_lane)));
  const __m256i too_low = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(begin)), lane);
  const __m256i below_end = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(end)), lane);
  return _mm256_castsi256_ps(_mm256_andnot_si256(too_low, below_end));
}

// Scores of kBlocks neighbouring blocks of 16 keys for kHeads heads. k: the first block. next: the same keys'
// values, prefetched: they take as many bytes.
template <class T, size_t kHeads, size_t kBlocks>
void score_blocks(const typename T::Bits* k, const typename T::Bits* next, const float* q, size_t head_dim,
                  float* scores) {
  __m256 s[kHeads][kBlocks][2];
#pragma GCC unroll 4
  for (size_t h = 0; h < kHeads; ++h)
#pragma GCC unroll 4
    for (size_t b = 0; b < kBlocks; ++b) s[h][b][0] = s[h][b][1] = _mm256_setzero_ps();
  const size_t block_stride = head_dim * kBlockKeys;
  for (size_t d = 0; d < head_dim; ++d) {
#pragma GCC unroll 4
    for (size_t b = 0; b < kBlocks; ++b) {
      const size_t at = b * block_stride + d * kBlockKeys;
      const typename T::Bits* keys = k + at;
      prefetch(next + at);
      const __m256 low = T::load(keys), high = T::load(keys + 8);
#pragma GCC unroll 4
      for (size_t h = 0; h < kHeads; ++h) {
        const __m256 query = _mm256_broadcast_ss(q + h * head_dim + d);
        s[h][b][0] = _mm256_fmadd_ps(query, low, s[h][b][0]);
        s[h][b][1] = _mm256_fmadd_ps(query, high, s[h][b][1]);
      }
    }
  }
#pragma GCC unroll 4
  for (size_t h = 0; h < kHeads; ++h)
#pragma GCC unroll 4
    for (size_t b = 0; b < kBlocks; ++b) {
      _mm256_storeu_ps(scores + h * kAttentionTile + b * kBlockKeys, s[h][b][0]);
      _mm256_storeu_ps(scores + h * kAttentionTile + b * kBlockKeys + 8, s[h][b][1]);
    }
}

// Scores of a tile's blocks that hold a valid key.
template <class T, size_t kHeads>
void score_tile(const typename T::Bits* k, const typename T::Bits* v, const Tile& tile, const float* q,
                size_t head_dim, float* scores) {
  constexpr size_t kBlocks = kMaxGroup / kHeads;  // 4, 2, 1, 1
  const size_t end = (tile.end + kBlockKeys - 1) / kBlockKeys;
  size_t block = tile.begin / kBlockKeys;
  k += tile.first * head_dim;
  v += tile.first * head_dim;
  for (; block + kBlocks <= end; block += kBlocks)
    score_blocks<T, kHeads, kBlocks>(k + block * head_dim * kBlockKeys, v + block * head_dim * kBlockKeys, q,
                                     head_dim, scores + block * kBlockKeys);
  for (; block < end; ++block)
    score_blocks<T, kHeads, 1>(k + block * head_dim * kBlockKeys, v + block * head_dim * kBlockKeys, q,
                               head_dim, scores + block * kBlockKeys);
}

// Steps 3 and 4 for one head: p: [kAttentionTile], scores in, probabilities out (+0 where no key is valid).
void softmax_tile(const Tile& tile, float* p, float* lanes, float* m, float* alpha) {
  const __m256 minus_infinity = _mm256_set1_ps(-__builtin_inff());
  __m256 largest = minus_infinity;
  for (size_t j = 0; j < kAttentionTile; j += 8) {
    const __m256 valid = lanes_within(j, tile.begin, tile.end);
    // A NaN may be lost in the maximum; it returns with its own probability below.
    largest = _mm256_max_ps(largest, _mm256_blendv_ps(minus_infinity, _mm256_loadu_ps(p + j), valid));
  }
  const float tile_m = horizontal_max(largest);
  const float new_m = tile_m > *m ? tile_m : *m;
  const __m256 scale = exp2q_below_126(_mm256_set1_ps(*m - new_m));
  *alpha = _mm256_cvtss_f32(scale);
  *m = new_m;

  __m256 sum[2] = {_mm256_loadu_ps(lanes), _mm256_loadu_ps(lanes + 8)};
  for (size_t j = 0; j < kAttentionTile; j += 8) {
    const __m256 x = _mm256_sub_ps(_mm256_loadu_ps(p + j), _mm256_set1_ps(new_m));
    const __m256 e = _mm256_and_ps(exp2q_below_126(x), lanes_within(j, tile.begin, tile.end));
    _mm256_storeu_ps(p + j, e);
    __m256& lane = sum[j / 8 % 2];
    lane = j < 16 ? _mm256_fmadd_ps(lane, scale, e) : _mm256_add_ps(lane, e);
  }
  _mm256_storeu_ps(lanes, sum[0]);
  _mm256_storeu_ps(lanes + 8, sum[1]);
}

// Step 5 for kVectors * 8 dims of kHeads heads. v: the first valid key's values of these dims. next: as
// many bytes of the next tile's keys, prefetched.
template <class T, size_t kHeads, size_t kVectors>
void weigh_dims(const typename T::Bits* v, const typename T::Bits* next, size_t n_keys, const float* p,
                const float* alpha, size_t head_dim, float* acc) {
  __m256 a[kHeads][kVectors];
#pragma GCC unroll 4
  for (size_t h = 0; h < kHeads; ++h)
#pragma GCC unroll 8
    for (size_t i = 0; i < kVectors; ++i)
      a[h][i] = _mm256_mul_ps(_mm256_loadu_ps(acc + h * head_dim + i * 8), _mm256_set1_ps(alpha[h]));
  for (size_t j = 0; j < n_keys; ++j, v += head_dim, next += 8 * kVectors) {
#pragma GCC unroll 8
    for (size_t i = 0; i < kVectors; ++i) {
      if (i * 8 * sizeof(typename T::Bits) % kCacheLine == 0) prefetch(next + i * 8);
      const __m256 values = T::load(v + i * 8);
#pragma GCC unroll 4
      for (size_t h = 0; h < kHeads; ++h)
        a[h][i] = _mm256_fmadd_ps(_mm256_broadcast_ss(p + h * kAttentionTile + j), values, a[h][i]);
    }
  }
#pragma GCC unroll 4
  for (size_t h = 0; h < kHeads; ++h)
#pragma GCC unroll 8
    for (size_t i = 0; i < kVectors; ++i) _mm256_storeu_ps(acc + h * head_dim + i * 8, a[h][i]);
}

// Step 5 for one dim beyond the last multiple of 8.
template <class T, size_t kHeads>
void weigh_one_dim(const typename T::Bits* v, size_t n_keys, const float* p, const float* alpha,
                   size_t head_dim, float* acc) {
  for (size_t h = 0; h < kHeads; ++h) {
    float a = acc[h * head_dim] * alpha[h];
    for (size_t j = 0; j < n_keys; ++j)
      a = __builtin_fmaf(p[h * kAttentionTile + j], T::load_one(v + j * head_dim), a);
    acc[h * head_dim] = a;
  }
}

template <class T, size_t kHeads>
void weigh_tile(const typename T::Bits* k, const typename T::Bits* v, const Tile& tile, const float* p,
                const float* alpha, size_t head_dim, float* acc) {
  constexpr size_t kVectors = 8 / kHeads;  // 8, 4, 2, 2
  const size_t n_keys = tile.end - tile.begin;
  v += (tile.first + tile.begin) * head_dim;
  k += (tile.first + kAttentionTile) * head_dim;  // the next tile's
  p += tile.begin;
  size_t d = 0;
  for (; d + 8 * kVectors <= head_dim; d += 8 * kVectors)
    weigh_dims<T, kHeads, kVectors>(v + d, k + d * kAttentionTile, n_keys, p, alpha, head_dim, acc + d);
  for (; d + 8 <= head_dim; d += 8)
    weigh_dims<T, kHeads, 1>(v + d, k + d * kAttentionTile, n_keys, p, alpha, head_dim, acc + d);
  for (; d < head_dim; ++d) weigh_one_dim<T, kHeads>(v + d, n_keys, p, alpha, head_dim, acc + d);
}

// Calls f.template operator()<heads>(first_head) for groups of up to kMaxGroup heads.
template <class F>
void for_head_groups(size_t n_heads, F&& f) {
  size_t head = 0;
  for (; head + kMaxGroup <= n_heads; head += kMaxGroup) f.template operator()<kMaxGroup>(head);
  switch (n_heads - head) {
    case 3:
      f.template operator()<3>(head);
      break;
    case 2:
      f.template operator()<2>(head);
      break;
    case 1:
      f.template operator()<1>(head);
      break;
    default:
      break;
  }
}

template <class T>
void attend_tile(const AttentionArgs& args, const Tile& tile, const State& state) {
  const size_t head_dim = args.head_dim;
  const auto* k = static_cast<const typename T::Bits*>(args.cache.k);
  const auto* v = static_cast<const typename T::Bits*>(args.cache.v);
  for_head_groups(args.n_heads, [&]<size_t kHeads>(size_t head) {
    score_tile<T, kHeads>(k, v, tile, state.q + head * head_dim, head_dim, state.p + head * kAttentionTile);
  });
  for (size_t head = 0; head < args.n_heads; ++head)
    softmax_tile(tile, state.p + head * kAttentionTile, state.lanes + head * 16, state.m + head,
                 state.alpha + head);
  for_head_groups(args.n_heads, [&]<size_t kHeads>(size_t head) {
    weigh_tile<T, kHeads>(k, v, tile, state.p + head * kAttentionTile, state.alpha + head, head_dim,
                          state.acc + head * head_dim);
  });
}

template <class T>
void attend_segment(const AttentionArgs& args, size_t begin, size_t end, const State& state) {
  for (size_t head = 0; head < args.n_heads; ++head) state.m[head] = -__builtin_inff();
  __builtin_memset(state.lanes, 0, args.n_heads * 16 * sizeof(float));
  __builtin_memset(state.acc, 0, args.n_heads * args.head_dim * sizeof(float));
  for (size_t first = begin / kAttentionTile * kAttentionTile; first < end; first += kAttentionTile) {
    const size_t low = begin > first ? begin - first : 0;
    const size_t high = end - first < kAttentionTile ? end - first : kAttentionTile;
    attend_tile<T>(args, {first, low, high}, state);
  }
}

float fold16(const float* lanes) {
  const __m256 eight = _mm256_add_ps(_mm256_loadu_ps(lanes), _mm256_loadu_ps(lanes + 8));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// y = x * scale; y may be x.
void multiply(const float* x, float scale, size_t n, float* y) {
  const __m256 s = _mm256_set1_ps(scale);
  size_t d = 0;
  for (; d + 8 <= n; d += 8) _mm256_storeu_ps(y + d, _mm256_mul_ps(_mm256_loadu_ps(x + d), s));
  for (; d < n; ++d) y[d] = x[d] * scale;
}

// Step 6: out holds A. The first segment starts it.
void merge_segment(const AttentionArgs& args, bool first, const State& state) {
  const size_t head_dim = args.head_dim;
  for (size_t head = 0; head < args.n_heads; ++head) {
    const float l = fold16(state.lanes + head * 16), m = state.m[head];
    const float* acc = state.acc + head * head_dim;
    float* out = args.out + head * head_dim;
    float &total_m = state.total_m[head], &total_l = state.total_l[head];
    if (first) {
      total_m = m;
      total_l = l;
      __builtin_memcpy(out, acc, head_dim * sizeof(float));
      continue;
    }
    const float new_m = total_m > m ? total_m : m;
    const __m256 a = exp2q_below_126(_mm256_set1_ps(total_m - new_m));
    const __m256 b = exp2q_below_126(_mm256_set1_ps(m - new_m));
    const float alpha = _mm256_cvtss_f32(a), beta = _mm256_cvtss_f32(b);
    total_l = __builtin_fmaf(total_l, alpha, l * beta);
    total_m = new_m;
    size_t d = 0;
    for (; d + 8 <= head_dim; d += 8) {
      const __m256 part = _mm256_mul_ps(_mm256_loadu_ps(acc + d), b);
      _mm256_storeu_ps(out + d, _mm256_fmadd_ps(_mm256_loadu_ps(out + d), a, part));
    }
    for (; d < head_dim; ++d) out[d] = __builtin_fmaf(out[d], alpha, acc[d] * beta);
  }
}

template <class T>
void attend_as(const AttentionArgs& args) {
  const State state = carve(args);
  multiply(args.q, args.kappa, args.n_heads * args.head_dim, state.q);
  // Scores of blocks without a valid key are never computed: they are masked, but first they are read.
  __builtin_memset(state.p, 0, args.n_heads * kAttentionTile * sizeof(float));
  const size_t end = args.position + 1;
  bool first = true;
  for (size_t begin = args.first_key; begin < end;) {
    const size_t next = (begin / kAttentionSegment + 1) * kAttentionSegment;
    attend_segment<T>(args, begin, next < end ? next : end, state);
    merge_segment(args, first, state);
    first = false;
    begin = next;
  }
  for (size_t head = 0; head < args.n_heads; ++head) {
    float* out = args.out + head * args.head_dim;
    multiply(out, 1 / state.total_l[head], args.head_dim, out);
  }
}

}  // namespace

void attend(const AttentionArgs& args) noexcept {
  if (args.type == KvType::kF16)
    attend_as<F16>(args);
  else
    attend_as<F32>(args);
}

}  // namespace quern::avx2
