// The encoders against plain transcriptions of formats.md 2.5, one weight after the other, on inputs chosen
// for their ties, zeros and extremes; the golden file covers far fewer.
#include <gtest/gtest.h>

#include <cfloat>
#include <climits>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "quant/block_format.h"
#include "quant/float16.h"
#include "quant/formats/searches.h"
#include "tests/quant/golden_blocks.h"
#include "tests/quant/plain_encoders.h"

namespace quern {
namespace {

using Bytes = std::vector<uint8_t>;

void append_f16(float value, Bytes* out) {
  const uint16_t bits = f16_from_f32(value);
  out->push_back(static_cast<uint8_t>(bits));
  out->push_back(static_cast<uint8_t>(bits >> 8));
}

// (int8_t)x as x86 computes it: what does not fit an int becomes INT_MIN, whose low byte is 0.
int truncated_byte(float x) {
  const int i = x > -2147483904.0f && x < 2147483648.0f ? static_cast<int>(x) : INT_MIN;
  return static_cast<int8_t>(static_cast<uint8_t>(static_cast<unsigned>(i)));
}

float first_of_largest(const float* x, int n) {
  float amax = 0, max = 0;
  for (int k = 0; k < n; ++k) {
    if (amax < std::fabs(x[k])) {
      amax = std::fabs(x[k]);
      max = x[k];
    }
  }
  return max;
}

float inverse(float d) { return d != 0 ? 1.0f / d : 0.0f; }

void append_codes(const int* q, bool fifth_bits, Bytes* out) {
  if (fifth_bits) {
    uint32_t qh = 0;
    for (int e = 0; e < 32; ++e) qh |= static_cast<uint32_t>(q[e] >> 4) << e;
    for (int i = 0; i < 4; ++i) out->push_back(static_cast<uint8_t>(qh >> 8 * i));
  }
  for (int j = 0; j < 16; ++j) out->push_back(static_cast<uint8_t>((q[j] & 15) | (q[j + 16] & 15) << 4));
}

Bytes symmetric(const float* x, int steps, bool fifth_bits) {
  Bytes out;
  const float d = first_of_largest(x, 32) / static_cast<float>(-steps);
  append_f16(d, &out);
  int q[32];
  for (int k = 0; k < 32; ++k) {
    q[k] = std::min(2 * steps - 1, truncated_byte(x[k] * inverse(d) + (static_cast<float>(steps) + 0.5f)));
  }
  append_codes(q, fifth_bits, &out);
  return out;
}

Bytes with_minimum(const float* x, int largest_code, bool fifth_bits) {
  Bytes out;
  float min = FLT_MAX, max = -FLT_MAX;
  for (int k = 0; k < 32; ++k) {
    if (x[k] < min) min = x[k];
    if (x[k] > max) max = x[k];
  }
  const float d = (max - min) / static_cast<float>(largest_code);
  append_f16(d, &out);
  append_f16(min, &out);
  int q[32];
  for (int k = 0; k < 32; ++k) {
    q[k] = std::min(largest_code, truncated_byte((x[k] - min) * inverse(d) + 0.5f));
  }
  append_codes(q, fifth_bits, &out);
  return out;
}

Bytes q8_0(const float* x) {
  Bytes out;
  const float d = std::fabs(first_of_largest(x, 32)) / 127.0f;
  append_f16(d, &out);
  for (int k = 0; k < 32; ++k) {
    out.push_back(static_cast<uint8_t>(truncated_byte(std::round(x[k] * inverse(d)))));
  }
  return out;
}

using Transcription = std::function<Bytes(const plain::Input&)>;
const std::map<std::string_view, Transcription> kTranscriptions = {
    {"Q4_0", [](const plain::Input& in) { return symmetric(in.x, 8, false); }},
    {"Q5_0", [](const plain::Input& in) { return symmetric(in.x, 16, true); }},
    {"Q4_1", [](const plain::Input& in) { return with_minimum(in.x, 15, false); }},
    {"Q5_1", [](const plain::Input& in) { return with_minimum(in.x, 31, true); }},
    {"Q8_0", [](const plain::Input& in) { return q8_0(in.x); }},
    {"Q2_K", plain::q2_k},
    {"Q3_K", plain::q3_k},
    {"Q4_K", [](const plain::Input& in) { return plain::q4_or_5_k(in, 15); }},
    {"Q5_K", [](const plain::Input& in) { return plain::q4_or_5_k(in, 31); }},
    {"Q6_K", plain::q6_k},
    {"IQ4_NL", plain::iq4_nl},
    {"IQ4_XS", plain::iq4_xs},
    {"MXFP4", plain::mxfp4},
};
// The same transcription, unless there is one here.
const std::map<std::string_view, Transcription> kWeighted = {
    {"Q4_0", [](const plain::Input& in) { return plain::weighted_scale(in, 8); }},
    {"Q5_0", [](const plain::Input& in) { return plain::weighted_scale(in, 16); }},
    {"Q4_1", [](const plain::Input& in) { return plain::weighted_line(in, 15); }},
    {"Q5_1", [](const plain::Input& in) { return plain::weighted_line(in, 31); }},
};

float to_bf16(float x) { return f32_from_bf16(bf16_from_f32(x)); }

using Random = std::mt19937;
struct Input {
  const char* name;
  std::function<float(Random&)> weight;
};

float gauss(Random& random, float sigma) { return std::normal_distribution<float>(0, sigma)(random); }
float pick(Random& random, std::initializer_list<float> values) {
  return values.begin()[random() % values.size()];
}

// Every weight is drawn from the same rule; blocks of few distinct values make ties likely.
const Input kInputs[] = {
    {"bf16 gauss", [](Random& r) { return to_bf16(gauss(r, 0.02f)); }},
    {"f32 gauss", [](Random& r) { return gauss(r, 1.0f); }},
    {"positive", [](Random& r) { return std::fabs(gauss(r, 1.0f)); }},
    {"negative", [](Random& r) { return -std::fabs(gauss(r, 1.0f)); }},
    {"ties",
     [](Random& r) {
       return pick(r, {-3.0f, 3.0f, 1.5f, -0.75f});
     }},
    {"zeros of both signs",
     [](Random& r) {
       return pick(r, {0.0f, -0.0f});
     }},
    {"zeros and ones",
     [](Random& r) {
       return pick(r, {0.0f, -0.0f, 1.0f});
     }},
    {"zeros and minus ones",
     [](Random& r) {
       return pick(r, {0.0f, -0.0f, -1.0f});
     }},
    {"mostly zeros",
     [](Random& r) {
       return r() % 20 == 0 ? gauss(r, 1.0f) : pick(r, {0.0f, -0.0f});
     }},
    {"halves", [](Random& r) { return static_cast<float>(static_cast<int>(r() % 509) - 254) * 0.5f; }},
    {"many magnitudes",
     [](Random& r) { return std::ldexp(gauss(r, 1.0f), static_cast<int>(r() % 24) - 12); }},
    {"f16 subnormal scales", [](Random& r) { return gauss(r, 1e-5f); }},
    {"scales that vanish", [](Random& r) { return gauss(r, 1e-9f); }},
    {"squares that vanish", [](Random& r) { return gauss(r, 1e-13f); }},
    {"near the cut-off of Q6_K", [](Random& r) { return gauss(r, 1e-15f); }},
    {"f32 subnormal", [](Random& r) { return gauss(r, 1.0f) * 1e-40f; }},
    {"inverse near overflow", [](Random& r) { return gauss(r, 1.0f) * 0x1p-124f; }},
    {"large", [](Random& r) { return gauss(r, 1e5f); }},
};

TEST(Encode, EqualsThePlainTranscriptionByteForByte) {
  Random random(7);
  for (const BlockFormat& format : block_formats()) {
    if (format.encode == nullptr || format.is_float()) continue;
    SCOPED_TRACE(format.name);
    ASSERT_TRUE(kTranscriptions.contains(format.name)) << "add a transcription";
    const auto& transcription = kTranscriptions.at(format.name);
    const size_t n = format.block_weights, n_blocks = 10240 / n;
    for (const Input& input : kInputs) {
      SCOPED_TRACE(input.name);
      std::vector<float> x(n_blocks * n);
      for (float& weight : x) weight = input.weight(random);
      Bytes bytes(n_blocks * format.block_bytes);
      format.encode(x.data(), n_blocks, bytes.data());
      for (size_t b = 0; b < n_blocks; ++b) {
        const Bytes block(bytes.begin() + b * format.block_bytes,
                          bytes.begin() + (b + 1) * format.block_bytes);
        ASSERT_EQ(block, transcription({&x[b * n], nullptr, 0})) << "block " << b;
      }
    }
  }
}

const Input kImportances[] = {
    {"chi squared", [](Random& r) { return std::pow(gauss(r, 1.0f), 2.0f); }},
    {"many magnitudes", [](Random& r) { return std::exp(gauss(r, 4.0f)); }},
    {"mostly none", [](Random& r) { return r() % 5 == 0 ? 1.0f : 0.0f; }},
    {"none", [](Random&) { return 0.0f; }},
};

TEST(Encode, WithImportanceEqualsThePlainTranscriptionByteForByte) {
  Random random(17);
  constexpr size_t kColumns = 1280;  // blocks of 32 in whole groups of eight; not so below
  for (const BlockFormat& format : block_formats()) {
    if (format.encode_weighted == nullptr) continue;
    SCOPED_TRACE(format.name);
    const auto* own = kWeighted.contains(format.name) ? &kWeighted : &kTranscriptions;
    const Transcription& transcription = own->at(format.name);
    for (const Input& input : kInputs) {
      SCOPED_TRACE(input.name);
      for (const Input& rule : kImportances) {
        SCOPED_TRACE(rule.name);
        const size_t n = format.block_weights, columns = n == 32 ? kColumns - 3 * 32 : kColumns;
        std::vector<float> x(columns), importance(columns);
        for (float& weight : x) weight = input.weight(random);
        for (float& weight : importance) weight = rule.weight(random);
        float sum = 0;
        for (const float weight : x) sum += weight * weight;
        const float mean_square = sum / static_cast<float>(columns);
        Bytes bytes(format.row_bytes(columns));
        format.encode_weighted(x.data(), importance.data(), mean_square, columns / n, bytes.data());
        for (size_t b = 0; b < columns / n; ++b) {
          const Bytes block(bytes.begin() + b * format.block_bytes,
                            bytes.begin() + (b + 1) * format.block_bytes);
          ASSERT_EQ(block, transcription({&x[b * n], &importance[b * n], mean_square})) << "block " << b;
        }
      }
    }
  }
}

// Where only a weight or two of a sub-block count, the scale that fits these is below 0 sometimes, and its
// code has more bits than there is room for. Inputs are whole numbers: of mathematical functions, whose last
// bits differ between processors, it would depend whether they get there.
TEST(Encode, ScalesBelowZeroSpoilTheirNeighboursAsInTheReference) {
  Random random(19);
  for (const BlockFormat& format : block_formats()) {
    if (format.dtype != DType::Q2_K && format.dtype != DType::Q4_K && format.dtype != DType::Q5_K) continue;
    SCOPED_TRACE(format.name);
    for (size_t b = 0; b < 256; ++b) {
      float x[256], importance[256];
      for (float& weight : x) weight = -static_cast<float>(random() % 1000);
      for (float& weight : importance) weight = random() % (format.dtype == DType::Q2_K ? 5 : 16) == 0;
      Bytes bytes(format.block_bytes);
      format.encode_weighted(x, importance, 0, 1, bytes.data());
      ASSERT_EQ(bytes, kTranscriptions.at(format.name)({x, importance, 0})) << "block " << b;
    }
  }
}

TEST(Encode, GivesTheReferencesBytesWithImportance) {
  size_t n = 0;
  for (const WeightedBlocks& golden : read_weighted_blocks()) {
    SCOPED_TRACE(std::string(golden.format->name) + " " + golden.input_name);
    const BlockFormat& format = *golden.format;
    const size_t n_blocks = golden.input.size() / format.block_weights;
    float sum = 0;
    for (const float weight : golden.input) sum += weight * weight;
    Bytes bytes(golden.bytes.size());
    if (golden.weighted)
      format.encode_weighted(golden.input.data(), golden.importance.data(),
                             sum / static_cast<float>(golden.input.size()), n_blocks, bytes.data());
    else
      format.encode(golden.input.data(), n_blocks, bytes.data());
    EXPECT_EQ(bytes, golden.bytes);
    ++n;
  }
  EXPECT_EQ(n, 120u);
}

// What a CPU without AVX2 runs.
TEST(Searches, OfEveryInstructionSetGiveTheSameBits) {
  if (&formats::searches() == &formats::kBaselineSearches) GTEST_SKIP() << "this CPU has no AVX2";
  Random random(18);
  const formats::Searches &a = formats::kBaselineSearches, &b = *formats::kAvx2Searches;
  const std::vector<float> numerators = {2.5f, 3.0f, 3.7f};
  for (const Input& input : kInputs) {
    SCOPED_TRACE(input.name);
    for (const size_t n : {16u, 32u}) {
      std::vector<float> x(8 * n), w(8 * n);
      for (float& weight : x) weight = input.weight(random);
      for (float& weight : w) weight = kImportances[n / 32].weight(random);
      for (const bool absolute : {false, true}) {
        const formats::MinimumRule rule = {n, 3, numerators.data(), numerators.size(), absolute && n == 16};
        formats::MinimumFit left, right;
        a.minimum(rule, x.data(), w.data(), &left);
        b.minimum(rule, x.data(), w.data(), &right);
        EXPECT_EQ(std::memcmp(&left, &right, sizeof left), 0);
      }
      formats::SymmetricFit left{}, right{};
      a.symmetric(n, 8, x.data(), w.data(), &left);
      b.symmetric(n, 8, x.data(), w.data(), &right);
      EXPECT_EQ(std::memcmp(&left, &right, sizeof left), 0);
      std::vector<float> scales(16);
      std::vector<uint8_t> codes(16 * n);
      const auto both = [&](const auto& call) {
        for (size_t i = 0; i < 2; ++i) call(i == 0 ? a : b, &scales[8 * i], &codes[8 * n * i]);
        EXPECT_EQ(std::memcmp(&scales[0], &scales[8], 8 * sizeof(float)), 0);
        EXPECT_TRUE(std::equal(codes.begin(), codes.begin() + 8 * n, codes.begin() + 8 * n));
      };
      if (n == 16) both([&](const auto& set, float* s, uint8_t* c) { set.refined(x.data(), s, c); });
      if (n == 32) both([&](const auto& set, float* s, uint8_t*) { set.iq4(x.data(), w.data(), s); });
      both([&](const auto& set, float*, uint8_t* c) {
        set.code_by_step(x.data(), 8 * n, 0.01f, 0.3f, 0, 31, c);
      });
      both([&](const auto& set, float*, uint8_t* c) {
        set.code_by_inverse(x.data(), 8 * n, 50.0f, -0.3f, -4, 3, c);
      });
      both([&](const auto& set, float*, uint8_t* c) { set.code_iq4(x.data(), 8 * n, 100.0f, c); });
    }
  }
}

// Finite weights whatever their size: nothing undefined happens (the sanitizers look), and where a block
// cannot hold them its scale says so instead of passing for numbers.
TEST(Encode, ReportsWeightsThatDoNotFitThroughTheScale) {
  Random random(8);
  for (const BlockFormat& format : block_formats()) {
    if (format.encode == nullptr || format.dtype == DType::F32 || format.dtype == DType::BF16) continue;
    if (format.dtype == DType::MXFP4) continue;  // has the exponents of f32
    SCOPED_TRACE(format.name);
    for (const float magnitude : {3e9f, 1e13f, 1e20f, 1e30f, FLT_MAX}) {
      SCOPED_TRACE(magnitude);
      std::vector<float> x(256, 0.0f);
      for (const size_t bad : {0u, 17u, 255u}) {
        std::fill(x.begin(), x.end(), 0.0f);
        x[bad] = random() % 2 == 0 ? magnitude : -magnitude;
        const size_t n_blocks = x.size() / format.block_weights;
        Bytes bytes(n_blocks * format.block_bytes);
        format.encode(x.data(), n_blocks, bytes.data());
        EXPECT_EQ(format.first_non_finite(bytes.data(), n_blocks), bad / format.block_weights);
      }
      for (float& weight : x) weight = magnitude * std::uniform_real_distribution<float>(-1, 1)(random);
      x[100] = magnitude;
      x[101] = -magnitude;
      Bytes bytes(x.size() / format.block_weights * format.block_bytes);
      format.encode(x.data(), x.size() / format.block_weights, bytes.data());
      EXPECT_LE(format.first_non_finite(bytes.data(), x.size() / format.block_weights),
                100 / format.block_weights);
    }
  }
}

// Bounds from the step of each format: a weight is off by at most about half a step of its block's range (the
// step itself is rounded to f16; in Q6_K the search may leave the largest weight a whole step away).
TEST(Encode, ErrorIsBoundedByTheStep) {
  const std::map<std::string_view, double> kRelativeRms = {
      {"Q4_0", 0.10},  {"Q4_1", 0.09}, {"Q5_0", 0.05}, {"Q5_1", 0.045}, {"Q8_0", 0.006},  {"Q6_K", 0.02},
      {"Q2_K", 0.35},  {"Q3_K", 0.19}, {"Q4_K", 0.08}, {"Q5_K", 0.04},  {"IQ4_NL", 0.09}, {"IQ4_XS", 0.09},
      {"MXFP4", 0.13}, {"F32", 0},     {"F16", 3e-4},  {"BF16", 2.5e-3}};
  Random random(9);
  std::vector<float> x(256 * 256), y(x.size());
  for (float& weight : x) weight = gauss(random, 0.02f);
  for (const BlockFormat& format : block_formats()) {
    if (format.encode == nullptr) continue;
    SCOPED_TRACE(format.name);
    ASSERT_TRUE(kRelativeRms.contains(format.name)) << "add a bound";
    const size_t n_blocks = x.size() / format.block_weights;
    Bytes bytes(n_blocks * format.block_bytes);
    format.encode(x.data(), n_blocks, bytes.data());
    format.decode(bytes.data(), n_blocks, y.data());
    double error = 0, norm = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      error += (static_cast<double>(y[i]) - x[i]) * (static_cast<double>(y[i]) - x[i]);
      norm += static_cast<double>(x[i]) * x[i];
    }
    EXPECT_LE(std::sqrt(error / norm), kRelativeRms.at(format.name));
    EXPECT_EQ(error == 0, format.dtype == DType::F32);
  }
}

}  // namespace
}  // namespace quern
