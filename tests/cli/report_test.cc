#include "cli/report.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/json_writer.h"

namespace quern {
namespace {

TEST(Report, SizesAreBinaryAndCountsDecimal) {
  EXPECT_EQ(format_size(0), "0 bytes");
  EXPECT_EQ(format_size(1023), "1023 bytes");
  EXPECT_EQ(format_size(1024), "1.00 KiB");
  EXPECT_EQ(format_size(4'108'181'504), "3.83 GiB");
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

TEST(JsonWriter, WritesWhatAParserReads) {
  JsonWriter json;
  json.begin_object()
      .field("text", "a\"b\\c\n\t\x01 é 🦙")
      .field("yes", true)
      .field("n", uint64_t{18446744073709551615u})
      .field("negative", -3)
      .field("x", 0.1)
      .field("list", std::vector<int>{1, 2, 3})
      .field("empty", std::vector<int>{});
  json.key("nothing").null().key("nested").begin_array().begin_object().end_object().end_array().end_object();
  const nlohmann::json parsed = nlohmann::json::parse(json.text());
  EXPECT_EQ(parsed["text"], "a\"b\\c\n\t\x01 é 🦙");
  EXPECT_EQ(parsed["yes"], true);
  EXPECT_EQ(parsed["n"], 18446744073709551615u);
  EXPECT_EQ(parsed["negative"], -3);
  EXPECT_EQ(parsed["x"], 0.1);
  EXPECT_EQ(parsed["list"], (std::vector<int>{1, 2, 3}));
  EXPECT_TRUE(parsed["empty"].is_array() && parsed["empty"].empty());
  EXPECT_TRUE(parsed["nothing"].is_null());
  EXPECT_TRUE(parsed["nested"][0].is_object());
}

TEST(JsonWriter, EveryTextBecomesValidUtf8) {
  std::string all;
  for (int first = 0; first < 256; ++first)
    for (const char* rest : {"", "a", "\x80", "\xBF\xBF", "\x9F\x80\x80", "\xA0\x80"})
      (all += static_cast<char>(first)) += rest;
  EXPECT_TRUE(nlohmann::json::accept(json_quote(all)));
  EXPECT_EQ(json_quote("a\xFFz"), "\"a\xEF\xBF\xBDz\"");
}

TEST(JsonWriter, NumbersReadBackExactly) {
  for (const double x : {0.1, 1e-300, 123456789.123456789, -0.0, 1e22})
    EXPECT_EQ(nlohmann::json::parse(json_number(x)).get<double>(), x);
  EXPECT_EQ(json_number(std::numeric_limits<double>::quiet_NaN()), "null");
  EXPECT_EQ(json_number(-std::numeric_limits<double>::infinity()), "null");
}

}  // namespace
}  // namespace quern
