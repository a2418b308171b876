#include "quant/format_size.h"

#include <gtest/gtest.h>

#include "quant/median.h"

namespace quern {
namespace {

TEST(FormatSize, TakesTheLargestBinaryUnitOfWhichThereIsOne) {
  EXPECT_EQ(format_size(0), "0 bytes");
  EXPECT_EQ(format_size(1023), "1023 bytes");
  EXPECT_EQ(format_size(1024), "1.00 KiB");
  EXPECT_EQ(format_size(1 << 20), "1.00 MiB");
  EXPECT_EQ(format_size(4'108'181'504), "3.83 GiB");
}

TEST(FormatSize, GoesNoLowerThanTheSmallestUnit) {
  EXPECT_EQ(format_size(20'000, SizeUnit::kMiB), "0.02 MiB");
  EXPECT_EQ(format_size(uint64_t{3} << 30, SizeUnit::kMiB), "3.00 GiB");
}

TEST(Median, IsTheMiddleOrTheMeanOfTwo) {
  EXPECT_EQ(median({}), 0);
  EXPECT_EQ(median({3, 1, 2}), 2);
  EXPECT_EQ(median({4, 1, 2, 3}), 2.5);
}

}  // namespace
}  // namespace quern
