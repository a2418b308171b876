// Attention: the scalar set against a softmax in double, every other set against the scalar one, bit for bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "quant/float16.h"
#include "tests/kernels/kernel_test.h"

namespace quern {
namespace {

using test::random_values;
using test::same_bits;
using test::Values;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr double kUnit = 0x1p-24;

std::string type_name(KvType type) { return type == KvType::kF16 ? "f16" : "f32"; }

// The cache of one KV head, filled by the reference set.
class Cache {
 public:
  Cache(size_t n_keys, size_t head_dim, KvType type, float key_scale = 1)
      : head_dim_(head_dim),
        type_(type),
        capacity_((n_keys + kAttentionTile - 1) / kAttentionTile * kAttentionTile),
        k_(capacity_ * head_dim * element_bytes()),
        v_(capacity_ * head_dim * element_bytes()) {
    for (size_t key = 0; key < n_keys; ++key) {
      std::vector<float> k = random_values(head_dim, Values::kNormal, static_cast<uint32_t>(key));
      const std::vector<float> v =
          random_values(head_dim, Values::kNormal, static_cast<uint32_t>(key) + 77777);
      for (float& x : k) x *= key_scale;
      store(key, k, v);
    }
  }

  void store(size_t key, const std::vector<float>& k, const std::vector<float>& v) {
    test::reference_set().store_kv({k.data(), v.data(), head_dim_, key, type_, head()});
  }
  // Fills a key's K and V.
  void fill(size_t key, float k, float v) {
    store(key, std::vector<float>(head_dim_, k), std::vector<float>(head_dim_, v));
  }
  float k(size_t key, size_t d) const { return element(k_, key / 16 * head_dim_ * 16 + d * 16 + key % 16); }
  float v(size_t key, size_t d) const { return element(v_, key * head_dim_ + d); }
  KvHead head() { return {k_.data(), v_.data()}; }
  size_t capacity() const { return capacity_; }
  size_t head_dim() const { return head_dim_; }
  KvType type() const { return type_; }

 private:
  size_t element_bytes() const { return type_ == KvType::kF16 ? 2 : 4; }
  float element(const std::vector<uint8_t>& bytes, size_t i) const {
    if (type_ == KvType::kF16) return f32_from_f16(reinterpret_cast<const uint16_t*>(bytes.data())[i]);
    return reinterpret_cast<const float*>(bytes.data())[i];
  }
  size_t head_dim_;
  KvType type_;
  size_t capacity_;
  std::vector<uint8_t> k_, v_;
};

float kappa_of(size_t head_dim) {
  return static_cast<float>(0x1.71547652b82fep0 / std::sqrt(static_cast<double>(head_dim)));
}

size_t first_key_of(size_t position, size_t window) {
  return window == 0 || position < window ? 0 : position - window + 1;
}

// q: [n_heads, head_dim]
std::vector<float> attend(const KernelSet& set, Cache& cache, const std::vector<float>& q, size_t first_key,
                          size_t position) {
  const size_t n_heads = q.size() / cache.head_dim();
  // Scratch is the caller's: what it holds must not matter.
  std::vector<float> scratch(attention_scratch_floats(n_heads, cache.head_dim()), kNan);
  std::vector<float> out(q.size(), kNan);
  set.attend({q.data(), n_heads, cache.head_dim(), cache.type(), cache.head(), first_key, position,
              kappa_of(cache.head_dim()), scratch.data(), out.data()});
  return out;
}

struct Expected {
  std::vector<double> out, bound;
};

// One head in double, and how far f32 may be from it.
Expected attend_in_double(const Cache& cache, const float* q, size_t first_key, size_t position) {
  const size_t n = cache.head_dim(), n_keys = position + 1 - first_key;
  std::vector<double> scores(n_keys);
  double largest_terms = 0;
  for (size_t j = 0; j < n_keys; ++j) {
    double terms = 0;
    for (size_t d = 0; d < n; ++d) {
      const double term = double{q[d]} * kappa_of(n) * cache.k(first_key + j, d);
      scores[j] += term;
      terms += std::abs(term);
    }
    largest_terms = std::max(largest_terms, terms);
  }
  const double top = *std::max_element(scores.begin(), scores.end());
  double total = 0;
  std::vector<double> p(n_keys);
  for (size_t j = 0; j < n_keys; ++j) total += p[j] = std::exp2(scores[j] - top);
  // A score is one product and head_dim FMAs away from the exact one; it and the maximum move each p. Per
  // tile and per segment p is rescaled once; p and its products are added once per key, at most, and every
  // step rounds numerator and denominator once.
  const double score_error = static_cast<double>(n + 2) * kUnit * largest_terms + kUnit * std::abs(top);
  const double tiles = static_cast<double>(n_keys) / kAttentionTile + 2;
  const double relative =
      2 * (2 * score_error * 0.6931472 + (static_cast<double>(n_keys) + 5 * tiles + 8) * kUnit);
  Expected expected{std::vector<double>(n), std::vector<double>(n)};
  for (size_t d = 0; d < n; ++d) {
    double sum = 0, absolute = 0;
    for (size_t j = 0; j < n_keys; ++j) {
      sum += p[j] * cache.v(first_key + j, d);
      absolute += p[j] * std::abs(cache.v(first_key + j, d));
    }
    expected.out[d] = sum / total;
    expected.bound[d] = relative * absolute / total + 1e-30;
  }
  return expected;
}

TEST(ScalarAttention, IsTheSoftmaxWeightedMean) {
  for (const KvType type : {KvType::kF16, KvType::kF32})
    for (const size_t head_dim : {2, 20, 64, 128}) {
      Cache cache(1100, head_dim, type, 3);
      const std::vector<float> q = random_values(head_dim, Values::kNormal, 5);
      for (const size_t position : {0, 1, 15, 16, 63, 64, 100, 511, 512, 700, 1030, 1099})
        for (const size_t window : {0, 1, 40, 600}) {
          const size_t first = first_key_of(position, window);
          const std::vector<float> out = attend(test::reference_set(), cache, q, first, position);
          const Expected expected = attend_in_double(cache, q.data(), first, position);
          for (size_t d = 0; d < head_dim; ++d)
            ASSERT_NEAR(out[d], expected.out[d], expected.bound[d])
                << type_name(type) << " head_dim " << head_dim << " position " << position << " window "
                << window;
        }
    }
}

TEST(ScalarAttention, OfOneKeyIsItsValue) {
  Cache cache(200, 16, KvType::kF32);
  const std::vector<float> q = random_values(16, Values::kNormal, 6);
  for (const size_t position : {0, 63, 64, 150}) {
    const std::vector<float> out = attend(test::reference_set(), cache, q, position, position);
    for (size_t d = 0; d < 16; ++d) EXPECT_EQ(out[d], cache.v(position, d));
  }
}

class AttentionOfSet : public testing::TestWithParam<const KernelSet*> {
 protected:
  const KernelSet& set() const { return *GetParam(); }
  void expect_reference(Cache& cache, const std::vector<float>& q, size_t first, size_t position) const {
    ASSERT_TRUE(same_bits(attend(set(), cache, q, first, position),
                          attend(test::reference_set(), cache, q, first, position)))
        << type_name(cache.type()) << " head_dim " << cache.head_dim() << " heads "
        << q.size() / cache.head_dim() << " keys " << first << ".." << position;
  }
};

INSTANTIATE_TEST_SUITE_P(Sets, AttentionOfSet, testing::ValuesIn(test::supported_sets()), test::set_name);

TEST_P(AttentionOfSet, HasTheReferencesBitsAtEveryDepthAndWindow) {
  constexpr size_t kWindows[] = {0, 1, 5, 16, 64, 100};
  for (const KvType type : {KvType::kF16, KvType::kF32})
    for (const size_t head_dim : {8, 20, 32, 64, 128, 256}) {
      Cache cache(1025, head_dim, type, 3);
      for (size_t n_heads = 1; n_heads <= 5; ++n_heads) {
        const std::vector<float> q = random_values(n_heads * head_dim, Values::kNormal, 7);
        for (size_t depth = 1; depth <= 70; ++depth) {
          // Every depth in full; the windows in turn.
          const size_t window = kWindows[(depth + n_heads) % std::size(kWindows)];
          expect_reference(cache, q, 0, depth - 1);
          expect_reference(cache, q, first_key_of(depth - 1, window), depth - 1);
          if (HasFatalFailure()) return;
        }
        for (const size_t depth : {511, 512, 513, 575, 1025})
          for (const size_t window : kWindows) {
            if (window == 0 && n_heads % 2 == 0 && head_dim > 64) continue;  // the slow half of the reference
            expect_reference(cache, q, first_key_of(depth - 1, window), depth - 1);
            if (HasFatalFailure()) return;
          }
      }
    }
}

TEST_P(AttentionOfSet, HasTheReferencesBitsForOtherHeadDims) {
  for (const KvType type : {KvType::kF16, KvType::kF32})
    for (const size_t head_dim : {2, 4, 6, 10, 14, 24, 40, 72, 80, 96, 100, 112, 190, 1024}) {
      Cache cache(130, head_dim, type, 3);
      for (const size_t n_heads : {1, 2, 3, 4, 8, 11}) {
        const std::vector<float> q = random_values(n_heads * head_dim, Values::kNormal, 8);
        for (const size_t position : {0, 17, 129}) expect_reference(cache, q, 0, position);
        if (HasFatalFailure()) return;
      }
    }
}

TEST_P(AttentionOfSet, HasTheReferencesBitsWhenSumsUnderflowOrOverflow) {
  for (const float key_scale : {0.0f, 1e-30f, 50.0f, 3000.0f, 1e18f, 1e38f})
    for (const Values kind : test::kAllValues) {
      Cache cache(600, 32, KvType::kF32, key_scale);
      const std::vector<float> q = random_values(4 * 32, kind, 9);
      for (const size_t position : {3, 77, 599}) expect_reference(cache, q, 0, position);
      if (HasFatalFailure()) return;
    }
}

TEST_P(AttentionOfSet, HandlesKeysThatAreNotFiniteLikeTheReference) {
  const std::vector<float> q = random_values(4 * 32, Values::kNormal, 10);
  std::vector<float> positive(4 * 32, 1.0f);
  for (const KvType type : {KvType::kF16, KvType::kF32})
    for (const float bad : {kNan, kInfinity, -kInfinity})
      for (const size_t bad_key : {0, 40, 63, 64, 520}) {
        Cache cache(600, 32, type);
        cache.fill(bad_key, bad, 1);
        for (const size_t position : {70, 599}) {
          expect_reference(cache, q, 0, position);
          expect_reference(cache, positive, 0, position);  // scores of the bad key: NaN, +Inf, -Inf
        }
        if (HasFatalFailure()) return;
      }
  // Nothing but -Inf: no maximum to subtract, the definition gives NaN.
  Cache all(80, 32, KvType::kF32);
  for (size_t key = 0; key < 80; ++key) all.fill(key, -kInfinity, 1);
  expect_reference(all, positive, 0, 79);
  EXPECT_TRUE(std::isnan(attend(set(), all, positive, 0, 79)[0]));
}

TEST_P(AttentionOfSet, DoesNotDependOnKeysOutsideTheValidOnes) {
  for (const KvType type : {KvType::kF16, KvType::kF32})
    for (const size_t n_heads : {1, 2, 4})
      for (const size_t position : {0, 20, 63, 64, 500, 530}) {
        const size_t first = first_key_of(position, 37);
        Cache cache(640, 20, type);
        const std::vector<float> q = random_values(n_heads * 20, Values::kNormal, 11);
        const std::vector<float> before = attend(set(), cache, q, first, position);
        for (size_t key = 0; key < cache.capacity(); ++key)
          if (key < first || key > position) cache.fill(key, key % 2 == 0 ? kNan : kInfinity, kNan);
        ASSERT_TRUE(same_bits(attend(set(), cache, q, first, position), before)) << position;
      }
}

TEST_P(AttentionOfSet, GivesAHeadTheSameBitsAloneAndAmongOthers) {
  constexpr size_t kHeadDim = 40, kHeads = 7;
  Cache cache(700, kHeadDim, KvType::kF16);
  const std::vector<float> q = random_values(kHeads * kHeadDim, Values::kNormal, 12);
  const std::vector<float> together = attend(set(), cache, q, 0, 699);
  for (size_t h = 0; h < kHeads; ++h) {
    const std::vector<float> alone =
        attend(set(), cache, {q.begin() + h * kHeadDim, q.begin() + (h + 1) * kHeadDim}, 0, 699);
    EXPECT_TRUE(same_bits(alone, {together.begin() + h * kHeadDim, together.begin() + (h + 1) * kHeadDim}))
        << h;
  }
}

}  // namespace
}  // namespace quern
