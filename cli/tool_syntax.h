// How models write calls of tools: one row of a table for each way that is read.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "runtime/engine/value_notation.h"

namespace quern {

// The calls of an answer stand between `open` and `close`, where these are not empty; each between `begin`
// and `end`, with at most white space between two. A line's end in one of these texts stands for white space
// that may be there; the model's template writes it. '#' stands for a number.
struct ToolSyntax {
  enum class Body : uint8_t {
    kObject,      // {"name": NAME, "arguments": {...}}, the keys as name_key and arguments_key say
    kKeyed,       // {"NAME": {...}}
    kNamed,       // NAME, name_end, {...}, in the notation
    kParameters,  // NAME, name_end, and of each argument: key_begin, its name, key_end, its value, value_end
  };

  std::string_view name;    // of the way
  std::string_view models;  // that write so, for messages
  // What a chat template of theirs has, all of it; of several rows that fit the first counts.
  std::array<std::string_view, 3> signs;
  Body body;
  std::string_view open{}, close{};
  std::string_view begin{}, end{};
  bool is_list = false;    // they stand in [] with commas between, as JSON has lists
  bool is_single = false;  // one call an answer

  // kObject. id_key: "" where calls have no id; id_first: it stands before the name.
  std::string_view name_key = "name", arguments_key = "arguments", id_key{};
  bool id_first = false;

  // kNamed: what the arguments are written in.
  const ValueNotation* notation = &kJsonNotation;

  // kNamed, kParameters. An id stands before name_begin, with id_end behind it, or behind the name, with
  // id_begin before it, if the call has one; id_is_head: it is name_begin, the name, and name_end up to '<'.
  std::string_view name_begin{}, name_end{}, id_begin{}, id_end{};
  bool id_is_head = false;
  size_t id_bytes = 0;  // of any id: letters and digits; 0: 1 to 40, '_' and '-' among them

  // kParameters. Values are JSON, but for strings, which stand as they are. json_key_end: in place of key_end
  // before values that are no strings; empty: only the tool's schema tells which is which.
  std::string_view key_begin{}, key_end{}, json_key_end{}, value_end{};
  bool has_lines = false;  // a value has lines of its own: a line's end before and behind it is none of it
  bool has_cdata = false;  // a string with '<' in it stands between "<![CDATA[" and "]]>"

  // What the calls of an answer begin with; empty: nothing comes before a call's '{'.
  std::string_view mark() const;
  // All texts above that calls are written with, and the quote of their strings; empty ones among them.
  std::array<std::string_view, 13> texts() const;
};

std::span<const ToolSyntax> tool_syntaxes();
// null: there is none of that name.
const ToolSyntax* find_tool_syntax(std::string_view name);
// null: the template has no tools, or its model writes calls in a way that is not read here.
const ToolSyntax* tool_syntax_of(std::string_view chat_template);

}  // namespace quern
