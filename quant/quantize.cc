#include "quant/quantize.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "quant/checked_math.h"
#include "quant/error.h"
#include "quant/panel_layout.h"
#include "quant/parallel.h"

namespace quern {
namespace {

// Weights converted at a time: whole blocks of every format, and decoded twice they stay in a core's first
// caches (16 KiB).
constexpr size_t kChunk = 2048;

struct Sums {
  double squared_error = 0, squared_source = 0;
};

// Eight fixed lanes, so that the order of the additions, and with it the result, is one for all compilers.
Sums sum_squares(const float* source, const float* decoded, size_t n) {
  constexpr size_t kLanes = 8;
  double error[kLanes] = {}, norm[kLanes] = {};
  const auto add = [&](size_t lane, size_t i) {
    const double x = source[i];
    const double difference = decoded[i] - x;
    error[lane] += difference * difference;
    norm[lane] += x * x;
  };
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) add(lane, i + lane);
  }
  for (size_t lane = 0; i + lane < n; ++lane) add(lane, i + lane);
  Sums sums;
  for (size_t lane = 0; lane < kLanes; ++lane) {
    sums.squared_error += error[lane];
    sums.squared_source += norm[lane];
  }
  return sums;
}

// Importance of a row's columns, and the mean of its squares as encode_weighted wants it.
struct RowImportance {
  const float* columns = nullptr;  // null: all alike
  float mean_square = 0;
};

float mean_square_of_row(const BlockFormat& from, const uint8_t* source, size_t columns) {
  float x[kChunk], sum = 0;
  for (size_t begin = 0; begin < columns; begin += kChunk) {
    const size_t n = std::min(kChunk, columns - begin);
    from.decode(source, n / from.block_weights, x);
    for (size_t k = 0; k < n; ++k) sum += x[k] * x[k];
    source += from.row_bytes(n);
  }
  return sum / static_cast<float>(columns);
}

// n weights (<= kChunk, whole blocks of both formats). Returns the index of the first bad one, n if all are
// good. What lies behind a bad weight is not encoded: encoders take finite numbers only.
size_t convert_chunk(const BlockFormat& from, const BlockFormat& to, const uint8_t* source, size_t n,
                     const RowImportance& importance, uint8_t* out, Sums* sums) {
  float x[kChunk], y[kChunk];
  const size_t n_source_blocks = n / from.block_weights;
  const size_t bad_source = from.first_non_finite(source, n_source_blocks) * from.block_weights;
  const size_t n_good_blocks = bad_source / to.block_weights;
  if (&from == &to) {
    std::memcpy(out, source, n_good_blocks * to.block_bytes);
    return bad_source;
  }
  from.decode(source, n_source_blocks, x);
  if (importance.columns != nullptr)
    to.encode_weighted(x, importance.columns, importance.mean_square, n_good_blocks, out);
  else
    to.encode(x, n_good_blocks, out);
  const size_t bad_block = to.first_non_finite(out, n_good_blocks);
  if (bad_block < n_good_blocks) return bad_block * to.block_weights;
  if (bad_source < n) return bad_source;

  to.decode(out, n_good_blocks, y);
  const Sums chunk = sum_squares(x, y, n);
  sums->squared_error += chunk.squared_error;
  sums->squared_source += chunk.squared_source;
  return n;
}

// One row of source_row, a row of the source tensor, into `out`; what it took is added to *result.
void convert_row(const BlockFormat& from, const BlockFormat& to, const uint8_t* source, uint64_t source_row,
                 size_t columns, const float* importance, uint8_t* out, QuantizeResult* result) {
  Sums sums;
  RowImportance row;
  if (importance != nullptr && to.encode_weighted != nullptr && &from != &to)
    row = {importance, mean_square_of_row(from, source, columns)};
  for (size_t begin = 0; begin < columns; begin += kChunk) {
    const size_t n = std::min(kChunk, columns - begin);
    const size_t bad = convert_chunk(from, to, source, n, row, out, &sums);
    if (bad < n) {
      const auto element = static_cast<int64_t>(source_row * columns + begin + bad);
      if (result->bad_element < 0 || element < result->bad_element) result->bad_element = element;
      break;
    }
    source += from.row_bytes(n);
    out += to.row_bytes(n);
    if (row.columns != nullptr) row.columns += n;
  }
  result->squared_error += sums.squared_error;
  result->squared_source += sums.squared_source;
}

}  // namespace

uint64_t quantize_scratch_bytes(const TensorView& source, const QuantizeTarget& target) {
  if (source.layout != TensorLayout::kPanels && target.layout != TensorLayout::kPanels) return 0;
  const uint64_t from = block_format(source.dtype).row_bytes(source.columns());
  const uint64_t to = block_format(target.dtype).row_bytes(source.columns());
  uint64_t bytes = 0;
  return checked_add(from, to, &bytes) && checked_mul(bytes, kPanelRows, &bytes) ? bytes : UINT64_MAX;
}

QuantizeResult quantize_rows(const TensorView& source, const QuantizeTarget& target, uint64_t row_begin,
                             uint64_t row_end, const uint64_t* row_map, std::span<uint8_t> scratch,
                             std::span<uint8_t> out) {
  const BlockFormat& from = block_format(source.dtype);
  const BlockFormat& to = block_format(target.dtype);
  const uint64_t columns = source.columns();
  QUERN_CHECK(row_begin <= row_end && row_end <= source.rows());
  QUERN_CHECK(columns % from.block_weights == 0 && columns % to.block_weights == 0);
  const uint64_t from_bytes = from.row_bytes(columns), to_bytes = to.row_bytes(columns);
  QUERN_CHECK(out.size() == (row_end - row_begin) * to_bytes);
  QUERN_CHECK(scratch.size() >= quantize_scratch_bytes(source, target));
  QUERN_CHECK(&from == &to || (from.decode != nullptr && to.encode != nullptr));
  const bool from_panels = source.layout == TensorLayout::kPanels;
  const bool to_panels = target.layout == TensorLayout::kPanels;
  if (from_panels || to_panels)
    QUERN_CHECK(row_begin % kPanelRows == 0 && (row_end % kPanelRows == 0 || row_end == source.rows()));
  QUERN_CHECK(row_map == nullptr || !from_panels);

  // In groups of 16 rows, which is how panels come apart.
  QuantizeResult result;
  for (uint64_t row = row_begin; row < row_end; row += kPanelRows) {
    const size_t n = std::min<uint64_t>(kPanelRows, row_end - row);
    const uint8_t* const group = from_panels ? rows_of_group(source, row, scratch.data()) : nullptr;
    const bool pack = to_panels && n == kPanelRows;
    uint8_t* const group_out = &out[(row - row_begin) * to_bytes];
    uint8_t* const rows_out = pack ? &scratch[kPanelRows * from_bytes] : group_out;
    for (size_t r = 0; r < n; ++r) {
      const uint64_t source_row = row_map != nullptr ? row_map[row + r] : row + r;
      const uint8_t* const bytes =
          from_panels ? group + r * from_bytes : source.data + source_row * from_bytes;
      if (from.decode == nullptr) {  // not numbers to us: bytes that can only move
        std::memcpy(rows_out + r * to_bytes, bytes, to_bytes);
      } else {
        const uint64_t matrix =
            target.importance != nullptr ? (target.first_row + row + r) / target.rows_per_matrix : 0;
        const float* importance =
            target.importance != nullptr ? target.importance + matrix * columns : nullptr;
        convert_row(from, to, bytes, source_row, columns, importance, rows_out + r * to_bytes, &result);
      }
    }
    if (pack) pack_panel(target.dtype, rows_out, n, columns, group_out);
  }
  return result;
}

uint64_t first_non_finite_block(const TensorView& tensor, int n_threads) {
  const BlockFormat& format = block_format(tensor.dtype);
  const size_t n_blocks = tensor.n_bytes / format.block_bytes;
  const bool panels = tensor.layout == TensorLayout::kPanels;
  // Rows may be many or one: the blocks of a tensor of rows are cut anywhere, those of panels at groups of
  // rows.
  const size_t group_blocks = panels ? kPanelRows * (tensor.columns() / format.block_weights) : 1;
  const size_t scratch_bytes = panels ? group_blocks * format.block_bytes : 0;
  std::vector<uint8_t> scratch(scratch_bytes * static_cast<size_t>(n_threads));
  std::vector<size_t> first(static_cast<size_t>(n_threads), n_blocks);
  ThreadPool(n_threads).broadcast([&](int thread) noexcept {
    const size_t t = static_cast<size_t>(thread);
    const IndexRange part = split_range(n_blocks, group_blocks, thread, n_threads);
    for (size_t begin = part.begin; begin < part.end;) {
      const size_t n = panels ? std::min(group_blocks, part.end - begin) : part.end - begin;
      const uint8_t* blocks = panels ? rows_of_group(tensor, begin / group_blocks * kPanelRows,
                                                     scratch.data() + t * scratch_bytes)
                                     : tensor.data + begin * format.block_bytes;
      const size_t bad = format.first_non_finite(blocks, n);
      if (bad < n) {
        first[t] = begin + bad;
        return;
      }
      begin += n;
    }
  });
  return *std::min_element(first.begin(), first.end());
}

}  // namespace quern
