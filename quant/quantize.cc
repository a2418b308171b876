#include "quant/quantize.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

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

struct RowResult {
  Sums sums;
  int64_t bad_column = -1;
};

// n weights (<= kChunk, whole blocks of both formats). Returns the index of the first bad one, n if all are
// good. What lies behind a bad weight is not encoded: encoders take finite numbers only.
size_t convert_chunk(const BlockFormat& from, const BlockFormat& to, const uint8_t* source, size_t n,
                     uint8_t* out, Sums* sums) {
  float x[kChunk], y[kChunk];
  const size_t n_source_blocks = n / from.block_weights;
  const size_t bad_source = from.first_non_finite(source, n_source_blocks) * from.block_weights;
  const size_t n_good_blocks = bad_source / to.block_weights;
  if (&from == &to) {
    std::memcpy(out, source, n_good_blocks * to.block_bytes);
    return bad_source;
  }
  from.decode(source, n_source_blocks, x);
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

RowResult convert_row(const BlockFormat& from, const BlockFormat& to, const uint8_t* source, size_t columns,
                      uint8_t* out) {
  RowResult result;
  for (size_t begin = 0; begin < columns; begin += kChunk) {
    const size_t n = std::min(kChunk, columns - begin);
    const size_t bad = convert_chunk(from, to, source, n, out, &result.sums);
    if (bad < n) {
      result.bad_column = static_cast<int64_t>(begin + bad);
      break;
    }
    source += from.row_bytes(n);
    out += to.row_bytes(n);
  }
  return result;
}

// Rows are taken by threads in chunks of about so many weights: a thread that must share its core
// delays the others by a chunk at most.
constexpr size_t kChunkWeights = 32768;

// One call of quantize_rows: rows in groups of 16 of the tensor, which is how panels come apart.
class RowConverter {
 public:
  RowConverter(const TensorView& source, const QuantizeTarget& target, uint64_t row_begin, uint64_t row_end,
               const uint64_t* row_map, std::span<uint8_t> out)
      : source_(source),
        target_(target),
        from_(block_format(source.dtype)),
        to_(block_format(target.dtype)),
        from_bytes_(from_.row_bytes(source.columns())),
        to_bytes_(to_.row_bytes(source.columns())),
        row_begin_(row_begin),
        row_map_(row_map),
        out_(out),
        rows_(row_end - row_begin) {}

  // Output rows [begin, end), counted from row_begin. scratch: scratch_bytes().
  void convert(size_t begin, size_t end, uint8_t* scratch) noexcept {
    for (size_t row = begin; row < end; row += kPanelRows)
      convert_group(row, std::min(kPanelRows, end - row), scratch);
  }

  bool any_panels() const {
    return source_.layout == TensorLayout::kPanels || target_.layout == TensorLayout::kPanels;
  }
  size_t scratch_bytes() const { return any_panels() ? kPanelRows * (from_bytes_ + to_bytes_) : 0; }

  uint64_t source_row(uint64_t row) const {
    return row_map_ != nullptr ? row_map_[row_begin_ + row] : row_begin_ + row;
  }
  const std::vector<RowResult>& rows() const { return rows_; }

 private:
  void convert_group(size_t row, size_t n, uint8_t* scratch) noexcept {
    const bool unpack = source_.layout == TensorLayout::kPanels;
    const bool pack = target_.layout == TensorLayout::kPanels && n == kPanelRows;
    const uint8_t* group = unpack ? rows_of_group(source_, row_begin_ + row, scratch) : nullptr;
    uint8_t* const out = out_.data() + row * to_bytes_;
    uint8_t* const to = pack ? scratch + kPanelRows * from_bytes_ : out;
    for (size_t r = 0; r < n; ++r) {
      const uint8_t* from =
          unpack ? group + r * from_bytes_ : source_.data + source_row(row + r) * from_bytes_;
      if (from_.decode == nullptr) {  // not numbers to us: bytes that can only move
        std::memcpy(to + r * to_bytes_, from, to_bytes_);
      } else {
        rows_[row + r] = convert_row(from_, to_, from, source_.columns(), to + r * to_bytes_);
      }
    }
    if (pack) pack_panel(target_.dtype, to, n, source_.columns(), out);
  }

  const TensorView& source_;
  const QuantizeTarget target_;
  const BlockFormat &from_, &to_;
  const uint64_t from_bytes_, to_bytes_, row_begin_;
  const uint64_t* row_map_;
  const std::span<uint8_t> out_;
  std::vector<RowResult> rows_;
};

}  // namespace

QuantizeResult quantize_rows(const TensorView& source, const QuantizeTarget& target, uint64_t row_begin,
                             uint64_t row_end, const uint64_t* row_map, int n_threads,
                             std::span<uint8_t> out) {
  const BlockFormat& from = block_format(source.dtype);
  const BlockFormat& to = block_format(target.dtype);
  const uint64_t columns = source.columns();
  QUERN_CHECK(row_begin <= row_end && row_end <= source.rows());
  QUERN_CHECK(columns % from.block_weights == 0 && columns % to.block_weights == 0);
  QUERN_CHECK(out.size() == (row_end - row_begin) * to.row_bytes(columns));
  QUERN_CHECK(&from == &to || (from.decode != nullptr && to.encode != nullptr));

  RowConverter converter(source, target, row_begin, row_end, row_map, out);
  if (converter.any_panels()) {
    QUERN_CHECK(row_begin % kPanelRows == 0 && (row_end % kPanelRows == 0 || row_end == source.rows()));
    QUERN_CHECK(row_map == nullptr || source.layout == TensorLayout::kRows);
  }
  const size_t scratch_bytes = converter.scratch_bytes();
  std::vector<uint8_t> scratch(scratch_bytes * static_cast<size_t>(n_threads));
  const size_t n_rows = row_end - row_begin;
  const size_t chunk_rows = (kChunkWeights / columns / kPanelRows + 1) * kPanelRows;
  std::atomic<size_t> next{0};
  parallel_region(n_threads, [&](int thread) noexcept {
    uint8_t* const mine = scratch.data() + scratch_bytes * static_cast<size_t>(thread);
    for (size_t begin; (begin = next.fetch_add(chunk_rows)) < n_rows;)
      converter.convert(begin, std::min(begin + chunk_rows, n_rows), mine);
  });

  QuantizeResult result;
  for (uint64_t r = 0; r < n_rows; ++r) {
    const RowResult& row = converter.rows()[r];
    result.squared_error += row.sums.squared_error;
    result.squared_source += row.sums.squared_source;
    if (row.bad_column < 0) continue;
    const int64_t element = static_cast<int64_t>(converter.source_row(r) * columns) + row.bad_column;
    if (result.bad_element < 0 || element < result.bad_element) result.bad_element = element;
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
  parallel_region(n_threads, [&](int thread) noexcept {
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
