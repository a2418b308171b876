// The options of a command as a table: what --help, the man page and the completions are made of.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace quern {

struct OptionRow {
  std::vector<std::string> names;  // "-n", "--max-tokens"; of a positional: its one name, "MODEL"
  std::string placeholder;         // "N"; empty: takes no value
  std::string help;
  std::vector<std::string> choices = {};  // the only values there are; empty: any
  bool repeatable = false;                // several values may be given; of other options the last counts
  bool required = false;                  // positionals only

  // "-n/--max-tokens", as messages name it.
  std::string joined_names() const;
  bool takes_value() const { return !placeholder.empty(); }
};

struct CommandTable {
  std::string name, description, examples;
  std::vector<OptionRow> positionals, options;
};

// What --help prints, its lines at most `width` characters long, broken between words.
std::string render_help(const CommandTable& table, size_t width);
// A page of section 1 in mdoc's older sibling, man(7).
std::string render_man(const CommandTable& table, std::string_view version);
// The page of `quern` itself; commands: name and summary.
struct CommandSummary {
  std::string_view name, summary;
};
std::string render_main_man(const std::vector<CommandSummary>& commands, std::string_view version);

// Completions for a shell ("bash", "zsh", "fish"); empty for any other.
std::string render_completions(std::string_view shell, const std::vector<CommandTable>& tables,
                               const std::vector<CommandSummary>& commands);

// Words of `text` in lines of at most `width` characters; every line but the first begins with `indent`
// spaces. Longer words stand alone. Lines that are there stay.
std::string wrap(std::string_view text, size_t width, size_t indent);

}  // namespace quern
