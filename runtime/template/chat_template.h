// Chat templates: Jinja programs that come with models, run within bounds.
//
// The language is jinja2 3.1's with what Hugging Face's transformers adds and sets (trim_blocks,
// lstrip_blocks, break and continue, generation blocks, tojson as json.dumps, raise_exception,
// strftime_now), in its sandbox for immutable values. A template reaches nothing outside its variables but
// the clock. Bounds: 10 million steps, 100 levels of nesting, 16 MiB of output and of any one string.
// Source: the documentation of jinja2 3.1 ("Template Designer Documentation") and its behaviour.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "quant/json/json.h"
#include "runtime/template/clock.h"

namespace quern {

// Neighbours differ in from_template, and none is empty.
struct RenderedSpan {
  std::string text;
  bool from_template;  // false: from a message
};

// One rendering at a time.
class ChatTemplate {
 public:
  // name: what errors call the template, such as "the chat template" or its file. Throws kMalformed
  // "<why> (<name>, line N, column N)".
  ChatTemplate(std::string_view source, std::string name);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  // variables: what the template sees: "messages", "tools", "add_generation_prompt" ... A name that is
  // missing is undefined, not none. Texts in them are a message's. own_texts: variables whose text counts as
  // the template's own, such as bos_token; variables of the same name go before.
  // Throws kMalformed, with what the template raised first.
  std::vector<RenderedSpan> render(const Json::Object& variables,
                                   std::span<const std::pair<std::string, std::string>> own_texts,
                                   const Clock& clock) const;
  // Does the template mention this name?
  bool mentions(std::string_view name) const;

 private:
  struct Parsed;
  std::unique_ptr<Parsed> parsed_;
};

// The spans' texts joined.
std::string join_spans(std::span<const RenderedSpan> spans);

}  // namespace quern
