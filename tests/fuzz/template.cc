// Chat templates from anywhere, on one conversation: rendered or refused with a place in them, the same
// twice, and no byte of a message passes for the template's own.
#include <string>
#include <vector>

#include "quant/utf8.h"
#include "runtime/template/chat_template.h"
#include "tests/fuzz/fuzz.h"

namespace quern {
namespace {

// What templates look at: roles, parts, calls, tools, numbers. Texts hold a sign that no template makes.
constexpr std::string_view kVariables = R"({
  "messages": [
    {"role": "system", "content": "\u0001 S \u00e9"},
    {"role": "user", "content": "  \u0001 <b>U</b>\n&\n  x "},
    {"role": "assistant", "content": "<think>\u0001</think> A", "tool_calls": [
      {"id": "abcdefghi", "type": "function", "function": {"name": "f", "arguments": {"x": 1, "y": [1.5, null]}}}]},
    {"role": "tool", "tool_call_id": "abcdefghi", "name": "f", "content": "{\"r\": true}"},
    {"role": "user", "content": [{"type": "text", "text": "\u0001 part"}, {"type": "image"}]}
  ],
  "tools": [{"type": "function", "function": {"name": "f", "description": "\u0001 d", "parameters":
    {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}}}],
  "add_generation_prompt": true, "n": 3, "f": 1.5e300, "empty": {}, "none": null
})";

std::vector<RenderedSpan> render(const ChatTemplate& chat_template, const Json::Object& variables,
                                 const Clock& clock) {
  static const std::vector<std::pair<std::string, std::string>> own = {{"bos_token", "<s>"},
                                                                       {"eos_token", "</s>"}};
  return chat_template.render(variables, own, clock);
}

void check(std::string_view source) {
  static const Json variables = parse_json(kVariables, "variables", {100, 1u << 20});
  static const Clock clock = *Clock::parse("2026-11-29");
  const ChatTemplate chat_template(source, "fuzz");
  const std::vector<RenderedSpan> spans = render(chat_template, *variables.as_object(), clock);
  for (size_t i = 0; i < spans.size(); ++i) {
    if (spans[i].text.empty()) fuzz::found("an empty span");
    if (i > 0 && spans[i].from_template == spans[i - 1].from_template)
      fuzz::found("neighbours of one origin");
    // Escapes and formats could make the sign too: then the template may well own it.
    const bool could = source.find_first_of(std::string_view("\x01\\%", 3)) != source.npos ||
                       source.find("format") != source.npos;
    if (!could && spans[i].from_template && spans[i].text.find('\x01') != std::string::npos)
      fuzz::found("a message's text that passes for the template's");
  }
  const std::string text = join_spans(spans);
  if (is_valid_utf8(source) && !is_valid_utf8(text)) fuzz::found("text that is not well formed");
  if (join_spans(render(chat_template, *variables.as_object(), clock)) != text)
    fuzz::found("another text the second time");
}

}  // namespace
}  // namespace quern

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  quern::fuzz::take([&] { quern::check(quern::fuzz::as_text({data, size})); });
  return 0;
}
