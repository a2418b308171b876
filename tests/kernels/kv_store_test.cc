// Storing keys and values: the bytes that the cache is drawn with, the numbers that they stand for, and every
// set against the reference.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/kernels/kv_memory.h"

namespace quern {
namespace {

using test::can_hold;
using test::kAllValues;
using test::kKvTypes;
using test::kv_name;
using test::KvMemory;
using test::random_values;
using test::Values;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(ScalarKvStore, SaturatesF16) {
  KvMemory cache(64, 6, KvType::kF16);
  const std::vector<float> k = {1, 1e6f, -1e6f, kInfinity, 65519, 0x1p-24f};
  const std::vector<float> v = {-1, 65504, 65505, -kInfinity, 2049, 3};
  EXPECT_TRUE(cache.store(test::reference_set(), 37, k, v));
  const std::vector<float> k_expected = {1, 65504, -65504, kInfinity, 65504, 0x1p-24f};
  const std::vector<float> v_expected = {-1, 65504, 65504, -kInfinity, 2048, 3};
  for (size_t d = 0; d < 6; ++d) {
    EXPECT_EQ(cache.k(37, d), k_expected[d]);
    EXPECT_EQ(cache.v(37, d), v_expected[d]);
  }
}

TEST(ScalarKvStore, PutsEveryElementInAPlaceOfItsOwn) {
  // One position is stored: its elements decode to what they were, everything else is still zero.
  for (const KvType type : kKvTypes)
    for (const size_t head_dim : {64, 20, 31}) {
      if (!can_hold(type, head_dim)) continue;
      constexpr size_t kKeys = 700, kPosition = 600;
      KvMemory cache(kKeys, head_dim, type);
      std::vector<float> k(head_dim), v(head_dim);
      for (size_t d = 0; d < head_dim; ++d) {
        // Exact in every format: whole numbers, 127 in each group.
        k[d] = d % 32 == 3 ? 127 : static_cast<float>(d % 32) + 1;
        v[d] = d % 32 == 9 ? -127 : static_cast<float>(d % 32) - 40;
      }
      EXPECT_TRUE(cache.store(test::reference_set(), kPosition, k, v));
      for (size_t key = 0; key < cache.capacity(); ++key)
        for (size_t d = 0; d < head_dim; ++d) {
          ASSERT_EQ(cache.k(key, d), key == kPosition ? k[d] : 0) << kv_name(type) << " " << key << " " << d;
          ASSERT_EQ(cache.v(key, d), key == kPosition ? v[d] : 0) << kv_name(type) << " " << key << " " << d;
        }
    }
}

TEST(ScalarKvStore, RoundsQ8_0ToHalfAStep) {
  for (uint32_t seed = 0; seed < 200; ++seed) {
    const std::vector<float> x = random_values(64, Values::kNormal, seed);
    KvMemory cache(64, 64, KvType::kQ8_0);
    EXPECT_TRUE(cache.store(test::reference_set(), 5, x, x));
    for (size_t d = 0; d < 64; ++d) {
      float amax = 0;
      for (size_t i = d / 32 * 32; i < d / 32 * 32 + 32; ++i) amax = std::max(amax, std::abs(x[i]));
      // Half a step of amax / 127, and the code times the rounding of the scale to f16.
      const float bound = amax / 127 * 0.5f + amax * 0x1p-11f + amax * 0x1p-20f;
      ASSERT_NEAR(cache.k(5, d), x[d], bound);
      ASSERT_NEAR(cache.v(5, d), x[d], bound);
    }
  }
}

class KvStoreOfSet : public testing::TestWithParam<const KernelSet*> {
 protected:
  const KernelSet& set() const { return *GetParam(); }
};

INSTANTIATE_TEST_SUITE_P(Sets, KvStoreOfSet, testing::ValuesIn(test::supported_sets()), test::set_name);

TEST_P(KvStoreOfSet, StoresLikeTheReference) {
  for (const KvType type : kKvTypes)
    for (const Values kind : kAllValues)
      for (const size_t head_dim : {1, 2, 8, 10, 17, 20, 31, 32, 96, 128, 1024})
        for (const size_t position : {0, 5, 16, 63, 64, 640}) {
          if (!can_hold(type, head_dim) || (head_dim == 1024 && position > 5)) continue;
          const std::vector<float> k = random_values(head_dim, kind, 18);
          const std::vector<float> v = random_values(head_dim, kind, 19);
          KvMemory a(position + 1, head_dim, type), b(position + 1, head_dim, type);
          const bool no_nan = a.store(set(), position, k, v);
          ASSERT_EQ(no_nan, b.store(test::reference_set(), position, k, v));
          ASSERT_EQ(no_nan, std::none_of(k.begin(), k.end(), [](float x) { return std::isnan(x); }) &&
                                std::none_of(v.begin(), v.end(), [](float x) { return std::isnan(x); }));
          ASSERT_EQ(a.bytes(), b.bytes()) << kv_name(type) << " head_dim " << head_dim;
        }
}

TEST_P(KvStoreOfSet, StoresEveryF16AndItsBordersLikeTheReference) {
  // Each half, and the floats around it and around the middle to the next one.
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = f32_from_f16(static_cast<uint16_t>(bits));
    const float middle = std::bit_cast<float>(std::bit_cast<uint32_t>(value) + 0x1000);
    const float k[8] = {value,  std::nextafter(value, 0.0f),  std::nextafter(value, kInfinity),  0,
                        middle, std::nextafter(middle, 0.0f), std::nextafter(middle, kInfinity), 0};
    uint8_t a[2048] = {}, b[2048] = {};
    set().store_kv({k, k, 8, 0, KvType::kF16, {a, sizeof(a), 1}});
    test::reference_set().store_kv({k, k, 8, 0, KvType::kF16, {b, sizeof(b), 1}});
    ASSERT_EQ(std::memcmp(a, b, sizeof(a)), 0) << std::hexfloat << value;
  }
}

}  // namespace
}  // namespace quern
