// Attention over one segment of keys, and the merging of segments: the scalar set's bits.
//
// The rows of a block are query heads of some tokens; all share one head's keys and values. A tile of keys
// goes through scores.h, softmax.h and values.h; here tiles make a segment, and segments are merged.
//
// Scores: lanes are keys (the cache interleaves K by 16), so the chain over head_dim that the definition asks
// for runs in 16 keys x rows independent lanes. Values: lanes are dims, the chain runs over keys.
//
// Few rows (decode): a tile's keys and values are read where they lie and converted in registers, once for
// some rows. Long caches come from memory, at its speed only when all is read in address order: one thread on
// Zen 4, four heads, F16, beside a read of 30 GB/s: 22 GB/s as they lie now, without prefetching; where
// values lay behind all of a segment's keys, row by row, 11 without, 13 to 16 with a tile's other half
// prefetched.
//
// Many rows (prefill): a block is first converted into scratch that stays in the L1 cache while all rows pass
// over it.
//
// Everything is anonymous (see tile.h).
#pragma once

#include "kernels/attention/scores.h"
#include "kernels/attention/softmax.h"
#include "kernels/attention/tile.h"
#include "kernels/attention/values.h"
#include "kernels/exp2q_lanes.h"
#include "kernels/kernel_set.h"
#include "kernels/softcap_lanes.h"

namespace quern::attention {
namespace {

inline size_t larger(size_t a, size_t b) { return a > b ? a : b; }
inline size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

// y = x * scale; y may be x.
template <class L>
void multiply(const float* x, float scale, size_t n, float* y) {
  const auto s = L::set1(scale);
  size_t d = 0;
  for (; d + L::kCount <= n; d += L::kCount) L::store(y + d, L::mul(L::load(x + d), s));
  for (; d < n; ++d) y[d] = x[d] * scale;
}

template <class L>
void scale_queries(const AttentionArgs& args, float* q) {
  const size_t n = args.n_heads * args.head_dim;
  for (size_t t = 0; t < args.n_tokens; ++t)
    multiply<L>(args.q + t * args.q_stride, args.kappa, n, q + t * n);
}

template <class Config>
State prepare(const AttentionArgs& args, Carver& carver, float* part) {
  const size_t n = args.head_dim, n_rows = args.n_tokens * args.n_heads;
  State state{};
  state.n_rows = n_rows;
  state.head_dim = n;
  float* const q = carver.floats(n_rows * n);
  scale_queries<typename Config::Lanes>(args, q);
  state.q = q;
  state.p = carver.floats(n_rows * kAttentionTile);
  state.lanes = carver.floats(n_rows * 16);
  state.alpha = carver.floats(n_rows);
  state.ranges = reinterpret_cast<Range*>(carver.floats(n_rows * 2));
  state.block = carver.floats(16 * larger(n, kAttentionTile));
  state.edge = carver.floats(n_rows * kKvBlockDims);
  state.value_scales = carver.floats(kAttentionTile);
  state.acc = part;
  state.m = part + n_rows * n;
  state.l = state.m + n_rows;
  for (size_t row = 0; row < n_rows; ++row) state.m[row] = -__builtin_inff();
  __builtin_memset(state.acc, 0, n_rows * n * sizeof(float));
  __builtin_memset(state.lanes, 0, n_rows * 16 * sizeof(float));
  // Scores of blocks without a valid key are never computed: they are masked, but first they are read.
  __builtin_memset(state.p, 0, n_rows * kAttentionTile * sizeof(float));
  // Lanes beyond the last dim are multiplied, too.
  if (n % kKvBlockDims != 0) __builtin_memset(state.edge, 0, n_rows * kKvBlockDims * sizeof(float));
  return state;
}

// Scores of keys that a row does not see are masked later.
template <class L>
void cap_scores(Softcap cap, const State& state) {
  for (size_t i = 0; i < state.n_rows * kAttentionTile; i += L::kCount)
    L::store(state.p + i, softcap_lanes<L>(L::load(state.p + i), cap));
}

// The keys from `first` on that each row sees of a tile.
inline void find_ranges(const AttentionArgs& args, size_t first, const State& state) {
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

template <class Config, class Keys, class Values>
void attend_segment_as(const AttentionArgs& args, size_t segment, float* part) {
  Carver carver(args.scratch);
  const State state = prepare<Config>(args, carver, part);
  const Keys keys = Keys::of(state, carver);
  const size_t last = args.position + args.n_tokens - 1;
  const size_t begin = larger(first_visible_key(args.position, args.window), segment * kAttentionSegment);
  const size_t end = smaller(last + 1, (segment + 1) * kAttentionSegment);
  for (size_t first = begin / kAttentionTile * kAttentionTile; first < end; first += kAttentionTile) {
    Tile tile;
    tile.k = kv_keys(args.cache, args.type, args.head_dim, first);
    tile.v = kv_values(args.cache, args.type, args.head_dim, first);
    tile.begin = larger(begin, first) - first;
    tile.end = smaller(end, first + kAttentionTile) - first;
    tile.full = args.position + 1 >= first + kAttentionTile && first_visible_key(last, args.window) <= first;
    find_ranges(args, first, state);
    score_tile<Config>(keys, tile, state);
    if (args.softcap.outer > 0) cap_scores<typename Config::Lanes>(args.softcap, state);
    softmax_tile<typename Config::Lanes>(state);
    weigh_tile<Config, Values>(tile, state);
  }
  for (size_t row = 0; row < state.n_rows; ++row)
    state.l[row] = Config::Lanes::fold16(state.lanes + row * 16);
}

// KernelSet::attend_segment.
template <class Config>
void attend(const AttentionArgs& args, size_t segment, float* part) {
  if (args.type == KvType::kF16)
    attend_segment_as<Config, FloatKeys<Config, F16>, FloatValues<F16>>(args, segment, part);
  if (args.type == KvType::kF32)
    attend_segment_as<Config, FloatKeys<Config, F32>, FloatValues<F32>>(args, segment, part);
  if (args.type == KvType::kQ8_0)
    attend_segment_as<Config, typename Config::CodeKeys, CodeValues<typename Config::Lanes>>(args, segment,
                                                                                             part);
}

// KernelSet::merge_segment.
template <class L>
void merge(const AttentionArgs& args, size_t segment, const float* part, float* total) {
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
      const auto a = exp2q_below_126<L>(L::set1(total_m[row] - new_m));
      const auto b = exp2q_below_126<L>(L::set1(part_m[row] - new_m));
      const float alpha = L::first(a), beta = L::first(b);
      total_l[row] = __builtin_fmaf(total_l[row], alpha, part_l[row] * beta);
      total_m[row] = new_m;
      size_t d = 0;
      for (; d + L::kCount <= n; d += L::kCount)
        L::store(to + d, L::fma(L::load(to + d), a, L::mul(L::load(acc + d), b)));
      for (; d < n; ++d) to[d] = __builtin_fmaf(to[d], alpha, acc[d] * beta);
    }
    if (segment == last && args.sinks != nullptr) {
      const float s = args.sinks[row % args.n_heads] * 0x1.715476p0f;
      const float new_m = s > total_m[row] ? s : total_m[row];
      const auto alpha = exp2q_below_126<L>(L::set1(total_m[row] - new_m));
      const auto beta = exp2q_below_126<L>(L::set1(s - new_m));
      total_l[row] = __builtin_fmaf(total_l[row], L::first(alpha), L::first(beta));
      multiply<L>(to, L::first(alpha), n, to);
    }
    if (segment == last)
      multiply<L>(to, 1 / total_l[row], n, args.out + t * args.out_stride + row % args.n_heads * n);
  }
}

}  // namespace
}  // namespace quern::attention
