// Attention with AVX2, FMA and F16C: the scalar set's bits.
//
// The rows of a block are query heads of some tokens; all share one head's keys and values. A tile of keys
// goes through attention_scores.h, attention_softmax.h and attention_values.h; here tiles make a segment, and
// segments are merged.
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
#include <immintrin.h>

#include "kernels/avx2/attention_scores.h"
#include "kernels/avx2/attention_softmax.h"
#include "kernels/avx2/attention_tile.h"
#include "kernels/avx2/attention_values.h"
#include "kernels/avx2/avx2_ops.h"
#include "kernels/avx2/exp2q.h"
#include "kernels/avx2/lanes.h"

namespace quern::avx2 {

namespace {

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

template <class Keys, class Values>
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
    score_tile<Keys>(tile, state);
    softmax_tile(state);
    weigh_tile<Values>(tile, state);
  }
  for (size_t row = 0; row < state.n_rows; ++row)
    state.l[row] =
        fold16(_mm256_loadu_ps(state.lanes + row * 16), _mm256_loadu_ps(state.lanes + row * 16 + 8));
}

}  // namespace

void attend_segment(const AttentionArgs& args, size_t segment, float* part) noexcept {
  if (args.type == KvType::kF16) attend_segment_as<FloatKeys<F16>, FloatValues<F16>>(args, segment, part);
  if (args.type == KvType::kF32) attend_segment_as<FloatKeys<F32>, FloatValues<F32>>(args, segment, part);
  if (args.type == KvType::kQ8_0) attend_segment_as<CodeKeys, CodeValues>(args, segment, part);
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
