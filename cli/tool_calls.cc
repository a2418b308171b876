#include "cli/tool_calls.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "quant/error.h"
#include "quant/json/json.h"

namespace quern {
namespace {

constexpr std::string_view kOpenCall = "<tool_call>", kCloseCall = "</tool_call>";
constexpr std::string_view kMistralMark = "[TOOL_CALLS]", kArgsMark = "[ARGS]", kIdMark = "[CALL_ID]";
constexpr std::string_view kBlank = " \t\r\n";
constexpr JsonLimits kCallLimits = {.max_depth = 400, .max_values = 1u << 18};

std::string_view trimmed(std::string_view text) {
  const size_t begin = std::min(text.find_first_not_of(kBlank), text.size());
  text.remove_prefix(begin);
  return text.substr(0, text.find_last_not_of(kBlank) + 1);
}

// Bytes at the end of `text` that may still become the mark: its beginning, with the white space before it.
size_t held_bytes(std::string_view text, std::string_view mark) {
  size_t n = std::min(text.size(), mark.size() - 1);
  while (n > 0 && text.substr(text.size() - n) != mark.substr(0, n)) --n;
  const std::string_view before = text.substr(0, text.size() - n);
  return text.size() - (before.find_last_not_of(kBlank) + 1);
}

// Where the object ends that `text` begins with; npos: it begins with none, or goes on.
size_t object_end(std::string_view text) {
  if (!text.starts_with('{')) return text.npos;
  size_t depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{') {
      ++depth;
    } else if (c == '}' && --depth == 0) {
      return i + 1;
    }
  }
  return text.npos;
}

bool is_json_object(std::string_view text) {
  try {
    return parse_json(text, "a call", kCallLimits).as_object() != nullptr;
  } catch (const Error&) {
    return false;
  }
}

// {"name": NAME, "arguments": OBJECT}, with an "id" behind it or without. The arguments keep their spelling.
std::optional<ToolCall> parse_call(std::string_view text, std::string_view arguments_key) {
  Json value;
  try {
    value = parse_json(text, "a call", kCallLimits);
  } catch (const Error&) {
    return std::nullopt;
  }
  const Json *name = value.find("name"), *arguments = value.find(arguments_key), *id = value.find("id");
  if (name == nullptr || name->as_string() == nullptr || arguments == nullptr ||
      arguments->as_object() == nullptr)
    return std::nullopt;
  ToolCall call;
  call.name = *name->as_string();
  if (id != nullptr && id->as_string() != nullptr) call.id = *id->as_string();
  // The first such key is theirs: what comes before it is a name, which holds no quotes.
  const std::string key = fmt::format("\"{}\"", arguments_key);
  const size_t at = text.find(key);
  if (at == text.npos) return std::nullopt;
  std::string_view rest = text.substr(at + key.size());
  rest.remove_prefix(std::min(rest.find('{'), rest.size()));
  call.arguments = std::string(rest.substr(0, object_end(rest)));
  return call;
}

}  // namespace

ToolFormat tool_format_of(std::string_view source) {
  const auto has = [&](std::string_view text) { return source.find(text) != source.npos; };
  if (has(kMistralMark)) return has(kArgsMark) ? ToolFormat::kMistralNamed : ToolFormat::kMistralList;
  const bool named_json = has("{\"name\": ") || has("{\\\"name\\\": ");
  if (has(kOpenCall) && named_json && !has("<function=") && !has("<arg_key>")) return ToolFormat::kTagged;
  if (has("{\"name\": function name, \"parameters\"")) return ToolFormat::kBare;
  return ToolFormat::kNone;
}

std::string_view call_mark(ToolFormat format) {
  switch (format) {
    case ToolFormat::kTagged:
      return kOpenCall;
    case ToolFormat::kMistralList:
    case ToolFormat::kMistralNamed:
      return kMistralMark;
    case ToolFormat::kNone:
    case ToolFormat::kBare:
      break;
  }
  return {};
}

std::vector<TokenId> call_tokens(ToolFormat format, const Tokenizer& tokenizer) {
  std::vector<TokenId> ids;
  if (format == ToolFormat::kNone || format == ToolFormat::kBare) return ids;
  for (const std::string_view mark : {kOpenCall, kCloseCall, kMistralMark, kArgsMark, kIdMark}) {
    const std::optional<TokenId> id = tokenizer.find(mark);
    if (id && tokenizer.is_control(*id)) ids.push_back(*id);
  }
  return ids;
}

ToolCallSplitter::Parts ToolCallSplitter::push(std::string_view text) {
  Parts parts;
  pending_ += text;
  while (in_call_ ? take_call(&parts) : take_text(&parts)) {
  }
  return parts;
}

bool ToolCallSplitter::take_text(Parts* parts) {
  if (format_ == ToolFormat::kNone || is_text_) {
    parts->text += std::exchange(pending_, {});
    return false;
  }
  if (format_ == ToolFormat::kBare) {
    const size_t begin = pending_.find_first_not_of(kBlank);
    if (begin == pending_.npos) return false;
    (pending_[begin] == '{' ? in_call_ : is_text_) = true;
    return true;
  }
  const std::string_view mark = call_mark(format_);
  const size_t at = pending_.find(mark);
  const std::string_view before = std::string_view(pending_).substr(0, at);
  const size_t n =
      at == pending_.npos ? before.size() - held_bytes(before, mark) : before.find_last_not_of(kBlank) + 1;
  parts->text += before.substr(0, n);
  pending_.erase(0, at == pending_.npos ? n : at + mark.size());
  in_call_ = at != std::string::npos;
  return in_call_;
}

bool ToolCallSplitter::take_call(Parts* parts) {
  switch (format_) {
    case ToolFormat::kTagged:
      return take_tagged(parts);
    case ToolFormat::kMistralNamed:
      return take_named(parts);
    case ToolFormat::kMistralList:
      return take_list(parts);
    case ToolFormat::kBare:
      return take_bare(parts);
    case ToolFormat::kNone:
      break;
  }
  return false;
}

void ToolCallSplitter::give_up(Parts* parts) {
  parts->text += fmt::format("{}{}", call_mark(format_), std::exchange(pending_, {}));
  in_call_ = false;
  is_text_ = true;
}

bool ToolCallSplitter::take_tagged(Parts* parts) {
  const std::string_view text = trimmed(pending_);
  const size_t end = object_end(text);
  if (end == text.npos) return false;
  const std::string_view rest = trimmed(text.substr(end));
  if (!rest.starts_with(kCloseCall)) {
    if (!kCloseCall.starts_with(rest)) give_up(parts);
    return false;
  }
  std::optional<ToolCall> call = parse_call(text.substr(0, end), "arguments");
  if (!call) {
    give_up(parts);
    return false;
  }
  parts->calls.push_back(std::move(*call));
  pending_ = std::string(rest.substr(kCloseCall.size()));
  in_call_ = false;
  had_calls_ = true;
  return true;
}

// NAME[ARGS]{...}, or NAME[CALL_ID]ID[ARGS]{...}.
bool ToolCallSplitter::take_named(Parts* parts) {
  const size_t args = pending_.find(kArgsMark);
  if (args == pending_.npos) return false;
  const std::string_view head = std::string_view(pending_).substr(0, args);
  const std::string_view rest = trimmed(std::string_view(pending_).substr(args + kArgsMark.size()));
  const size_t end = object_end(rest);
  if (end == rest.npos) return false;
  if (!is_json_object(rest.substr(0, end))) {
    give_up(parts);
    return false;
  }
  const size_t id = head.find(kIdMark);
  ToolCall call;
  call.name = std::string(trimmed(head.substr(0, id)));
  call.arguments = std::string(rest.substr(0, end));
  if (id != head.npos) call.id = std::string(trimmed(head.substr(id + kIdMark.size())));
  parts->calls.push_back(std::move(call));
  pending_ = std::string(rest.substr(end));
  in_call_ = false;
  had_calls_ = true;
  return true;
}

bool ToolCallSplitter::take_list(Parts* parts) {
  std::string_view rest = trimmed(pending_);
  if (!rest.starts_with('[') || !rest.ends_with(']')) return false;  // not yet
  rest = trimmed(rest.substr(1));
  std::vector<ToolCall> calls;
  for (;;) {
    const size_t end = object_end(rest);
    if (end == rest.npos) return false;
    std::optional<ToolCall> call = parse_call(rest.substr(0, end), "arguments");
    if (!call) return false;
    calls.push_back(std::move(*call));
    rest = trimmed(rest.substr(end));
    if (rest == "]") break;
    if (!rest.starts_with(',')) return false;
    rest = trimmed(rest.substr(1));
  }
  parts->calls.insert(parts->calls.end(), calls.begin(), calls.end());
  pending_.clear();
  in_call_ = false;
  had_calls_ = true;
  return true;
}

bool ToolCallSplitter::take_bare(Parts* parts) {
  const std::string_view text = trimmed(pending_);
  const size_t end = object_end(text);
  if (end == text.npos) return false;
  std::optional<ToolCall> call = parse_call(text.substr(0, end), "parameters");
  if (!call) {
    give_up(parts);
    return false;
  }
  parts->calls.push_back(std::move(*call));
  pending_ = std::string(text.substr(end));
  in_call_ = false;
  is_text_ = had_calls_ = true;
  return true;
}

ToolCallSplitter::Parts ToolCallSplitter::finish() {
  Parts parts;
  if (in_call_) {
    give_up(&parts);
  } else if (!had_calls_ || !trimmed(pending_).empty()) {
    parts.text = std::exchange(pending_, {});
  }
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
