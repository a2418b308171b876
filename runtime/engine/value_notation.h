// Ways to write a JSON value that are not JSON's, as models write arguments of calls.
#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quant/json/json.h"

namespace quern {

// What differs from JSON, whose brackets, commas and numbers all have. The texts outlive it.
struct ValueNotation {
  // A string stands between two of the first, or of the second, if there is one.
  std::array<std::string_view, 2> quotes = {"\"", ""};
  // Quotes are one byte each, and strings have JSON's escapes; else a string stands as it is and cannot hold
  // its quote, which is longer.
  bool has_escapes = true;
  bool has_bare_keys = false;    // names of members stand without quotes
  bool has_sorted_keys = false;  // in the order of their letters, large or small; else in the schema's
  bool is_call = false;          // the outermost object is written (name=value, ...)
  // True, False and None may stand for true, false and null, and what escapes Python's strings have besides
  // JSON's is read, but for names of characters and octal digits.
  bool has_python = false;

  // Those that there are.
  std::span<const std::string_view> quote_texts() const {
    return std::span(quotes).first(quotes[1].empty() ? 1 : 2);
  }
};

inline constexpr ValueNotation kJsonNotation;
// Google, "Function calling with Gemma 4", 2026: {key:<|"|>text<|"|>,other:[1,true]}
inline constexpr ValueNotation kGemmaNotation = {.quotes = {"<|\"|>", ""},
                                                 .has_escapes = false,
                                                 .has_bare_keys = true,
                                                 .has_sorted_keys = true,
                                                 .has_python = true};
// Arguments of a call in Python: (key='text', other=[1, True], third={"a": null})
inline constexpr ValueNotation kPythonNotation = {.quotes = {"\"", "'"}, .is_call = true, .has_python = true};

// A value as JSON, on one line without white space.
std::string compact_json(const Json& value);

// Whether a name can stand without quotes: letters, digits, '_', '-', '.', and all beyond ASCII.
bool is_bare_name(std::string_view name);
// The ways that a value is written in, each on one line without white space; none where the notation has no
// way. Within an object that is no call.
std::vector<std::string> written_values(const Json& value, const ValueNotation& notation);

// What a search for the end of a value has found; it goes on where it stopped.
struct ValueSearch {
  size_t at = 0;           // bytes that are done
  size_t depth = 0;        // of brackets there
  std::string_view quote;  // of the string there; empty: none
};
// Where the object, array or call ends that `text` begins with; npos: it goes on. Takes time in proportion to
// what is new, over all calls for a growing text.
size_t find_value_end(std::string_view text, const ValueNotation& notation, ValueSearch* search);
// The value as JSON, if `text` is one object, array or call in the notation; else something that is no JSON.
// Takes time in proportion to the text.
std::string json_of_value(std::string_view text, const ValueNotation& notation);

}  // namespace quern
