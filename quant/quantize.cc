#include "quant/quantize.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "quant/error.h"
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
  from.decode(source, n_source_blocks, x);
  if (&from == &to) {
    std::memcpy(out, source, n_good_blocks * to.block_bytes);
  } else {
    to.encode(x, n_good_blocks, out);
  }
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

}  // namespace

QuantizeResult quantize_rows(const TensorView& source, DType target, uint64_t row_begin, uint64_t row_end,
                             const uint64_t* row_map, int n_threads, std::span<uint8_t> out) {
  const BlockFormat& from = block_format(source.dtype);
  const BlockFormat& to = block_format(target);
  const uint64_t columns = source.columns();
  QUERN_CHECK(row_begin <= row_end && row_end <= source.rows());
  QUERN_CHECK(columns % from.block_weights == 0 && columns % to.block_weights == 0);
  const uint64_t from_bytes = from.row_bytes(columns), to_bytes = to.row_bytes(columns);
  const uint64_t n_rows = row_end - row_begin;
  QUERN_CHECK(out.size() == n_rows * to_bytes);
  const auto source_row = [&](uint64_t row) {
    return row_map != nullptr ? row_map[row_begin + row] : row_begin + row;
  };

  if (from.decode == nullptr) {  // not numbers to us: bytes that can only move
    QUERN_CHECK(&from == &to);
    parallel_for(n_threads, n_rows, 1, [&](size_t begin, size_t end) noexcept {
      for (size_t r = begin; r < end; ++r) {
        std::memcpy(out.data() + r * to_bytes, source.data + source_row(r) * from_bytes, to_bytes);
      }
    });
    return {};
  }
  QUERN_CHECK(&from == &to || to.encode != nullptr);

  std::vector<RowResult> rows(n_rows);
  parallel_for(n_threads, n_rows, 1, [&](size_t begin, size_t end) noexcept {
    for (size_t r = begin; r < end; ++r) {
      rows[r] =
          convert_row(from, to, source.data + source_row(r) * from_bytes, columns, out.data() + r * to_bytes);
    }
  });

  QuantizeResult result;
  for (uint64_t r = 0; r < n_rows; ++r) {
    result.squared_error += rows[r].sums.squared_error;
    result.squared_source += rows[r].sums.squared_source;
    if (rows[r].bad_column < 0) continue;
    const int64_t element = static_cast<int64_t>(source_row(r) * columns) + rows[r].bad_column;
    if (result.bad_element < 0 || element < result.bad_element) result.bad_element = element;
  }
  return result;
}

}  // namespace quern
