// JSON schemas as grammars. What random walks make is read by nlohmann's parser and judged by a small checker
// that shares nothing with the compiler.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "tests/runtime/engine/grammar_fixture.h"
#include "tests/support/paths.h"

namespace quern::test {
namespace {

using Tree = nlohmann::ordered_json;

size_t characters(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(),
                                           [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; }));
}

// JSON schema (2020-12), of the keywords that the tests use.
class Checker {
 public:
  explicit Checker(const Tree& root) : root_(root) {}

  bool takes(const Tree& schema, const Tree& value) const {
    if (schema.is_boolean()) return schema.get<bool>();
    for (const auto& [keyword, operand] : schema.items())
      if (!holds(keyword, operand, schema, value)) return false;
    return true;
  }

 private:
  static bool is(const std::string& type, const Tree& value) {
    if (type == "integer") return value.is_number() && value.get<double>() == std::trunc(value.get<double>());
    return type == (value.is_null()      ? "null"
                    : value.is_boolean() ? "boolean"
                    : value.is_number()  ? "number"
                    : value.is_string()  ? "string"
                    : value.is_array()   ? "array"
                                         : "object");
  }
  size_t matching(const Tree& schemas, const Tree& value) const {
    size_t n = 0;
    for (const Tree& one : schemas) n += takes(one, value) ? 1 : 0;
    return n;
  }
  bool holds(const std::string& keyword, const Tree& operand, const Tree& schema, const Tree& value) const {
    if (keyword == "type") {
      if (operand.is_string()) return is(operand, value);
      return std::any_of(operand.begin(), operand.end(), [&](const Tree& one) { return is(one, value); });
    }
    if (keyword == "$ref") {
      std::string path = operand.get<std::string>().substr(1);
      if (const size_t space = path.find("%20"); space != path.npos) path.replace(space, 3, " ");
      return takes(path.empty() ? root_ : root_.at(Tree::json_pointer(path)), value);
    }
    if (keyword == "enum") return std::find(operand.begin(), operand.end(), value) != operand.end();
    if (keyword == "const") return operand == value;
    if (keyword == "anyOf") return matching(operand, value) > 0;
    if (keyword == "oneOf") return matching(operand, value) == 1;
    if (keyword == "allOf") return matching(operand, value) == operand.size();
    if (value.is_object()) {
      if (keyword == "required")
        return std::all_of(operand.begin(), operand.end(),
                           [&](const Tree& one) { return value.contains(one); });
      if (keyword == "properties") {
        for (const auto& [name, one] : operand.items())
          if (value.contains(name) && !takes(one, value.at(name))) return false;
      }
      if (keyword == "additionalProperties") {
        for (const auto& [name, one] : value.items())
          if (!(schema.contains("properties") && schema["properties"].contains(name)) && !takes(operand, one))
            return false;
      }
    }
    if (value.is_array()) {
      if (keyword == "minItems") return value.size() >= operand.get<size_t>();
      if (keyword == "maxItems") return value.size() <= operand.get<size_t>();
      const size_t n_prefix = schema.contains("prefixItems") ? schema["prefixItems"].size() : 0;
      for (size_t i = 0; i < value.size(); ++i) {
        if (keyword == "prefixItems" && i < n_prefix && !takes(operand[i], value[i])) return false;
        if (keyword == "items" && i >= n_prefix && !takes(operand, value[i])) return false;
      }
    }
    if (value.is_string()) {
      const std::string text = value.get<std::string>();
      if (keyword == "minLength") return characters(text) >= operand.get<size_t>();
      if (keyword == "maxLength") return characters(text) <= operand.get<size_t>();
      if (keyword == "pattern") return std::regex_search(text, std::regex(operand.get<std::string>()));
      if (keyword == "format") return has_format(operand, text);
    }
    if (value.is_number()) {
      const double x = value.get<double>(), bound = operand.is_number() ? operand.get<double>() : 0;
      if (keyword == "minimum") return x >= bound;
      if (keyword == "maximum") return x <= bound;
      if (keyword == "exclusiveMinimum") return x > bound;
      if (keyword == "exclusiveMaximum") return x < bound;
    }
    return true;
  }
  static bool has_format(const std::string& format, const std::string& text) {
    if (format == "date" || format == "date-time") {
      int year = 0, month = 0, day = 0;
      if (std::sscanf(text.c_str(), "%4d-%2d-%2d", &year, &month, &day) != 3) return false;
      constexpr int kDays[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
      if (month < 1 || month > 12 || day < 1 || day > kDays[month - 1]) return false;
      return format == "date"
                 ? text.size() == 10
                 : text[10] == 'T' && (text.back() == 'Z' || text.find_first_of("+-", 11) != text.npos);
    }
    if (format == "ipv4") {
      int parts[4];
      char end = 0;
      if (std::sscanf(text.c_str(), "%d.%d.%d.%d%c", parts, parts + 1, parts + 2, parts + 3, &end) != 4)
        return false;
      return std::all_of(std::begin(parts), std::end(parts),
                         [](int part) { return part >= 0 && part < 256; });
    }
    if (format == "uuid") return text.size() == 36 && text[8] == '-' && text[23] == '-';
    return !text.empty();
  }

  const Tree& root_;
};

// A schema a line.
std::vector<std::string> shared_schemas() {
  std::ifstream file(test_data("json_schemas.jsonl"));
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

using Schemas = AConstraint;

TEST_F(Schemas, WhateverIsWrittenUnderThemTheyTake) {
  std::mt19937 random(7);
  const std::vector<std::string> schemas = shared_schemas();
  ASSERT_GT(schemas.size(), 40u);
  for (const std::string& text : schemas) {
    const auto held = constraint(schema(text));
    const Tree tree = Tree::parse(text);
    std::set<std::string> seen;
    for (int i = 0; i < 60 && (!QUERN_SANITIZED || i < 10 || seen.empty()); ++i) {
      const std::string made = walk(held, random);
      if (made.empty()) continue;  // it did not end
      seen.insert(made);
      const Tree value = Tree::parse(made, nullptr, false);
      ASSERT_FALSE(value.is_discarded()) << text << ": " << made;
      EXPECT_TRUE(Checker(tree).takes(tree, value)) << text << ": " << made;
    }
    EXPECT_FALSE(seen.empty()) << text;
  }
}

TEST_F(Schemas, TakeWhatModelsWrite) {
  struct Case {
    const char* schema;
    std::vector<std::string> in, out;
  };
  const Case cases[] = {
      {R"({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
           "required": ["name"]})",
       {R"({"name": "Ann", "age": 3})", R"({"name":"\u00e9 \"x\" \n"})",
        "{\n  \"name\": \"a\",\n  \"age\": 0\n}", "{ \"name\": \"\u4E2D\" }"},
       {"{}", R"({"age": 3})", R"({"name": "a", "age": 1.5})", R"({"name": "a", "x": 1})",
        R"({"name": "a",})", R"({"name": "a" , "age": 1})", R"({"age": 1, "name": "a"})",
        R"({"name": "a", "name": "b"})", "{\"name\": \"a\nb\"}", R"({"name": "\x"})", R"({"name": "\ud83d"})",
        "{\"name\": \"\xC3\"}", R"( {"name": "a"})", R"({"name": "a", "age": 01})"}},
      {R"({"type": "integer", "minimum": 8, "maximum": 1203})",
       {"8", "9", "10", "99", "100", "1000", "1203"},
       {"7", "1204", "2000", "-8", "08", "8.0", "12030", ""}},
      {R"({"type": "integer", "minimum": -120, "maximum": 5})",
       {"-120", "-99", "-1", "0", "5"},
       {"-121", "6", "-0", "-1200", "10"}},
      {R"({"type": "integer"})",
       {"0", "-1", "999999999999999999"},
       {"-0", "1e3", "00", "1000000000000000000"}},
      {R"({"type": "number", "exclusiveMinimum": 0, "maximum": 2})",
       {"2", "0.5", "0.000001", "1", "1.999999"},
       {"0", "0.0", "2.1", "-1", "2.0", "3"}},
      {R"({"type": "number", "minimum": -1, "maximum": 1})",
       {"-1", "-0.25", "0", "1", "0.75", "-0"},
       {"-1.5", "1.01", "-2"}},
      {R"({"type": "number", "exclusiveMaximum": 0})", {"-1", "-0.5"}, {"0", "-0", "-0.0", "1"}},
      {R"({"type": "string", "minLength": 1, "maxLength": 2})",
       {"\"a\"", "\"\u00E9\U0001F600\"", "\"\\n\\u00e9\""},
       {"\"\"", "\"abc\"", "\"a", "a"}},
      {R"({"type": "object", "properties": {"a": {"const": 1}}, "additionalProperties": {"const": 2}})",
       {R"({"a": 1})", R"({"a": 1, "b": 2, "aa": 2})", R"({"": 2})", R"({"b": 2})", "{}"},
       {R"({"a": 2})", R"({"b": 1})", R"({"\u0061": 2})", R"({"b": 2, "a": 1})"}},
      {R"({"type": "object", "properties": {"a": false, "b": {"const": 1}}})",
       {"{}", R"({"b":1})"},
       {R"({"a":1})"}},
      {R"({"type": "array", "items": {"enum": ["x", "y"]}})",
       {"[]", "[ ]", R"(["x"])", R"(["x", "y"])", "[\n  \"x\",\n  \"y\"\n]"},
       {"[", R"(["z"])", R"(["x",])", R"(["x" "y"])"}},
      {R"({"type": "string", "pattern": "^a.c$"})",
       {"\"abc\"", "\"a\\\"c\"", "\"a\u00E9c\""},
       {"\"ac\"", "\"abcd\""}},
      {R"({"type": "string", "pattern": "b"})", {"\"b\"", "\"abc\"", "\"b\\nb\""}, {"\"\"", "\"acd\""}},
  };
  for (const Case& c : cases) {
    const auto held = constraint(schema(c.schema));
    for (const std::string& text : c.in) EXPECT_TRUE(takes(held, text)) << c.schema << " takes " << text;
    for (const std::string& text : c.out) EXPECT_FALSE(takes(held, text)) << c.schema << " takes " << text;
  }
}

TEST_F(Schemas, RefuseWithPlaceAndKeywordWhatTheyCannotKeep) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"not": {}})", "#: not: this keyword is not supported"},
      {R"({"properties": {"a": {"items": {"if": {}}}}})", "#/properties/a/items: if: this keyword"},
      {R"({"type": "object", "patternProperties": {}})", "#: patternProperties:"},
      {R"({"type": "string", "format": "regex"})", "#: format: 'regex' is not supported; there are date,"},
      {R"x({"type": "string", "pattern": "(?=a)"})x", "#: pattern: the expression '(?=a)'"},
      {R"({"type": "string", "pattern": "a", "maxLength": 3})", "#: pattern: not supported beside lengths"},
      {R"({"type": "number", "multipleOf": 0.1})", "#: multipleOf: not supported"},
      {R"({"type": "number", "minimum": 0.5})", "#: minimum: expected a whole number"},
      {R"({"type": "integer", "exclusiveMinimum": true})", "#: exclusiveMinimum: expected a number"},
      {R"({"type": "text"})", "#: type: \"text\" is no type"},
      {R"({"type": []})", "#: type: there is none"},
      {R"({"allOf": [{}, {}]})", "#: allOf: more than one schema"},
      {R"({"oneOf": [{"type": "integer"}, {"type": "number"}]})",
       "#: oneOf: its schemas 0 and 1 may take the same"},
      {R"({"oneOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"a": {"const": 2}}}]})",
       "#: oneOf:"},
      {R"({"oneOf": [{"enum": [1, "a"]}, {"enum": ["b", 1.0]}]})", "#: oneOf:"},
      {R"({"anyOf": [], "type": "string"})", "#: anyOf: expected a list of schemas"},
      {R"({"anyOf": [{}], "properties": {}})", "#: properties: not taken beside anyOf"},
      {R"({"type": "object", "anyOf": [{"required": ["a"]}]})", "#/anyOf/0: type: the \"type\" beside it"},
      {R"({"$ref": "#/$defs/none"})", "#: $ref: there is no '#/$defs/none'"},
      {R"({"$ref": "other.json#/a"})", "#: $ref: 'other.json#/a' is not in this document"},
      {R"({"$ref": "#name"})", "#: $ref: '#name' is a name"},
      {R"({"$ref": "#"})", "no text matches it"},
      {R"({"$ref": "#/a", "a": 3})", "#: a: this keyword"},
      {R"({"type": "array", "items": [{}]})", "#: items: a list of schemas is of older drafts"},
      {R"({"type": "array", "uniqueItems": true})", "#: uniqueItems: not supported"},
      {R"({"type": "array", "minItems": 100000})", "#: minItems: expected at most 16384"},
      {R"({"type": "array", "minItems": -1})", "#: minItems: expected a whole number"},
      {R"({"type": "object", "minProperties": 1})", "#: minProperties:"},
      {R"({"type": "object", "maxProperties": 1})", "#: maxProperties:"},
      {R"({"type": "object", "required": ["a"], "properties": {}, "additionalProperties": false})",
       "no text matches it"},
      {R"({"type": "object", "required": "a"})", "#: required: expected a list of names"},
      {R"({"properties": {"a": 1}})", "#/properties/a: expected a schema, found 1"},
      {R"({"enum": []})", "#: enum: expected a list of values"},
      {R"({"type": "integer", "minimum": 5, "maximum": 4})", "no text matches it"},
      {"false", "no text matches it"},
      {"3", "expected a schema, found 3"},
  };
  for (const auto& c : cases) {
    const std::string found = error_of([&] { schema(c.first); });
    EXPECT_TRUE(found.starts_with("a schema: ")) << c.first << ": " << found;
    EXPECT_NE(found.find(c.second), found.npos) << c.first << ": " << found;
  }
}

TEST_F(Schemas, ThatAreHostileAreAnsweredSoon) {
  std::string chain = R"({"$ref": "#/$defs/d0", "$defs": {)", wide = R"({"type": "object", "properties": {)",
              deep, nested = "true", choices = R"({"enum": [)", one_of = R"({"oneOf": [)", lengths = wide;
  for (int i = 0; i < 5000; ++i) {
    chain += fmt::format(R"("d{}": {{"anyOf": [{{"$ref": "#/$defs/d{}"}}, {{"$ref": "#/$defs/d{}"}}]}}, )", i,
                         i + 1, std::min(i + 2, 5000));
    wide += fmt::format(R"("p{}": {{"type": "string"}}, )", i);
    choices += fmt::format("\"choice {}\", ", i * 7919);
    one_of += fmt::format(R"({{"const": {}}}, )", i);
  }
  for (int i = 0; i < 300; ++i)
    lengths += fmt::format(R"("p{}": {{"type": "array", "minItems": 16000, "items": {{"maxLength": {}}}}}, )",
                           i, 16000 + i);
  for (int i = 0; i < 12; ++i)
    nested = fmt::format(R"({{"type": "array", "minItems": 9999, "items": {}}})", nested);
  const std::string schemas[] = {chain + R"("d5000": {"type": "null"}}})",
                                 wide + R"("last": true}})",
                                 lengths + R"("last": true}})",
                                 nested,
                                 choices + "0]}",
                                 one_of + "0]}"};
  for (const std::string& text : schemas) {
    const auto begin = std::chrono::steady_clock::now();
    const std::string error = error_of([&] {
      ConstraintState state(constraint(schema(text)), false);
      TokenMask mask;
      state.next_tokens(&mask);
    });
    EXPECT_LT(std::chrono::steady_clock::now() - begin,
              std::chrono::milliseconds(QUERN_SANITIZED ? 20000 : 1500))
        << text.substr(0, 60) << ": " << error;
  }
}

}  // namespace
}  // namespace quern::test
