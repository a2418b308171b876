#include "convert/tensor_transforms.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "quant/block_format.h"
#include "quant/error.h"

namespace quern {

std::vector<uint64_t> interleaved_row_map(uint32_t n_heads, uint32_t head_dim) {
  QUERN_CHECK(head_dim % 2 == 0);
  const uint64_t half = head_dim / 2;
  std::vector<uint64_t> map;
  map.reserve(uint64_t{n_heads} * head_dim);
  for (uint64_t head = 0; head < n_heads; ++head) {
    const uint64_t first = head * head_dim;
    for (uint64_t pair = 0; pair < half; ++pair) {
      map.push_back(first + pair);
      map.push_back(first + half + pair);
    }
  }
  return map;
}

namespace {

void decode(const TensorView& source, uint64_t first, uint64_t n, float* out) {
  const BlockFormat& format = block_format(source.dtype);
  format.decode(source.data + first * format.block_bytes, n, out);
}

}  // namespace

TensorMaker stacked(uint64_t rows) {
  return
      [=](std::span<const TensorView> sources, uint64_t begin, uint64_t end, uint64_t columns, float* out) {
        for (uint64_t row = begin; row < end; ++row, out += columns)
          decode(sources[row / rows], row % rows * columns, columns, out);
      };
}

TensorMaker plus_one() {
  return [](std::span<const TensorView> sources, uint64_t begin, uint64_t end, uint64_t columns, float* out) {
    decode(sources[0], begin * columns, (end - begin) * columns, out);
    for (uint64_t i = 0; i < (end - begin) * columns; ++i) out[i] += 1;
  };
}

TensorMaker constant(std::vector<float> values) {
  return [values = std::move(values)](std::span<const TensorView>, uint64_t begin, uint64_t end,
                                      uint64_t columns, float* out) {
    std::copy_n(values.data() + begin * columns, (end - begin) * columns, out);
  };
}

TensorMaker permuted_elements(std::vector<uint64_t> map) {
  return picked_elements([map = std::move(map)](uint64_t i) { return map[i]; });
}

TensorMaker picked_elements(std::function<uint64_t(uint64_t element)> map) {
  return [map = std::move(map)](std::span<const TensorView> sources, uint64_t begin, uint64_t end,
                                uint64_t columns, float* out) {
    for (uint64_t i = begin * columns; i < end * columns; ++i) decode(sources[0], map(i), 1, out++);
  };
}

TensorMaker picked_rows(std::function<uint64_t(uint64_t row)> map) {
  return [map = std::move(map)](std::span<const TensorView> sources, uint64_t begin, uint64_t end,
                                uint64_t columns, float* out) {
    for (uint64_t row = begin; row < end; ++row, out += columns)
      decode(sources[0], map(row) * columns, columns, out);
  };
}

TensorMaker transposed(uint64_t rows_each, uint64_t n_columns, uint64_t first, uint64_t step) {
  return
      [=](std::span<const TensorView> sources, uint64_t begin, uint64_t end, uint64_t columns, float* out) {
        for (uint64_t row = begin; row < end; ++row)
          for (uint64_t i = 0; i < columns; ++i)
            decode(sources[0], (row / rows_each * columns + i) * n_columns + first + row % rows_each * step,
                   1, out++);
      };
}

TensorMaker picked_mxfp4_rows(std::function<uint64_t(uint64_t row)> map) {
  return [map = std::move(map)](std::span<const TensorView> sources, uint64_t begin, uint64_t end,
                                uint64_t columns, float* out) {
    constexpr float kCodes[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
    constexpr uint64_t kBlock = 32;
    constexpr int kBias = 127;  // of the powers
    for (uint64_t row = begin; row < end; ++row)
      for (uint64_t block = 0; block < columns / kBlock; ++block) {
        const uint64_t at = map(row) * (columns / kBlock) + block;
        const float power = std::ldexp(1.0f, sources[1].data[at] - kBias);
        const uint8_t* const pairs = sources[0].data + at * (kBlock / 2);
        for (uint64_t i = 0; i < kBlock / 2; ++i) {
          *out++ = kCodes[pairs[i] & 15] * power;
          *out++ = kCodes[pairs[i] >> 4] * power;
        }
      }
  };
}

TensorMaker picked_columns(std::vector<uint64_t> map) {
  return [map = std::move(map)](std::span<const TensorView> sources, uint64_t begin, uint64_t end,
                                uint64_t columns, float* out) {
    std::vector<float> row(columns);
    for (uint64_t r = begin; r < end; ++r) {
      decode(sources[0], r * columns, columns, row.data());
      for (uint64_t c = 0; c < columns; ++c) *out++ = row[map[c]];
    }
  };
}

TensorMaker negative_exp(std::function<uint64_t(uint64_t element)> map) {
  return [map = std::move(map)](std::span<const TensorView> sources, uint64_t begin, uint64_t end,
                                uint64_t columns, float* out) {
    for (uint64_t i = begin * columns; i < end * columns; ++i, ++out) {
      decode(sources[0], map(i), 1, out);
      *out = static_cast<float>(-std::exp(static_cast<double>(*out)));
    }
  };
}

}  // namespace quern
