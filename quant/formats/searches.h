// The searches of the reference quantizers for scales (formats.md 2.5), eight sub-blocks side by side: lane s
// of every vector is sub-block s, so each sum runs over its weights in the reference's order and the bits are
// the same whatever the vectors' width. Private to quant/ (formats.h).
#pragma once

#include <cstddef>
#include <cstdint>

namespace quern::formats {

inline constexpr size_t kSearchLanes = 8;
inline constexpr float kTinyWeight = 1e-15f;  // where the largest magnitude is below it, all count as zero

// A search for scale and minimum: weight ~ scale * code - minimum, code 0..largest. Inverse scales tried are
// numerators[c] / (largest weight - smallest weight or 0), beside the one that fits the range exactly.
struct MinimumRule {
  size_t n;  // weights in a sub-block: 16 or 32
  float largest;
  const float* numerators;
  size_t n_numerators;
  bool absolute;  // errors are weighed by their magnitude instead of their square
};

// The search's own code of a weight is nearest(inverse * (weight - base)) in 0..largest.
struct MinimumFit {
  float scale[kSearchLanes], minimum[kSearchLanes];  // minimum >= 0
  float inverse[kSearchLanes], base[kSearchLanes];
};

// Without a minimum: weight ~ scale * code, code -largest .. largest - 1, nearest(inverse * weight).
struct SymmetricFit {
  float scale[kSearchLanes], inverse[kSearchLanes];
  bool zero[kSearchLanes];  // nothing above kTinyWeight: scale 0, and the reference stores code byte 0
};

// What one instruction set has. x, weight: [8 * n], sub-block after sub-block; code: bytes in the same order.
struct Searches {
  void (*minimum)(const MinimumRule& rule, const float* x, const float* weight, MinimumFit* fit) noexcept;
  // n: 16 or 32.
  void (*symmetric)(size_t n, float largest, const float* x, const float* weight, SymmetricFit* fit) noexcept;
  // Q3_K without importance, n = 16: codes -4..3 are moved one by one while that helps. code: code + 4, and 0
  // in a sub-block of zeros.
  void (*refined)(const float* x, float* scale /* [8] */, uint8_t* code) noexcept;
  // weight ~ scale * kIq4Values[code], n = 32.
  void (*iq4)(const float* x, const float* weight, float* scale /* [8] */) noexcept;

  // Codes of n weights (a multiple of 8) of one sub-block, less their lowest:
  // nearest((x + minimum) / step) in lowest..highest
  void (*code_by_step)(const float* x, size_t n, float step, float minimum, float lowest, float highest,
                       uint8_t* code) noexcept;
  // nearest(inverse * (x - base)) in lowest..highest
  void (*code_by_inverse)(const float* x, size_t n, float inverse, float base, float lowest, float highest,
                          uint8_t* code) noexcept;
  // Index of the value of kIq4Values nearest to inverse * x.
  void (*code_iq4)(const float* x, size_t n, float inverse, uint8_t* code) noexcept;
};

// Any CPU's, and null where the processor is no x86: those of AVX2.
extern const Searches kBaselineSearches;
extern const Searches* const kAvx2Searches;
// The fastest that this CPU can run. Thread-safe.
const Searches& searches() noexcept;

}  // namespace quern::formats
