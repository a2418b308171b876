// Grammars in GBNF, the notation of llama.cpp (grammars/README.md there):
//
//   name ::= "text" other-name [a-z^...] . ( ... ) | ...      # a comment
//
// with ? * + {n} {n,} {n,m} behind an item, \n \r \t \\ \" \[ \] \- \xNN \uNNNN \UNNNNNNNN in texts and
// classes. A rule ends with its line, unless a parenthesis is open or the line ends in | or ::=. The first
// text matched is rule "root".
#pragma once

#include <string>
#include <string_view>

#include "runtime/engine/grammar.h"

namespace quern {

// Throws kMalformed "<where>: line N: ..." for what is no grammar, has no root, names a rule that there is
// not, begins with itself, or is too large; tokens (<...>) are refused by name.
Grammar parse_gbnf(std::string_view text, const std::string& where);
// Likewise, as a rule of a grammar that is being built, which checks it as a whole.
GrammarBuilder::Rule add_gbnf(GrammarBuilder& builder, std::string_view text, const std::string& where);

}  // namespace quern
