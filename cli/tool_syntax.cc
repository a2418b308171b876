#include "cli/tool_syntax.h"

#include <algorithm>
#include <cctype>
#include <string>

namespace quern {
namespace {

using Body = ToolSyntax::Body;

constexpr ToolSyntax kSyntaxes[] = {
    {.name = "mistral-named",
     .models = "Mistral from Small 3.2 on",
     .signs = {"[TOOL_CALLS]", "[ARGS]"},
     .body = Body::kNamed,
     .begin = "[TOOL_CALLS]",
     .name_end = "[ARGS]",
     .id_begin = "[CALL_ID]",
     .id_bytes = 9},
    {.name = "mistral-list",
     .models = "Mistral before",
     .signs = {"[TOOL_CALLS]"},
     .body = Body::kObject,
     .open = "[TOOL_CALLS]",
     .is_list = true,
     .id_key = "id",
     .id_bytes = 9},
    {.name = "seed",
     .models = "Seed-OSS",
     .signs = {"<seed:tool_call>", "<function=", "<parameter="},
     .body = Body::kParameters,
     .begin = "<seed:tool_call>\n<function=",
     .end = "</function>\n</seed:tool_call>",
     .name_end = ">\n",
     .key_begin = "<parameter=",
     .key_end = ">",
     .value_end = "</parameter>\n"},
    {.name = "qwen-xml",
     .models = "Qwen 3 Coder, Qwen 3.5, Nemotron 3, StepFun",
     .signs = {"<tool_call>", "<function=", "<parameter="},
     .body = Body::kParameters,
     .begin = "<tool_call>\n<function=",
     .end = "</function>\n</tool_call>",
     .name_end = ">\n",
     .key_begin = "<parameter=",
     .key_end = ">",
     .value_end = "</parameter>\n",
     .has_lines = true},
    {.name = "glm",
     .models = "GLM 4.5 to 4.7, Spark, Ling 3, Laguna",
     .signs = {"<tool_call>", "<arg_key>", "<arg_value>"},
     .body = Body::kParameters,
     .begin = "<tool_call>",
     .end = "</tool_call>",
     .name_end = "\n",
     .key_begin = "<arg_key>",
     .key_end = "</arg_key>\n<arg_value>",
     .value_end = "</arg_value>\n"},
    {.name = "hunyuan",
     .models = "Hunyuan 3",
     .signs = {"set HYTK = ':opensource'", "<tool_calls{}>", "<arg_key{}>"},
     .body = Body::kParameters,
     .open = "<tool_calls:opensource>\n",
     .close = "\n</tool_calls:opensource>",
     .begin = "<tool_call:opensource>",
     .end = "</tool_call:opensource>",
     .name_end = "<tool_sep:opensource>\n",
     .key_begin = "<arg_key:opensource>",
     .key_end = "</arg_key:opensource>\n<arg_value:opensource>",
     .value_end = "</arg_value:opensource>\n"},
    {.name = "minimax-xml",
     .models = "MiniMax M2",
     .signs = {"<minimax:tool_call>", "invoke name="},
     .body = Body::kParameters,
     .open = "<minimax:tool_call>\n",
     .close = "\n</minimax:tool_call>",
     .begin = "<invoke name=\"",
     .end = "</invoke>",
     .name_end = "\">\n",
     .key_begin = "<parameter name=\"",
     .key_end = "\">",
     .value_end = "</parameter>\n"},
    {.name = "deepseek-v3.2",
     .models = "DeepSeek V3.2",
     .signs = {"｜DSML｜", "function_calls>"},
     .body = Body::kParameters,
     .open = "<｜DSML｜function_calls>\n",
     .close = "\n</｜DSML｜function_calls>",
     .begin = "<｜DSML｜invoke name=\"",
     .end = "</｜DSML｜invoke>",
     .name_end = "\">\n",
     .key_begin = "<｜DSML｜parameter name=\"",
     .key_end = "\" string=\"true\">",
     .json_key_end = "\" string=\"false\">",
     .value_end = "</｜DSML｜parameter>\n"},
    {.name = "deepseek-v4",
     .models = "DeepSeek V4",
     .signs = {"｜DSML｜", "tool_calls"},
     .body = Body::kParameters,
     .open = "<｜DSML｜tool_calls>\n",
     .close = "\n</｜DSML｜tool_calls>",
     .begin = "<｜DSML｜invoke name=\"",
     .end = "</｜DSML｜invoke>",
     .name_end = "\">\n",
     .key_begin = "<｜DSML｜parameter name=\"",
     .key_end = "\" string=\"true\">",
     .json_key_end = "\" string=\"false\">",
     .value_end = "</｜DSML｜parameter>\n"},
    {.name = "minicpm",
     .models = "MiniCPM 5",
     .signs = {"<function name=", "<param name="},
     .body = Body::kParameters,
     .begin = "<function name=\"",
     .end = "</function>",
     .name_end = "\">",
     .key_begin = "<param name=\"",
     .key_end = "\">",
     .value_end = "</param>",
     .has_cdata = true},
    {.name = "functionary",
     .models = "Functionary 3.1",
     .signs = {"<function=", "</function>", "<|python_tag|>"},
     .body = Body::kNamed,
     .begin = "<function=",
     .end = "</function>",
     .name_end = ">"},
    {.name = "gemma",
     .models = "Gemma 4",
     .signs = {"<|tool_call>call:", "<tool_call|>", "tool_call_id"},
     .body = Body::kNamed,
     .begin = "<|tool_call>call:",
     .end = "<tool_call|>",
     .notation = &kGemmaNotation},
    {.name = "kimi",
     .models = "Kimi K2",
     .signs = {"<|tool_calls_section_begin|>", "<|tool_call_argument_begin|>"},
     .body = Body::kNamed,
     .open = "<|tool_calls_section_begin|>",
     .close = "<|tool_calls_section_end|>",
     .begin = "<|tool_call_begin|>",
     .end = "<|tool_call_end|>",
     .name_begin = "functions.",
     .name_end = ":#<|tool_call_argument_begin|>",
     .id_is_head = true},
    {.name = "solar",
     .models = "Solar Open",
     .signs = {"<|tool_calls|>", "<|tool_call:begin|>", "<|tool_call:name|>"},
     .body = Body::kNamed,
     .open = "<|tool_calls|>",
     .begin = "<|tool_call:begin|>",
     .end = "<|tool_call:end|>",
     .name_end = "<|tool_call:args|>",
     .id_end = "<|tool_call:name|>"},
    {.name = "deepseek-r1",
     .models = "DeepSeek R1 and V3",
     .signs = {"<｜tool▁calls▁begin｜>", "<｜tool▁sep｜>", "```json"},
     .body = Body::kNamed,
     .open = "<｜tool▁calls▁begin｜>",
     .close = "<｜tool▁calls▁end｜>",
     .begin = "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
     .end = "\n```<｜tool▁call▁end｜>",
     .name_end = "\n```json\n"},
    {.name = "deepseek-v3.1",
     .models = "DeepSeek V3.1",
     .signs = {"<｜tool▁calls▁begin｜>", "<｜tool▁sep｜>"},
     .body = Body::kNamed,
     .open = "<｜tool▁calls▁begin｜>",
     .close = "<｜tool▁calls▁end｜>",
     .begin = "<｜tool▁call▁begin｜>",
     .end = "<｜tool▁call▁end｜>",
     .name_end = "<｜tool▁sep｜>"},
    {.name = "command",
     .models = "Command R7B and A",
     .signs = {"<|START_ACTION|>", "\"tool_name\"", "tool_call_id"},
     .body = Body::kObject,
     .open = "<|START_ACTION|>",
     .close = "<|END_ACTION|>",
     .is_list = true,
     .name_key = "tool_name",
     .arguments_key = "parameters",
     .id_key = "tool_call_id",
     .id_first = true},
    {.name = "apriel",
     .models = "Apriel",
     .signs = {"<tool_calls>[", "]</tool_calls>"},
     .body = Body::kObject,
     .open = "<tool_calls>",
     .close = "</tool_calls>",
     .is_list = true,
     .id_key = "id"},
    {.name = "minimax-json",
     .models = "MiniMax M1",
     .signs = {"<tool_calls>\\n{\"name\": "},
     .body = Body::kObject,
     .open = "<tool_calls>\n",
     .close = "\n</tool_calls>"},
    {.name = "nemotron",
     .models = "Nemotron Nano 2",
     .signs = {"<TOOLCALL>[", "]</TOOLCALL>"},
     .body = Body::kObject,
     .open = "<TOOLCALL>",
     .close = "</TOOLCALL>",
     .is_list = true},
    {.name = "apertus",
     .models = "Apertus",
     .signs = {"<|tools_prefix|>", "<|tools_suffix|>"},
     .body = Body::kKeyed,
     .open = "<|tools_prefix|>",
     .close = "<|tools_suffix|>",
     .is_list = true},
    {.name = "gigachat",
     .models = "GigaChat 3.1",
     .signs = {"<|function_call|>", "render_function_call"},
     .body = Body::kObject,
     .begin = "<|function_call|>",
     .is_single = true},
    {.name = "granite",
     .models = "Granite 3.3",
     .signs = {"<|tool_call|> followed by a JSON list"},
     .body = Body::kObject,
     .open = "<|tool_call|>",
     .is_list = true},
    {.name = "lfm",
     .models = "LFM2, LFM2.5",
     .signs = {"List of tools: ", "<|im_start|>"},
     .body = Body::kNamed,
     .open = "<|tool_call_start|>",
     .close = "<|tool_call_end|>",
     .is_list = true,
     .notation = &kPythonNotation},
    {.name = "hermes",
     .models = "Hermes, Qwen 2.5 and 3, Granite 4",
     .signs = {"<tool_call>", "{\"name\": "},
     .body = Body::kObject,
     .begin = "<tool_call>\n",
     .end = "\n</tool_call>"},
    {.name = "llama",
     .models = "Llama 3",
     .signs = {"{\"name\": function name, \"parameters\""},
     .body = Body::kObject,
     .is_single = true,
     .arguments_key = "parameters"},
};

// A template that calls go through, but that tells its model of no tools, is none of tools.
bool reads_tools(std::string_view chat_template) {
  constexpr std::string_view kName = "tools";
  const auto is_word = [&](size_t i) {
    return i < chat_template.size() &&
           (std::isalnum(static_cast<unsigned char>(chat_template[i])) != 0 || chat_template[i] == '_');
  };
  for (size_t at = 0; (at = chat_template.find(kName, at)) != chat_template.npos; at += kName.size())
    if (!is_word(at - 1) && !is_word(at + kName.size())) return true;
  return false;
}

// Where a template's text is one of a string in quotes, as it reads there.
std::string without_escaped_quotes(std::string_view chat_template) {
  std::string plain;
  for (size_t i = 0; i < chat_template.size(); ++i)
    if (!chat_template.substr(i).starts_with("\\\"")) plain += chat_template[i];
  return plain;
}

}  // namespace

std::string_view ToolSyntax::mark() const {
  const std::string_view first = open.empty() ? begin : open;
  return first.substr(0, first.find('\n'));
}

std::array<std::string_view, 13> ToolSyntax::texts() const {
  return {open,   close,     begin,   end,          name_begin, name_end,           id_begin,
          id_end, key_begin, key_end, json_key_end, value_end,  notation->quotes[0]};
}

std::span<const ToolSyntax> tool_syntaxes() { return kSyntaxes; }

const ToolSyntax* find_tool_syntax(std::string_view name) {
  const auto found = std::find_if(std::begin(kSyntaxes), std::end(kSyntaxes),
                                  [&](const ToolSyntax& s) { return s.name == name; });
  return found == std::end(kSyntaxes) ? nullptr : found;
}

const ToolSyntax* tool_syntax_of(std::string_view chat_template) {
  if (!reads_tools(chat_template)) return nullptr;
  const std::string text = without_escaped_quotes(chat_template);
  const auto found = std::find_if(std::begin(kSyntaxes), std::end(kSyntaxes), [&](const ToolSyntax& syntax) {
    return std::all_of(syntax.signs.begin(), syntax.signs.end(),
                       [&](std::string_view sign) { return text.find(sign) != text.npos; });
  });
  return found == std::end(kSyntaxes) ? nullptr : found;
}

}  // namespace quern
