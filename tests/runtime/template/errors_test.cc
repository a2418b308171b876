// What templates raise: the words first, then the place.
#include <gtest/gtest.h>

#include "tests/runtime/template/template_fixtures.h"

namespace quern::test {
namespace {

struct Case {
  const char* source;
  const char* message;
};

class TemplateErrors : public testing::TestWithParam<Case> {};

TEST_P(TemplateErrors, NameTheirPlace) {
  const Outcome got =
      render(GetParam().source, R"({"messages": [{"role": "user", "content": "hi"}], "n": 7})");
  EXPECT_TRUE(got.raised) << got.text;
  EXPECT_EQ(got.text, GetParam().message);
}

INSTANTIATE_TEST_SUITE_P(
    Table, TemplateErrors,
    testing::Values(
        Case{"{{ raise_exception('Roles must alternate') }}",
             "Roles must alternate (template, line 1, column 19)"},
        Case{"a\n  {{ missing.role }}", "'missing' is undefined (template, line 2, column 13)"},
        Case{"é {{ missing() }}", "'missing' is undefined (template, line 1, column 13)"},
        Case{"{{ missing + 1 }}", "'missing' is undefined (template, line 1, column 12)"},
        Case{"{{ messages[3].role }}", "list object has no element 3 (template, line 1, column 15)"},
        Case{"{{ messages[0].name.first }}",
             "'dict object' has no attribute 'name' (template, line 1, column 20)"},
        Case{"{{ messages.append(1) }}",
             "access to attribute 'append' of 'list' object is unsafe. (template, line 1, column 19)"},
        Case{"{{ messages[0].update({}) }}",
             "access to attribute 'update' of 'dict' object is unsafe. (template, line 1, column 22)"},
        Case{"{{ ''.__class__.__mro__ }}",
             "access to attribute '__class__' of 'str' object is unsafe. (template, line 1, column 16)"},
        Case{"{% set n.x = 1 %}",
             "cannot assign attribute on non-namespace object (template, line 1, column 8)"},
        Case{"{% macro m() %}\n{{ 1 / 0 }}{% endmacro %}{{ m() }}",
             "division by zero (template, line 2, column 6)"},
        Case{"{{ 'a' + 1 }}", "can only concatenate str (not \"int\") to str (template, line 1, column 8)"},
        Case{"{% for x in 5 %}{% endfor %}", "'int' object is not iterable (template, line 1, column 4)"},
        Case{"{{ 9223372036854775807 + 1 }}",
             "integers beyond 64 bits are not supported (template, line 1, column 24)"},
        Case{"{% include 'other' %}",
             "'include' reaches for another template, and there is none (template, line 1, column 4)"},
        Case{"{{ 1 | shout }}", "No filter named 'shout'. (template, line 1, column 8)"},
        Case{"{{ 1 is loud }}", "No test named 'loud'. (template, line 1, column 9)"},
        Case{"{% if n %}",
             "Unexpected end of template. Jinja was looking for the following tags: 'elif' or 'else' "
             "or 'endif'. The innermost block that needs to be closed is 'if'. (template, line 1, "
             "column 11)"},
        Case{"{{ 'open }}", "the string is not closed (template, line 1, column 4)"},
        Case{"{{ (1] }}", "unexpected ']', expected ')' (template, line 1, column 6)"},
        Case{"{% break %}", "'break' outside loop (template, line 1, column 4)"},
        Case{"{{ raise_exception('two\\nlines \\x1b') }}",
             "two\\x0Alines \\x1B (template, line 1, column 19)"}));

TEST(TemplateErrors, LineEndsOfEveryKindCount) {
  EXPECT_EQ(render("a\r\nb\rc\n{{ x.y }}").text, "'x' is undefined (template, line 4, column 5)");
}

TEST(TemplateErrors, NothingButTheErrorComesOut) {
  EXPECT_TRUE(render("text first {{ raise_exception('no') }}").raised);
}

TEST(TemplateErrors, TemplateBeyondFourMegabytesIsRefused) {
  EXPECT_TRUE(render(std::string((4 << 20) + 1, 'a')).raised);
  EXPECT_FALSE(render(std::string(4 << 20, 'a')).raised);
}

// ---- undefined ----

TEST(Undefined, PrintsAsNothingAndTestsFalse) {
  EXPECT_EQ(render("[{{ tools }}]{% if tools %}yes{% endif %}{{ tools is defined }}").text, "[]False");
  EXPECT_EQ(render("{% for t in tools %}x{% else %}none{% endfor %}{{ tools | length }}").text, "none0");
  EXPECT_EQ(render("{{ tools is none }}", R"({"tools": null})").text, "True");
  EXPECT_EQ(render("{{ tools is none }}").text, "False");
}

TEST(Undefined, RaisesInArithmeticItemsAndCalls) {
  for (const char* use : {"tools.x", "tools['x']", "tools[0]", "tools()", "tools + 1", "1 - tools",
                          "tools < 1", "-tools", "'a' + tools", "tools * 2"})
    EXPECT_EQ(render(std::string("{{ ") + use + " }}").text.substr(0, 20), "'tools' is undefined") << use;
}

}  // namespace
}  // namespace quern::test
