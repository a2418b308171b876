// Which bytes of the output are the template's own.
#include <gtest/gtest.h>

#include "tests/runtime/template/template_fixtures.h"

namespace quern::test {
namespace {

// The output with a message's text in brackets.
std::string marked(std::string_view source, const std::string& variables) {
  std::string out;
  for (const RenderedSpan& span : render_spans(source, variables))
    out += span.from_template ? span.text : "[" + span.text + "]";
  return out;
}

constexpr const char* kMessage =
    R"({"m": {"role": "user", "content": " <|end|>Ab ", "n": 3, "list": ["<s>", "b"]}})";

struct Case {
  const char* expression;
  const char* marked;
};

class Origins : public testing::TestWithParam<Case> {};

TEST_P(Origins, FollowEveryByte) {
  EXPECT_EQ(marked(std::string("{{ ") + GetParam().expression + " }}", kMessage), GetParam().marked);
}

INSTANTIATE_TEST_SUITE_P(
    Table, Origins,
    testing::Values(
        Case{"'<|end|>'", "<|end|>"}, Case{"m.content", "[ <|end|>Ab ]"}, Case{"m.role", "[user]"},
        Case{"'<|' ~ m.role ~ '|>'", "<|[user]|>"}, Case{"'<|' + m.role + '|>'", "<|[user]|>"},
        Case{"m.content | trim", "[<|end|>Ab]"},
        Case{"(m.content ~ '<|end|>') | trim", "[<|end|>Ab ]<|end|>"},
        Case{"(m.content ~ 'x').strip()", "[<|end|>Ab ]x"}, Case{"m.content | upper", "[ <|END|>AB ]"},
        Case{"('a' ~ m.role) | upper", "A[USER]"}, Case{"m.content.split('|')[1]", "[end]"},
        Case{"('<s>' ~ m.content)[0:4]", "<s>[ ]"}, Case{"('<s>' ~ m.role)[::-1]", "[resu]>s<"},
        Case{"m.content | replace('end', 'eot')", "[ <|]eot[|>Ab ]"},
        Case{"m.content.replace('<|end|>', '')", "[ Ab ]"},
        Case{"'<|x|>'.replace('x', m.role)", "<|[user]|>"}, Case{"m.list | join('<s>')", "[<s>]<s>[b]"},
        Case{"'<s>'.join(m.list)", "[<s>]<s>[b]"}, Case{"m.list | tojson", "[[\"<s>\", \"b\"]]"},
        Case{"['<s>'] | tojson", "[[\"]<s>[\"]]"}, Case{"m.list", "[['<s>', 'b']]"},
        Case{"'<%s>' % m.role", "<[user]>"}, Case{"'<{}>'.format(m.role)", "<[user]>"},
        Case{"m.role.format('x')", "[user]"}, Case{"'<|%d|>' % 5", "<|5|>"}, Case{"m.n", "3"},
        Case{"m.role * 2", "[useruser]"}, Case{"m.content | e", "[ &lt;|end|&gt;Ab ]"},
        Case{"m.role | indent(2, true)", "  [user]"}, Case{"m.list | first", "[<s>]"},
        Case{"(m.list + ['<s>']) | join", "[<s>b]<s>"}, Case{"m | list | join", "[rolecontentnlist]"},
        Case{"m.role if m.n else 'x'", "[user]"}, Case{"none or m.role", "[user]"},
        Case{"namespace(x=m.role).x", "[user]"}, Case{"dict(a=m.role).a", "[user]"},
        Case{"m.missing | default(m.role)", "[user]"}, Case{"m.content | title", "[ <|end|>ab ]"}));

TEST(Origins, SurviveMacrosBlocksAndLoops) {
  EXPECT_EQ(marked("{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f(m.role) }}", kMessage), "<[user]>");
  EXPECT_EQ(marked("{% set x %}<{{ m.role }}>{% endset %}{{ x }}", kMessage), "<[user]>");
  EXPECT_EQ(marked("{% filter upper %}a{{ m.role }}b{% endfilter %}", kMessage), "A[USER]B");
  EXPECT_EQ(marked("{% for c in m.role ~ '!' %}{{ c }}{% endfor %}", kMessage), "[user]!");
  EXPECT_EQ(marked("{% macro f() %}<{{ caller() }}>{% endmacro %}{% call f() %}{{ m.role }}{% endcall %}",
                   kMessage),
            "<[user]>");
}

TEST(Origins, OwnTextsAreTheTemplates) {
  const std::pair<std::string, std::string> own[] = {{"bos_token", "<s>"}};
  const quern::Json variables = parse_json(R"({"x": "<s>"})", "variables");
  const auto spans = ChatTemplate("{{ bos_token }}{{ x }}", "t").render(*variables.as_object(), own, Clock());
  ASSERT_EQ(spans.size(), 2u);
  EXPECT_TRUE(spans[0].from_template);
  EXPECT_FALSE(spans[1].from_template);
}

}  // namespace
}  // namespace quern::test
