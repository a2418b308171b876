// Options as llama.cpp's programs and ollama spell them, for fingers that know those.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/option_table.h"

namespace quern {

// The arguments of a command with foreign spellings replaced by its own where both mean the same: "-m FILE"
// becomes the positional, "--n-predict 5" "-n 5", "-no-cnv" nothing, "--top_k" "--top-k". What means
// something that quern does differently, or not at all, throws kUsage with one line that says so. Texts
// behind options of the table, and everything behind "--", stay as they are.
std::vector<std::string> translate_foreign(const CommandTable& table, std::span<const std::string> arguments);

// Whether another program's option is called so, and translate_foreign knows what to say.
bool is_foreign(std::string_view name, std::string_view command);

// ": where it belongs", for a word that a command has no place for; empty: nothing to say.
std::string_view advice_for_argument(std::string_view command);

// One line for a command's name that other programs have ("serve", "pull"); empty: nobody's.
std::string_view advice_for_command(std::string_view name);

}  // namespace quern
