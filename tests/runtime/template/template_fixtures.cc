#include "tests/runtime/template/template_fixtures.h"

#include <fstream>
#include <iterator>

#include "quant/error.h"
#include "tests/support/json.h"
#include "tests/support/paths.h"

namespace quern::test {

std::vector<RenderedSpan> render_spans(std::string_view source, const std::string& variables) {
  const quern::Json parsed = parse_json(variables, "variables", {100, 1u << 20});
  return ChatTemplate(source, "template").render(*parsed.as_object(), {}, *Clock::parse("2026-11-29"));
}

Outcome render(std::string_view source, const std::string& variables) {
  try {
    return {false, join_spans(render_spans(source, variables))};
  } catch (const Error& error) {
    return {true, error.code() == ErrorCode::kMalformed ? error.what() : "another code"};
  }
}

std::vector<Json> template_golden_lines(const std::string& file) {
  std::ifstream in(unpacked_data("template_goldens/") + file);
  std::vector<Json> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(Json::parse(line));
  return lines;
}

std::string template_text(const std::string& name) {
  std::ifstream in(unpacked_data("template_goldens/templates/") + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace quern::test
