// Calls of tools in the text of answers.
#include "cli/tool_calls.h"

#include <gtest/gtest.h>

#include <ctime>

namespace quern {
namespace {

struct Split {
  std::string text;
  std::vector<ToolCall> calls;

  void add(const ToolCallSplitter::Parts& parts) {
    text += parts.text;
    calls.insert(calls.end(), parts.calls.begin(), parts.calls.end());
  }
  std::string outline() const {
    std::string line = "'" + text + "'";
    for (const ToolCall& call : calls)
      line += " " + call.name + "(" + call.arguments + ")" + (call.id.empty() ? "" : "#" + call.id);
    return line;
  }
};

Split split(const std::string& syntax, const std::vector<std::string>& pieces) {
  ToolCallSplitter splitter(find_tool_syntax(syntax));
  Split all;
  for (const std::string& piece : pieces) all.add(splitter.push(piece));
  all.add(splitter.finish());
  return all;
}

struct Case {
  const char *syntax, *answer, *outline;
};
const Case kCases[] = {
    {"hermes", "Hello there.\n", "'Hello there.\n'"},
    {"hermes", "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1.0}}\n</tool_call>",
     "'' f({\"a\": 1.0})"},
    {"hermes",
     "I look.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"t\": \"}</tool_call>\\\"{\"}}\n</tool_call>\n"
     "<tool_call>{\"name\": \"g\", \"arguments\": {}}</tool_call>",
     "'I look.' f({\"t\": \"}</tool_call>\\\"{\"}) g({})"},
    {"hermes", "a < b <tool", "'a < b <tool'"},
    {"hermes", "x <tool_call>{\"name\": \"f\", \"argu", "'x<tool_call>{\"name\": \"f\", \"argu'"},
    {"hermes", "<tool_call>what</tool_call>", "'<tool_call>what</tool_call>'"},
    {"hermes", "<tool_call>{\"name\": 1}</tool_call> and", "'<tool_call>{\"name\": 1}</tool_call> and'"},
    {"llama", "{\"name\": \"f\", \"parameters\": {\"a\": [{}]}}", "'' f({\"a\": [{}]})"},
    {"llama", "It is {\"name\": 1}", "'It is {\"name\": 1}'"},
    {"llama", "{\"name\": \"f\"", "'{\"name\": \"f\"'"},
    {"mistral-list", "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"x\": {\"y\": 2}}}]",
     "'' f({\"x\": {\"y\": 2}})"},
    {"mistral-list",
     "Yes [TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"s\": \"]\"}, \"id\": \"abcdefghi\"}, {\"name\": "
     "\"g\", "
     "\"arguments\": {}}]",
     "'Yes' f({\"s\": \"]\"})#abcdefghi g({})"},
    {"mistral-list", "[TOOL_CALLS][{\"name\": \"f\"", "'[TOOL_CALLS][{\"name\": \"f\"'"},
    {"mistral-named", "[TOOL_CALLS]f[ARGS]{\"a\": \"[TOOL_CALLS]\"}[TOOL_CALLS]g[CALL_ID]123456789[ARGS]{}",
     "'' f({\"a\": \"[TOOL_CALLS]\"}) g({})#123456789"},
    {"mistral-named", "Well[TOOL_CALLS]f[ARGS]{\"a\"", "'Well[TOOL_CALLS]f[ARGS]{\"a\"'"},
    {"", "<tool_call>{}</tool_call>", "'<tool_call>{}</tool_call>'"},
};

TEST(ToolCalls, AreTheSameInWhateverPiecesTheAnswerComes) {
  for (const Case& c : kCases) {
    const std::string answer = c.answer;
    EXPECT_EQ(split(c.syntax, {answer}).outline(), c.outline) << answer;
    std::vector<std::string> bytes;
    for (const char byte : answer) bytes.emplace_back(1, byte);
    EXPECT_EQ(split(c.syntax, bytes).outline(), c.outline) << answer;
    for (size_t at = 1; at < answer.size(); ++at)
      EXPECT_EQ(split(c.syntax, {answer.substr(0, at), answer.substr(at)}).outline(), c.outline)
          << answer << at;
  }
}

TEST(ToolCalls, ComeAsSoonAsTheyAreWhole) {
  ToolCallSplitter splitter(find_tool_syntax("hermes"));
  EXPECT_EQ(splitter.push("Well, ").text, "Well,");
  EXPECT_EQ(splitter.push("I do. <").text, " I do.");
  EXPECT_TRUE(splitter.push("tool_call>{\"name\": \"f\", \"arguments\": {}}").calls.empty());
  EXPECT_EQ(splitter.push("</tool_call>").calls.size(), 1u);
}

// What is read again with each piece takes time that grows with the square of the answer: 4 to 28 s here.
TEST(ToolCalls, TakeTimeInProportionToTheAnswer) {
  struct Long {
    const char *syntax, *head, *piece, *tail;
    size_t n;
  };
  const Long kLong[] = {
      {"hermes", "<tool_call>{\"name\": \"f\", \"arguments\": {\"s\": \"", "\\\"}}", "\"}}</tool_call>",
       40'000},
      {"qwen-xml", "<tool_call><function=f><parameter=s>", "</paramete",
       "</parameter></function></tool_call>", 40'000},
      {"qwen-xml", "<tool_call><function=f>", "<parameter=s>text</parameter>", "</function></tool_call>",
       4'000},
      {"hermes", "Well.", "        ", "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>", 40'000},
      {"llama", "", "        ", "{\"name\": \"f\", \"parameters\": {}}", 40'000},
  };
  for (const Long& one : kLong) {
    std::vector<std::string> pieces(one.n + 2, one.piece);
    pieces.front() = one.head;
    pieces.back() = one.tail;
    const std::clock_t begin = std::clock();
    const Split all = split(one.syntax, pieces);
    EXPECT_LT(static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC, 2) << one.syntax << one.piece;
    EXPECT_EQ(all.calls.size(), 1u) << one.syntax << one.piece;
  }
}

TEST(ToolCalls, AreWrittenAsTheTemplateSays) {
  const auto name = [](const std::string& source) {
    const ToolSyntax* syntax = tool_syntax_of("{% if tools %}" + source);
    return syntax != nullptr ? syntax->name : "none";
  };
  EXPECT_EQ(name("... <tool_call>\\n{\\\"name\\\": <function-name>, ..."), "hermes");
  EXPECT_EQ(name("<tool_call>\n{\"name\": \"{{ x }}\"}"), "hermes");
  EXPECT_EQ(name("<tool_call>\n<function=f><parameter=p> {\"name\": 1}"), "qwen-xml");
  EXPECT_EQ(name("<tool_call>f<arg_key>a</arg_key><arg_value> {\"name\": 1}"), "glm");
  EXPECT_EQ(name("format {\"name\": function name, \"parameters\": dictionary}"), "llama");
  EXPECT_EQ(name("{{ '[TOOL_CALLS][' }}"), "mistral-list");
  EXPECT_EQ(name("{{ '[TOOL_CALLS]' + name + '[ARGS]' }}"), "mistral-named");
  EXPECT_EQ(name("{{ messages }}"), "none");
  EXPECT_EQ(tool_syntax_of("{{ messages[0].tools_of }}[TOOL_CALLS]"), nullptr) << "it tells of no tools";
}

TEST(ToolCalls, IdsAreOfNineLettersAndDiffer) {
  EXPECT_EQ(make_call_id(1, 0, 0), make_call_id(1, 0, 0));
  EXPECT_EQ(make_call_id(1, 0, 0).size(), 9u);
  EXPECT_NE(make_call_id(1, 0, 0), make_call_id(1, 0, 1));
  EXPECT_NE(make_call_id(1, 0, 0), make_call_id(1, 1, 0));
  EXPECT_NE(make_call_id(1, 0, 0), make_call_id(2, 0, 0));
}

}  // namespace
}  // namespace quern
