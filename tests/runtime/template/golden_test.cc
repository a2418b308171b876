// Templates of the field and of the language's corners, against jinja2 set up as transformers does.
#include <gtest/gtest.h>

#include <set>

#include "tests/runtime/template/template_fixtures.h"
#include "tests/support/json.h"

namespace quern::test {
namespace {

// A line's variables: what is no answer and no label.
std::string variables_of(const Json& line) {
  const std::set<std::string> others{"template", "case", "text", "raises"};
  Json variables = Json::object();
  for (const auto& [key, value] : line.members())
    if (!others.contains(key)) variables.add(key, value);
  return variables.dump();
}

void expect_equal(const Json& line, const Outcome& got) {
  if (line.contains("text")) {
    EXPECT_FALSE(got.raised) << got.text;
    EXPECT_EQ(got.text, line["text"]);
  } else {
    EXPECT_TRUE(got.raised) << "expected: " << line["raises"];
    EXPECT_TRUE(got.text.starts_with(line["raises"].get<std::string>())) << got.text << "\n"
                                                                         << line["raises"];
  }
}

// n_templates, n_lines: the counts that models.md states.
void expect_all_equal(const std::string& file, size_t n_templates, size_t n_lines) {
  std::set<std::string> templates;
  size_t n_tried = 0;
  for (const Json& line : template_golden_lines(file)) {
    const std::string name = line["template"];
    templates.insert(name);
    SCOPED_TRACE(name + ", case " + line["case"].get<std::string>());
    expect_equal(line, render(template_text(name), variables_of(line)));
    ++n_tried;
  }
  EXPECT_EQ(templates.size(), n_templates);
  EXPECT_EQ(n_tried, n_lines);
}

TEST(ChatTemplates, OfTheFieldAreWhatJinja2MakesOfThem) { expect_all_equal("chats.jsonl", 47, 329); }

TEST(ChatTemplates, OfTheOtherModelsAreWhatJinja2MakesOfThem) {
  expect_all_equal("more_chats.jsonl", 23, 161);
}

TEST(TemplateLanguage, IsJinja2sInEveryCornerTried) {
  const std::vector<Json> lines = template_golden_lines("language.jsonl");
  ASSERT_EQ(lines.size(), 1u + 12534u);
  const std::string variables = lines.front()["variables"].dump();
  for (size_t i = 1; i < lines.size(); ++i) {
    const std::string source = lines[i]["template"];
    const Outcome got = render(source, variables);
    EXPECT_EQ(got.raised, lines[i].contains("raises")) << source << "\n" << got.text << "\n" << lines[i];
    if (!lines[i].contains("text")) continue;
    EXPECT_EQ(got.text, lines[i]["text"]) << source;
  }
}

// As jinja2's compiled loops have it: else follows where no pass went to its end, and leaving it leaves the
// loop around it.
TEST(TemplateLoops, HaveAnElseForPassesThatWereCutShort) {
  EXPECT_EQ(render("{% for a in [1, 2] %}{% continue %}{% else %}E{% endfor %}").text, "E");
  EXPECT_EQ(render("{% for a in [1, 2] %}{% break %}{% else %}E{% endfor %}").text, "E");
  EXPECT_EQ(render("{% for a in [1, 2] %}{% if a == 2 %}{% break %}{% endif %}x{% else %}E{% endfor %}").text,
            "x");
  EXPECT_EQ(
      render("{% for b in [1, 2] %}[{% for a in [] %}{% else %}E{% break %}{% endfor %}]{% endfor %}").text,
      "[E");
  EXPECT_EQ(render("{% for b in [1, 2] %}[{% for a in [b] %}{% break %}{% else %}E{% continue %}{% endfor "
                   "%}]{% endfor %}")
                .text,
            "[E[E");
}

// Python keeps the sign of a floor that is 0, and its ceil() and floor() give integers.
TEST(TemplateNumbers, HaveTheSignOfZeroThatPythonGivesThem) {
  EXPECT_EQ(render("{{ -2.9 // -7 }} {{ 0.0 // -7 }} {{ -0.0 // 7 }} {{ 2.9 // 7 }} {{ -2.9 // 7 }}").text,
            "0.0 -0.0 -0.0 0.0 -1.0");
  EXPECT_EQ(render("{{ (0.1 / -3)|round(0, 'ceil') }} {{ (-0.0)|round(1, 'floor') }}").text, "0.0 0.0");
}

TEST(TemplateFunctions, MakeNoDictionaryOfWhatIsUndefined) {
  EXPECT_TRUE(render("{{ dict(missing) }}").text.starts_with("'missing' is undefined"));
  EXPECT_TRUE(render("{{ namespace(missing, a=1) }}").text.starts_with("'missing' is undefined"));
}

// Texts longer than 16 bytes are searched for in another way than short ones.
TEST(TemplateSearches, FindLongTextsToo) {
  const std::string wanted = "'0123456789abcdefghij'",
                    text = "('x' ~ " + wanted + " ~ 'yy' ~ " + wanted + " ~ 'z')";
  const auto is = [&](const std::string& expression) { return render("{{ " + expression + " }}").text; };
  EXPECT_EQ(is(text + ".find(" + wanted + ")"), "1");
  EXPECT_EQ(is(text + ".find(" + wanted + ", 2)"), "23");
  EXPECT_EQ(is(text + ".find(" + wanted + ", 24)"), "-1");
  EXPECT_EQ(is(text + ".rfind(" + wanted + ")"), "23");
  EXPECT_EQ(is(text + ".rfind(" + wanted + ", 0, 42)"), "1");
  EXPECT_EQ(is(text + ".count(" + wanted + ")"), "2");
  EXPECT_EQ(is(text + ".split(" + wanted + ")"), "['x', 'yy', 'z']");
  EXPECT_EQ(is(text + ".rsplit(" + wanted + ", 1)"), "['x0123456789abcdefghijyy', 'z']");
  EXPECT_EQ(is(text + ".rsplit(" + wanted + ", 5)"), "['x', 'yy', 'z']");
  EXPECT_EQ(is(text + ".rpartition(" + wanted + ")[2]"), "z");
  EXPECT_EQ(is(text + ".replace(" + wanted + ", '-')"), "x-yy-z");
  EXPECT_EQ(is(wanted + " in " + text), "True");
  EXPECT_EQ(is(wanted + " in 'x'"), "False");
}

}  // namespace
}  // namespace quern::test
