// Which scales the calibrated encoder tries for a group of weights: a row per format. Private to
// quant/calibrated/.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "quant/block_format.h"
#include "quant/calibrated/code_search.h"
#include "quant/formats/formats.h"

namespace quern::calibrated {

inline constexpr size_t kMostBlockWeights = 256;

struct ScaleRule {
  DType dtype;
  formats::Pack* pack;
  size_t group = 32;         // weights that share a scale: 16 or 32
  float lowest, highest;     // of the numbers that a scale is multiplied with
  int code_offset = 0;       // what a code has more, as it is stored; of nonlinear formats it is an index
  bool nonlinear = false;    // codes stand for kIq4Values
  bool has_minimum = false;  // it is subtracted from each weight
  bool lattice = false;      // few enough codes to try each as the one of the largest weight
  // Where the largest weight gets a code at an end of the range, the scale is multiplied with factors from
  // here to there: below 1 what is largest is cut off so that the others come out finer. Not where a block
  // shares numbers and there is a minimum: neighbouring multiples are tried there.
  float first_factor = 0, last_factor = 0;
  // Scales and minima in multiples of numbers that a block shares; 0: they are f16 numbers themselves.
  int lowest_scale = 0, highest_scale = 0, highest_minimum = 0;
  // The shared numbers may also be such that the largest scale becomes this one, which leaves room for
  // later groups whose weights grow with the errors that they make good.
  int headroom_scale = 0;
  size_t d_offset = 0, dmin_offset = 0;  // bytes of a block, of the shared numbers

  bool shares() const { return highest_scale != 0; }
};

// Null: the format has no row.
const ScaleRule* find_scale_rule(DType dtype) noexcept;

// Numbers that all groups of a block share, two of them to choose from, and what the importance-weighted
// encoder would give each group.
struct BlockFit {
  struct Shared {
    float d = 1, dmin = 1;
  };
  std::array<Shared, 2> shared;
  size_t n_shared = 1;  // 0: the block cannot be held
  std::array<float, 16> step{}, minimum{};
};

// y: a block's weights. weight: how much an error of each counts. mean_square: as BlockFormat's
// encode_weighted wants it.
BlockFit fit_block(const ScaleRule& rule, const float* y, const float* weight, float mean_square) noexcept;

// What to try for a group whose weights, y, are aimed at; the importance-weighted encoder's own scale,
// fitted, is always among them. target: what the weights should be without the errors of other columns.
void propose(const ScaleRule& rule, const BlockFit::Shared& shared, float fitted_step, float fitted_minimum,
             const float* y, const float* target, const float* weight, Candidates* out) noexcept;

}  // namespace quern::calibrated
