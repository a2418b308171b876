#include "cli/report.h"

#include <gtest/gtest.h>

#include <string>

namespace quern {
namespace {

TEST(Report, CountsAreDecimal) {
  EXPECT_EQ(format_count(999'999), "999999");
  EXPECT_EQ(format_count(7'241'732'096), "7.24 B");
}

TEST(Report, DurationsKeepTwoUnits) {
  EXPECT_EQ(format_duration(0.312), "0.31 s");
  EXPECT_EQ(format_duration(12.34), "12.3 s");
  EXPECT_EQ(format_duration(185), "3 min 05 s");
  EXPECT_EQ(format_duration(7627), "2 h 07 min");
}

TEST(Report, TableColumnsAreAsWideAsTheirWidestCell) {
  Table table({{"name", Table::Align::kLeft}, {"n", Table::Align::kRight}, {"x", Table::Align::kLeft}});
  table.add_row({"a", "12345", "y"});
  table.add_row({"▁Hello", "7", ""});
  EXPECT_EQ(table.render(),
            "name        n  x\n"
            "a       12345  y\n"
            "▁Hello      7\n");
}

TEST(Report, NarrowTablesKeepTheNamesOfTheirRows) {
  Table table({{"name", Table::Align::kLeft}, {"n", Table::Align::kRight}, {"x", Table::Align::kLeft}});
  table.add_row({"blk.0.attn_output.weight", "12345", "a text that is long enough to be cut"});
  EXPECT_EQ(table.render(48),
            "name                          n  x\n"
            "blk.0.attn_output.weight  12345  a text that ...\n");
  EXPECT_EQ(table.render(36),
            "name                 n  x\n"
            "blk.0.attn_o...  12345  a text th...\n");
}

TEST(Report, ProgressShowsWhatIsLeft) {
  EXPECT_EQ(progress_line(1ull << 30, 4ull << 30, 2.0),
            "[======                  ]  25%  1.00 GiB of 4.00 GiB  0.54 GB/s  ETA 6.00 s");
  EXPECT_EQ(progress_line(4ull << 30, 4ull << 30, 8.0),
            "[========================] 100%  4.00 GiB of 4.00 GiB  0.54 GB/s");
}

TEST(Report, ProgressOfNothingIsFinished) {
  EXPECT_EQ(progress_line(0, 0, 0.0), "[========================] 100%  0 bytes of 0 bytes");
  EXPECT_EQ(progress_line(0, 100, 1.0), "[                        ]   0%  0 bytes of 100 bytes");
}

TEST(Report, ProgressNeverRoundsUpToDone) {
  EXPECT_NE(progress_line(999, 1000, 1.0).find(" 99%"), std::string::npos);
}

}  // namespace
}  // namespace quern
