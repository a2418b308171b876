#include "runtime/template/chat_template.h"

#include <algorithm>

#include "runtime/template/interpreter.h"
#include "runtime/template/objects.h"
#include "runtime/template/parser.h"
#include "runtime/template/source.h"

namespace quern {

using jinja::Interpreter;
using jinja::Origin;
using jinja::Value;

namespace {

Value to_value(Interpreter& in, const Json& json, int depth) {
  in.charge(1);
  in.check_depth(depth);
  if (json.is_null()) return Value();
  if (const bool* flag = json.as_bool()) return Value::boolean(*flag);
  if (const auto whole = json.as_int()) return Value::integer(*whole);
  if (json.as_uint() != nullptr) in.raise("integers beyond 64 bits are not supported");
  if (const auto number = json.as_number()) return Value::number(*number);
  if (const std::string* text = json.as_string()) return in.text(*text, Origin::kMessage);
  if (const Json::Array* array = json.as_array()) {
    std::vector<Value> items;
    for (const Json& item : *array) items.push_back(to_value(in, item, depth + 1));
    return in.list(std::move(items));
  }
  auto* dict = in.make<jinja::Dict>();
  for (const JsonMember& member : *json.as_object())
    dict->set(in, in.text(member.key, Origin::kMessage), to_value(in, member.value, depth + 1));
  return Value::object(dict);
}

}  // namespace

struct ChatTemplate::Parsed {
  Parsed(std::string_view text, std::string name) : source(text, std::move(name)), program(parse(source)) {}
  jinja::Source source;
  jinja::Program program;
};

ChatTemplate::ChatTemplate(std::string_view source, std::string name)
    : parsed_(std::make_unique<Parsed>(source, std::move(name))) {}
ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

std::vector<RenderedSpan> ChatTemplate::render(const Json::Object& variables,
                                               std::span<const std::pair<std::string, std::string>> own_texts,
                                               const Clock& clock) const {
  Interpreter in(parsed_->source, parsed_->program, clock);
  for (const auto& [name, text] : own_texts) in.set_variable(name, Value::string(text, Origin::kTemplate));
  for (const JsonMember& variable : variables)
    if (mentions(variable.key)) in.set_variable(variable.key, to_value(in, variable.value, 0));
  const jinja::Text text = in.render();
  std::vector<RenderedSpan> spans;
  text.for_each_run(0, text.size(), [&](std::string_view bytes, Origin origin) {
    spans.push_back({std::string(bytes), origin == Origin::kTemplate});
  });
  return spans;
}

bool ChatTemplate::mentions(std::string_view name) const {
  const std::vector<std::string>& symbols = parsed_->program.symbols;
  return std::find(symbols.begin(), symbols.end(), name) != symbols.end();
}

std::string join_spans(std::span<const RenderedSpan> spans) {
  std::string text;
  for (const RenderedSpan& span : spans) text += span.text;
  return text;
}

}  // namespace quern
