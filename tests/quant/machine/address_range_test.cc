#include "quant/machine/address_range.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "quant/error.h"

namespace quern {
namespace {

TEST(AddressRange, GivesBackThePagesThatLieWhollyInside) {
  constexpr uint64_t kPart = 1 << 20;  // whole pages of any system
  const AddressRange range(3 * kPart, "a file");
  EXPECT_EQ(range.bytes().size(), 3 * kPart);
  std::fill_n(range.data(), 3 * kPart, uint8_t{7});
  range.give_back(range.data() + kPart - 1, kPart + 2);
  const auto is = [&](uint64_t begin, uint64_t end, uint8_t value) {
    return std::all_of(range.data() + begin, range.data() + end, [&](uint8_t byte) { return byte == value; });
  };
  EXPECT_TRUE(is(0, kPart, 7) && is(2 * kPart, 3 * kPart, 7));
  EXPECT_TRUE(is(kPart, 2 * kPart, 0));
  range.give_back(range.data() + 1, 2);
  EXPECT_TRUE(is(0, kPart, 7));
}

TEST(AddressRange, SaysWhatGetsNoAddresses) {
  try {
    const AddressRange range(uint64_t{1} << 60, "a file");
    FAIL() << "nobody has that many";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kResource);
    EXPECT_STREQ(error.what(), "a file: cannot get 1152921504606846976 bytes of addresses");
  }
}

}  // namespace
}  // namespace quern
