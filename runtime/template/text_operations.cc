#include "runtime/template/text_operations.h"

#include <algorithm>
#include <limits>

#include "runtime/template/interpreter.h"
#include "runtime/template/search.h"
#include "runtime/template/unicode.h"

namespace quern::jinja {
namespace {

// Appends each character of the text as `change` writes it; change(character, first byte, out).
template <class Change>
Text changed(Interpreter& in, const Text& text, const Change& change) {
  in.charge_bytes(4 * text.size());
  Text out;
  std::string buffer;
  text.for_each_run(0, text.size(), [&](std::string_view bytes, Origin origin) {
    const auto begin = static_cast<size_t>(bytes.data() - text.bytes().data());
    buffer.clear();
    for (size_t at = 0; at < bytes.size();) {
      const size_t length = static_cast<uint8_t>(bytes[at]) < 0x80 ? 1 : char_bytes(bytes, at);
      const char32_t c = code_point(bytes.substr(at, length));
      if (length == 1 && c >= 0x80)
        buffer += bytes[at];  // malformed
      else
        change(c, begin + at, &buffer);
      at += length;
    }
    out.append(buffer, origin);
  });
  return out;
}

char32_t char_before(std::string_view text, size_t at) {
  if (at == 0) return 0;
  size_t begin = at - 1;
  while (begin > 0 && (text[begin] & 0xC0) == 0x80) --begin;
  return code_point(text.substr(begin, char_bytes(text, begin)));
}

char32_t char_at(std::string_view text, size_t at) {
  return at < text.size() ? code_point(text.substr(at, char_bytes(text, at))) : 0;
}

bool is_cased(char32_t c) { return is_upper(c) || is_lower(c); }

// A capital sigma at the end of a word becomes the final one.
void append_lower_within(std::string_view text, char32_t c, size_t at, std::string* out) {
  constexpr char32_t kSigma = 0x3A3;
  const bool is_final = c == kSigma && is_cased(char_before(text, at)) && !is_cased(char_at(text, at + 2));
  if (is_final)
    append_utf8(0x3C2, out);
  else
    append_lower(c, out);
}

bool contains_char(std::string_view chars, std::string_view character) {
  for (size_t at = 0; at < chars.size();) {
    const size_t length = char_bytes(chars, at);
    if (chars.substr(at, length) == character) return true;
    at += length;
  }
  return false;
}

std::vector<Text> split_at_space(const Text& text, int64_t max_splits) {
  const std::string_view bytes = text.bytes();
  const auto space_at = [&](size_t at) { return is_space(char_at(bytes, at)); };
  std::vector<Text> parts;
  size_t at = 0;
  for (;;) {
    while (at < bytes.size() && space_at(at)) at += char_bytes(bytes, at);
    if (at == bytes.size()) return parts;
    const bool is_last = max_splits >= 0 && static_cast<int64_t>(parts.size()) == max_splits;
    const size_t begin = at;
    if (is_last)
      at = bytes.size();
    else
      while (at < bytes.size() && !space_at(at)) at += char_bytes(bytes, at);
    parts.push_back(text.part(begin, at));
  }
}

void require_separator(Interpreter& in, const std::optional<std::string_view>& separator) {
  if (separator && separator->empty()) in.raise("empty separator");
}

}  // namespace

Text strip(Interpreter& in, const Text& text, std::optional<std::string_view> chars, Side side) {
  const std::string_view bytes = text.bytes();
  in.charge_bytes(bytes.size());
  const auto goes = [&](std::string_view character) {
    in.charge(1 + (chars ? chars->size() / 16 : 0));
    return chars ? contains_char(*chars, character) : is_space(code_point(character));
  };
  size_t begin = 0, end = bytes.size();
  if (side != Side::kRight)
    while (begin < end && goes(bytes.substr(begin, char_bytes(bytes, begin)))) {
      begin += char_bytes(bytes, begin);
    }
  if (side != Side::kLeft)
    while (begin < end) {
      size_t last = end - 1;
      while (last > begin && (bytes[last] & 0xC0) == 0x80) --last;
      if (last + char_bytes(bytes, last) != end) last = end - 1;  // malformed
      if (!goes(bytes.substr(last, end - last))) break;
      end = last;
    }
  return text.part(begin, end);
}

Text upper(Interpreter& in, const Text& text) {
  return changed(in, text, [](char32_t c, size_t, std::string* out) { append_upper(c, out); });
}

Text lower(Interpreter& in, const Text& text) {
  return changed(in, text, [&](char32_t c, size_t at, std::string* out) {
    append_lower_within(text.bytes(), c, at, out);
  });
}

Text casefold(Interpreter& in, const Text& text) {
  return changed(in, text, [](char32_t c, size_t, std::string* out) { append_folded(c, out); });
}

Text capitalize(Interpreter& in, const Text& text) {
  return changed(in, text, [&](char32_t c, size_t at, std::string* out) {
    if (at == 0)
      append_title(c, out);
    else
      append_lower_within(text.bytes(), c, at, out);
  });
}

Text title(Interpreter& in, const Text& text) {
  return changed(in, text, [&](char32_t c, size_t at, std::string* out) {
    if (is_cased(char_before(text.bytes(), at)))
      append_lower_within(text.bytes(), c, at, out);
    else
      append_title(c, out);
  });
}

Text swap_case(Interpreter& in, const Text& text) {
  return changed(in, text, [&](char32_t c, size_t at, std::string* out) {
    if (is_upper(c))
      append_lower_within(text.bytes(), c, at, out);
    else
      append_upper(c, out);
  });
}

std::vector<Text> split(Interpreter& in, const Text& text, std::optional<std::string_view> separator,
                        int64_t max_splits) {
  require_separator(in, separator);
  in.charge_bytes(2 * text.size());
  std::vector<Text> parts;
  if (!separator) {
    parts = split_at_space(text, max_splits);
  } else {
    size_t begin = 0;
    while (max_splits < 0 || static_cast<int64_t>(parts.size()) < max_splits) {
      const size_t end = find_text(text.bytes(), *separator, begin);
      if (end == std::string_view::npos) break;
      parts.push_back(text.part(begin, end));
      in.charge(4);
      begin = end + separator->size();
    }
    parts.push_back(text.part(begin, text.size()));
  }
  in.charge(4 * parts.size());
  return parts;
}

std::vector<Text> split_from_right(Interpreter& in, const Text& text,
                                   std::optional<std::string_view> separator, int64_t max_splits) {
  if (max_splits < 0) return split(in, text, separator, max_splits);
  require_separator(in, separator);
  in.charge_bytes(2 * text.size());
  const std::string_view bytes = text.bytes();
  std::vector<Text> parts;
  size_t end = bytes.size();
  if (separator) {
    const SearchFromRight search(bytes, *separator);
    while (static_cast<int64_t>(parts.size()) < max_splits) {
      const size_t at = search.find_before(end);
      if (at == std::string_view::npos) break;
      parts.push_back(text.part(at + separator->size(), end));
      end = at;
    }
    parts.push_back(text.part(0, end));
  } else {
    for (;;) {
      const size_t kept = strip(in, text.part(0, end), std::nullopt, Side::kRight).size();
      if (kept == 0) break;
      end = kept;
      size_t begin = 0;
      const bool is_last = static_cast<int64_t>(parts.size()) == max_splits;
      for (size_t at = 0; !is_last && at < end; at += char_bytes(bytes, at))
        if (is_space(char_at(bytes, at))) begin = at + char_bytes(bytes, at);
      parts.push_back(text.part(begin, end));
      if (is_last) break;
      end = begin;
    }
  }
  std::reverse(parts.begin(), parts.end());
  in.charge(4 * parts.size());
  return parts;
}

std::vector<Text> split_lines(Interpreter& in, const Text& text, bool keep_ends) {
  const std::string_view bytes = text.bytes();
  in.charge_bytes(4 * bytes.size());
  std::vector<Text> lines;
  size_t begin = 0;
  for (size_t at = 0; at < bytes.size();) {
    const size_t length = char_bytes(bytes, at);
    if (!is_line_end(char_at(bytes, at))) {
      at += length;
      continue;
    }
    const size_t end = at + (bytes.substr(at).starts_with("\r\n") ? 2 : length);
    lines.push_back(text.part(begin, keep_ends ? end : at));
    in.charge(4);
    begin = at = end;
  }
  if (begin < bytes.size()) lines.push_back(text.part(begin, bytes.size()));
  return lines;
}

Text replace(Interpreter& in, const Text& text, std::string_view old, const Text& with, int64_t max_count) {
  in.charge_bytes(2 * text.size());
  const std::string_view bytes = text.bytes();
  Text out;
  size_t at = 0;
  const auto more = [&] { return max_count < 0 || max_count-- > 0; };
  const auto insert = [&] {
    in.charge(1);
    out.append(with);
    in.check_size(out.size());
  };
  if (old.empty()) {  // between all characters
    while (more()) {
      insert();
      if (at == bytes.size()) return out;
      const size_t length = char_bytes(bytes, at);
      out.append(text, at, at + length);
      at += length;
    }
  } else {
    for (size_t found; (found = find_text(bytes, old, at)) != std::string_view::npos && more();
         at = found + old.size()) {
      out.append(text, at, found);
      insert();
    }
  }
  out.append(text, at, bytes.size());
  return out;
}

Text pad(Interpreter& in, const String& text, int64_t width, const Text& fill, Side side) {
  const auto n_chars = static_cast<int64_t>(text.n_chars());
  if (width <= n_chars) return text.text();
  in.check_size(static_cast<size_t>(width));
  in.charge(static_cast<size_t>(width));
  const int64_t missing = width - n_chars;
  // Python's centring puts the odd one on the left when the width is odd.
  const int64_t left = side == Side::kLeft    ? missing
                       : side == Side::kRight ? 0
                                              : missing / 2 + (missing & width & 1);
  Text out;
  for (int64_t i = 0; i < left; ++i) out.append(fill);
  out.append(text.text());
  for (int64_t i = left; i < missing; ++i) out.append(fill);
  return out;
}

}  // namespace quern::jinja
