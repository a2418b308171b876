// Products with weights: arithmetic.md "Dot product". Integers are exact in any order; the chain of fused
// multiply-adds over the groups of a row is never split.
#pragma once

#include "kernels/cuda/arithmetic.h"
#include "kernels/cuda/kernel_args.h"
#include "kernels/cuda/panel_formats.h"
#include "kernels/cuda/vocabulary.h"

namespace quern::cuda {

// The bits of 1.5 * 2^23: an integer |I| < 2^22 added to them is the float 1.5 * 2^23 + I.
inline constexpr int kMagicBits = 0x4b400000;
inline constexpr float kMagic = 12582912.0f;

// Two sums of 16 codes in one integer: low + 65536 * high.
struct Halves {
  int low, high;
};
QUERN_GPU_FN Halves halves_of(int both) {
  const int low = static_cast<int16_t>(both & 0xffff);
  return {low, (both - low) / 65536};
}

QUERN_GPU_FN void quantize(const QuantizeArgs& a) {
  const int group = block_x() * (kRowThreads / 32) + thread() / 32, token = block_y();
  if (group >= a.k / kGroup) return;
  const size_t row = a.rows != nullptr ? a.rows[token] : static_cast<uint32_t>(token);
  const QuantizedLane q = quantize_lane(a.x[row * a.x_stride + static_cast<size_t>(group * kGroup + lane())]);
  a.codes[static_cast<size_t>(token) * static_cast<size_t>(a.k) +
          static_cast<size_t>(group * kGroup + lane())] = static_cast<int8_t>(q.code);
  const int halves = warp_sum(lane() < 16 ? q.code : q.code * 65536);
  if (lane() != 0) return;
  const size_t at = static_cast<size_t>(group) * static_cast<size_t>(a.stride) + static_cast<size_t>(token);
  const Halves sums = halves_of(halves);
  a.scales[at] = q.scale;
  a.offsets[at] = mul(q.scale, to_float(sums.low + sums.high));
  a.sums[at] = halves;
}

// I of rows 2g, 2g, 2g + 1, 2g + 1 and columns 2t, 2t + 1, 2t, 2t + 1, for a fragment of codes and the
// activations of column g. half_scales: [row of two][half].
template <class F>
QUERN_GPU_FN void integers(const uint32_t (&a)[4], const uint32_t (&b)[2], const int (&half_scales)[2][2],
                           float (&out)[4]) {
  if constexpr (F::kHasHalves) {
    int low[4] = {}, high[4] = {};
    mma_16(low, a[0], a[1], b[0]);
    mma_16(high, a[2], a[3], b[1]);
    QUERN_GPU_UNROLL
    for (int i = 0; i < 4; ++i)
      out[i] = to_float(half_scales[i / 2][0] * low[i] + half_scales[i / 2][1] * high[i]);
  } else {
    int sum[4] = {kMagicBits, kMagicBits, kMagicBits, kMagicBits};
    mma_32(sum, a, b);
    QUERN_GPU_UNROLL
    for (int i = 0; i < 4; ++i) out[i] = sub(from_bits(static_cast<uint32_t>(sum[i])), kMagic);
  }
}

template <class F>
QUERN_GPU_FN void load_half_scales(const uint8_t* block, int group, int g, int (&s)[2][2]) {
  if constexpr (F::kHasHalves) {
    F::half_scales(block, group, 2 * g, s[0]);
    F::half_scales(block, group, 2 * g + 1, s[1]);
  }
}

// mn0 + 65536 * mn1 of a row.
template <class F>
QUERN_GPU_FN int load_half_minima(const uint8_t* block, int group, int row) {
  int m[2] = {};
  if constexpr (F::kHasHalfMinima) F::half_minima(block, group, row, m);
  return m[0] + m[1] * 65536;
}
// da * float(mn0 * S0 + mn1 * S1).
QUERN_GPU_FN float half_offset(float scale, int minima, int sums) {
  const Halves m = halves_of(minima), s = halves_of(sums);
  return mul(scale, to_float(m.low * s.low + m.high * s.high));
}

template <class F>
QUERN_GPU_FN const uint8_t* block_of(const ProductArgs& a, int panel, int group) {
  const int n_blocks = a.k / (kGroup * F::kGroups);
  return a.panels + (static_cast<size_t>(panel) * static_cast<size_t>(n_blocks) +
                     static_cast<size_t>(group / F::kGroups)) *
                        F::kBlockBytes;
}

QUERN_GPU_FN void finish(const ProductArgs& a, int row, int token, float dot) {
  float* const y = a.y + static_cast<size_t>(token) * a.y_stride + static_cast<size_t>(row);
  dot = mul(dot, a.factor);
  float value = a.add ? add(*y, dot) : dot;
  if (a.bias != nullptr) value = add(value, a.bias[row]);
  *y = value;
}

// kFewTokens at most.
template <class F, int kTokens>
QUERN_GPU_FN void multiply_few(const ProductArgs& a) {
  // [2][kFewChunk][kTokens][16 rows] integers, then [2][kFewChunk][16 rows] of D, of mu, of half minima.
  float* const parts = reinterpret_cast<float*>(shared());
  float* const scales = parts + 2 * kFewChunk * kTokens * 16;
  float* const minima = scales + 2 * kFewChunk * 16;
  int* const half_minima = reinterpret_cast<int*>(minima + 2 * kFewChunk * 16);
  const int warp = thread() / 32, l = lane(), g = l / 4, t = l % 4, panel = block_x();
  const int n_groups = a.k / kGroup, n_chunks = (n_groups + kFewChunk - 1) / kFewChunk;

  if (warp < kFewWorkers) {
    const int token = g % kTokens < a.n_tokens ? g % kTokens : a.n_tokens - 1;  // the others repeat one
    const int8_t* const codes =
        a.codes + static_cast<size_t>(token) * static_cast<size_t>(a.k) + static_cast<size_t>(4 * t);
    typename F::Words words[4] = {};
    // The next chunk's weights are asked for before this one's results are waited for.
    const auto fetch = [&](int first) {
      QUERN_GPU_UNROLL
      for (int u = 0; u < 4; ++u)
        if (first + u < n_groups)
          words[u] = F::load(block_of<F>(a, panel, first + u), (first + u) % F::kGroups, g, t);
    };
    fetch(warp * 4);
    for (int chunk = 0; chunk < n_chunks; ++chunk) {
      const int first = chunk * kFewChunk + warp * 4, slot = chunk % 2 * kFewChunk + warp * 4;
      QUERN_GPU_UNROLL
      for (int u = 0; u < 4; ++u) {
        const int group = first + u;
        if (group >= n_groups) continue;
        uint32_t fragment[4];
        F::codes(words[u], group % F::kGroups, t, fragment);
        int half_scales[2][2] = {};
        load_half_scales<F>(block_of<F>(a, panel, group), group % F::kGroups, g, half_scales);
        const int8_t* const column = codes + static_cast<size_t>(group * kGroup);
        const uint32_t b[2] = {load<uint32_t>(column), load<uint32_t>(column + 16)};
        float found[4];
        integers<F>(fragment, b, half_scales, found);
        QUERN_GPU_UNROLL
        for (int e = 0; e < 2; ++e)
          if (2 * t + e < kTokens) {
            float* const to = parts + ((slot + u) * kTokens + 2 * t + e) * 16 + 2 * g;
            to[0] = found[e];
            to[1] = found[2 + e];
          }
      }
      const int group = first + l / 8;
      if (group < n_groups) {
        const uint8_t* const block = block_of<F>(a, panel, group);
        QUERN_GPU_UNROLL
        for (int e = 0; e < 2; ++e) {
          const int row = l % 8 * 2 + e, at = (slot + l / 8) * 16 + row;
          scales[at] = F::scale(block, group % F::kGroups, row);
          if constexpr (F::kHasMinimum) minima[at] = F::minimum(block, group % F::kGroups, row);
          if constexpr (F::kHasHalfMinima)
            half_minima[at] = load_half_minima<F>(block, group % F::kGroups, row);
        }
      }
      fetch(first + kFewChunk);
      sync_block();
    }
    return;
  }

  // A row and every other token a lane, one chunk behind the others.
  constexpr int kOfLane = (kTokens + 1) / 2;
  const int row = l % 16, token0 = l / 16 % kTokens;
  float acc[kOfLane] = {};
  for (int chunk = 0; chunk < n_chunks; ++chunk) {
    sync_block();
    const int n = n_groups - chunk * kFewChunk < kFewChunk ? n_groups - chunk * kFewChunk : kFewChunk;
    for (int u = 0; u < n; ++u) {
      const int slot = chunk % 2 * kFewChunk + u;
      const float d = scales[slot * 16 + row];
      const size_t at = static_cast<size_t>(chunk * kFewChunk + u) * static_cast<size_t>(a.scales_stride);
      QUERN_GPU_UNROLL
      for (int i = 0; i < kOfLane; ++i) {
        const int token = token0 + 2 * i;
        if (token >= a.n_tokens) continue;
        const size_t of_token = at + static_cast<size_t>(token);
        acc[i] = fma(parts[(slot * kTokens + token) * 16 + row], mul(d, a.scales[of_token]), acc[i]);
        if constexpr (F::kHasHalfMinima)
          acc[i] =
              fma(minima[slot * 16 + row],
                  half_offset(a.scales[of_token], half_minima[slot * 16 + row], a.sums[of_token]), acc[i]);
        else if constexpr (F::kHasMinimum)
          acc[i] = fma(minima[slot * 16 + row], a.offsets[of_token], acc[i]);
      }
    }
  }
  if (l / 16 >= kTokens || panel * 16 + row >= a.n_rows) return;
  QUERN_GPU_UNROLL
  for (int i = 0; i < kOfLane; ++i)
    if (token0 + 2 * i < a.n_tokens) finish(a, panel * 16 + row, token0 + 2 * i, acc[i]);
}

// A warp: 2 panels and 64 tokens, over all columns; activations through shared memory, weights from where
// they are.
template <class F>
QUERN_GPU_FN void multiply_many(const ProductArgs& a) {
  const int warp = thread() / 32, l = lane(), g = l / 4, t = l % 4;
  const int n_panels = (a.n_rows + 15) / 16, panel0 = block_x() * (kManyRows / 16) + warp * 2;
  const int token0 = block_y() * kManyTokens;
  const int n_tokens = a.n_tokens - token0 < kManyTokens ? a.n_tokens - token0 : kManyTokens;
  const int n_groups = a.k / kGroup, n_stages = (n_groups + kManyGroups - 1) / kManyGroups;

  const auto scales_of = [&](int stage) {  // [kManyGroups][kManyTokens] of da, then of da * S or of S0, S1
    return reinterpret_cast<float*>(shared() + stage % 2 * kManyStageBytes + kManyTokens * kManyTokenBytes);
  };
  const auto fetch = [&](int stage) {
    const int group0 = stage * kManyGroups;
    uint8_t* const to = shared() + stage % 2 * kManyStageBytes;
    for (int i = thread(); i < kManyTokens * kManyGroups * 2; i += kManyThreads) {
      const int token = i / (kManyGroups * 2), piece = i % (kManyGroups * 2);
      if (token < n_tokens && group0 + piece / 2 < n_groups)
        copy_async(to + token * kManyTokenBytes + piece * 16,
                   a.codes + static_cast<size_t>(token0 + token) * static_cast<size_t>(a.k) +
                       static_cast<size_t>(group0 * kGroup + piece * 16));
    }
    commit_copies();
    if (stage >= n_stages) return;
    float* const scales = scales_of(stage);
    for (int i = thread(); i < kManyGroups * kManyTokens; i += kManyThreads) {
      const int group = group0 + i / kManyTokens, token = i % kManyTokens;
      const bool is_there = token < n_tokens && group < n_groups;
      const size_t at = static_cast<size_t>(group) * static_cast<size_t>(a.scales_stride) +
                        static_cast<size_t>(token0 + token);
      scales[i] = is_there ? a.scales[at] : 0.0f;
      float* const second = scales + kManyGroups * kManyTokens + i;
      if constexpr (F::kHasHalfMinima)
        *second = from_bits(is_there ? static_cast<uint32_t>(a.sums[at]) : 0u);
      else if constexpr (F::kHasMinimum)
        *second = is_there ? a.offsets[at] : 0.0f;
    }
  };

  float acc[2][kManyTokens / 8][4] = {};
  typename F::Words words[2] = {};
  const auto load_words = [&](int group) {
    QUERN_GPU_UNROLL
    for (int p = 0; p < 2; ++p)
      if (panel0 + p < n_panels && group < n_groups)
        words[p] = F::load(block_of<F>(a, panel0 + p, group), group % F::kGroups, g, t);
  };
  load_words(0);
  fetch(0);
  for (int stage = 0; stage < n_stages; ++stage) {
    fetch(stage + 1);
    await_copies<1>();
    sync_block();
    const uint8_t* const codes = shared() + stage % 2 * kManyStageBytes;
    const float* const scales = scales_of(stage);
    for (int u = 0; u < kManyGroups; ++u) {
      const int group = stage * kManyGroups + u;
      if (group >= n_groups || panel0 >= n_panels) break;
      uint32_t fragment[2][4];
      float d[2][2], minimum[2][2] = {};
      int half_scales[2][2][2] = {}, half_minima[2][2] = {};
      QUERN_GPU_UNROLL
      for (int p = 0; p < 2; ++p) {
        const int panel = panel0 + p < n_panels ? panel0 + p : panel0;  // none: the first one again
        const uint8_t* const block = block_of<F>(a, panel, group);
        F::codes(words[p], group % F::kGroups, t, fragment[p]);
        pin(fragment[p]);
        load_half_scales<F>(block, group % F::kGroups, g, half_scales[p]);
        QUERN_GPU_UNROLL
        for (int r = 0; r < 2; ++r) {
          d[p][r] = F::scale(block, group % F::kGroups, 2 * g + r);
          if constexpr (F::kHasMinimum) minimum[p][r] = F::minimum(block, group % F::kGroups, 2 * g + r);
          half_minima[p][r] = load_half_minima<F>(block, group % F::kGroups, 2 * g + r);
        }
      }
      load_words(group + 1);
      QUERN_GPU_UNROLL
      for (int j = 0; j < kManyTokens / 8; ++j) {
        if (j * 8 >= n_tokens) continue;
        const uint8_t* const column = codes + (j * 8 + g) * kManyTokenBytes + u * kGroup + 4 * t;
        const uint32_t b[2] = {load<uint32_t>(column), load<uint32_t>(column + 16)};
        const float* const da = scales + u * kManyTokens + j * 8 + 2 * t;
        QUERN_GPU_UNROLL
        for (int p = 0; p < 2; ++p) {
          float found[4];
          integers<F>(fragment[p], b, half_scales[p], found);
          QUERN_GPU_UNROLL
          for (int i = 0; i < 4; ++i) {
            float& sum = acc[p][j][i];
            sum = fma(found[i], mul(d[p][i / 2], da[i % 2]), sum);
            const float* const second = da + kManyGroups * kManyTokens + i % 2;
            if constexpr (F::kHasHalfMinima)
              sum = fma(minimum[p][i / 2],
                        half_offset(da[i % 2], half_minima[p][i / 2], static_cast<int>(bits(*second))), sum);
            else if constexpr (F::kHasMinimum)
              sum = fma(minimum[p][i / 2], *second, sum);
          }
        }
      }
    }
    sync_block();
  }
  await_copies<0>();
  QUERN_GPU_UNROLL
  for (int p = 0; p < 2; ++p) QUERN_GPU_UNROLL
  for (int j = 0; j < kManyTokens / 8; ++j) QUERN_GPU_UNROLL
  for (int i = 0; i < 4; ++i) {
    const int row = (panel0 + p) * 16 + 2 * g + i / 2, token = j * 8 + 2 * t + i % 2;
    if (row < a.n_rows && token < n_tokens) finish(a, row, token0 + token, acc[p][j][i]);
  }
}

// A row a thread, kTokens tokens.
template <class W, int kTokens>
QUERN_GPU_FN void multiply_floats(const ProductArgs& a) {
  float* const x = reinterpret_cast<float*>(shared());  // [kFloatChunk][kTokens]
  const int row = block_x() * kFloatThreads + thread(), token0 = block_y() * kTokens;
  const int n_tokens = a.n_tokens - token0 < kTokens ? a.n_tokens - token0 : kTokens;
  const bool is_there = row < a.n_rows;
  const uint8_t* const weights =
      a.panels + (static_cast<size_t>(is_there ? row / 16 : 0) * static_cast<size_t>(a.k) * 16 +
                  static_cast<size_t>(row % 16)) *
                     W::kBytes;
  float acc[kTokens] = {};
  for (int k0 = 0; k0 < a.k; k0 += kFloatChunk) {
    const int n = a.k - k0 < kFloatChunk ? a.k - k0 : kFloatChunk;
    sync_block();
    for (int i = thread(); i < kTokens * kFloatChunk; i += kFloatThreads) {
      const int token = i / kFloatChunk, k = i % kFloatChunk;
      float value = 0;
      if (token < n_tokens && k < n) {
        const size_t from = static_cast<size_t>(token0) + static_cast<size_t>(token);
        value = a.x[(a.rows == nullptr ? from : a.rows[from]) * a.x_stride + static_cast<size_t>(k0 + k)];
      }
      x[k * kTokens + token] = value;
    }
    sync_block();
    if (!is_there) continue;
    constexpr int kAhead = 8;  // weights that are asked for before they are used
    for (int k = 0; k < n; k += kAhead) {
      float w[kAhead];
      QUERN_GPU_UNROLL
      for (int i = 0; i < kAhead; ++i)
        w[i] = k + i < n ? W::value(weights + static_cast<size_t>(k0 + k + i) * 16 * W::kBytes) : 0.0f;
      QUERN_GPU_UNROLL
      for (int i = 0; i < kAhead; ++i) {
        if (k + i >= n) break;
        QUERN_GPU_UNROLL
        for (int token = 0; token < kTokens; ++token)
          acc[token] = fma(w[i], x[(k + i) * kTokens + token], acc[token]);
      }
    }
  }
  if (!is_there) return;
  QUERN_GPU_UNROLL
  for (int token = 0; token < kTokens; ++token)
    if (token < n_tokens) finish(a, row, token0 + token, acc[token]);
}

// Weights as formats.md 2.6 decodes them: a product a step, then the minimum.
template <class F>
QUERN_GPU_FN void gather(const GatherArgs& a) {
  const int k = block_x() * kRowThreads + thread();
  if (k >= a.k) return;
  const int row = a.ids[block_y()], in_panel = row % 16, group = k / kGroup, column = k % kGroup;
  const uint8_t* const block =
      a.panels + (static_cast<size_t>(row / 16) * static_cast<size_t>(a.k / (kGroup * F::kGroups)) +
                  static_cast<size_t>(group / F::kGroups)) *
                     F::kBlockBytes;
  const int in_block = group % F::kGroups;
  uint32_t fragment[4];
  F::codes(F::load(block, in_block, in_panel / 2, column % 16 / 4), in_block, column % 16 / 4, fragment);
  const uint32_t word = fragment[column / 16 * 2 + in_panel % 2];
  float d = F::scale(block, in_block, in_panel);
  if constexpr (F::kHasHalves) {
    int halves[2];
    F::half_scales(block, in_block, in_panel, halves);
    d = mul(d, to_float(halves[column / 16]));
  }
  float value = mul(d, to_float(static_cast<int8_t>(word >> (column % 4 * 8))));
  if constexpr (F::kHasMinimum) {
    float minimum = F::minimum(block, in_block, in_panel);
    if constexpr (F::kHasHalfMinima) {
      int halves[2];
      F::half_minima(block, in_block, in_panel, halves);
      minimum = mul(minimum, to_float(halves[column / 16]));
    }
    value = add(value, minimum);
  }
  a.x[static_cast<size_t>(block_y()) * a.x_stride + static_cast<size_t>(k)] = value;
}

template <class W>
QUERN_GPU_FN void gather_floats(const GatherArgs& a) {
  const int k = block_x() * kRowThreads + thread();
  if (k >= a.k) return;
  const int row = a.ids[block_y()];
  const size_t at = (static_cast<size_t>(row / 16) * static_cast<size_t>(a.k) + static_cast<size_t>(k)) * 16 +
                    static_cast<size_t>(row % 16);
  a.x[static_cast<size_t>(block_y()) * a.x_stride + static_cast<size_t>(k)] =
      W::value(a.panels + at * W::kBytes);
}

// No product of a model yet: what tells whether the tensor cores of a GPU add f16 products of integers
// exactly (cuda_sweep_test.cc), on which faster products could rest.
QUERN_GPU_FN void sum_f16(const SumArgs& args) {
  const size_t block = static_cast<size_t>(block_x());
  float* const out = args.c + (block * 32 + static_cast<size_t>(lane())) * 4;
  float c[4] = {out[0], out[1], out[2], out[3]};
  for (int step = 0; step < args.n_steps; ++step) {
    const size_t at = (block * static_cast<size_t>(args.n_steps) + static_cast<size_t>(step)) * 32 +
                      static_cast<size_t>(lane());
    uint32_t a[4], b[2];
    QUERN_GPU_UNROLL
    for (size_t i = 0; i < 4; ++i) a[i] = args.a[at * 4 + i];
    QUERN_GPU_UNROLL
    for (size_t i = 0; i < 2; ++i) b[i] = args.b[at * 2 + i];
    mma_f16(c, a, b);
  }
  QUERN_GPU_UNROLL
  for (int i = 0; i < 4; ++i) out[i] = c[i];
}

}  // namespace quern::cuda
