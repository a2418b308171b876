// Encodes matrices so that what they are multiplied with, not each weight for itself, comes out close: the
// error of a column is made good by the columns after it, through blocks and from one to the next, and scales
// are chosen with that going on.
//
// The loss of a row w that becomes q is (w - q) H (w - q)^T, H the Gram matrix of the inputs. With
// H = M D M^T, M upper triangular with ones on its diagonal, that is the sum of D_j (z_j - q_j)^2 with
// z_j = w_j + sum over i < j of (w_i - q_i) M_ij: column by column the nearest code is the best one, given
// what was chosen before. Sources: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative
// Pre-trained Transformers", 2023; Chee et al., "QuIP: 2-Bit Quantization of Large Language Models With
// Guarantees", 2023, section 3.2 (this form of it).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "quant/block_format.h"
#include "quant/calibrated/code_search.h"

namespace quern {

class ThreadPool;

// M and D of above, for all rows of a matrix. Of M the panels of 32 columns down to their diagonal.
class ErrorFeedback {
 public:
  // M = D = the identity: no feedback, all columns count alike. columns: a multiple of 32.
  explicit ErrorFeedback(size_t columns);

  size_t columns() const { return weight_.size(); }
  // D: how much the error of a column counts; finite, greater than 0.
  std::span<float> weight() { return weight_; }
  std::span<const float> weight() const { return weight_; }
  // M[row, column], row < column.
  void set(size_t row, size_t column, float value) { panels_[index(row, column)] = value; }
  float at(size_t row, size_t column) const { return panels_[index(row, column)]; }

  // Rows from `row` on of panel `p`, that is columns [32 p, 32 p + 32): 32 floats a row. Rows below the
  // diagonal are not to be read.
  const float* panel(size_t p, size_t row) const { return &panels_[first_of(p) + row * calibrated::kPanel]; }
  static uint64_t bytes(uint64_t columns) {
    return (columns / calibrated::kPanel + 1) * columns / 2 * calibrated::kPanel * sizeof(float) +
           columns * sizeof(float);
  }

 private:
  static size_t first_of(size_t p) { return calibrated::kPanel * calibrated::kPanel * (p * (p + 1) / 2); }
  static size_t index(size_t row, size_t column) {
    return first_of(column / calibrated::kPanel) + row * calibrated::kPanel + column % calibrated::kPanel;
  }

  std::vector<float> weight_, panels_;
};

// Whether the format has an encoder here.
bool can_calibrate(DType dtype) noexcept;
// Throws kUsage, naming the tensor that should get the format, where it has none.
void require_calibrated_format(std::string_view tensor, DType dtype);

struct CalibratedResult {
  double loss = 0;       // summed over rows: of the walk, in terms of D
  int64_t bad_row = -1;  // the first row of which the format cannot hold a block; then `out` means nothing
};

// rows: [n_rows, columns], finite, what the weights should be. columns: whole blocks of the format, which
// can_calibrate(). out: n_rows times the format's row_bytes. No row depends on another, nor anything on the
// number of threads or the instruction set.
CalibratedResult encode_calibrated(ThreadPool& pool, DType dtype, const ErrorFeedback& feedback,
                                   std::span<const float> rows, std::span<uint8_t> out);

}  // namespace quern
