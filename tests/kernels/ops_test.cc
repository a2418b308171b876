// The scalar set's operations against their definitions in double, and every other set against the scalar
// one, bit for bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "quant/float16.h"
#include "tests/kernels/kernel_test.h"

namespace quern {
namespace {

using test::kAllValues;
using test::random_values;
using test::same_bits;
using test::Values;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr double kUnit = 0x1p-24;  // half a unit in the last place of f32, relative

struct Quantized {
  std::vector<int8_t> codes;
  std::vector<float> scales;
  std::vector<int16_t> sums;
};

Quantized quantize(const KernelSet& set, const std::vector<float>& x, size_t n_tokens) {
  const size_t k = x.size() / n_tokens;
  Quantized q{std::vector<int8_t>(x.size(), 99), std::vector<float>(x.size() / 32, 99),
              std::vector<int16_t>(x.size() / 8, 99)};
  set.quantize_activations(x.data(), n_tokens, k, {q.codes.data(), q.scales.data(), q.sums.data()});
  return q;
}

std::vector<float> rms_norm(const KernelSet& set, const std::vector<float>& x,
                            const std::vector<float>& weight, float eps = 1e-5f) {
  std::vector<float> y(x.size());
  set.rms_norm(x.data(), weight.data(), x.size(), eps, y.data());
  return y;
}

std::vector<float> swiglu(const KernelSet& set, const std::vector<float>& gate,
                          const std::vector<float>& up) {
  std::vector<float> h(gate.size());
  set.activate(Activation::kSwiglu, gate.data(), up.data(), gate.size(), h.data());
  return h;
}

std::vector<float> rope(const KernelSet& set, std::vector<float> x, size_t n_heads, size_t head_dim,
                        const std::vector<float>& cos_sin) {
  set.rope(x.data(), n_heads, head_dim, cos_sin.size(), cos_sin.data());
  return x;
}

std::vector<float> rope_halves(const KernelSet& set, std::vector<float> x, size_t n_heads, size_t head_dim,
                               const std::vector<float>& cos_sin) {
  set.rope_halves(x.data(), n_heads, head_dim, cos_sin.size(), cos_sin.data());
  return x;
}

std::vector<float> layer_norm(const KernelSet& set, const std::vector<float>& x, const std::vector<float>& w,
                              const std::vector<float>& bias, float eps) {
  std::vector<float> y(x.size());
  set.layer_norm(x.data(), w.data(), bias.empty() ? nullptr : bias.data(), x.size(), eps, y.data());
  return y;
}

constexpr Activation kAllActivations[] = {Activation::kSwiglu, Activation::kSilu,  Activation::kGeglu,
                                          Activation::kGelu,   Activation::kRelu2, Activation::kGptOss,
                                          Activation::kSigmoid};
std::vector<float> activate(const KernelSet& set, Activation kind, const std::vector<float>& gate,
                            const std::vector<float>& up) {
  std::vector<float> h(gate.size());
  set.activate(kind, gate.data(), is_gated(kind) ? up.data() : nullptr, gate.size(), h.data());
  return h;
}

// --- the reference against its definition ---

TEST(ScalarOps, QuantizerRoundsToTheNearestCodeAndKeepsItsSums) {
  for (const Values kind : {Values::kNormal, Values::kHuge, Values::kHalves}) {
    const std::vector<float> x = random_values(32 * 50, kind, 1);
    const Quantized q = quantize(test::reference_set(), x, 5);
    for (size_t g = 0; g < x.size() / 32; ++g) {
      float amax = 0;
      int sums[4] = {};
      for (size_t i = 0; i < 32; ++i) amax = std::max(amax, std::abs(x[g * 32 + i]));
      ASSERT_EQ(q.scales[g], amax / 127);
      for (size_t i = 0; i < 32; ++i) {
        const int code = q.codes[g * 32 + i];
        ASSERT_LE(std::abs(code), 127);
        // Half a step, and the rounding of the inverse and of the product.
        ASSERT_NEAR(code, x[g * 32 + i] / (amax / 127.0), 0.5 + 127 * 3 * kUnit);
        sums[i / 16 * 2 + i % 4 / 2] += code;
      }
      for (size_t i = 0; i < 4; ++i) ASSERT_EQ(q.sums[g * 4 + i], sums[i]);
    }
  }
}

TEST(ScalarOps, QuantizerTiesGoToEven) {
  std::vector<float> x(32, 0.0f);
  x[0] = 127;
  x[1] = 0.5f, x[2] = 1.5f, x[3] = 2.5f, x[4] = -0.5f, x[5] = -1.5f, x[6] = -126.5f;
  const Quantized q = quantize(test::reference_set(), x, 1);
  EXPECT_EQ(std::vector<int>(q.codes.begin(), q.codes.begin() + 7),
            (std::vector<int>{127, 0, 2, 2, 0, -2, -126}));
}

TEST(ScalarOps, QuantizerThresholdsAreExact) {
  const auto scale_of = [](float largest) {
    std::vector<float> x(32, 0.0f);
    x[17] = largest;
    const Quantized q = quantize(test::reference_set(), x, 1);
    EXPECT_EQ(q.codes[17], std::isfinite(largest) && largest >= 0x1p-100f ? 127 : 0) << largest;
    return q.scales[0];
  };
  EXPECT_TRUE(same_bits(scale_of(0x1p-100f), 0x1p-100f / 127));
  EXPECT_TRUE(same_bits(scale_of(std::nextafter(0x1p-100f, 0.0f)), 0.0f));
  EXPECT_TRUE(
      same_bits(scale_of(std::numeric_limits<float>::max()), std::numeric_limits<float>::max() / 127));
  EXPECT_TRUE(std::isnan(scale_of(kInfinity)));
  EXPECT_TRUE(std::isnan(scale_of(kNan)));
}

TEST(ScalarOps, RmsNormFollowsItsDefinition) {
  for (const size_t n : {1, 15, 16, 17, 64, 100, 4096}) {
    const std::vector<float> x = random_values(n, Values::kNormal, 2),
                             w = random_values(n, Values::kNormal, 3);
    const std::vector<float> y = rms_norm(test::reference_set(), x, w);
    double ss = 0;
    for (const float value : x) ss += double{value} * value;
    const double r = 1 / std::sqrt(ss / static_cast<double>(n) + double{1e-5f});
    // Each of the sum's n / 16 + 4 additions of positive terms, and the six operations after it.
    const double bound = (static_cast<double>(n) / 16 + 4 + 6) * kUnit;
    for (size_t i = 0; i < n; ++i) ASSERT_NEAR(y[i], x[i] * r * w[i], bound * std::abs(x[i] * r * w[i]));
  }
}

TEST(ScalarOps, RmsNormOfWhatIsNotFiniteIsNan) {
  for (const float bad : {kNan, kInfinity, 0x1p100f}) {  // the last one's square overflows
    std::vector<float> x(20, 1.0f);
    x[13] = bad;
    for (const float y : rms_norm(test::reference_set(), x, std::vector<float>(20, 1.0f)))
      EXPECT_TRUE(std::isnan(y));
  }
}

TEST(ScalarOps, RopeRotatesNeighboursAndLeavesTheRest) {
  const std::vector<float> x = random_values(2 * 12, Values::kNormal, 4);
  std::vector<float> cos_sin;
  for (const double angle : {0.1, 2.0, -3.0, 100.0})
    cos_sin.insert(cos_sin.end(), {static_cast<float>(std::cos(angle)), static_cast<float>(std::sin(angle))});
  const std::vector<float> y = rope(test::reference_set(), x, 2, 12, cos_sin);
  for (size_t head = 0; head < 2; ++head) {
    for (size_t i = 0; i < 8; i += 2) {
      const double x0 = x[head * 12 + i], x1 = x[head * 12 + i + 1], c = cos_sin[i], s = cos_sin[i + 1];
      const double bound = 2 * kUnit * (std::abs(x0) + std::abs(x1));
      EXPECT_NEAR(y[head * 12 + i], x0 * c - x1 * s, bound);
      EXPECT_NEAR(y[head * 12 + i + 1], x0 * s + x1 * c, bound);
    }
    for (size_t i = 8; i < 12; ++i) EXPECT_TRUE(same_bits(y[head * 12 + i], x[head * 12 + i]));
  }
}

// The same rotation, of pairs that lie half a rotary dimension apart.
TEST(ScalarOps, RopeOfHalvesIsThatOfNeighboursInAnotherOrder) {
  constexpr size_t kHeadDim = 12, kRotary = 8;
  const std::vector<float> x = random_values(2 * kHeadDim, Values::kNormal, 4),
                           table = random_values(kRotary, Values::kNormal, 5);
  // Element i of the halves' order is element order[i] of the neighbours'.
  constexpr size_t kOrder[kHeadDim] = {0, 2, 4, 6, 1, 3, 5, 7, 8, 9, 10, 11};
  std::vector<float> reordered(x.size()), halves_table(kRotary);
  for (size_t i = 0; i < x.size(); ++i) reordered[i] = x[i / kHeadDim * kHeadDim + kOrder[i % kHeadDim]];
  for (size_t i = 0; i < kRotary; ++i) halves_table[i] = table[kOrder[i]];
  const std::vector<float> expected = rope(test::reference_set(), x, 2, kHeadDim, table),
                           y = rope_halves(test::reference_set(), reordered, 2, kHeadDim, halves_table);
  for (size_t i = 0; i < x.size(); ++i)
    EXPECT_TRUE(same_bits(y[i], expected[i / kHeadDim * kHeadDim + kOrder[i % kHeadDim]])) << i;
}

TEST(ScalarOps, SwigluIsTheGatedSigmoid) {
  const std::vector<float> gate = random_values(1000, Values::kNormal, 5),
                           up = random_values(1000, Values::kNormal, 6);
  const std::vector<float> h = swiglu(test::reference_set(), gate, up);
  for (size_t i = 0; i < gate.size(); ++i) {
    const double g = gate[i], expected = g / (1 + std::exp(-g)) * up[i];
    // The exponent's argument is rounded (twice: constant and product); the exponential and four operations.
    const double bound = (2 * std::abs(g) + 1.2 + 4) * kUnit;
    ASSERT_NEAR(h[i], expected, bound * std::abs(expected));
  }
  const std::vector<float> far = swiglu(test::reference_set(), {-1e4f, 1e4f, 0.0f}, {1.0f, 1.0f, 1.0f});
  EXPECT_NEAR(far[0], 0, 1e-30);
  EXPECT_EQ(far[1], 1e4f);
  EXPECT_EQ(far[2], 0);
}

TEST(ScalarOps, SumExpIsTheSumOfExponentials) {
  const std::vector<float> z = random_values(32001, Values::kNormal, 7);
  const float top = *std::max_element(z.begin(), z.end());
  double expected = 0, bound = 0;
  for (const float value : z) {
    const double e = std::exp(double{value} - top);
    expected += e;
    bound += e * ((3 * std::abs(double{value} - top)) + 1.2 + 1) * kUnit;
  }
  EXPECT_NEAR(test::reference_set().sum_exp(z.data(), z.size(), top), expected, bound);
}

// --- every set against the reference ---

class EverySet : public testing::TestWithParam<const KernelSet*> {
 protected:
  const KernelSet& set() const { return *GetParam(); }
  const KernelSet& reference() const { return test::reference_set(); }
};

INSTANTIATE_TEST_SUITE_P(Sets, EverySet, testing::ValuesIn(test::supported_sets()), test::set_name);

TEST_P(EverySet, QuantizesActivationsLikeTheReference) {
  for (const Values kind : kAllValues) {
    for (uint32_t seed = 0; seed < 50; ++seed) {
      const std::vector<float> x = random_values(3 * 160, kind, seed);
      const Quantized a = quantize(set(), x, 3), b = quantize(reference(), x, 3);
      ASSERT_EQ(a.codes, b.codes);
      ASSERT_EQ(a.sums, b.sums);
      ASSERT_TRUE(same_bits(a.scales, b.scales));
    }
  }
}

TEST_P(EverySet, NormalisesLikeTheReference) {
  for (const Values kind : kAllValues)
    for (const size_t n : {1, 2, 7, 8, 9, 15, 16, 17, 24, 31, 33, 64, 255, 4096})
      for (const float eps : {0.0f, 1e-5f}) {
        const std::vector<float> x = random_values(n, kind, 11), w = random_values(n, Values::kNormal, 12);
        ASSERT_TRUE(same_bits(rms_norm(set(), x, w, eps), rms_norm(reference(), x, w, eps))) << n;
        std::vector<float> in_place = x;
        set().rms_norm(in_place.data(), w.data(), n, eps, in_place.data());
        ASSERT_TRUE(same_bits(in_place, rms_norm(reference(), x, w, eps))) << n;
      }
}

TEST(ScalarOps, LayerNormIsThatOfDoubles) {
  for (const size_t n : {2, 17, 64, 300}) {
    const std::vector<float> x = random_values(n, Values::kNormal, 21),
                             w = random_values(n, Values::kNormal, 22),
                             b = random_values(n, Values::kNormal, 23);
    double mean = 0, ss = 0;
    for (const float value : x) mean += value / static_cast<double>(n);
    for (const float value : x) ss += (value - mean) * (value - mean) / static_cast<double>(n);
    const std::vector<float> y = layer_norm(test::reference_set(), x, w, b, 1e-5f);
    for (size_t i = 0; i < n; ++i)
      EXPECT_NEAR(y[i], (x[i] - mean) / std::sqrt(ss + 1e-5) * w[i] + b[i], 1e-5 * (1 + std::abs(w[i])));
  }
}

TEST(ScalarOps, ActivationsAreThoseOfDoubles) {
  const std::vector<float> gate = random_values(2000, Values::kNormal, 24),
                           up = random_values(2000, Values::kNormal, 25);
  for (const Activation kind : kAllActivations) {
    const std::vector<float> h = activate(test::reference_set(), kind, gate, up);
    for (size_t i = 0; i < gate.size(); ++i) {
      const double g = 3 * static_cast<double>(gate[i]) / 3, u = up[i];
      const double gelu = 0.5 * g * (1 + std::tanh(std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g)));
      const double top = std::min(g, 7.0), clamped = std::clamp(u, -7.0, 7.0);
      const double expected = kind == Activation::kSwiglu  ? g / (1 + std::exp(-g)) * u
                              : kind == Activation::kSilu  ? g / (1 + std::exp(-g))
                              : kind == Activation::kGeglu ? gelu * u
                              : kind == Activation::kGelu  ? gelu
                              : kind == Activation::kRelu2 ? std::max(g, 0.0) * std::max(g, 0.0)
                              : kind == Activation::kGptOss
                                  ? top / (1 + std::exp(-1.702 * top)) * (clamped + 1)
                                  : u / (1 + std::exp(-g));
      ASSERT_NEAR(h[i], expected, 1e-6 * (1 + std::abs(expected))) << static_cast<int>(kind);
    }
  }
}

TEST(ScalarOps, SoftcapIsAScaledTanh) {
  std::vector<float> x = random_values(1000, Values::kNormal, 26);
  for (float& value : x) value *= 40;
  std::vector<float> y = x;
  test::reference_set().softcap(y.data(), y.size(), {static_cast<float>(2 * M_LOG2E / 30), 30});
  for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(y[i], 30 * std::tanh(x[i] / 30.0), 1e-5);
}

TEST_P(EverySet, NormalisesLayersLikeTheReference) {
  for (const Values kind : kAllValues)
    for (const size_t n : {1, 2, 7, 8, 9, 15, 16, 17, 24, 31, 33, 64, 255, 4096})
      for (const bool with_bias : {false, true}) {
        const std::vector<float> x = random_values(n, kind, 11), w = random_values(n, Values::kNormal, 12);
        const std::vector<float> b = with_bias ? random_values(n, Values::kNormal, 13) : std::vector<float>();
        ASSERT_TRUE(same_bits(layer_norm(set(), x, w, b, 1e-5f), layer_norm(reference(), x, w, b, 1e-5f)))
            << n;
      }
}

TEST_P(EverySet, ActivatesLikeTheReference) {
  for (const Activation activation : kAllActivations)
    for (const Values gate_kind : kAllValues)
      for (const Values up_kind : kAllValues)
        for (const size_t n : {1, 7, 8, 9, 100, 1024}) {
          std::vector<float> gate = random_values(n, gate_kind, 15), up = random_values(n, up_kind, 16);
          for (size_t i = 0; i < n; i += 3) gate[i] *= 100;  // exponents beyond both cut-offs
          for (size_t i = 1; i < n; i += 3) up[i] *= 10;
          ASSERT_TRUE(
              same_bits(activate(set(), activation, gate, up), activate(reference(), activation, gate, up)))
              << static_cast<int>(activation) << " " << n;
        }
}

TEST_P(EverySet, CapsLikeTheReference) {
  for (const Values kind : kAllValues)
    for (const size_t n : {1, 7, 8, 9, 100, 1024})
      for (const Softcap cap : {Softcap{0.0961797f, 30}, Softcap{0.04f, 72.1347f}}) {
        std::vector<float> a = random_values(n, kind, 17);
        for (size_t i = 0; i < n; i += 2) a[i] *= 50;
        std::vector<float> b = a;
        set().softcap(a.data(), n, cap);
        reference().softcap(b.data(), n, cap);
        ASSERT_TRUE(same_bits(a, b)) << n;
      }
}

TEST_P(EverySet, AddsProductsLikeTheReference) {
  for (const Values kind : kAllValues)
    for (const size_t n : {1, 7, 8, 9, 100}) {
      const std::vector<float> w = random_values(n, kind, 18), x = random_values(n, Values::kNormal, 19);
      std::vector<float> a = random_values(n, kind, 20), b = a;
      set().add_scaled(x.data(), w[0], n, a.data());
      reference().add_scaled(x.data(), w[0], n, b.data());
      set().add_products(w.data(), x.data(), n, a.data());
      reference().add_products(w.data(), x.data(), n, b.data());
      ASSERT_TRUE(same_bits(a, b)) << n;
    }
}

TEST_P(EverySet, StepsTheDeltaRuleLikeTheReference) {
  for (const size_t k_dim : {1, 16, 33})
    for (const size_t v_dim : {1, 7, 8, 20, 64}) {
      std::vector<float> a = random_values(k_dim * v_dim, Values::kNormal, 1), b = a;
      for (uint32_t step = 0; step < 4; ++step) {
        const std::vector<float> q = random_values(k_dim, Values::kNormal, 10 + step),
                                 k = random_values(k_dim, Values::kNormal, 20 + step),
                                 v = random_values(v_dim, Values::kNormal, 30 + step);
        std::vector<float> out(v_dim), expected(v_dim);
        set().delta_step(a.data(), q.data(), k.data(), v.data(), 0.9f, 0.3f, k_dim, v_dim, out.data());
        reference().delta_step(b.data(), q.data(), k.data(), v.data(), 0.9f, 0.3f, k_dim, v_dim,
                               expected.data());
        ASSERT_TRUE(same_bits(out, expected)) << k_dim << " " << v_dim;
        ASSERT_TRUE(same_bits(a, b)) << k_dim << " " << v_dim;
      }
    }
}

TEST_P(EverySet, RotatesLikeTheReference) {
  for (const Values kind : kAllValues)
    for (const size_t rotary_dim : {2, 4, 6, 8, 10, 20, 64, 128})
      for (const size_t extra : {0, 2, 8}) {
        const size_t head_dim = rotary_dim + extra;
        const std::vector<float> x = random_values(3 * head_dim, kind, 13);
        const std::vector<float> cos_sin = random_values(rotary_dim, Values::kNormal, 14);
        ASSERT_TRUE(
            same_bits(rope(set(), x, 3, head_dim, cos_sin), rope(reference(), x, 3, head_dim, cos_sin)));
        ASSERT_TRUE(same_bits(rope_halves(set(), x, 3, head_dim, cos_sin),
                              rope_halves(reference(), x, 3, head_dim, cos_sin)));
      }
}

TEST_P(EverySet, GatesLikeTheReference) {
  for (const Values gate_kind : kAllValues)
    for (const Values up_kind : kAllValues)
      for (const size_t n : {1, 7, 8, 9, 100, 1024}) {
        std::vector<float> gate = random_values(n, gate_kind, 15);
        for (size_t i = 0; i < n; i += 3) gate[i] *= 100;  // exponents beyond both cut-offs
        const std::vector<float> up = random_values(n, up_kind, 16);
        const std::vector<float> expected = swiglu(reference(), gate, up);
        ASSERT_TRUE(same_bits(swiglu(set(), gate, up), expected)) << n;
        std::vector<float> in_place = gate;
        set().activate(Activation::kSwiglu, in_place.data(), up.data(), n, in_place.data());
        ASSERT_TRUE(same_bits(in_place, expected)) << n;
      }
}

TEST_P(EverySet, HasTheExponentialOfTheReference) {
  // Through sum_exp of one value, where a float's sum with zeros is the float itself.
  for (uint32_t bits = 0; bits < 0x7f800000u - 10007; bits += 10007) {
    const float x = -std::bit_cast<float>(bits);
    ASSERT_TRUE(same_bits(set().sum_exp(&x, 1, 0), reference().sum_exp(&x, 1, 0))) << x;
  }
}

TEST_P(EverySet, SumsExponentialsLikeTheReference) {
  for (const Values kind : kAllValues)
    for (const size_t n : {1, 7, 8, 9, 15, 16, 17, 23, 24, 25, 1000, 32000}) {
      const std::vector<float> z = random_values(n, kind, 17);
      const float top = *std::max_element(z.begin(), z.end());
      for (const float z_max : {top, 0.0f, -kInfinity})
        ASSERT_TRUE(same_bits(set().sum_exp(z.data(), n, z_max), reference().sum_exp(z.data(), n, z_max)))
            << n;
    }
}

}  // namespace
}  // namespace quern
