#include "cli/tool_calls.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "quant/error.h"
#include "quant/json/json.h"
#include "quant/json/json_writer.h"
#include "runtime/engine/schema_document.h"

namespace quern {
namespace {

using Body = ToolSyntax::Body;

constexpr std::string_view kBlank = " \t\r\n";
constexpr std::string_view kOpenCdata = "<![CDATA[", kCloseCdata = "]]>";
constexpr JsonLimits kCallLimits = {.max_depth = 400, .max_values = 1u << 18};

bool is_blank(std::string_view text) { return text.find_first_not_of(kBlank) == text.npos; }

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_char(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-' || c == '.';
}

// Bytes at the end of `text` that may still become the mark: its beginning.
size_t held_bytes(std::string_view text, std::string_view mark) {
  size_t n = std::min(text.size(), mark.size() - 1);
  while (n > 0 && text.substr(text.size() - n) != mark.substr(0, n)) --n;
  return n;
}

// Goes on with a search: where the mark stands; npos: it may still come.
size_t find_mark(std::string_view text, std::string_view mark, ValueSearch* search) {
  const size_t found = text.find(mark, search->at);
  if (found == text.npos && text.size() >= mark.size()) search->at = text.size() - mark.size() + 1;
  return found;
}

std::optional<Json> parsed(std::string_view text) {
  try {
    return parse_json(text, "a call", kCallLimits);
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::string quoted(std::string_view text) {
  JsonWriter json;
  json.value(text);
  return json.text();
}

// The JSON that a value without quotes stands for. Templates written with Jinja spell some as Python does.
std::string json_of(std::string_view text, unsigned types) {
  std::string_view spelled = text;
  while (!spelled.empty() && kBlank.find(spelled.front()) != kBlank.npos) spelled.remove_prefix(1);
  while (!spelled.empty() && kBlank.find(spelled.back()) != kBlank.npos) spelled.remove_suffix(1);
  constexpr std::pair<std::string_view, std::string_view> kPython[] = {
      {"True", "true"}, {"False", "false"}, {"None", "null"}};
  for (const auto& [python, json] : kPython)
    if (spelled == python) spelled = json;
  const std::optional<Json> value = parsed(spelled);
  if (value && (SchemaDocument::type_of(*value) & types & ~kStringType) != 0) return std::string(spelled);
  if ((types & kStringType) != 0 || !value) return quoted(text);
  return std::string(spelled);
}

// Reads a text that may still grow. Functions return false where it is not as they want it, and then
// is_short() says whether it only ends too early.
class CallReader {
 public:
  // partial: what is known of the call that stands in `text`, or nothing yet.
  CallReader(std::string_view text, PartialCall* partial)
      : text_(text), rest_(text.substr(partial->n_read)), partial_(partial) {}

  bool is_short() const { return short_; }
  size_t position() const { return text_.size() - rest_.size(); }
  std::string_view rest() const { return rest_; }

  void skip_blanks() { rest_.remove_prefix(std::min(rest_.find_first_not_of(kBlank), rest_.size())); }

  // A text of a ToolSyntax.
  bool text(std::string_view wanted) {
    for (const char c : wanted) {
      if (c == '\n') {
        skip_blanks();
      } else if (c == '#') {
        if (!some(is_digit)) return false;
      } else {
        if (rest_.empty()) return too_short();
        if (rest_.front() != c) return false;
        rest_.remove_prefix(1);
      }
    }
    return true;
  }
  bool begins_with(std::string_view wanted) {  // is_short(): it may
    const size_t n = std::min(rest_.size(), wanted.size());
    if (rest_.substr(0, n) != wanted.substr(0, n)) return false;
    return n == wanted.size() || too_short();
  }

  bool name(std::string* out) {
    const std::string_view before = rest_;
    if (!some(is_name_char)) return false;
    *out = before.substr(0, before.size() - rest_.size());
    return true;
  }
  // Up to the text, which stays.
  bool until(std::string_view mark, auto* out) {
    PartialCall::Search search = search_here();
    const size_t at = find_mark(rest_, mark, &search.behind);
    if (at == rest_.npos) return goes_on(search);
    *out = rest_.substr(0, at);
    rest_.remove_prefix(at);
    return true;
  }
  // An object, or an array, or a call's arguments.
  bool value(std::string_view* out, const ValueNotation& notation = kJsonNotation) {
    if (rest_.empty()) return too_short();
    if (notation.is_call ? rest_.front() != '(' : rest_.front() != '{' && rest_.front() != '[') return false;
    PartialCall::Search search = search_here();
    const size_t end = find_value_end(rest_, notation, &search.behind);
    if (end == rest_.npos) return goes_on(search);
    *out = rest_.substr(0, end);
    rest_.remove_prefix(end);
    return true;
  }

 private:
  bool too_short() {
    short_ = true;
    return false;
  }
  // One that came no further before, or a new one.
  PartialCall::Search search_here() const {
    return partial_->search.begin == position() ? partial_->search : PartialCall::Search{.begin = position()};
  }
  bool goes_on(const PartialCall::Search& search) {
    partial_->search = search;
    return too_short();
  }
  bool some(bool (*belongs)(char)) {
    size_t n = 0;
    while (n < rest_.size() && belongs(rest_[n])) ++n;
    if (n == rest_.size()) return too_short();
    rest_.remove_prefix(n);
    return n > 0;
  }

  const std::string_view text_;
  std::string_view rest_;
  PartialCall* const partial_;
  bool short_ = false;
};

// One call; false: it is none, or ends too early.
class BodyReader {
 public:
  // partial: as `in` has it; its call is the one that is read.
  BodyReader(CallReader& in, const ToolSyntax& syntax, const std::vector<ToolSignature>& signatures,
             PartialCall* partial)
      : in_(in), syntax_(syntax), signatures_(signatures), partial_(*partial) {}

  bool read() {
    if (syntax_.begin.empty()) in_.skip_blanks();
    if (partial_.n_read == 0 && !in_.text(syntax_.begin)) return false;
    if (syntax_.body == Body::kObject || syntax_.body == Body::kKeyed) {
      if (!read_object(&partial_.call)) return false;
    } else {
      if (partial_.n_read == 0) {
        if (!read_name(&partial_.call)) return false;
        partial_.n_read = in_.position();
      }
      if (syntax_.body == Body::kNamed ? !read_arguments(&partial_.call) : !read_parameters(&partial_.call))
        return false;
    }
    return in_.text(syntax_.end);
  }

 private:
  bool read_object(ToolCall* call) {
    in_.skip_blanks();
    std::string_view text;
    if (in_.rest().starts_with('[') || !in_.value(&text)) return false;
    const std::optional<Json> value = parsed(text);
    if (!value) return false;
    if (syntax_.body == Body::kKeyed) {
      if (value->size() != 1) return false;
      const JsonMember& only = value->as_object()->front();
      call->name = only.key;
      return only.value.as_object() != nullptr && take_arguments(text.substr(1), only.key, call);
    }
    const Json *name = value->find(syntax_.name_key), *arguments = value->find(syntax_.arguments_key);
    if (name == nullptr || name->as_string() == nullptr || arguments == nullptr ||
        arguments->as_object() == nullptr)
      return false;
    call->name = *name->as_string();
    const Json* id = syntax_.id_key.empty() ? nullptr : value->find(syntax_.id_key);
    if (id != nullptr && id->as_string() != nullptr) call->id = *id->as_string();
    return take_arguments(text, syntax_.arguments_key, call);
  }

  // Behind the first such key: what comes before it are names, which hold no quotes.
  static bool take_arguments(std::string_view text, std::string_view key, ToolCall* call) {
    const std::string spelled = quoted(key);
    const size_t at = text.find(spelled);
    if (at == text.npos) return false;
    text.remove_prefix(at + spelled.size());
    text.remove_prefix(std::min(text.find('{'), text.size()));
    ValueSearch search;
    call->arguments = text.substr(0, find_value_end(text, kJsonNotation, &search));
    return true;
  }

  bool read_name(ToolCall* call) {
    if (!syntax_.id_end.empty()) {
      if (!in_.until(syntax_.id_end, &call->id) || !in_.text(syntax_.id_end)) return false;
    }
    const std::string_view head = in_.rest();
    if (!in_.text(syntax_.name_begin) || !in_.name(&call->name)) return false;
    if (!syntax_.id_begin.empty() && in_.begins_with(syntax_.id_begin)) {
      if (!in_.text(syntax_.id_begin) || !in_.until(syntax_.name_end, &call->id)) return false;
    }
    if (in_.is_short() || !in_.text(syntax_.name_end)) return false;
    if (syntax_.id_is_head) call->id = head.substr(0, head.find('<'));
    return true;
  }

  bool read_arguments(ToolCall* call) {
    in_.skip_blanks();
    std::string_view text;
    if (in_.rest().starts_with('[') || !in_.value(&text, *syntax_.notation)) return false;
    call->arguments =
        syntax_.notation == &kJsonNotation ? std::string(text) : json_of_value(text, *syntax_.notation);
    return parsed(call->arguments).has_value();
  }

  bool read_parameters(ToolCall* call) {
    auto& members = partial_.members;
    for (;; partial_.n_read = in_.position()) {
      in_.skip_blanks();
      if (!in_.begins_with(syntax_.key_begin)) {
        if (in_.is_short()) return false;
        break;
      }
      std::pair<std::string, std::string> one;
      if (!read_parameter(call->name, &one)) return false;
      const auto same = std::find_if(members.begin(), members.end(),
                                     [&](const auto& member) { return member.first == one.first; });
      if (same == members.end())
        members.push_back(std::move(one));
      else
        same->second = std::move(one.second);
    }
    JsonWriter json;
    json.begin_object();
    for (const auto& [key, value] : members) json.key(key).literal(value);
    call->arguments = json.end_object().text();
    return true;
  }

  bool read_parameter(const std::string& tool, std::pair<std::string, std::string>* out) {
    if (!in_.text(syntax_.key_begin)) return false;
    const bool is_typed = !syntax_.json_key_end.empty();
    const std::string_view key_mark = syntax_.key_end.substr(0, syntax_.key_end.find_first_of("\n="));
    if (!in_.until(key_mark, &out->first)) return false;
    bool is_string = is_typed && in_.begins_with(syntax_.key_end);
    if (in_.is_short()) return false;
    if (!in_.text(is_typed && !is_string ? syntax_.json_key_end : syntax_.key_end)) return false;
    const unsigned types = is_typed ? kAnyType & ~kStringType : types_of(tool, out->first);
    std::string_view text;
    if (!read_value(is_string ? unsigned{kStringType} : types, &text, &is_string)) return false;
    out->second = is_string ? quoted(text) : json_of(text, types);
    return true;
  }

  // is_string: set where the value itself says so.
  bool read_value(unsigned types, std::string_view* text, bool* is_string) {
    const std::string_view mark = syntax_.value_end.substr(0, syntax_.value_end.find('\n'));
    if (syntax_.has_cdata && in_.begins_with(kOpenCdata)) {
      if (!in_.text(kOpenCdata) || !in_.until(kCloseCdata, text) || !in_.text(kCloseCdata)) return false;
      *is_string = true;
      return in_.text(syntax_.value_end);
    }
    if (in_.is_short()) return false;
    if ((types & kStringType) == 0) {  // a string within may hold the mark
      in_.skip_blanks();
      if (in_.rest().starts_with('{') || in_.rest().starts_with('[')) {
        if (!in_.value(text)) return false;
        in_.skip_blanks();
        return in_.text(syntax_.value_end);
      }
    }
    if (!in_.until(mark, text)) return false;
    if (syntax_.has_lines) {
      if (text->starts_with('\n')) text->remove_prefix(1);
      if (text->ends_with('\n')) text->remove_suffix(1);
    }
    return in_.text(syntax_.value_end);
  }

  unsigned types_of(const std::string& tool, const std::string& parameter) const {
    for (const ToolSignature& signature : signatures_)
      if (signature.tool == tool)
        for (const auto& [name, types] : signature.parameters)
          if (name == parameter) return types;
    return kAnyType;
  }

  CallReader& in_;
  const ToolSyntax& syntax_;
  const std::vector<ToolSignature>& signatures_;
  PartialCall& partial_;
};

}  // namespace

ToolCallSplitter::Parts ToolCallSplitter::push(std::string_view text) {
  Parts parts;
  pending_ += text;
  for (bool more = true; more;) {
    switch (state_) {
      case State::kText:
        more = take_text(&parts);
        break;
      case State::kOpen:
        more = take_call(&parts);
        break;
      case State::kBetween:
        more = take_between(&parts);
        break;
      case State::kRest:
        parts.text += std::exchange(pending_, {});
        more = false;
        break;
    }
  }
  return parts;
}

bool ToolCallSplitter::take_text(Parts* parts) {
  if (syntax_ == nullptr) {
    state_ = State::kRest;
    return true;
  }
  const std::string_view mark = syntax_->mark();
  if (mark.empty()) {
    n_blank_ = std::min(pending_.find_first_not_of(kBlank, n_blank_), pending_.size());
    if (n_blank_ == pending_.size()) return false;
    state_ = pending_[n_blank_] == '{' ? State::kOpen : State::kRest;
    return true;
  }
  const size_t at = std::min(pending_.find(mark, n_blank_), pending_.size());
  const bool is_found = at < pending_.size();
  const std::string_view fresh = std::string_view(pending_).substr(n_blank_, at - n_blank_);
  const size_t n_held = is_found ? 0 : held_bytes(fresh, mark);
  // White space goes with what stands behind it.
  const size_t n_said = fresh.substr(0, fresh.size() - n_held).find_last_not_of(kBlank) + 1;
  const size_t n_text = n_said == 0 ? 0 : n_blank_ + n_said;
  parts->text.append(pending_, 0, n_text);
  if (!is_found) {
    pending_.erase(0, n_text);
    n_blank_ = pending_.size() - n_held;
    return false;
  }
  pending_.erase(0, at);
  n_blank_ = 0;
  state_ = State::kOpen;
  is_first_ = true;
  return true;
}

bool ToolCallSplitter::take_call(Parts* parts) {
  CallReader in(pending_, &partial_);
  const bool has_section = !syntax_->open.empty();
  const auto read = [&] {
    if (has_section && is_first_ && partial_.n_read == 0 &&
        !(in.text(syntax_->open) && (!syntax_->is_list || in.text("\n[\n"))))
      return false;
    return BodyReader(in, *syntax_, signatures_, &partial_).read();
  };
  if (!read()) {
    if (!in.is_short()) give_up(parts);
    return state_ == State::kRest;
  }
  parts->calls.push_back(std::move(partial_.call));
  partial_ = {};
  pending_.erase(0, in.position());
  had_calls_ = true;
  is_first_ = false;
  state_ = has_section ? State::kBetween : syntax_->is_single ? State::kRest : State::kText;
  return true;
}

bool ToolCallSplitter::take_between(Parts* parts) {
  CallReader in(pending_, &partial_);  // nothing is known of the next call
  in.skip_blanks();
  if (in.rest().empty()) return false;
  const std::string_view close = syntax_->close.substr(syntax_->close.starts_with('\n') ? 1 : 0);
  const std::string_view end = syntax_->is_list ? "]" : close;
  if (!end.empty() && in.begins_with(end)) {
    if (in.text(end) && (!syntax_->is_list || in.text(close))) {
      state_ = State::kText;
      pending_.erase(0, in.position());
      return true;
    }
  } else if (!in.is_short() && (!syntax_->is_list || in.text(","))) {
    state_ = State::kOpen;
    pending_.erase(0, in.position());
    return true;
  }
  if (!in.is_short()) give_up(parts);
  return state_ == State::kRest;
}

void ToolCallSplitter::give_up(Parts* parts) {
  parts->text += std::exchange(pending_, {});
  state_ = State::kRest;
}

ToolCallSplitter::Parts ToolCallSplitter::finish() {
  Parts parts;
  // What is short between calls is the end of `close`, or white space.
  if (state_ != State::kBetween && (!had_calls_ || !is_blank(pending_)))
    parts.text = std::exchange(pending_, {});
  return parts;
}
std::string make_call_id(uint64_t seed, size_t answer, size_t call) {
  constexpr std::string_view kLetters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  uint64_t z = seed + 0x9e3779b97f4a7c15 * (answer * 1024 + call + 1);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  z ^= z >> 31;
  std::string id;
  for (int i = 0; i < 9; ++i, z /= kLetters.size()) id += kLetters[z % kLetters.size()];
  return id;
}

}  // namespace quern
