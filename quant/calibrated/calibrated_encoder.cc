#include "quant/calibrated/calibrated_encoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>

#include "quant/calibrated/scale_search.h"
#include "quant/code_values.h"
#include "quant/error.h"
#include "quant/formats/super_block.h"
#include "quant/parallel.h"

namespace quern {
namespace {

using namespace calibrated;

// Rows whose feedback is computed together: a panel of M is read once for so many.
constexpr size_t kRowsTogether = 4;

// One group of a block as it was decided.
struct GroupChoice {
  float step = 0, minimum = 0, loss = INFINITY;
  int16_t scale = 0, min = 0;
};

// A block under one choice of what its groups share.
struct BlockChoice {
  double loss = 0;
  bool valid = true;
  std::array<GroupChoice, 16> groups;
  std::array<float, kMostBlockWeights> code;   // what steps are multiplied with
  std::array<float, kMostBlockWeights> error;  // target - value
};

// Walks along a few rows. One for each thread; takes its memory when it is made.
class RowWalk {
 public:
  RowWalk(const ScaleRule& rule, const ErrorFeedback& feedback)
      : rule_(rule),
        format_(block_format(rule.dtype)),
        feedback_(feedback),
        search_(code_search()),
        errors_(kRowsTogether * feedback.columns()) {}

  // n <= kRowsTogether. losses: [n]; NaN of a row that cannot be held.
  void encode(const float* rows, size_t n, uint8_t* out, double* losses) noexcept {
    const size_t columns = feedback_.columns(), block = format_.block_weights;
    float mean_square[kRowsTogether];
    const float* error[kRowsTogether];
    for (size_t r = 0; r < n; ++r) {
      mean_square[r] = formats::sum_of_squares(rows + r * columns, columns) / static_cast<float>(columns);
      error[r] = &errors_[r * columns];
      losses[r] = 0;
    }
    for (size_t begin = 0; begin < columns; begin += block) {
      for (size_t r = 0; r < n; ++r) std::copy_n(rows + r * columns + begin, block, y_[r].data());
      for (size_t k = 0; k < block; k += kPanel) {
        float* y[kRowsTogether];
        for (size_t r = 0; r < n; ++r) y[r] = &y_[r][k];
        search_.feed(feedback_.panel((begin + k) / kPanel, 0), begin, error, n, y);
      }
      for (size_t r = 0; r < n; ++r)
        losses[r] += encode_block(
            begin, rows + r * columns + begin, y_[r].data(), mean_square[r], &errors_[r * columns + begin],
            out + (r * columns + begin) / block * static_cast<size_t>(format_.block_bytes));
    }
  }

 private:
  // y: the target with the feedback of the blocks before. NaN: the block cannot be held.
  double encode_block(size_t begin, const float* target, const float* y, float mean_square, float* error,
                      uint8_t* out) noexcept {
    const float* const weight = feedback_.weight().data() + begin;
    const BlockFit fit = fit_block(rule_, y, weight, mean_square);
    const BlockFit::Shared* shared = nullptr;
    BlockChoice* best = nullptr;
    for (size_t i = 0; i < fit.n_shared; ++i) {
      BlockChoice& choice = choices_[i];
      walk_block(begin, target, y, fit, fit.shared[i], &choice);
      if (!choice.valid || (best != nullptr && !(choice.loss < best->loss))) continue;
      best = &choice;
      shared = &fit.shared[i];
    }
    if (best == nullptr) {
      std::fill_n(error, format_.block_weights, 0.0f);
      return NAN;
    }
    std::copy_n(best->error.begin(), format_.block_weights, error);
    rule_.pack(parts_of(*best, *shared), out);
    return best->loss;
  }

  void walk_block(size_t begin, const float* target, const float* y_before, const BlockFit& fit,
                  const BlockFit::Shared& shared, BlockChoice* choice) noexcept {
    choice->loss = 0;
    choice->valid = true;
    float y[kPanel];
    size_t fed = 0;  // columns of this block whose errors are in y
    for (size_t g = 0, at = 0; at < format_.block_weights; ++g, at += rule_.group) {
      const size_t panel_begin = at / kPanel * kPanel, in_panel = at - panel_begin;
      if (in_panel == 0) {
        std::copy_n(y_before + at, kPanel, y);
        fed = 0;
      }
      const float* const errors = &choice->error[fed];
      float* const ys = y;
      search_.feed(feedback_.panel((begin + at) / kPanel, begin + fed), at - fed, &errors, 1, &ys);
      fed = at;
      const GroupChoice& group = choice->groups[g] =
          code_group(begin + at, target + at, y + in_panel, fit.step[g], fit.minimum[g], shared,
                     &choice->code[at], &choice->error[at]);
      choice->loss += group.loss;
      if (!std::isfinite(group.loss)) {
        choice->valid = false;
        return;
      }
    }
  }

  GroupChoice code_group(size_t column, const float* target, const float* y, float fitted_step,
                         float fitted_minimum, const BlockFit::Shared& shared, float* code,
                         float* error) noexcept {
    const float* const weight = feedback_.weight().data() + column;
    Candidates candidates;
    propose(rule_, shared, fitted_step, fitted_minimum, y, target, weight, &candidates);
    float loss[kCandidates];
    const CodeRule rule{rule_.group, rule_.lowest, rule_.highest, rule_.nonlinear};
    search_.code(rule, target, y, feedback_.panel(column / kPanel, column) + column % kPanel, weight,
                 candidates, codes_.data(), loss);
    GroupChoice best;
    size_t chosen = 0;
    for (size_t c = 0; c < kCandidates; ++c)
      if (loss[c] < best.loss) {
        best.loss = loss[c];
        chosen = c;
      }
    best.step = candidates.step[chosen];
    best.minimum = candidates.minimum[chosen];
    if (rule_.shares()) {
      best.scale = candidates.scale[chosen];
      best.min = candidates.min[chosen];
    }
    for (size_t k = 0; k < rule_.group; ++k) {
      code[k] = codes_[k * kCandidates + chosen];
      error[k] = target[k] - (code[k] * best.step - best.minimum);
    }
    return best;
  }

  formats::BlockParts parts_of(const BlockChoice& choice, const BlockFit::Shared& shared) const noexcept {
    formats::BlockParts parts;
    if (rule_.shares()) {
      parts.d = shared.d;
      parts.dmin = shared.dmin;
      for (size_t g = 0; g < choice.groups.size(); ++g) {
        parts.scale[g] = choice.groups[g].scale;
        parts.min[g] = choice.groups[g].min;
      }
    } else {
      parts.d = choice.groups[0].step;
      parts.dmin = -choice.groups[0].minimum;
    }
    for (size_t k = 0; k < format_.block_weights; ++k) parts.code[k] = stored_code(choice.code[k]);
    return parts;
  }

  uint8_t stored_code(float code) const noexcept {
    if (!rule_.nonlinear) return static_cast<uint8_t>(static_cast<int>(code) + rule_.code_offset);
    const auto* const found =
        std::find(std::begin(kIq4Values), std::end(kIq4Values), static_cast<int8_t>(code));
    return static_cast<uint8_t>(found - std::begin(kIq4Values));
  }

  const ScaleRule& rule_;
  const BlockFormat& format_;
  const ErrorFeedback& feedback_;
  const CodeSearch& search_;
  std::vector<float> errors_;  // [kRowsTogether, columns]: target - value
  std::array<std::array<float, kMostBlockWeights>, kRowsTogether> y_;
  std::array<BlockChoice, 2> choices_;
  std::array<float, kPanel * kCandidates> codes_;
};

}  // namespace

ErrorFeedback::ErrorFeedback(size_t columns) : weight_(columns, 1.0f), panels_(first_of(columns / kPanel)) {
  QUERN_CHECK(columns % kPanel == 0);
  for (size_t c = 0; c < columns; ++c) panels_[index(c, c)] = 1;
}

bool can_calibrate(DType dtype) noexcept { return find_scale_rule(dtype) != nullptr; }

void require_calibrated_format(std::string_view tensor, DType dtype) {
  if (can_calibrate(dtype)) return;
  std::string names;
  for (const BlockFormat& format : block_formats())
    if (can_calibrate(format.dtype)) names += fmt::format("{}{}", names.empty() ? "" : ", ", format.name);
  fail(ErrorCode::kUsage,
       "tensor '{}': {} has no calibrated encoder; these have one: {} (--type and --tensor-type choose)",
       printable(tensor), block_format(dtype).name, names);
}

CalibratedResult encode_calibrated(ThreadPool& pool, DType dtype, const ErrorFeedback& feedback,
                                   std::span<const float> rows, std::span<uint8_t> out) {
  const ScaleRule* const rule = find_scale_rule(dtype);
  const size_t columns = feedback.columns();
  QUERN_CHECK(rule != nullptr && columns != 0 && rows.size() % columns == 0);
  const BlockFormat& format = block_format(dtype);
  QUERN_CHECK(columns % format.block_weights == 0);
  const size_t n_rows = rows.size() / columns, row_bytes = format.row_bytes(columns);
  QUERN_CHECK(out.size() == n_rows * row_bytes);
  std::vector<std::unique_ptr<RowWalk>> walks;
  for (int t = 0; t < pool.size(); ++t) walks.push_back(std::make_unique<RowWalk>(*rule, feedback));
  std::vector<double> losses(n_rows);
  pool.parallel_for(n_rows, kRowsTogether, [&](int thread, size_t begin, size_t end) noexcept {
    walks[static_cast<size_t>(thread)]->encode(rows.data() + begin * columns, end - begin,
                                               out.data() + begin * row_bytes, &losses[begin]);
  });
  CalibratedResult result;
  for (size_t r = 0; r < n_rows; ++r) {
    if (!std::isfinite(losses[r]) && result.bad_row < 0) result.bad_row = static_cast<int64_t>(r);
    result.loss += losses[r];
  }
  return result;
}

}  // namespace quern
