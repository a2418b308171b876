#include "quant/hash128.h"

#include <gtest/gtest.h>

#include <string_view>

namespace quern {
namespace {

TEST(Hash128, IsXxh3) {
  // XXH3_128bits("") of the reference's own test (xxHash, tests/sanity_test_vectors.h).
  EXPECT_EQ(Hasher128().hash(), (Hash128{0x6001c324468d497f, 0x99aa06d3014798d8}));
}

TEST(Hash128, DependsOnBytesAndSecretAlone) {
  const std::string_view text = "not where the bytes were cut, of which there must be more than one block";
  const HashSecret a = random_hash_secret(), b = random_hash_secret();
  const auto hash = [&](const HashSecret& secret, size_t cut) {
    return Hasher128(secret)
        .add_values(std::span(text.substr(0, cut)))
        .add_values(std::span(text.substr(cut)))
        .hash();
  };
  EXPECT_EQ(hash(a, 0), hash(a, 17));
  EXPECT_NE(hash(a, 0), hash(b, 0));
  EXPECT_NE(hash(a, 0), Hasher128().add_values(std::span(text)).hash());
  EXPECT_NE(Hasher128(a).add_value(uint32_t{1}).hash(), Hasher128(a).add_value(uint32_t{2}).hash());
}

}  // namespace
}  // namespace quern
