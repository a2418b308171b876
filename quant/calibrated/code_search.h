// The inner loops of the calibrated encoder: codes under many scales at once, and what errors of earlier
// columns do to later ones. Private to quant/calibrated/; compiled for several instruction sets, with the
// same bits from each: every lane rounds each product and each sum by itself.
#pragma once

#include <cstddef>
#include <cstdint>

namespace quern::calibrated {

inline constexpr size_t kCandidates = 32;  // tried side by side, a lane each
inline constexpr size_t kPanel = 32;       // columns of an ErrorFeedback's panel

// weight ~ step * code - minimum
struct Candidates {
  float step[kCandidates], minimum[kCandidates];
  // The same in multiples of a block's d and dmin, where its groups share these.
  int16_t scale[kCandidates], min[kCandidates];
};

struct CodeRule {
  size_t n;               // weights that share a scale, at most kPanel
  float lowest, highest;  // of codes
  bool nonlinear;         // codes are those of kIq4Values
};

struct CodeSearch {
  // y[r][c] += sum over i < n, in order, of error[r][i] * panel[i][c]; r < n_rows <= 4, c < kPanel.
  void (*feed)(const float* panel /* [n, kPanel] */, size_t n, const float* const* error, size_t n_rows,
               float* const* y) noexcept;
  // Codes of n weights, one after the other: weight j is aimed at
  //   z = y[j] + sum over i < j of (target[i] - coded value of i) * feedback[i * kPanel + j]
  // and its error is weight[j] * (z - its value)^2. code: [n, kCandidates], the numbers that steps are
  // multiplied with. loss: [kCandidates], NaN or infinite where a step is.
  void (*code)(const CodeRule& rule, const float* target, const float* y, const float* feedback,
               const float* weight, const Candidates& candidates, float* code, float* loss) noexcept;
};

// Any CPU's, and null where the processor is no x86: those of AVX2.
extern const CodeSearch kBaselineCodeSearch;
extern const CodeSearch* const kAvx2CodeSearch;
// The fastest that this CPU can run. Thread-safe.
const CodeSearch& code_search() noexcept;

}  // namespace quern::calibrated
