#include "quant/json/json.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace quern {
namespace {

std::string error_of(const std::string& text, const JsonLimits& limits = {}) {
  try {
    parse_json(text, "file", limits);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kMalformed);
    return e.what();
  }
  return "accepted";
}

std::string nested(size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); }

TEST(Json, KeepsIntegersExactAndTellsThemFromOtherNumbers) {
  const Json json = parse_json(R"([18446744073709551615, -1, 1.0, 1e1, 18446744073709551616])", "file");
  const Json::Array& array = *json.as_array();
  ASSERT_NE(array[0].as_uint(), nullptr);
  EXPECT_EQ(*array[0].as_uint(), UINT64_MAX);
  for (size_t i = 1; i < array.size(); ++i) EXPECT_EQ(array[i].as_uint(), nullptr) << i;
  EXPECT_EQ(array[0].as_int(), std::nullopt);
  EXPECT_EQ(array[1].as_int(), -1);
  EXPECT_EQ(array[2].as_int(), std::nullopt);
  EXPECT_EQ(parse_json("9223372036854775807", "file").as_int(), INT64_MAX);
  EXPECT_EQ(array[1].as_number(), -1.0);
  EXPECT_EQ(array[3].as_number(), 10.0);
}

TEST(Json, RefusesIntegersThatItCannotKeepWhereTheyMustBe) {
  for (const char* text : {"18446744073709551616", "-9223372036854775809", "[1, 100000000000000000001]"}) {
    EXPECT_NO_THROW(parse_json(text, "file")) << text;
    EXPECT_THROW(parse_json(text, "file", {.exact_integers = true}), Error) << text;
  }
  for (const char* text : {"1e20", "0.5", "18446744073709551615", "-1"})
    EXPECT_NO_THROW(parse_json(text, "file", {.exact_integers = true})) << text;
}

TEST(Json, FindsMembersOfObjectsOnly) {
  const Json json = parse_json(R"({"a": {"b": "x"}, "c": null})", "file");
  ASSERT_NE(json.find("a"), nullptr);
  EXPECT_EQ(*json.find("a")->find("b")->as_string(), "x");
  EXPECT_TRUE(json.find("c")->is_null());
  EXPECT_EQ(json.find("d"), nullptr);
  EXPECT_EQ(json.find("c")->find("b"), nullptr);
}

TEST(Json, ChainsEndInNullWhereSomethingIsMissing) {
  const Json json = parse_json(R"({"a": [{"b": 7}, "x"]})", "file");
  EXPECT_EQ(json["a"][0]["b"].as_int(), 7);
  EXPECT_EQ(*json["a"][1].as_string(), "x");
  for (const Json* missing : {&json["b"], &json["a"][2], &json["a"]["b"], &json["a"][1][0], &json[0]}) {
    EXPECT_TRUE(missing->is_null());
  }
  EXPECT_EQ(json.size(), 1u);
  EXPECT_EQ(json["a"].size(), 2u);
  EXPECT_EQ(json["a"][1].size(), 0u);
}

TEST(Json, KeepsTheOrderOfMembers) {
  std::string keys;
  const Json json = parse_json(R"({"z": 1, "a": {"y": 2, "b": 3}, "m": []})", "file");
  for (const JsonMember& member : *json.as_object()) keys += member.key;
  for (const JsonMember& member : *json["a"].as_object()) keys += member.key;
  EXPECT_EQ(keys, "zamyb");
}

TEST(Json, ErrorsSayWhere) {
  for (const char* nothing : {"", " \n"})
    EXPECT_NE(error_of(nothing).find("nothing is in it"), std::string::npos) << error_of(nothing);
  EXPECT_NE(error_of("{\"a\": 1,\n \"b\": }").find(" at byte 16"), std::string::npos)
      << error_of("{\"a\": 1,\n \"b\": }");
}

TEST(Json, NamesAnotherEncodingAndWhatToDo) {
  const std::string utf16 = "\xFF\xFE{" + std::string(1, '\0') + "}" + std::string(1, '\0');
  EXPECT_EQ(error_of(utf16),
            "file: invalid JSON: is UTF-16, expected UTF-8: iconv -f UTF-16 -t UTF-8 turns it into that");
  EXPECT_NE(error_of("\xFE\xFF").find("is UTF-16"), std::string::npos);
  EXPECT_NE(error_of("\xEF\xBB\xBF{}").find("begins with a byte order mark (EF BB BF), expected"),
            std::string::npos);
}

TEST(Json, DescribesValuesForMessages) {
  const auto described = [](const std::string& text) { return parse_json(text, "file").describe(); };
  for (const char* text :
       {"null", "true", "-3", "32.5", R"("yarn")", R"({"type": "yarn", "factor": 4})", R"([1, [], {}])"}) {
    EXPECT_EQ(described(text), text);
  }
  EXPECT_EQ(described(R"("\u001b[0m")"), R"("\x1B[0m")");
  std::string many = "[0";
  for (int i = 0; i < 1000; ++i) many += ",\"" + std::string(100, 'x') + "\"";
  EXPECT_LT(described(many + "]").size(), 200u);
}

TEST(Json, RefusesWhatTheStandardDoesNotAllow) {
  const std::vector<std::string> bad = {"",
                                        "{",
                                        "{}x",
                                        "[1,]",
                                        "{\"a\":1,}",
                                        "NaN",
                                        "[Infinity]",
                                        "// comment\n{}",
                                        "{'a':1}",
                                        "[01]",
                                        "[1e999]",
                                        "\xEF\xBB\xBF{}",
                                        std::string("{}\0", 3),
                                        std::string("\"a\0b\"", 5),
                                        "\"a\nb\"",
                                        R"("\ud800")",
                                        "\"\xC0\x80\"",
                                        "\"\xED\xA0\x80\"",
                                        "\"\xFF\""};
  for (const std::string& text : bad) {
    EXPECT_NE(error_of(text).find("file: invalid JSON"), std::string::npos) << text << ": " << error_of(text);
  }
}

TEST(Json, RefusesDuplicateKeysAtEveryLevel) {
  EXPECT_NE(error_of(R"({"a": 1, "a": 1})").find("duplicate key 'a'"), std::string::npos);
  EXPECT_NE(error_of(R"([{"b": {"c": 1, "\u0063": 2}}])").find("duplicate key 'c'"), std::string::npos);
  EXPECT_EQ(error_of(R"([{"a": 1}, {"a": 1}])"), "accepted");
}

TEST(Json, DepthIsLimitedBeforeItCosts) {
  const JsonLimits limits{.max_depth = 8, .max_values = 100};
  EXPECT_EQ(error_of(nested(8), limits), "accepted");
  EXPECT_NE(error_of(nested(9), limits).find("nested deeper than 8"), std::string::npos);
  EXPECT_NE(error_of(std::string(200'000, '['), limits).find("nested deeper"), std::string::npos);
}

TEST(Json, NumberOfValuesIsLimited) {
  const JsonLimits limits{.max_depth = 8, .max_values = 4};
  EXPECT_EQ(error_of("[1,2,3]", limits), "accepted");
  EXPECT_NE(error_of("[1,2,3,4]", limits).find("too many values"), std::string::npos);
}

TEST(Json, HandsOutMembersOneByOneInFileOrder) {
  const JsonLimits limits{.max_depth = 8, .max_values = 4};  // less than all of them
  std::vector<std::string> seen;
  parse_json_members(R"( {"b": [1, 2], "a": "x", "c": {"b": 3}})", "file", limits,
                     [&](std::string_view key, const Json& value) {
                       seen.push_back(std::string(key) + "=" + value.describe());
                     });
  EXPECT_EQ(seen, (std::vector<std::string>{"b=[1, 2]", "a=\"x\"", "c={\"b\": 3}"}));
}

TEST(Json, MembersOfSomethingElseThanAnObjectAreRefused) {
  for (const char* text : {"[]", "\"x\"", "1", "null"}) {
    try {
      parse_json_members(text, "file", {}, [](std::string_view, const Json&) { FAIL(); });
      FAIL() << text;
    } catch (const Error& e) {
      EXPECT_STREQ(e.what(), "file: expected a JSON object");
    }
  }
}

TEST(Json, WholeNumbersMayBeWrittenWithAFraction) {
  const Json list = parse_json("[0, 2.0, 1e3, 18446744073709551615, 2.5, -1, -0.5, 1e300, \"2\", null]", "x");
  const std::optional<uint64_t> expected[] = {0, 2, 1000, UINT64_MAX, {}, {}, {}, {}, {}, {}};
  for (size_t i = 0; i < std::size(expected); ++i) EXPECT_EQ(list[i].as_whole(), expected[i]) << i;
}

}  // namespace
}  // namespace quern
