// The calibrated encoder against least squares in double, and against the importance-weighted encoder. Walks
// over every format that it has.
#include "quant/calibrated/calibrated_encoder.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "quant/calibrated/code_search.h"
#include "quant/parallel.h"

namespace quern {
namespace {

using Matrix64 = std::vector<double>;  // [n, n]

std::vector<DType> calibrated_formats() {
  std::vector<DType> formats;
  for (const BlockFormat& format : block_formats())
    if (can_calibrate(format.dtype)) formats.push_back(format.dtype);
  return formats;
}

// Of inputs that have a few strong directions, as those of models do, noise (none: of no full rank), and
// columns of very different size.
Matrix64 gram_of_inputs(size_t n, double noise, std::mt19937& random) {
  std::normal_distribution<double> normal;
  const size_t n_directions = std::max<size_t>(n / 8, 1);
  std::vector<double> directions(n_directions * n), size(n);
  for (double& v : directions) v = normal(random);
  for (double& v : size) v = std::exp(normal(random));
  Matrix64 gram(n * n);
  for (size_t i = 0; i < n; ++i) gram[i * n + i] = noise * noise;
  for (size_t d = 0; d < n_directions; ++d)
    for (size_t i = 0; i < n; ++i)
      for (size_t j = 0; j < n; ++j) gram[i * n + j] += directions[d * n + i] * directions[d * n + j];
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < n; ++j) gram[i * n + j] *= size[i] * size[j];
  return gram;
}

void damp(Matrix64* gram, size_t n, double part) {
  double mean = 0;
  for (size_t i = 0; i < n; ++i) mean += (*gram)[i * n + i] / static_cast<double>(n);
  for (size_t i = 0; i < n; ++i) (*gram)[i * n + i] += part * mean;
}

// H = M D M^T by elimination from the last column on; of h the upper triangle.
ErrorFeedback feedback_of(Matrix64 h, size_t n) {
  ErrorFeedback feedback(n);
  std::vector<double> m(n);
  for (size_t j = n; j-- > 0;) {
    const double d = h[j * n + j];
    feedback.weight()[j] = static_cast<float>(d);
    for (size_t i = 0; i < j; ++i) {
      m[i] = h[i * n + j] / d;
      feedback.set(i, j, static_cast<float>(m[i]));
    }
    for (size_t l = 0; l < j; ++l)
      for (size_t i = l; i < j; ++i) h[l * n + i] -= h[l * n + j] * m[i];
  }
  return feedback;
}

double loss_of(const Matrix64& h, const std::vector<double>& error) {
  const size_t n = error.size();
  double loss = 0;
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < n; ++j) loss += error[i] * h[i * n + j] * error[j];
  return loss;
}

// Solves A x = b in double, A symmetric and positive definite, [n, n].
std::vector<double> solve(Matrix64 a, std::vector<double> b) {
  const size_t n = b.size();
  for (size_t k = 0; k < n; ++k)
    for (size_t i = k + 1; i < n; ++i) {
      const double factor = a[i * n + k] / a[k * n + k];
      for (size_t j = k; j < n; ++j) a[i * n + j] -= factor * a[k * n + j];
      b[i] -= factor * b[k];
    }
  for (size_t i = n; i-- > 0;) {
    for (size_t j = i + 1; j < n; ++j) b[i] -= a[i * n + j] * b[j];
    b[i] /= a[i * n + i];
  }
  return b;
}

std::vector<float> random_rows(size_t n, std::mt19937& random, float size = 0.05f) {
  std::normal_distribution<float> normal(0, size);
  std::vector<float> rows(n);
  for (float& w : rows) w = normal(random);
  return rows;
}

std::vector<float> decode(const BlockFormat& format, const std::vector<uint8_t>& bytes) {
  const size_t n_blocks = bytes.size() / format.block_bytes;
  std::vector<float> values(n_blocks * format.block_weights);
  format.decode(bytes.data(), n_blocks, values.data());
  return values;
}

struct Encoded {
  std::vector<uint8_t> bytes;
  CalibratedResult result;
};
Encoded encode(DType dtype, const ErrorFeedback& feedback, const std::vector<float>& rows,
               int n_threads = 1) {
  const BlockFormat& format = block_format(dtype);
  Encoded encoded;
  encoded.bytes.resize(rows.size() / format.block_weights * format.block_bytes);
  ThreadPool pool(n_threads);
  encoded.result = encode_calibrated(pool, dtype, feedback, rows, encoded.bytes);
  return encoded;
}

// As quantize_rows does it for one row.
std::vector<uint8_t> encode_by_importance(const BlockFormat& format, std::span<const float> row,
                                          std::span<const float> importance) {
  float sum = 0;
  for (const float w : row) sum += w * w;
  const size_t n_blocks = row.size() / format.block_weights;
  std::vector<uint8_t> bytes(n_blocks * format.block_bytes);
  if (format.encode_weighted != nullptr)
    format.encode_weighted(row.data(), importance.data(), sum / static_cast<float>(row.size()), n_blocks,
                           bytes.data());
  else
    format.encode(row.data(), n_blocks, bytes.data());
  return bytes;
}

class CalibratedEncoder : public testing::TestWithParam<DType> {
 protected:
  const BlockFormat& format_ = block_format(GetParam());
  const size_t columns_ = format_.block_weights == 32 ? 96 : 512;
  std::mt19937 random_{17};
};

TEST_P(CalibratedEncoder, LossIsThatOfTheDecodedBlocksInDouble) {
  Matrix64 h = gram_of_inputs(columns_, 0.3, random_);
  damp(&h, columns_, 0.1);
  const std::vector<float> rows = random_rows(7 * columns_, random_);
  const Encoded encoded = encode(GetParam(), feedback_of(h, columns_), rows);
  const std::vector<float> values = decode(format_, encoded.bytes);
  double expected = 0;
  for (size_t r = 0; r < 7; ++r) {
    std::vector<double> error(columns_);
    for (size_t k = 0; k < columns_; ++k)
      error[k] = static_cast<double>(rows[r * columns_ + k]) - values[r * columns_ + k];
    expected += loss_of(h, error);
  }
  // f32 sums of at most 512 terms, and M in f32.
  EXPECT_NEAR(encoded.result.loss, expected, 1e-3 * expected);
}

// What each column is aimed at is, in double, the value with which the columns after it, were they free,
// would make the loss least. No code that is nearer to it was left (but for the last bits of an aim between
// two).
TEST_P(CalibratedEncoder, EveryCodeIsTheNearestToTheLeastSquaresAim) {
  const size_t n = format_.block_weights;
  Matrix64 h = gram_of_inputs(n, 0.3, random_);
  damp(&h, n, 0.1);
  const std::vector<float> row = random_rows(n, random_);
  const Encoded encoded = encode(GetParam(), feedback_of(h, n), row);
  const std::vector<float> values = decode(format_, encoded.bytes);
  const size_t step = n == 32 ? 1 : 83;  // each takes a solution of a system
  for (size_t j = 0; j < n; j += step) {
    const size_t n_free = n - j;
    Matrix64 free(n_free * n_free);
    std::vector<double> pulled(n_free);
    for (size_t a = 0; a < n_free; ++a) {
      for (size_t b = 0; b < n_free; ++b) free[a * n_free + b] = h[(j + a) * n + j + b];
      for (size_t i = 0; i < j; ++i)
        pulled[a] -= h[(j + a) * n + i] * (static_cast<double>(row[i]) - values[i]);
    }
    const double aim = row[j] - solve(free, pulled)[0];
    WeightGroup group;
    format_.unpack_group(encoded.bytes.data(), j / 32, &group);
    const size_t half = j % 32 / 16;
    const double d = static_cast<double>(half == 0 ? group.d : group.d_second) * group.scale[half];
    const double minimum = group.has_min ? static_cast<double>(group.mu) * group.min[half] : 0;
    double nearest = INFINITY;
    for (int code = -128; code < 128; ++code) {
      bool exists = false;  // among the codes of other blocks of the format
      switch (GetParam()) {
        case DType::Q4_0:
          exists = code >= -8 && code < 8;
          break;
        case DType::Q5_0:
          exists = code >= -16 && code < 16;
          break;
        case DType::Q4_1:
        case DType::Q4_K:
          exists = code >= 0 && code < 16;
          break;
        case DType::Q5_1:
        case DType::Q5_K:
          exists = code >= 0 && code < 32;
          break;
        case DType::Q6_K:
          exists = code >= -32 && code < 32;
          break;
        case DType::Q8_0:
          exists = code >= -127;
          break;
        case DType::IQ4_NL: {
          constexpr int kValues[] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                     1,    13,   25,  38,  53,  69,  89,  113};
          exists = std::find(std::begin(kValues), std::end(kValues), code) != std::end(kValues);
          break;
        }
        default:
          FAIL() << "a format that this test does not know";
      }
      if (exists) nearest = std::min(nearest, std::fabs(aim - (code * d + minimum)));
    }
    EXPECT_LE(std::fabs(aim - values[j]), nearest + 1e-7) << "column " << j;
  }
}

// With a diagonal Gram matrix there is nothing to feed forward.
TEST_P(CalibratedEncoder, WithoutFeedbackLosesNoMoreThanTheImportanceWeightedEncoder) {
  ErrorFeedback feedback(columns_);
  std::normal_distribution<float> normal;
  for (float& d : feedback.weight()) d = std::exp(2 * normal(random_));
  for (int i = 0; i < 10; ++i) {
    const std::vector<float> row = random_rows(columns_, random_);
    const Encoded encoded = encode(GetParam(), feedback, row);
    const std::vector<float> ours = decode(format_, encoded.bytes);
    const std::vector<float> theirs = decode(format_, encode_by_importance(format_, row, feedback.weight()));
    double our_loss = 0, their_loss = 0;
    for (size_t k = 0; k < columns_; ++k) {
      const double d = feedback.weight()[k], a = static_cast<double>(row[k]) - ours[k],
                   b = static_cast<double>(row[k]) - theirs[k];
      our_loss += d * a * a;
      their_loss += d * b * b;
    }
    EXPECT_LE(our_loss, their_loss * (1 + 1e-6));
    EXPECT_NEAR(encoded.result.loss, our_loss, 1e-4 * our_loss);
  }
}

TEST_P(CalibratedEncoder, WithFeedbackLosesAThirdLessThanTheImportanceWeightedEncoder) {
  Matrix64 h = gram_of_inputs(columns_, 0.3, random_);
  damp(&h, columns_, 0.01);
  std::vector<float> importance(columns_);
  for (size_t k = 0; k < columns_; ++k) importance[k] = static_cast<float>(h[k * columns_ + k]);
  const ErrorFeedback feedback = feedback_of(h, columns_);
  double ours = 0, theirs = 0;
  for (int i = 0; i < 4; ++i) {
    const std::vector<float> row = random_rows(columns_, random_);
    ours += encode(GetParam(), feedback, row).result.loss;
    const std::vector<float> values = decode(format_, encode_by_importance(format_, row, importance));
    std::vector<double> error(columns_);
    for (size_t k = 0; k < columns_; ++k) error[k] = static_cast<double>(row[k]) - values[k];
    theirs += loss_of(h, error);
  }
  EXPECT_LT(ours, 0.67 * theirs);
}

TEST_P(CalibratedEncoder, ZerosStayZeros) {
  Matrix64 h = gram_of_inputs(columns_, 0.3, random_);
  damp(&h, columns_, 0.1);
  std::vector<float> rows = random_rows(3 * columns_, random_);
  std::fill_n(rows.begin() + static_cast<ptrdiff_t>(columns_), columns_, 0.0f);
  const Encoded encoded = encode(GetParam(), feedback_of(h, columns_), rows);
  EXPECT_EQ(encoded.result.bad_row, -1);
  const std::vector<float> values = decode(format_, encoded.bytes);
  for (size_t k = 0; k < columns_; ++k) EXPECT_EQ(values[columns_ + k], 0.0f);
}

// Inputs that never were anything but zero, damped as the caller does it: their columns count next to
// nothing, and the others come out as well as without them.
TEST_P(CalibratedEncoder, DeadInputsDoNoHarm) {
  Matrix64 h = gram_of_inputs(columns_, 0, random_);  // rank-deficient
  for (size_t i = 0; i < columns_; ++i)
    for (size_t j = 0; j < columns_; ++j)
      if (i % 5 == 0 || j % 5 == 0) h[i * columns_ + j] = 0;
  damp(&h, columns_, 0.01);
  const std::vector<float> row = random_rows(columns_, random_);
  const Encoded encoded = encode(GetParam(), feedback_of(h, columns_), row);
  EXPECT_EQ(encoded.result.bad_row, -1);
  const std::vector<float> values = decode(format_, encoded.bytes);
  double squared_error = 0, squared = 0;
  for (size_t k = 0; k < columns_; ++k) {
    ASSERT_TRUE(std::isfinite(values[k]));
    squared_error += std::pow(static_cast<double>(row[k]) - values[k], 2);
    squared += std::pow(row[k], 2);
  }
  EXPECT_LT(squared_error, 0.5 * squared);
}

TEST_P(CalibratedEncoder, RowsDependNeitherOnNeighboursNorOnThreads) {
  Matrix64 h = gram_of_inputs(columns_, 0.3, random_);
  damp(&h, columns_, 0.1);
  const ErrorFeedback feedback = feedback_of(h, columns_);
  const std::vector<float> rows = random_rows(11 * columns_, random_);
  const Encoded together = encode(GetParam(), feedback, rows);
  EXPECT_EQ(encode(GetParam(), feedback, rows, 3).bytes, together.bytes);
  std::vector<uint8_t> apart;
  for (size_t r = 0; r < 11; ++r) {
    const auto begin = rows.begin() + static_cast<ptrdiff_t>(r * columns_);
    const Encoded row = encode(GetParam(), feedback, {begin, begin + static_cast<ptrdiff_t>(columns_)});
    apart.insert(apart.end(), row.bytes.begin(), row.bytes.end());
  }
  EXPECT_EQ(apart, together.bytes);
}

TEST_P(CalibratedEncoder, NamesTheRowThatCannotBeHeld) {
  std::vector<float> rows = random_rows(6 * columns_, random_);
  for (size_t k = 0; k < columns_; ++k) rows[4 * columns_ + k] = k % 2 == 0 ? 1e20f : -1e20f;
  EXPECT_EQ(encode(GetParam(), ErrorFeedback(columns_), rows).result.bad_row, 4);
}

INSTANTIATE_TEST_SUITE_P(Formats, CalibratedEncoder, testing::ValuesIn(calibrated_formats()),
                         [](const auto& tested) { return std::string(block_format(tested.param).name); });

// Weights of checkpoints that were trained for a format lie on its steps, wherever in the range.
TEST(CalibratedEncoderLattice, IsCodedExactly) {
  std::mt19937 random(3);
  constexpr size_t kColumns = 128, kRows = 40;
  Matrix64 h = gram_of_inputs(kColumns, 0.3, random);
  damp(&h, kColumns, 0.1);
  const ErrorFeedback feedback = feedback_of(h, kColumns);
  struct Lattice {
    DType dtype;
    int lowest, highest;
    bool has_minimum;
  };
  for (const Lattice& lattice : {Lattice{DType::Q4_0, -8, 7, false}, Lattice{DType::Q5_0, -16, 15, false},
                                 Lattice{DType::Q4_1, 0, 15, true}, Lattice{DType::Q5_1, 0, 31, true}}) {
    std::vector<float> rows;
    for (size_t b = 0; b < kRows * kColumns / 32; ++b) {
      // Steps with 8 bits, as in bfloat16.
      const float step =
          std::ldexp(static_cast<float>(128 + random() % 128), -15) * (b % 2 == 0 ? 1.0f : 2.0f);
      const int span = 1 + static_cast<int>(b) % lattice.highest;
      for (size_t k = 0; k < 32; ++k) {
        const int code = lattice.has_minimum ? static_cast<int>(random() % (span + 1))
                                             : static_cast<int>(random() % (2 * span + 1)) - span;
        rows.push_back(step * static_cast<float>(code) - (lattice.has_minimum ? 3 * step : 0));
      }
    }
    const Encoded encoded = encode(lattice.dtype, feedback, rows);
    EXPECT_EQ(decode(block_format(lattice.dtype), encoded.bytes), rows) << block_format(lattice.dtype).name;
    EXPECT_EQ(encoded.result.loss, 0);
  }
}

TEST(CalibratedEncoderCodeSearch, InstructionSetsGiveTheSameBits) {
  if (calibrated::kAvx2CodeSearch == nullptr || !__builtin_cpu_supports("avx2"))
    GTEST_SKIP() << "this CPU has no AVX2";
  using namespace calibrated;
  std::mt19937 random(5);
  std::vector<float> panel = random_rows(96 * kPanel, random, 0.3f), errors = random_rows(4 * 96, random);
  for (const size_t n_rows : {1, 3, 4}) {
    std::vector<float> start = random_rows(4 * kPanel, random), y[2] = {start, start};
    const CodeSearch* const sets[] = {&kBaselineCodeSearch, kAvx2CodeSearch};
    for (size_t s = 0; s < 2; ++s) {
      const float* error[4];
      float* out[4];
      for (size_t r = 0; r < 4; ++r) {
        error[r] = &errors[r * 96];
        out[r] = &y[s][r * kPanel];
      }
      sets[s]->feed(panel.data(), 96, error, n_rows, out);
    }
    EXPECT_EQ(y[0], y[1]);
  }
  const std::vector<float> target = random_rows(kPanel, random), weight(kPanel, 0.7f);
  Candidates candidates{};
  for (size_t c = 0; c < kCandidates; ++c) {
    candidates.step[c] = c == 7 ? 0.0f : 0.01f * static_cast<float>(c) - 0.1f;
    candidates.minimum[c] = c % 2 == 0 ? 0.0f : 0.02f;
  }
  for (const CodeRule rule : {CodeRule{32, -8, 7, false}, {16, 0, 31, false}, {32, -127, 113, true}}) {
    std::vector<float> code[2], loss[2];
    const CodeSearch* const sets[] = {&kBaselineCodeSearch, kAvx2CodeSearch};
    for (size_t s = 0; s < 2; ++s) {
      code[s].resize(rule.n * kCandidates);
      loss[s].resize(kCandidates);
      sets[s]->code(rule, target.data(), target.data(), panel.data(), weight.data(), candidates,
                    code[s].data(), loss[s].data());
    }
    EXPECT_EQ(code[0], code[1]);
    EXPECT_EQ(loss[0], loss[1]);
  }
}

}  // namespace
}  // namespace quern
