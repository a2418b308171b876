// Calls of tools in the text of answers.
#include "cli/tool_calls.h"

#include <gtest/gtest.h>

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

Split split(ToolFormat format, const std::vector<std::string>& pieces) {
  ToolCallSplitter splitter(format);
  Split all;
  for (const std::string& piece : pieces) all.add(splitter.push(piece));
  all.add(splitter.finish());
  return all;
}

struct Case {
  ToolFormat format;
  const char *answer, *outline;
};
const Case kCases[] = {
    {ToolFormat::kTagged, "Hello there.\n", "'Hello there.\n'"},
    {ToolFormat::kTagged, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1.0}}\n</tool_call>",
     "'' f({\"a\": 1.0})"},
    {ToolFormat::kTagged,
     "I look.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"t\": \"}</tool_call>\\\"{\"}}\n</tool_call>\n"
     "<tool_call>{\"name\": \"g\", \"arguments\": {}}</tool_call>",
     "'I look.' f({\"t\": \"}</tool_call>\\\"{\"}) g({})"},
    {ToolFormat::kTagged, "a < b <tool", "'a < b <tool'"},
    {ToolFormat::kTagged, "x <tool_call>{\"name\": \"f\", \"argu", "'x<tool_call>{\"name\": \"f\", \"argu'"},
    {ToolFormat::kTagged, "<tool_call>what</tool_call>", "'<tool_call>what</tool_call>'"},
    {ToolFormat::kTagged, "<tool_call>{\"name\": 1}</tool_call> and",
     "'<tool_call>{\"name\": 1}</tool_call> and'"},
    {ToolFormat::kBare, "{\"name\": \"f\", \"parameters\": {\"a\": [{}]}}", "'' f({\"a\": [{}]})"},
    {ToolFormat::kBare, "It is {\"name\": 1}", "'It is {\"name\": 1}'"},
    {ToolFormat::kBare, "{\"name\": \"f\"", "'{\"name\": \"f\"'"},
    {ToolFormat::kMistralList, "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"x\": {\"y\": 2}}}]",
     "'' f({\"x\": {\"y\": 2}})"},
    {ToolFormat::kMistralList,
     "Yes [TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"s\": \"]\"}, \"id\": \"abcdefghi\"}, {\"name\": "
     "\"g\", "
     "\"arguments\": {}}]",
     "'Yes' f({\"s\": \"]\"})#abcdefghi g({})"},
    {ToolFormat::kMistralList, "[TOOL_CALLS][{\"name\": \"f\"", "'[TOOL_CALLS][{\"name\": \"f\"'"},
    {ToolFormat::kMistralNamed,
     "[TOOL_CALLS]f[ARGS]{\"a\": \"[TOOL_CALLS]\"}[TOOL_CALLS]g[CALL_ID]123456789[ARGS]{}",
     "'' f({\"a\": \"[TOOL_CALLS]\"}) g({})#123456789"},
    {ToolFormat::kMistralNamed, "Well[TOOL_CALLS]f[ARGS]{\"a\"", "'Well[TOOL_CALLS]f[ARGS]{\"a\"'"},
    {ToolFormat::kNone, "<tool_call>{}</tool_call>", "'<tool_call>{}</tool_call>'"},
};

TEST(ToolCalls, AreTheSameInWhateverPiecesTheAnswerComes) {
  for (const Case& c : kCases) {
    const std::string answer = c.answer;
    EXPECT_EQ(split(c.format, {answer}).outline(), c.outline) << answer;
    std::vector<std::string> bytes;
    for (const char byte : answer) bytes.emplace_back(1, byte);
    EXPECT_EQ(split(c.format, bytes).outline(), c.outline) << answer;
    for (size_t at = 1; at < answer.size(); ++at)
      EXPECT_EQ(split(c.format, {answer.substr(0, at), answer.substr(at)}).outline(), c.outline)
          << answer << at;
  }
}

TEST(ToolCalls, ComeAsSoonAsTheyAreWhole) {
  ToolCallSplitter splitter(ToolFormat::kTagged);
  EXPECT_EQ(splitter.push("Well, ").text, "Well,");
  EXPECT_EQ(splitter.push("I do. <").text, " I do.");
  EXPECT_TRUE(splitter.push("tool_call>{\"name\": \"f\", \"arguments\": {}}").calls.empty());
  EXPECT_EQ(splitter.push("</tool_call>").calls.size(), 1u);
}

TEST(ToolCalls, AreWrittenAsTheTemplateSays) {
  EXPECT_EQ(tool_format_of("... <tool_call>\\n{\\\"name\\\": <function-name>, ..."), ToolFormat::kTagged);
  EXPECT_EQ(tool_format_of("<tool_call>\n{\"name\": \"{{ x }}\"}"), ToolFormat::kTagged);
  EXPECT_EQ(tool_format_of("<tool_call>\n<function=f> {\"name\": 1}"), ToolFormat::kNone);
  EXPECT_EQ(tool_format_of("format {\"name\": function name, \"parameters\": dictionary}"),
            ToolFormat::kBare);
  EXPECT_EQ(tool_format_of("{{ '[TOOL_CALLS][' }}"), ToolFormat::kMistralList);
  EXPECT_EQ(tool_format_of("{{ '[TOOL_CALLS]' + name + '[ARGS]' }}"), ToolFormat::kMistralNamed);
  EXPECT_EQ(tool_format_of("{{ messages }}"), ToolFormat::kNone);
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
