#include "cli/tensor_diff.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cli/report.h"
#include "quant/json/json_writer.h"
#include "quant/panel_layout.h"
#include "quant/parallel.h"

namespace quern {
namespace {

constexpr uint64_t kPieceElements = 1u << 18;

struct Piece {
  double squared_difference = 0, squared_base = 0, largest = -1;
  uint64_t largest_at = 0, n_not_finite = 0;
};

// Rows of a tensor of either layout as floats.
class RowDecoder {
 public:
  RowDecoder(const TensorView& tensor, uint64_t most_rows)
      : tensor_(tensor),
        format_(block_format(tensor.dtype)),
        row_bytes_(format_.row_bytes(tensor.columns())),
        row_(row_bytes_),
        values_(most_rows * tensor.columns()) {}

  // [end - begin, columns]
  const float* decode(uint64_t begin, uint64_t end) noexcept {
    const uint64_t n_blocks = tensor_.columns() / format_.block_weights;
    for (uint64_t row = begin; row < end; ++row) {
      const uint64_t panel = row / kPanelRows * kPanelRows;
      const uint8_t* bytes = tensor_.data + row * row_bytes_;
      if (tensor_.layout == TensorLayout::kPanels && panel + kPanelRows <= tensor_.rows()) {
        unpack_row_blocks(tensor_.dtype, tensor_.data + panel * row_bytes_, row - panel, 0, n_blocks,
                          row_.data());
        bytes = row_.data();
      }
      format_.decode(bytes, n_blocks, &values_[(row - begin) * tensor_.columns()]);
    }
    return values_.data();
  }

 private:
  const TensorView& tensor_;
  const BlockFormat& format_;
  uint64_t row_bytes_;
  std::vector<uint8_t> row_;
  std::vector<float> values_;
};

Piece compare(const float* a, const float* base, uint64_t n, uint64_t first) {
  Piece piece;
  for (uint64_t i = 0; i < n; ++i) {
    if (!std::isfinite(a[i]) || !std::isfinite(base[i])) {
      ++piece.n_not_finite;
      continue;
    }
    const double b = base[i], difference = a[i] - b;
    piece.squared_difference += difference * difference;
    piece.squared_base += b * b;
    if (std::fabs(difference) > piece.largest) {
      piece.largest = std::fabs(difference);
      piece.largest_at = first + i;
    }
  }
  return piece;
}

void compare_tensors(const TensorView& a, const TensorView& base, ThreadPool& pool, TensorDiff* diff) {
  const uint64_t columns = a.columns(), n_rows = a.rows();
  const uint64_t grain =
      std::min(std::max<uint64_t>(kPieceElements / columns / kPanelRows, 1) * kPanelRows, n_rows);
  std::vector<RowDecoder> a_rows, base_rows;
  for (int i = 0; i < pool.size(); ++i) {
    a_rows.emplace_back(a, grain);
    base_rows.emplace_back(base, grain);
  }
  // Pieces are added in order, so that sums do not depend on threads.
  std::vector<Piece> pieces((n_rows + grain - 1) / grain);
  pool.parallel_for(n_rows, grain, [&](int thread, size_t begin, size_t end) noexcept {
    const auto t = static_cast<size_t>(thread);
    pieces[begin / grain] = compare(a_rows[t].decode(begin, end), base_rows[t].decode(begin, end),
                                    (end - begin) * columns, begin * columns);
  });
  double squared_difference = 0, squared_base = 0, largest = -1;
  for (const Piece& piece : pieces) {
    squared_difference += piece.squared_difference;
    squared_base += piece.squared_base;
    diff->n_not_finite += piece.n_not_finite;
    if (piece.largest > largest) {
      largest = piece.largest;
      diff->largest_at = piece.largest_at;
    }
  }
  diff->largest_difference = std::max(largest, 0.0);
  diff->relative_rms_error = squared_base > 0         ? std::sqrt(squared_difference / squared_base)
                             : squared_difference > 0 ? std::numeric_limits<double>::infinity()
                                                      : 0;
}

std::string_view state_text(TensorDiff::State state) {
  switch (state) {
    case TensorDiff::State::kCompared:
      return "compared";
    case TensorDiff::State::kOtherShape:
      return "other shape";
    case TensorDiff::State::kOnlyInFirst:
      return "missing in the base";
    case TensorDiff::State::kOnlyInSecond:
      return "only in the base";
    case TensorDiff::State::kUnreadable:
      return "format cannot be read";
  }
  return "";
}

bool is_same(const TensorDiff& diff) {
  return diff.state == TensorDiff::State::kCompared && diff.largest_difference == 0 && diff.n_not_finite == 0;
}

// Dimensions of 1 at the outer end say nothing.
bool same_shape(const Shape& a, const Shape& b) {
  return without_outer_ones(a, 1) == without_outer_ones(b, 1);
}

}  // namespace

std::vector<TensorDiff> diff_tensors(TensorSource& a, TensorSource& base, int n_threads,
                                     const std::function<bool()>& stop) {
  ThreadPool pool(n_threads);
  std::vector<TensorDiff> diffs;
  for (const TensorView& tensor : a.gguf().tensors()) {
    if (stop && stop()) return diffs;
    TensorDiff& diff = diffs.emplace_back();
    diff.name = tensor.name;
    diff.shape = tensor.shape;
    diff.format = block_format(tensor.dtype).name;
    diff.n_elements = tensor.n_elements();
    const TensorView* const other = base.gguf().find_tensor(tensor.name);
    if (other == nullptr) {
      diff.state = TensorDiff::State::kOnlyInFirst;
      continue;
    }
    diff.base_shape = other->shape;
    diff.base_format = block_format(other->dtype).name;
    if (!same_shape(tensor.shape, other->shape)) {
      diff.state = TensorDiff::State::kOtherShape;
    } else if (block_format(tensor.dtype).decode == nullptr || block_format(other->dtype).decode == nullptr) {
      diff.state = TensorDiff::State::kUnreadable;
    } else {
      a.load(tensor);
      base.load(*other);
      compare_tensors(tensor, *other, pool, &diff);
      a.release(tensor);
      base.release(*other);
    }
  }
  for (const TensorView& tensor : base.gguf().tensors()) {
    if (a.gguf().find_tensor(tensor.name) != nullptr) continue;
    TensorDiff& diff = diffs.emplace_back();
    diff.name = tensor.name;
    diff.state = TensorDiff::State::kOnlyInSecond;
    diff.base_shape = tensor.shape;
    diff.base_format = block_format(tensor.dtype).name;
    diff.n_elements = tensor.n_elements();
  }
  return diffs;
}

std::string render_diff_text(const std::vector<TensorDiff>& diffs, const std::string& a,
                             const std::string& base) {
  Table table({{"tensor", Table::Align::kLeft},
               {"shape", Table::Align::kLeft},
               {"format", Table::Align::kLeft},
               {"base", Table::Align::kLeft},
               {"rel. RMS", Table::Align::kRight},
               {"largest", Table::Align::kRight},
               {"at", Table::Align::kRight}});
  uint64_t n_compared = 0, n_same = 0, n_not_finite = 0;
  for (const TensorDiff& diff : diffs) {
    const bool compared = diff.state == TensorDiff::State::kCompared;
    n_compared += compared;
    n_same += is_same(diff);
    n_not_finite += diff.n_not_finite;
    const Shape& shape = diff.shape.empty() ? diff.base_shape : diff.shape;
    std::string shown = to_string(shape);
    if (diff.state == TensorDiff::State::kOtherShape)
      shown += fmt::format(", base {}", to_string(diff.base_shape));
    table.add_row(
        {printable(diff.name), shown, std::string(diff.format), std::string(diff.base_format),
         compared ? fmt::format("{:.6f}", diff.relative_rms_error) : std::string(state_text(diff.state)),
         compared ? fmt::format("{:.6g}", diff.largest_difference) : "",
         compared ? std::to_string(diff.largest_at) : ""});
  }
  std::string text = fmt::format("{}\nagainst {}\n\n", printable(a, kPathBytes), printable(base, kPathBytes));
  text += table.render(stdout_width(SIZE_MAX));
  text += fmt::format(
      "\n{} tensors compared, {} of them with the same values; {} differ in shape or are "
      "not in both\n",
      n_compared, n_same, diffs.size() - n_compared);
  if (n_not_finite > 0)
    text += fmt::format("{} pairs of values are not finite and not counted\n", n_not_finite);
  return text;
}

std::string render_diff_json(const std::vector<TensorDiff>& diffs, const std::string& a,
                             const std::string& base) {
  JsonWriter json;
  json.begin_object().field("path", a).field("base", base).key("tensors").begin_array();
  for (const TensorDiff& diff : diffs) {
    json.begin_object().field("name", diff.name).field("state", state_text(diff.state));
    if (!diff.shape.empty()) json.field("shape", diff.shape).field("format", diff.format);
    if (!diff.base_shape.empty())
      json.field("base_shape", diff.base_shape).field("base_format", diff.base_format);
    json.field("n_elements", diff.n_elements);
    if (diff.state == TensorDiff::State::kCompared)
      json.field("relative_rms_error", diff.relative_rms_error)
          .field("largest_difference", diff.largest_difference)
          .field("largest_at", diff.largest_at)
          .field("n_not_finite", diff.n_not_finite);
    json.end_object();
  }
  return json.end_array().end_object().text() + "\n";
}

}  // namespace quern
