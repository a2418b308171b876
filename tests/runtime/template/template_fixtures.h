// Templates rendered in tests, and the golden lines about them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/template/chat_template.h"
#include "tests/support/json.h"

namespace quern::test {

// A rendering, or why there is none.
struct Outcome {
  bool raised = false;
  std::string text;  // the output, or the error's message
};

// variables: a JSON object. The clock stands at 2026-11-29.
Outcome render(std::string_view source, const std::string& variables = "{}");
std::vector<RenderedSpan> render_spans(std::string_view source, const std::string& variables);

// Lines of a file of tests/data/golden/template_goldens.tar.xz, and the text of one of its templates.
std::vector<Json> template_golden_lines(const std::string& file);
std::string template_text(const std::string& name);

}  // namespace quern::test
