// Regular expressions as pieces of a grammar.
//
// What both ECMA-262 and Python's re take, and mean alike: characters, . [...] \d \w \s and their negations,
// groups, |, * + ? {n} {n,} {n,m} (lazy or not: the texts are the same), ^ at the beginning and $ at the end
// of an alternative, escapes \n \r \t \f \v \0 \xNN \uNNNN and of signs. Where the two differ, only what both
// match is matched: \d, \w, \s and their negations are of ASCII, as is a negated class that holds one of
// them; "." is no end of a line in either. Refused by name: assertions (?=...), references back, \b, \p{...}.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "runtime/engine/grammar.h"

namespace quern {

struct RegexOptions {
  // The text may go on before and behind the match, as a JSON schema's `pattern` has it; else all of it
  // matches.
  bool searches = false;
  // How a character of a set is written; null: as itself.
  std::function<GrammarBuilder::State(GrammarBuilder::State from, const CharSet& set)> write{};
};

// Throws kMalformed "<where>: ..." for what is no such expression.
GrammarBuilder::State add_regex(GrammarBuilder& builder, GrammarBuilder::State from, std::string_view pattern,
                                const std::string& where, const RegexOptions& options = {});

// A text that matches the whole expression.
Grammar compile_regex(std::string_view pattern, const std::string& where);

}  // namespace quern
