// What Python's str methods do, on text that keeps its origins. Used by methods and by filters.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "runtime/template/value.h"

namespace quern::jinja {

enum class Side : uint8_t { kLeft, kRight, kBoth };

// chars: what goes; absent: white space.
Text strip(Interpreter& in, const Text& text, std::optional<std::string_view> chars, Side side);

Text upper(Interpreter& in, const Text& text);
Text lower(Interpreter& in, const Text& text);
Text casefold(Interpreter& in, const Text& text);
Text capitalize(Interpreter& in, const Text& text);
Text title(Interpreter& in, const Text& text);  // str.title: a word is a run of letters
Text swap_case(Interpreter& in, const Text& text);

// max_splits < 0: all. Without a separator: at white space, nothing empty.
std::vector<Text> split(Interpreter& in, const Text& text, std::optional<std::string_view> separator,
                        int64_t max_splits);
std::vector<Text> split_from_right(Interpreter& in, const Text& text,
                                   std::optional<std::string_view> separator, int64_t max_splits);
std::vector<Text> split_lines(Interpreter& in, const Text& text, bool keep_ends);

// At most max_count times; < 0: all.
Text replace(Interpreter& in, const Text& text, std::string_view old, const Text& with, int64_t max_count);

// Widened to `width` characters with `fill` (one character) on the named sides.
Text pad(Interpreter& in, const String& text, int64_t width, const Text& fill, Side side);

}  // namespace quern::jinja
