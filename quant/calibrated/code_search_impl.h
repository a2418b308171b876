// The body of code_search_*.cc; everything is local to the file that includes it (formats/lanes.h).
#pragma once

#include "quant/calibrated/code_search.h"
#include "quant/code_values.h"
#include "quant/formats/lanes.h"

namespace quern::calibrated {
namespace {

using formats::all8;
using formats::Float8;
using formats::load8;
using formats::operator*;
using formats::operator+;
using formats::operator-;
using formats::operator/;

constexpr size_t kVectors = kCandidates / 8;

// Sixteen columns at a time: their sums for four rows stay in registers.
template <size_t kRows>
void feed_rows(const float* panel, size_t n, const float* const* error, float* const* y) {
  for (size_t column = 0; column < kPanel; column += 16) {
    Float8 sum[kRows][2];
    for (size_t r = 0; r < kRows; ++r) {
      sum[r][0] = load8(y[r] + column);
      sum[r][1] = load8(y[r] + column + 8);
    }
    const float* fed = panel + column;
    for (size_t i = 0; i < n; ++i, fed += kPanel) {
      const Float8 first = load8(fed), second = load8(fed + 8);
      for (size_t r = 0; r < kRows; ++r) {
        const Float8 e = all8(error[r][i]);
        sum[r][0] = sum[r][0] + e * first;
        sum[r][1] = sum[r][1] + e * second;
      }
    }
    for (size_t r = 0; r < kRows; ++r) {
      formats::store8(sum[r][0], y[r] + column);
      formats::store8(sum[r][1], y[r] + column + 8);
    }
  }
}

void feed(const float* panel, size_t n, const float* const* error, size_t n_rows, float* const* y) noexcept {
  if (n_rows == 4) return feed_rows<4>(panel, n, error, y);
  for (size_t r = 0; r < n_rows; ++r) feed_rows<1>(panel, n, error + r, y + r);
}

// The nearest of kIq4Values, of two the lower. iq4_value8 of formats/searches_impl.h takes the higher, as the
// reference does, and for a NaN the last; other codes would be chosen where an aim lies between two.
inline Float8 nearest_value8(Float8 x) {
  Float8 value = all8(kIq4Values[0]);
  for (size_t k = 0; k + 1 < 16; ++k) {
    const float bound = 0.5f * (static_cast<float>(kIq4Values[k]) + static_cast<float>(kIq4Values[k + 1]));
    value = formats::select8(formats::less8(all8(bound), x), all8(kIq4Values[k + 1]), value);
  }
  return value;
}

template <bool kNonlinear>
void code_lanes(const CodeRule& rule, const float* target, const float* y, const float* feedback,
                const float* weight, const Candidates& candidates, float* code, float* loss) {
  const Float8 lowest = all8(rule.lowest), highest = all8(rule.highest), zero = all8(0);
  Float8 step[kVectors], minimum[kVectors], inverse[kVectors], sum[kVectors], error[kPanel][kVectors];
  for (size_t v = 0; v < kVectors; ++v) {
    step[v] = load8(candidates.step + 8 * v);
    minimum[v] = load8(candidates.minimum + 8 * v);
    inverse[v] = formats::select8(formats::unequal8(step[v], zero), all8(1) / step[v], zero);
    sum[v] = zero;
  }
  for (size_t j = 0; j < rule.n; ++j) {
    Float8 aim[kVectors];
    for (size_t v = 0; v < kVectors; ++v) aim[v] = all8(y[j]);
    for (size_t i = 0; i < j; ++i) {
      const Float8 fed = all8(feedback[i * kPanel + j]);
      for (size_t v = 0; v < kVectors; ++v) aim[v] = aim[v] + error[i][v] * fed;
    }
    for (size_t v = 0; v < kVectors; ++v) {
      const Float8 scaled = (aim[v] + minimum[v]) * inverse[v];
      const Float8 q = kNonlinear ? nearest_value8(scaled)
                                  : formats::nearest8(formats::min8(formats::max8(scaled, lowest), highest));
      const Float8 value = q * step[v] - minimum[v], off = aim[v] - value;
      sum[v] = sum[v] + all8(weight[j]) * off * off;
      error[j][v] = all8(target[j]) - value;
      formats::store8(q, code + j * kCandidates + 8 * v);
    }
  }
  for (size_t v = 0; v < kVectors; ++v) formats::store8(sum[v], loss + 8 * v);
}

void code_group(const CodeRule& rule, const float* target, const float* y, const float* feedback,
                const float* weight, const Candidates& candidates, float* code, float* loss) noexcept {
  if (rule.nonlinear) return code_lanes<true>(rule, target, y, feedback, weight, candidates, code, loss);
  code_lanes<false>(rule, target, y, feedback, weight, candidates, code, loss);
}

constexpr CodeSearch kCodeSearch = {feed, code_group};

}  // namespace
}  // namespace quern::calibrated
