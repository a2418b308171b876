// Attention: the scalar set against a softmax in double, every other set against the scalar one, bit for bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "tests/kernels/kv_memory.h"

namespace quern {
namespace {

using test::attend;
using test::can_hold;
using test::kappa_of;
using test::kKvTypes;
using test::kv_name;
using test::KvMemory;
using test::random_values;
using test::same_bits;
using test::Values;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr double kUnit = 0x1p-24;

// A cache filled by the reference set.
class Cache : public KvMemory {
 public:
  Cache(size_t n_keys, size_t head_dim, KvType type, float key_scale = 1) : KvMemory(n_keys, head_dim, type) {
    for (size_t key = 0; key < n_keys; ++key) {
      std::vector<float> k = random_values(head_dim, Values::kNormal, static_cast<uint32_t>(key));
      for (float& x : k) x *= key_scale;
      store(test::reference_set(), key, k,
            random_values(head_dim, Values::kNormal, static_cast<uint32_t>(key) + 77777));
    }
  }
  // Fills a key's K and V.
  void fill(size_t key, float k, float v) {
    store(test::reference_set(), key, std::vector<float>(head_dim(), k), std::vector<float>(head_dim(), v));
  }
};

struct Expected {
  std::vector<double> out, bound;
};

// The query that the scores are made of: scaled, and for Q8_0 as the activation quantizer leaves it.
std::vector<double> scaled_query(const float* q, size_t n, KvType type) {
  std::vector<float> x(q, q + n);
  for (float& value : x) value *= kappa_of(n);
  if (type != KvType::kQ8_0) return {x.begin(), x.end()};
  std::vector<int8_t> codes(n);
  std::vector<float> scales(n / 32);
  std::vector<int16_t> sums(n / 8);
  test::reference_set().quantize_activations(x.data(), 1, n, {codes.data(), scales.data(), sums.data()});
  std::vector<double> out(n);
  for (size_t d = 0; d < n; ++d) out[d] = double{scales[d / 32]} * codes[d];
  return out;
}

// One head in double over the cache's decoded values, and how far f32 may be from it.
Expected attend_in_double(const KvMemory& cache, const float* q, size_t first_key, size_t position) {
  const size_t n = cache.head_dim(), n_keys = position + 1 - first_key;
  const std::vector<double> query = scaled_query(q, n, cache.type());
  std::vector<double> scores(n_keys);
  double largest_terms = 0;
  for (size_t j = 0; j < n_keys; ++j) {
    double terms = 0;
    for (size_t d = 0; d < n; ++d) {
      const double term = query[d] * cache.k(first_key + j, d);
      scores[j] += term;
      terms += std::abs(term);
    }
    largest_terms = std::max(largest_terms, terms);
  }
  const double top = *std::max_element(scores.begin(), scores.end());
  double total = 0;
  std::vector<double> p(n_keys);
  for (size_t j = 0; j < n_keys; ++j) total += p[j] = std::exp2(scores[j] - top);
  // A score is one product and head_dim FMAs away from the exact one (of Q8_0: a product and an FMA per 32
  // dims); it and the maximum move each p. Per tile and per segment p is rescaled once; p and its products
  // are added once per key, at most, and every step rounds numerator and denominator once.
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
  for (const KvType type : kKvTypes)
    for (const size_t head_dim : {2, 20, 64, 128}) {
      if (!can_hold(type, head_dim)) continue;
      Cache cache(1100, head_dim, type, 3);
      const std::vector<float> q = random_values(head_dim, Values::kNormal, 5);
      for (const size_t position : {0, 1, 15, 16, 63, 64, 100, 511, 512, 700, 1030, 1099})
        for (const size_t window : {0, 1, 40, 600}) {
          const std::vector<float> out = attend(test::reference_set(), cache, q, 1, position, window);
          const Expected expected =
              attend_in_double(cache, q.data(), first_visible_key(position, window), position);
          for (size_t d = 0; d < head_dim; ++d)
            ASSERT_NEAR(out[d], expected.out[d], expected.bound[d])
                << kv_name(type) << " head_dim " << head_dim << " position " << position << " window "
                << window;
        }
    }
}

TEST(ScalarAttention, OfOneKeyIsItsValue) {
  for (const KvType type : kKvTypes) {
    Cache cache(200, 32, type);
    const std::vector<float> q = random_values(32, Values::kNormal, 6);
    for (const size_t position : {0, 63, 64, 150}) {
      const std::vector<float> out = attend(test::reference_set(), cache, q, 1, position, 1);
      for (size_t d = 0; d < 32; ++d) EXPECT_EQ(out[d], cache.v(position, d));
    }
  }
}

class AttentionOfSet : public testing::TestWithParam<const KernelSet*> {
 protected:
  const KernelSet& set() const { return *GetParam(); }
  // q: one token's.
  void expect_reference(KvMemory& cache, const std::vector<float>& q, size_t position, size_t window) const {
    const size_t n_heads = q.size() / cache.head_dim();
    ASSERT_TRUE(same_bits(attend(set(), cache, q, n_heads, position, window),
                          attend(test::reference_set(), cache, q, n_heads, position, window)))
        << kv_name(cache.type()) << " head_dim " << cache.head_dim() << " heads " << n_heads << " position "
        << position << " window " << window;
  }
};
// The sets that are compared with the reference.
class AttentionOfOtherSet : public AttentionOfSet {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(AttentionOfOtherSet);

std::vector<const KernelSet*> other_sets() {
  std::vector<const KernelSet*> sets = test::supported_sets();
  sets.erase(sets.begin());
  return sets;
}

INSTANTIATE_TEST_SUITE_P(Sets, AttentionOfSet, testing::ValuesIn(test::supported_sets()), test::set_name);
INSTANTIATE_TEST_SUITE_P(Sets, AttentionOfOtherSet, testing::ValuesIn(other_sets()), test::set_name);

TEST_P(AttentionOfOtherSet, HasTheReferencesBitsAtEveryDepthAndWindow) {
  constexpr size_t kWindows[] = {0, 1, 5, 16, 64, 100, 513};
  for (const KvType type : kKvTypes)
    for (const size_t head_dim : {8, 20, 32, 64, 128, 256}) {
      if (!can_hold(type, head_dim)) continue;
      Cache cache(1025, head_dim, type, 3);
      for (const size_t n_heads : {1, 2, 3, 4, 5, 8}) {
        const std::vector<float> q = random_values(n_heads * head_dim, Values::kNormal, 7);
        for (size_t depth = 1; depth <= 70; depth += QUERN_SANITIZED ? 5 : 1) {
          // Every depth in full; the windows in turn.
          expect_reference(cache, q, depth - 1, 0);
          expect_reference(cache, q, depth - 1, kWindows[(depth + n_heads) % std::size(kWindows)]);
          if (HasFatalFailure()) return;
        }
        for (const size_t depth : {511, 512, 513, 575, 1025})
          for (const size_t window : kWindows) {
            // The slow half of the reference.
            if ((window == 0 || window > 100) && n_heads % 2 == 0 && head_dim > 64) continue;
            expect_reference(cache, q, depth - 1, window);
            if (HasFatalFailure()) return;
          }
      }
    }
}

TEST_P(AttentionOfOtherSet, HasTheReferencesBitsForOtherHeadDims) {
  for (const KvType type : kKvTypes)
    for (const size_t head_dim :
         {1, 2, 4, 6, 10, 14, 17, 24, 31, 40, 72, 80, 96, 100, 112, 160, 190, 224, 992, 1023, 1024}) {
      if (!can_hold(type, head_dim)) continue;
      Cache cache(130, head_dim, type, 3);
      for (const size_t n_heads : {1, 2, 3, 4, 8, 11}) {
        const std::vector<float> q = random_values(n_heads * head_dim, Values::kNormal, 8);
        for (const size_t position : {0, 17, 129}) expect_reference(cache, q, position, 0);
        if (HasFatalFailure()) return;
      }
    }
}

// What the reference gives for each token alone, computed when it is asked for.
class TokenByToken {
 public:
  TokenByToken(KvMemory& cache, size_t n_heads, size_t window)
      : cache_(cache), n_heads_(n_heads), window_(window) {}

  std::vector<float> query(size_t position) const {
    return random_values(n_heads_ * cache_.head_dim(), Values::kNormal, static_cast<uint32_t>(position));
  }
  const std::vector<float>& at(size_t position) {
    std::vector<float>& out = known_[position];
    if (out.empty())
      out = attend(test::reference_set(), cache_, query(position), n_heads_, position, window_);
    return out;
  }
  testing::AssertionResult equals(const KernelSet& set, size_t position, size_t n) {
    std::vector<float> q, expected;
    for (size_t t = position; t < position + n; ++t) {
      const std::vector<float> one = query(t);
      q.insert(q.end(), one.begin(), one.end());
      expected.insert(expected.end(), at(t).begin(), at(t).end());
    }
    return same_bits(attend(set, cache_, q, n_heads_, position, window_), expected);
  }

 private:
  KvMemory& cache_;
  size_t n_heads_, window_;
  std::map<size_t, std::vector<float>> known_;
};

TEST_P(AttentionOfSet, GivesTokensTheSameBitsTogetherAndAlone) {
  constexpr struct {
    size_t n_heads, head_dim;
  } kShapes[] = {{1, 8}, {1, 31}, {2, 20}, {3, 30}, {3, 32}, {4, 64}, {5, 80}, {8, 96}, {4, 128}, {1, 256}};
  for (const KvType type : kKvTypes)
    for (const auto& shape : kShapes) {
      if (!can_hold(type, shape.head_dim)) continue;
      if (&set() == &test::reference_set() && shape.head_dim != 32) continue;  // it takes no other ways
      Cache cache(640, shape.head_dim, type, 3);
      for (const size_t window : {0, 1, 37, 130}) {
        TokenByToken alone(cache, shape.n_heads, window);
        for (size_t n = 1; n <= 40; ++n)
          for (const size_t position : {0, 23, 50, 63, 64}) {
            if (n > 10 && (n + position) % 3 != 0) continue;
            if (QUERN_SANITIZED && (n + position + window) % 5 != 0) continue;  // each way, not each number
            ASSERT_TRUE(alone.equals(set(), position, n))
                << kv_name(type) << " head_dim " << shape.head_dim << " heads " << shape.n_heads << " tokens "
                << n << " position " << position << " window " << window;
          }
        // Across the border of two segments.
        if (window == 0 && shape.head_dim > 100) continue;
        for (const size_t n : {2, 5, 33})
          for (const size_t position : {495, 511, 545})
            ASSERT_TRUE(alone.equals(set(), position, n))
                << kv_name(type) << " head_dim " << shape.head_dim << " heads " << shape.n_heads << " tokens "
                << n << " position " << position << " window " << window;
      }
    }
}

TEST_P(AttentionOfOtherSet, HasTheReferencesBitsWhenSumsUnderflowOrOverflow) {
  for (const KvType type : {KvType::kF32, KvType::kQ8_0})
    for (const float key_scale : {0.0f, 1e-30f, 50.0f, 3000.0f, 1e18f, 1e38f})
      for (const Values kind : test::kAllValues) {
        Cache cache(600, 32, type, key_scale);
        const std::vector<float> q = random_values(4 * 32, kind, 9);
        for (const size_t position : {3, 77, 599}) expect_reference(cache, q, position, 0);
        const std::vector<float> many = random_values(12 * 4 * 32, kind, 9);
        ASSERT_TRUE(same_bits(attend(set(), cache, many, 4, 100, 0),
                              attend(test::reference_set(), cache, many, 4, 100, 0)));
        if (HasFatalFailure()) return;
      }
}

TEST_P(AttentionOfOtherSet, HandlesKeysThatAreNotFiniteLikeTheReference) {
  const std::vector<float> q = random_values(4 * 32, Values::kNormal, 10);
  std::vector<float> positive(4 * 32, 1.0f), many(12 * 4 * 32, 1.0f);
  for (const KvType type : kKvTypes)
    for (const float bad : {kNan, kInfinity, -kInfinity})
      for (const size_t bad_key : {0, 40, 63, 64, 520}) {
        Cache cache(600, 32, type);
        cache.fill(bad_key, bad, 1);
        for (const size_t position : {70, 599}) {
          expect_reference(cache, q, position, 0);
          expect_reference(cache, positive, position, 0);  // scores of the bad key: NaN, +Inf, -Inf
        }
        for (const size_t position : {32, 588})  // some of the tokens see it, some do not
          ASSERT_TRUE(same_bits(attend(set(), cache, many, 4, position, 30),
                                attend(test::reference_set(), cache, many, 4, position, 30)));
        if (HasFatalFailure()) return;
      }
  // Nothing but -Inf: no maximum to subtract, the definition gives NaN.
  Cache all(80, 32, KvType::kF32);
  for (size_t key = 0; key < 80; ++key) all.fill(key, -kInfinity, 1);
  expect_reference(all, positive, 79, 0);
  EXPECT_TRUE(std::isnan(attend(set(), all, positive, 4, 79, 0)[0]));
}

TEST_P(AttentionOfOtherSet, HandlesValuesThatAreNotFiniteOrZeroLikeTheReference) {
  const std::vector<float> q = random_values(2 * 64, Values::kNormal, 13);
  const std::vector<float> many = random_values(14 * 2 * 64, Values::kNormal, 14);
  for (const KvType type : kKvTypes)
    for (const float value : {kNan, kInfinity, -kInfinity, -0.0f, 0x1p-140f, -0x1p-20f}) {
      // All values the same, so that a zero's sign and a subnormal survive in the sum.
      KvMemory cache(200, 64, type);
      for (size_t key = 0; key < 200; ++key)
        cache.store(test::reference_set(), key,
                    random_values(64, Values::kNormal, static_cast<uint32_t>(key)),
                    std::vector<float>(64, value));
      for (const size_t position : {0, 63, 64, 199}) expect_reference(cache, q, position, 0);
      for (const size_t window : {0, 9})
        ASSERT_TRUE(same_bits(attend(set(), cache, many, 2, 60, window),
                              attend(test::reference_set(), cache, many, 2, 60, window)))
            << kv_name(type) << " " << value;
      if (HasFatalFailure()) return;
    }
}

// Whole blocks of dims, and one that is not.
constexpr size_t kTwoHeadDims[] = {32, 20};

TEST_P(AttentionOfSet, DoesNotDependOnKeysOutsideTheValidOnes) {
  for (const KvType type : kKvTypes)
    for (const size_t head_dim : kTwoHeadDims)
      for (const size_t n_tokens : {1, 2, 30})
        for (const size_t n_heads : {1, 2, 4})
          for (const size_t position : {0, 20, 63, 64, 500, 530}) {
            if (!can_hold(type, head_dim)) continue;
            constexpr size_t kWindow = 37;
            Cache cache(640, head_dim, type);
            const std::vector<float> q = random_values(n_tokens * n_heads * head_dim, Values::kNormal, 11);
            const std::vector<float> before = attend(set(), cache, q, n_heads, position, kWindow);
            for (size_t key = 0; key < cache.capacity(); ++key)
              if (key < first_visible_key(position, kWindow) || key >= position + n_tokens)
                cache.fill(key, key % 2 == 0 ? kNan : kInfinity, kNan);
            ASSERT_TRUE(same_bits(attend(set(), cache, q, n_heads, position, kWindow), before)) << position;
          }
}

TEST_P(AttentionOfSet, KeepsTokensApartWhoseNeighboursSeeNan) {
  // Keys that only later tokens see must not reach earlier ones, nor the other way round.
  for (const KvType type : kKvTypes)
    for (const size_t head_dim : kTwoHeadDims)
      for (const size_t n_heads : {1, 2, 3, 4}) {
        if (!can_hold(type, head_dim)) continue;
        constexpr size_t kTokens = 20, kPosition = 50, kWindow = 25;
        const size_t row = n_heads * head_dim;
        const std::vector<float> q = random_values(kTokens * row, Values::kNormal, 15);
        for (const size_t bad_key : {30, 45, 55, 64, 69}) {
          Cache cache(128, head_dim, type);
          const std::vector<float> before = attend(set(), cache, q, n_heads, kPosition, kWindow);
          cache.fill(bad_key, kNan, kNan);
          const std::vector<float> after = attend(set(), cache, q, n_heads, kPosition, kWindow);
          for (size_t t = 0; t < kTokens; ++t) {
            const size_t position = kPosition + t;
            const bool sees = bad_key <= position && bad_key >= first_visible_key(position, kWindow);
            for (size_t i = t * row; i < (t + 1) * row; ++i) {
              if (sees)
                ASSERT_TRUE(std::isnan(after[i])) << "token " << t;
              else
                ASSERT_TRUE(same_bits(after[i], before[i])) << "token " << t;
            }
          }
        }
      }
}

TEST_P(AttentionOfSet, GivesAHeadTheSameBitsAloneAndAmongOthers) {
  constexpr size_t kHeadDim = 64, kHeads = 7;
  for (const KvType type : kKvTypes) {
    Cache cache(700, kHeadDim, type);
    const std::vector<float> q = random_values(kHeads * kHeadDim, Values::kNormal, 12);
    const std::vector<float> together = attend(set(), cache, q, kHeads, 699, 0);
    for (size_t h = 0; h < kHeads; ++h) {
      const std::vector<float> alone =
          attend(set(), cache, {q.begin() + h * kHeadDim, q.begin() + (h + 1) * kHeadDim}, 1, 699, 0);
      EXPECT_TRUE(same_bits(alone, {together.begin() + h * kHeadDim, together.begin() + (h + 1) * kHeadDim}))
          << h;
    }
  }
}

}  // namespace
}  // namespace quern
