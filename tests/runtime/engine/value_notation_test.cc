// Values in notations that are not JSON's: read as JSON, and written by schemas.
#include "runtime/engine/value_notation.h"

#include <gtest/gtest.h>

#include "runtime/engine/grammar_json.h"
#include "tests/runtime/engine/grammar_fixture.h"

namespace quern {
namespace {

// Compact; "none": it is no JSON.
std::string read(const char* text, const ValueNotation& notation) {
  try {
    return compact_json(parse_json(json_of_value(text, notation), "a value"));
  } catch (const Error&) {
    return "none";
  }
}

TEST(ValueNotations, AreReadAsJson) {
  const std::pair<const char*, const char*> kGemma[] = {
      {R"({})", R"({})"},
      {R"({a:<|"|>x "y" \n {z}<|"|>,b:[1,-2.5e3,true,null],c:{d:<|"|><|"|>}})",
       R"({"a":"x \"y\" \\n {z}","b":[1,-2500,true,null],"c":{"d":""}})"},
      {"{a: <|\"|>two\nlines<|\"|>, größe : None}", "{\"a\":\"two\\nlines\",\"größe\":null}"},
      {R"({<|"|>a<|"|>:1})", R"({"a":1})"},
      {R"({true:false})", R"({"true":false})"},
      {R"({a:b})", "none"},
      {R"({a:1,a:2})", "none"},
      {R"({a:<|"|>x})", "none"},
      {R"({a:01})", "none"},
  };
  for (const auto& [text, json] : kGemma) EXPECT_EQ(read(text, kGemmaNotation), json) << text;
  const std::pair<const char*, const char*> kPython[] = {
      {"()", "{}"},
      {R"((a='x', b="y's", c=[True, None, -1], d={"e": {'f': false}}))",
       R"({"a":"x","b":"y's","c":[true,null,-1],"d":{"e":{"f":false}}})"},
      {R"((a='it\'s "\x41\u00e9\U0001F600\n\q' ))", "{\"a\":\"it's \\\"Aé😀\\n\\\\q\"}"},
      {"(a='two\nlines')", R"({"a":"two\nlines"})"},
      {R"((a='\ud83d\ude00'))", "{\"a\":\"😀\"}"},
      {R"((a='\U00110000'))", "none"},
      {R"((a='\U0000D800'))", "none"},
      {R"((a='\x4'))", "none"},
      {R"((a='x)", "none"},
      {R"((a='x\)", "none"},
      {R"((a=(1, 2)))", "none"},
      {R"((a: 1))", "none"},
      {R"((a=1, b={c=2}))", "none"},
      {R"((1, 2))", "none"},
      {R"({"a": 1})", "none"},
      {R"((a=1])", "none"},
  };
  for (const auto& [text, json] : kPython) EXPECT_EQ(read(text, kPythonNotation), json) << text;
}

TEST(ValueNotations, EndAtTheLastBracketInWhateverPiecesTheyCome) {
  const std::pair<const char*, const ValueNotation&> kValues[] = {
      {R"({a:<|"|>}<|x|" }<|"|>,b:[{c:1}]})", kGemmaNotation},
      {R"_((a=')\') "', b="')", c=[(1)]))_", kPythonNotation},
      {R"({"a":"}\"\\","b":[{"(":1}]})", kJsonNotation},
  };
  for (const auto& [value, notation] : kValues) {
    const std::string text = value;
    ValueSearch search;
    for (size_t n = 1; n < text.size(); ++n)
      ASSERT_EQ(find_value_end(text.substr(0, n), notation, &search), text.npos) << text.substr(0, n);
    EXPECT_EQ(find_value_end(text, notation, &search), text.size());
    ValueSearch once;
    EXPECT_EQ(find_value_end(text + " more}", notation, &once), text.size());
  }
}

TEST(ValueNotations, ConstantsAreWrittenInEachWay) {
  const Json value = parse_json(R"({"a": ["it's \"so\"", true, null, 1.5]})", "a value");
  EXPECT_EQ(written_values(value, kJsonNotation), std::vector<std::string>{compact_json(value)});
  EXPECT_EQ(written_values(value, kGemmaNotation),
            (std::vector<std::string>{R"({a:[<|"|>it's "so"<|"|>,True,None,1.5]})",
                                      R"({a:[<|"|>it's "so"<|"|>,true,null,1.5]})"}));
  for (const std::string& text : written_values(value, kPythonNotation))
    EXPECT_EQ(read(("(v=" + text + ")").c_str(), kPythonNotation), R"({"v":)" + compact_json(value) + "}")
        << text;
  EXPECT_EQ(written_values(value, kPythonNotation).size(), 4u);
  EXPECT_TRUE(written_values(Json(std::string("<|\"|>")), kGemmaNotation).empty());
  EXPECT_TRUE(written_values(parse_json(R"({"a b": 1})", "a value"), kGemmaNotation).empty());
}

class SchemasInANotation : public test::AConstraint {
 protected:
  std::shared_ptr<const Constraint> arguments(const char* schema, const ValueNotation& notation) const {
    GrammarBuilder builder("a schema");
    const Json parsed = parse_json(schema, "a schema", kSchemaLimits);
    const GrammarBuilder::Rule rule = add_arguments(builder, parsed, notation, "a schema");
    return constraint(builder.finish(rule));
  }
};

constexpr const char* kSchema = R"({"$ref": "#/$defs/all", "$defs": {"all": {"type": "object", "properties": {
  "z": {"type": "string", "maxLength": 3}, "B": {"type": "array", "items": {"$ref": "#/$defs/all"}},
  "a": {"type": "string", "pattern": "^[a-z'\"]+$"}, "free": {"type": "string"}, "k": {"enum": ["it's", 2]},
  "more": {"type": "object", "additionalProperties": {"type": "boolean"}}}, "required": ["z"]}}})";

TEST_F(SchemasInANotation, TakeWhatTheirSchemaSays) {
  const auto gemma = arguments(kSchema, kGemmaNotation), python = arguments(kSchema, kPythonNotation);
  for (const char* text :
       {R"({z:<|"|>x<"<|"|>})", R"({a:<|"|>x'y"<|"|>,B:[{z:<|"|><|"|>},{z:<|"|>1<|"|>}],z:<|"|><|"|>})",
        R"({free:<|"|>a<|b "<|"|>,k:<|"|>it's<|"|>,more:{x_1:true,y:False},z:<|"|><|"|>})",
        R"({k:2, z:<|"|><|"|>})"})
    EXPECT_TRUE(takes(gemma, text)) << text;
  for (const char* text : {R"({})", R"({z:<|"|>abcd<|"|>})", R"({z:<|"|><|"|>,a:<|"|>x<|"|>})", R"({z:"x"})",
                           R"({"z":<|"|><|"|>})", R"({a:<|"|>X<|"|>,z:<|"|><|"|>})",
                           R"({more:{:true},z:<|"|><|"|>})", R"({k:3,z:<|"|><|"|>})", R"((z=''))"})
    EXPECT_FALSE(takes(gemma, text)) << text;
  for (const char* text :
       {R"((z='x"'))", R"((z="x'"))", R"((z='\'', B=[{"z": 'a'}, {'z': "b", "a": "x'\""}], a='\'"'))",
        R"((z='', free="a\n", k='it\'s', more={'x y': True, "z": false}))", R"((z="", k=2))"})
    EXPECT_TRUE(takes(python, text)) << text;
  for (const char* text :
       {R"(())", R"((z='abcd'))", R"({"z": "x"})", R"((z='x"))", R"((z: 'x'))", R"((z=''}))",
        R"((z='', a='X'))", R"((z='', B=[(z='a')]))", R"((z='', k="its"))", R"(("z"=''))"})
    EXPECT_FALSE(takes(python, text)) << text;
}

TEST_F(SchemasInANotation, WhateverTheyTakeIsReadBackAsWhatTheSchemaTakesAsJson) {
  std::mt19937 random(3);
  const auto json = constraint(schema(R"({"type": "object", "properties": {
      "a": {"type": "string", "maxLength": 4}, "b": {"type": ["integer", "null", "boolean"]},
      "c": {"type": "array", "items": {"type": "string"}}, "d": {"type": "object", "properties": {"e": {"const": "f"}}}},
      "required": ["a", "c"]})"));
  size_t n = 0;
  for (const ValueNotation* notation : {&kGemmaNotation, &kPythonNotation}) {
    const auto held = arguments(R"({"type": "object", "properties": {
      "a": {"type": "string", "maxLength": 4}, "b": {"type": ["integer", "null", "boolean"]},
      "c": {"type": "array", "items": {"type": "string"}}, "d": {"type": "object", "properties": {"e": {"const": "f"}}}},
      "required": ["a", "c"]})",
                                *notation);
    for (int i = 0; i < 40; ++i) {
      const std::string text = walk(held, random);
      if (text.empty()) continue;
      ++n;
      const std::string value = read(text.c_str(), *notation);
      EXPECT_TRUE(takes(json, value)) << text << "\n" << value;
    }
  }
  EXPECT_GT(n, 20u);
}

TEST_F(SchemasInANotation, RefuseWhatCannotBeWritten) {
  const auto error = [&](const char* schema, const ValueNotation& notation) {
    return test::error_of([&] { (void)arguments(schema, notation); });
  };
  const char* name = R"({"type": "object", "properties": {"a b": {}}})";
  EXPECT_NE(error(name, kGemmaNotation).find("'a b' cannot be written without quotes"), std::string::npos);
  EXPECT_NE(error(name, kPythonNotation).find("'a b' cannot be written without quotes"), std::string::npos);
  EXPECT_EQ(error(R"({"type": "object", "properties": {"a": {"type": "object", "properties": {"a b": {}}}}})",
                  kPythonNotation),
            "");
  EXPECT_NE(error(R"({"$ref": "#"})", kPythonNotation).find("$ref"), std::string::npos);
  EXPECT_NE(error(R"({"enum": [{}]})", kPythonNotation).find("enum"), std::string::npos);
  EXPECT_NE(error(R"({"type": "string"})", kPythonNotation), "");
  EXPECT_EQ(error("true", kPythonNotation), "");
}

}  // namespace
}  // namespace quern
