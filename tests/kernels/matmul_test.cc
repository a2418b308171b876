// Products with weights: the scalar kernels against decoded weights in double, every other set against scalar
// with ==.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "kernels/dispatch.h"
#include "kernels/scalar/scalar_ops.h"
#include "quant/float16.h"
#include "quant/panel_layout.h"
#include "tests/kernels/avxvnni_twins.h"
#include "tests/support/weight_blocks.h"

namespace quern {
namespace {

using Bytes = std::vector<uint8_t>;

// --- activations ---

struct Activations {
  size_t n_tokens, k;
  std::vector<float> x, scales;
  std::vector<int8_t> codes;
  std::vector<int16_t> sums;

  Activations(size_t n_tokens_in, size_t k_in)
      : n_tokens(n_tokens_in),
        k(k_in),
        x(n_tokens * k),
        scales(n_tokens * (k / 32)),
        codes(n_tokens * k),
        sums(n_tokens * (k / 32) * 4) {}

  // As kernel_set.h defines them, from the codes.
  void sum_codes() {
    std::fill(sums.begin(), sums.end(), int16_t{0});
    if (k % 32 != 0) return;  // floats only
    for (size_t i = 0; i < codes.size(); ++i) {
      int16_t& sum = sums[i / 32 * 4 + (i % 32 / 16) * 2 + (i % 4) / 2];
      sum = static_cast<int16_t>(sum + codes[i]);
    }
  }
};

Activations random_activations(size_t n_tokens, size_t k, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::uniform_int_distribution<int> code(-127, 127);
  Activations a(n_tokens, k);
  for (float& x : a.x) x = normal(random);
  for (float& scale : a.scales) scale = std::abs(normal(random)) / 127;
  for (int8_t& c : a.codes) c = static_cast<int8_t>(code(random));
  a.sum_codes();
  return a;
}

// Tokens whose codes are all +127 or all -127, or alternate, so that integer sums reach their bounds; scales
// of 0, NaN and next to the smallest; floats among which are zeros, infinities, NaN and subnormals.
Activations extreme_activations(size_t n_tokens, size_t k, uint32_t seed) {
  Activations a = random_activations(n_tokens, k, seed);
  const float special[] = {0.0f, -0.0f, 0x1p-140f, -0x1p-126f, INFINITY, -INFINITY, NAN, 0x1.fffffep127f};
  std::mt19937 random(seed);
  for (size_t t = 0; t < n_tokens; ++t) {
    for (size_t i = 0; i < k; ++i) {
      const int signs[] = {127, -127, i % 2 == 0 ? 127 : -127, i / 16 % 2 == 0 ? -127 : 127};
      a.codes[t * k + i] = static_cast<int8_t>(signs[t % 4]);
      if (random() % 16 == 0 && t % 2 == 1) a.x[t * k + i] = special[random() % std::size(special)];
    }
    const float scales[] = {NAN, 0.0f, 0x1p-126f, 0x1p-140f};
    for (size_t g = 0; g < k / 32; ++g)
      if (random() % 4 == 0) a.scales[t * (k / 32) + g] = scales[random() % std::size(scales)];
  }
  a.sum_codes();
  return a;
}

// --- weights: one row of blocks after another ---

using MakeBlock = std::function<void(std::mt19937& random, uint8_t* block)>;

Bytes make_weights(const BlockFormat& format, size_t n_rows, size_t k, const MakeBlock& make, uint32_t seed) {
  std::mt19937 random(seed);
  Bytes weights(n_rows * format.row_bytes(k));
  for (size_t at = 0; at < weights.size(); at += format.block_bytes) make(random, weights.data() + at);
  return weights;
}

void put_f16(uint8_t* block, size_t offset, uint16_t bits) {
  std::memcpy(block + offset, &bits, sizeof bits);
}

// Random codes, scales of moderate size and both signs; floats are normally distributed.
MakeBlock usual_blocks(const BlockFormat& format) {
  return [&format, blocks = test::RandomBlocks(format, 0.1f)](std::mt19937& random, uint8_t* block) {
    blocks.fill(random, {block, format.block_bytes});
  };
}

// Blocks of one repeated byte (codes and scales at their bounds: 0x80 is code -128 and scale -128),
// sub-blocks' scales of 0 beside the largest, scales negative, subnormal, zero, infinite or NaN; floats of
// any bits.
MakeBlock extreme_blocks(const BlockFormat& format) {
  if (format.is_float())
    return [&format](std::mt19937& random, uint8_t* block) {
      for (size_t i = 0; i < format.block_bytes; ++i) block[i] = static_cast<uint8_t>(random());
    };
  return [&format, scales = test::BlockScales(format)](std::mt19937& random, uint8_t* block) {
    const uint8_t fills[] = {0x00, 0xff, 0x80, 0x7f, 0x88, 0x77};
    std::memset(block, fills[random() % std::size(fills)], format.block_bytes);
    if (random() % 2 != 0) test::alternate_sub_scales(format.dtype, random() % 2 != 0, block);
    for (size_t i = 0; i < scales.size(); ++i) {
      const bool finite = scales.non_finite().empty() || random() % 64 != 0;
      const std::span<const uint16_t> bits = finite ? scales.finite() : scales.non_finite();
      scales.set(block, i, bits[random() % bits.size()]);
    }
  };
}

// --- running ---

struct Problem {
  size_t rows, k, n_tokens;
  bool add = false;
  float factor = 1;
};

Bytes in_layout(const MatmulKernel& kernel, const Bytes& weights, size_t rows, size_t k) {
  if (kernel.layout == TensorLayout::kRows) return weights;
  const size_t row_bytes = block_format(kernel.dtype).row_bytes(k);
  Bytes panels(panel_bytes(kernel.dtype, rows, k));
  for (size_t row = 0; row < rows; row += kPanelRows)
    pack_panel(kernel.dtype, weights.data() + row * row_bytes, std::min(kPanelRows, rows - row), k,
               panels.data() + row * row_bytes);
  return panels;
}

constexpr size_t kMargin = 5;  // floats between one token's results and the next
constexpr float kUntouched = 12345.0f;

// y of all tokens, [n_tokens, rows + kMargin]; rows outside [row_begin, row_end) hold what they held.
std::vector<float> initial_y(const Problem& p) {
  std::vector<float> y(p.n_tokens * (p.rows + kMargin), kUntouched);
  if (!p.add) return y;
  for (size_t t = 0; t < p.n_tokens; ++t)
    for (size_t r = 0; r < p.rows; ++r) y[t * (p.rows + kMargin) + r] = 0.25f * static_cast<float>(r) - 3.1f;
  return y;
}

void run(const MatmulKernel& kernel, const Problem& p, const Bytes& laid_out, Activations& a,
         size_t row_begin, size_t row_end, std::vector<float>& y) {
  const QuantizedRows quantized{a.codes.data(), a.scales.data(), a.sums.data()};
  Bytes tiles;
  if (kernel.tiles != nullptr) {
    tiles.resize(kernel.tiles->bytes(p.n_tokens, p.k));
    kernel.tiles->pack(quantized, p.n_tokens, p.k, 0, p.n_tokens, tiles.data());
  }
  kernel.run({.weights = laid_out.data(),
              .k = p.k,
              .row_begin = row_begin,
              .row_end = row_end,
              .n_tokens = p.n_tokens,
              .x = a.x.data(),
              .a = quantized,
              .tiles = tiles.data(),
              .y = y.data(),
              .y_stride = p.rows + kMargin,
              .add = p.add,
              .factor = p.factor});
}

std::vector<float> multiply(const MatmulKernel& kernel, const Problem& p, const Bytes& weights,
                            Activations& a) {
  std::vector<float> y = initial_y(p);
  run(kernel, p, in_layout(kernel, weights, p.rows, p.k), a, 0, p.rows, y);
  return y;
}

bool same_bits(float a, float b) {
  return (std::isnan(a) && std::isnan(b)) || std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}

// The first difference in words, or nothing.
std::string difference(const std::vector<float>& actual, const std::vector<float>& expected,
                       const Problem& p) {
  for (size_t i = 0; i < expected.size(); ++i) {
    if (same_bits(actual[i], expected[i])) continue;
    const size_t stride = p.rows + kMargin;
    return "token " + std::to_string(i / stride) + " row " + std::to_string(i % stride) + ": " +
           std::to_string(actual[i]) + " instead of " + std::to_string(expected[i]) + "; rows " +
           std::to_string(p.rows) + " k " + std::to_string(p.k) + " tokens " + std::to_string(p.n_tokens);
  }
  return "";
}

const MatmulKernel& scalar_kernel(DType dtype) {
  const MatmulKernel* kernel = scalar::kKernelSet.find_matmul(dtype);
  if (kernel != nullptr) return *kernel;
  ADD_FAILURE() << "no scalar kernel for " << block_format(dtype).name;
  std::abort();
}

// --- the scalar kernels ---

TEST(ScalarMatmul, CoversEveryFormatThatCanBeDecoded) {
  for (const BlockFormat& format : block_formats()) {
    if (format.decode != nullptr) {
      EXPECT_EQ(scalar_kernel(format.dtype).dtype, format.dtype);
    }
  }
}

class ScalarMatmul : public testing::TestWithParam<DType> {};

// Terms of a dot product in double, and the sum of their magnitudes with a minimum counted apart from its
// code.
struct Expected {
  double sum = 0, magnitude = 0;
};

Expected exact_dot(const BlockFormat& format, const uint8_t* row, const Activations& a, size_t token) {
  std::vector<float> w(a.k);
  format.decode(row, a.k / format.block_weights, w.data());
  Expected e;
  for (size_t k = 0; k < a.k; ++k) {
    double x = a.x[token * a.k + k], largest = std::abs(w[k]);
    if (!format.is_float()) {
      x = double(a.codes[token * a.k + k]) * a.scales[token * (a.k / 32) + k / 32];
      WeightGroup group;
      format.unpack_group(row, k / 32, &group);
      const size_t half = k % 32 / 16;
      const double d = half == 0 ? group.d : group.d_second;
      largest = std::abs(d * group.scale[half] * group.code[k % 32]);
      if (group.has_min) largest += std::abs(double(group.mu) * group.min[half]);
    }
    e.sum += w[k] * x;
    e.magnitude += largest * std::abs(x);
  }
  return e;
}

TEST_P(ScalarMatmul, IsTheDotProductOfDecodedWeights) {
  const BlockFormat& format = block_format(GetParam());
  for (const size_t k : {256, 1024}) {
    const Problem p = {19, k, 18};
    const Bytes weights = make_weights(format, p.rows, k, usual_blocks(format), 1);
    Activations a = random_activations(p.n_tokens, k, 2);
    const std::vector<float> y = multiply(scalar_kernel(format.dtype), p, weights, a);
    for (size_t t = 0; t < p.n_tokens; ++t) {
      for (size_t r = 0; r < p.rows; ++r) {
        const Expected e = exact_dot(format, weights.data() + r * format.row_bytes(k), a, t);
        // Each step of the chain rounds a partial sum, which is at most `magnitude`, by 2^-24 of it; at most
        // two steps a group (one a weight for floats). A term itself is rounded once here and up to three
        // times by decode().
        const double steps = format.is_float() ? double(k) : 2.0 * double(k) / 32;
        const double bound = (steps + 4) * 0x1p-24 * e.magnitude;
        ASSERT_NEAR(y[t * (p.rows + kMargin) + r], e.sum, bound)
            << "token " << t << " row " << r << " k " << k;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, ScalarMatmul, testing::ValuesIn(test::decodable_formats()),
                         [](const auto& tested) { return std::string(block_format(tested.param).name); });

TEST(ScalarMatmulChain, RoundsWhereTheDefinitionSays) {
  // Two Q4_1 blocks by hand: nibbles 3 and 12, then 9 and 1.
  Bytes row(40);
  const uint16_t d[2] = {f16_from_f32(0.123f), f16_from_f32(-0.0457f)};
  const uint16_t m[2] = {f16_from_f32(-1.7f), f16_from_f32(0.31f)};
  const uint8_t nibbles[2] = {0xc3, 0x19};
  for (size_t b = 0; b < 2; ++b) {
    put_f16(row.data() + 20 * b, 0, d[b]);
    put_f16(row.data() + 20 * b, 2, m[b]);
    std::memset(row.data() + 20 * b + 4, nibbles[b], 16);
  }
  Activations a = random_activations(1, 64, 3);
  float acc = 0;
  for (size_t b = 0; b < 2; ++b) {
    int dot = 0, sum = 0;
    for (size_t k = 0; k < 32; ++k) {
      const int code = a.codes[32 * b + k];
      dot += code * (k < 16 ? nibbles[b] & 15 : nibbles[b] >> 4);
      sum += code;
    }
    const float p = f32_from_f16(d[b]) * a.scales[b];
    acc = std::fma(static_cast<float>(dot), p, acc);
    const float offset = a.scales[b] * static_cast<float>(sum);
    acc = std::fma(f32_from_f16(m[b]), offset, acc);
  }
  const Problem p = {1, 64, 1};
  EXPECT_EQ(multiply(scalar_kernel(DType::Q4_1), p, row, a)[0], acc);
}

// --- the other sets ---

struct SetAndFormat {
  const KernelSet* set;
  DType dtype;
};

std::vector<SetAndFormat> kernels_of_this_cpu() {
  std::vector<SetAndFormat> all;
  for (const KernelSetRow& row : test::sets_and_twins())
    if (row.supported(cpu_features()))
      row.set->for_each_matmul([&](const MatmulKernel& kernel) { all.push_back({row.set, kernel.dtype}); });
  return all;
}

// One line for each set that the tests below leave out.
class MatmulSet : public testing::TestWithParam<KernelSetRow> {};

TEST_P(MatmulSet, RunsOnThisCpu) {
  if (!GetParam().supported(cpu_features())) GTEST_SKIP() << "this CPU lacks one of " << GetParam().needs;
}

INSTANTIATE_TEST_SUITE_P(Sets, MatmulSet, testing::ValuesIn(test::sets_and_twins()),
                         [](const auto& tested) { return std::string(tested.param.set->name); });

class Matmul : public testing::TestWithParam<SetAndFormat> {
 protected:
  const BlockFormat& format() const { return block_format(GetParam().dtype); }
  const MatmulKernel& kernel() const { return *GetParam().set->find_matmul(GetParam().dtype); }

  // Columns: whole blocks, at least one activation group for formats that need it.
  size_t columns(size_t n_blocks) const { return n_blocks * format().block_weights; }

  void expect_scalar_bits(const Problem& p, uint32_t seed) {
    for (const bool extreme : {false, true}) {
      const Bytes weights = make_weights(format(), p.rows, p.k,
                                         extreme ? extreme_blocks(format()) : usual_blocks(format()), seed);
      Activations a =
          extreme ? extreme_activations(p.n_tokens, p.k, seed) : random_activations(p.n_tokens, p.k, seed);
      const std::vector<float> expected = multiply(scalar_kernel(format().dtype), p, weights, a);
      const std::vector<float> actual = multiply(kernel(), p, weights, a);
      ASSERT_EQ(difference(actual, expected, p), "") << (extreme ? "extreme" : "usual");
    }
  }
};

TEST_P(Matmul, EqualsScalarForEveryNumberOfRows) {
  for (size_t rows = 1; rows <= 33; ++rows)
    for (const size_t n_tokens : {1, 2, 3, 4})
      expect_scalar_bits({rows, columns(3), n_tokens, rows % 2 == 0}, static_cast<uint32_t>(rows));
}

TEST_P(Matmul, EqualsScalarForEveryNumberOfTokens) {
  for (size_t n_tokens = 1; n_tokens <= 40; ++n_tokens)
    expect_scalar_bits({33, columns(2), n_tokens, n_tokens % 2 == 0}, static_cast<uint32_t>(n_tokens));
  expect_scalar_bits({17, columns(1), 518, true}, 518);  // more than kernels keep sums for
}

TEST_P(Matmul, MultipliesByAFactorOnceAfterTheDot) {
  for (const size_t n_tokens : {1, 2, 3, 17, 66})
    for (const bool add : {false, true}) {
      const Problem plain = {35, columns(3), n_tokens}, scaled = {35, columns(3), n_tokens, add, 0.7f};
      const Bytes weights = make_weights(format(), plain.rows, plain.k, usual_blocks(format()), 6);
      Activations a = random_activations(n_tokens, plain.k, 7);
      const std::vector<float> dots = multiply(scalar_kernel(format().dtype), plain, weights, a);
      std::vector<float> expected = initial_y(scaled);
      for (size_t t = 0; t < n_tokens; ++t)
        for (size_t r = 0; r < plain.rows; ++r) {
          const size_t i = t * (plain.rows + kMargin) + r;
          const float dot = dots[i] * 0.7f;
          expected[i] = add ? expected[i] + dot : dot;
        }
      for (const KernelSet* set : {&scalar::kKernelSet, GetParam().set})
        ASSERT_EQ(
            difference(multiply(*set->find_matmul(format().dtype), scaled, weights, a), expected, scaled), "")
            << set->name;
    }
}

TEST_P(Matmul, EqualsScalarForManyPanels) {
  // Kernels for few tokens read several panels at once; the last one is not whole, or some are left over.
  for (const size_t rows : {48, 63, 64, 65, 97, 128, 150})
    for (const size_t n_tokens : {1, 2, 3}) {
      if (QUERN_SANITIZED && (rows + n_tokens) % 3 != 0) continue;  // each way, not each number
      expect_scalar_bits({rows, columns(2), n_tokens, rows % 2 == 0}, static_cast<uint32_t>(rows));
    }
  // Kernels for many tokens take panels together.
  for (const size_t rows : {128, 131, 290})
    for (const size_t n_tokens : {17, 64, 83}) {
      if (QUERN_SANITIZED && (rows == 290 || n_tokens == 64)) continue;
      expect_scalar_bits({rows, columns(5), n_tokens, rows % 2 == 0}, static_cast<uint32_t>(rows));
    }
}

TEST_P(Matmul, EqualsScalarForEveryNumberOfBlocks) {
  for (const size_t n_blocks : {1, 2, 3, 4, 5, 8, 31, 32, 33, 65, 257})
    for (const size_t n_tokens : {1, 5, 34}) {
      if (QUERN_SANITIZED && n_blocks > 33) continue;
      if (n_blocks > 65 && n_tokens > 5) continue;  // long rows for many tokens come below
      expect_scalar_bits({17, columns(n_blocks), n_tokens}, static_cast<uint32_t>(n_blocks));
    }
  // Many tokens: codes may be taken apart for all of them, chunk by chunk.
  for (const size_t n_blocks : {2, 16, 17, 33, 129})
    for (const size_t n_tokens : {64, 67}) {
      if (QUERN_SANITIZED && (n_blocks > 33 || n_tokens == 64)) continue;
      if (n_blocks > 33 && n_tokens == 64) continue;
      expect_scalar_bits({17, columns(n_blocks), n_tokens, true}, static_cast<uint32_t>(n_blocks));
    }
}

TEST_P(Matmul, EqualsScalarWhereSumsReach16Bits) {
  // 16 codes of -32 or 31 with activations of +-64 and +-66: sums that just fit in 16 bits, or do not.
  const Problem p = {35, columns(3), 17};
  for (int size = 60; size <= 70; ++size) {
    Activations a = random_activations(p.n_tokens, p.k, 10);
    for (size_t i = 0; i < a.codes.size(); ++i)
      a.codes[i] = static_cast<int8_t>(i / 16 % 3 == 0 ? -size : size);
    a.sum_codes();
    const Bytes weights =
        make_weights(format(), p.rows, p.k, extreme_blocks(format()), static_cast<uint32_t>(size));
    ASSERT_EQ(difference(multiply(kernel(), p, weights, a),
                         multiply(scalar_kernel(format().dtype), p, weights, a), p),
              "")
        << size;
  }
}

TEST_P(Matmul, PartsOfTheRowsEqualTheWhole) {
  const Problem p = {53, columns(5), 3, true};
  const Bytes weights = make_weights(format(), p.rows, p.k, usual_blocks(format()), 4);
  Activations a = random_activations(p.n_tokens, p.k, 5);
  const std::vector<float> whole = multiply(kernel(), p, weights, a);
  const Bytes laid_out = in_layout(kernel(), weights, p.rows, p.k);
  for (const size_t cut : {16, 32, 48}) {
    std::vector<float> y = initial_y(p);
    run(kernel(), p, laid_out, a, 0, cut, y);
    for (size_t t = 0; t < p.n_tokens; ++t)
      for (size_t r = cut; r < p.rows; ++r)
        ASSERT_EQ(y[t * (p.rows + kMargin) + r], initial_y(p)[t * (p.rows + kMargin) + r])
            << "wrote past row_end";
    run(kernel(), p, laid_out, a, cut, p.rows, y);
    ASSERT_EQ(difference(y, whole, p), "") << "cut at " << cut;
  }
}

TEST_P(Matmul, BlocksOfTokensEqualTheWhole) {
  const Problem all = {35, columns(3), 150, true};
  const size_t groups = all.k / 32, block = 64;  // a multiple of every set's tiles
  const Bytes weights = make_weights(format(), all.rows, all.k, usual_blocks(format()), 8);
  Activations a = random_activations(all.n_tokens, all.k, 9);
  const std::vector<float> whole = multiply(kernel(), all, weights, a);
  const Bytes laid_out = in_layout(kernel(), weights, all.rows, all.k);
  const QuantizedRows quantized{a.codes.data(), a.scales.data(), a.sums.data()};
  Bytes tiles;
  if (const ActivationTiles* form = kernel().tiles; form != nullptr) {
    ASSERT_EQ(block % form->tokens, 0u);
    tiles.resize(form->bytes(all.n_tokens, all.k));
    for (size_t t = 0; t < all.n_tokens; t += block)  // as threads do
      form->pack(quantized, all.n_tokens, all.k, t, std::min(t + block, all.n_tokens), tiles.data());
  }
  std::vector<float> y = initial_y(all);
  for (size_t t = 0; t < all.n_tokens; t += block) {
    kernel().run(
        {.weights = laid_out.data(),
         .k = all.k,
         .row_begin = 0,
         .row_end = all.rows,
         .n_tokens = std::min(block, all.n_tokens - t),
         .x = a.x.data() + t * all.k,
         .a = {a.codes.data() + t * all.k, a.scales.data() + t * groups, a.sums.data() + t * groups * 4},
         .tiles = tiles.empty() ? nullptr : tiles.data() + kernel().tiles->bytes(t, all.k),
         .y = y.data() + t * (all.rows + kMargin),
         .y_stride = all.rows + kMargin,
         .add = all.add});
  }
  ASSERT_EQ(difference(y, whole, all), "");
}

TEST_P(Matmul, TokensDoNotSeeEachOther) {
  const Problem all = {20, columns(4), 38};
  const Bytes weights = make_weights(format(), all.rows, all.k, usual_blocks(format()), 6);
  Activations a = random_activations(all.n_tokens, all.k, 7);
  const std::vector<float> y = multiply(kernel(), all, weights, a);
  for (size_t t = 0; t < all.n_tokens; ++t) {
    Activations one(1, all.k);
    const size_t groups = all.k / 32;
    std::copy_n(a.x.begin() + t * all.k, all.k, one.x.begin());
    std::copy_n(a.codes.begin() + t * all.k, all.k, one.codes.begin());
    std::copy_n(a.scales.begin() + t * groups, groups, one.scales.begin());
    one.sum_codes();
    const Problem single = {all.rows, all.k, 1};
    const std::vector<float> alone = multiply(kernel(), single, weights, one);
    const std::vector<float> together(y.begin() + t * alone.size(), y.begin() + (t + 1) * alone.size());
    ASSERT_EQ(difference(together, alone, single), "") << "token " << t;
  }
}

INSTANTIATE_TEST_SUITE_P(Sets, Matmul, testing::ValuesIn(kernels_of_this_cpu()), [](const auto& tested) {
  return std::string(tested.param.set->name) + "_" + std::string(block_format(tested.param.dtype).name);
});

}  // namespace
}  // namespace quern
