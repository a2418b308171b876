// Regular expressions, run by PCRE2: the one place that knows it.
//
// Characters have their properties of the Unicode version that PCRE2 was built with (10.42: Unicode 14). \s
// is Unicode's White_Space: PCRE2's own counts U+180E in, the tokenizers of the models do not.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace quern {

// Immutable, thread-safe.
class Pattern {
 public:
  // What a character of the text is: one of UTF-8, or a byte, as the character of that number.
  enum class Sees { kCharacters, kBytes };

  // Throws kResource where PCRE2 does not compile the pattern.
  Pattern(std::string_view pattern, Sees sees);
  Pattern(Pattern&&) noexcept;
  ~Pattern();

  // Whether the text, well-formed where the pattern sees characters, holds a match.
  bool matches(std::string_view text) const;

 private:
  friend class PatternSearch;
  struct Code;
  std::unique_ptr<Code> code_;
};

// Room to search in: one a thread.
class PatternSearch {
 public:
  PatternSearch();
  ~PatternSearch();

  // The first match at or behind `from`; `text` as for matches(). Throws kResource where PCRE2's limits end
  // the search (a text made for it; no ordinary one comes near).
  bool find(const Pattern& pattern, std::string_view text, size_t from, size_t* begin, size_t* end);

 private:
  struct Room;
  int match(const Pattern& pattern, std::string_view text, size_t from);

  std::unique_ptr<Room> room_;
};

// `pattern` with \s and \S spelled out, as PCRE2 is given it.
std::string with_white_space_of_unicode(std::string_view pattern);

}  // namespace quern
