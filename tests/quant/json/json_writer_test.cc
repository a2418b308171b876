#include "quant/json/json_writer.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <string>

namespace quern {
namespace {

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
  EXPECT_EQ(json_number(1e-5f), "1e-05") << "not 9.999999747378752e-06";
  EXPECT_EQ(json_number(std::numeric_limits<double>::quiet_NaN()), "null");
  EXPECT_EQ(json_number(-std::numeric_limits<double>::infinity()), "null");
}

TEST(JsonWriter, LaysTextOutAsItsCallerSays) {
  JsonWriter json(JsonWriter::Style::kSpaced);
  json.begin_object().line(2).field("a", std::vector<int>{1, 2}).line(2).key("b");
  json.begin_object().field("c", 1).field("d", true).end_object().line(0).end_object();
  EXPECT_EQ(json.text(), "{\n  \"a\": [1, 2],\n  \"b\": {\"c\": 1, \"d\": true}\n}");
  JsonWriter compact;
  compact.begin_array().line(1).value(1).line(1).value("x").line(0).end_array();
  EXPECT_EQ(compact.text(), "[\n 1,\n \"x\"\n]");
}

}  // namespace
}  // namespace quern
