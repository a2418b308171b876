#include "cli/option_table.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "cli/report.h"

namespace quern {
namespace {

std::string usage_of(const CommandTable& table) {
  std::string usage = "quern " + table.name;
  for (const OptionRow& row : table.positionals)
    usage += row.required ? " " + row.names.front() : fmt::format(" [{}]", row.names.front());
  return usage + " [options]";
}

// "-n, --max-tokens N"
std::string spelled(const OptionRow& row) {
  std::string text = fmt::format("{}", fmt::join(row.names, ", "));
  if (!row.choices.empty()) return text + " " + fmt::format("{}", fmt::join(row.choices, "|"));
  return row.takes_value() ? text + " " + row.placeholder : text;
}

void append_rows(const std::vector<OptionRow>& rows, size_t width, std::string* out) {
  constexpr size_t kNarrow = 60;  // texts beside the names would have no room
  const size_t column = width < kNarrow ? 8 : 30;
  for (const OptionRow& row : rows) {
    std::string line = "  " + spelled(row);
    if (display_width(line) + 2 > column) {
      *out += line + "\n";
      line.clear();
    }
    line.append(column - display_width(line), ' ');
    *out += wrap(line + row.help + (row.repeatable ? " (may be repeated)" : ""), width, column) + "\n";
  }
}

// Text of a man page: no backslash, dash or leading dot means anything.
std::string man_text(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else if ((c == '.' || c == '\'') && (out.empty() || out.back() == '\n')) {
      out += "\\&";
      out += c;
    } else {
      out += c;
    }
  }
  return out;
}

// An option as spelled(), broken between two lines where its choices do not fit one.
std::string man_option(const OptionRow& row) {
  std::string out;
  for (const char c : man_text(spelled(row))) {
    out += c;
    if (c == '|') out += "\\:";  // troff: a line may end here
  }
  return out;
}

// "2026-05-30 or similar" is not known to a build that gives the same bytes every time: the header has none.
std::string man_header(std::string_view name, std::string_view version) {
  std::string upper(name);
  std::transform(upper.begin(), upper.end(), upper.begin(),
                 [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; });
  return fmt::format(".TH {} 1 \"\" \"quern {}\" \"User Commands\"\n", man_text(upper), man_text(version));
}

bool takes_file(const OptionRow& row) { return row.placeholder == "FILE"; }

// In single quotes of a shell.
std::string quoted(std::string_view text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string bash_completions(const std::vector<CommandTable>& tables,
                             const std::vector<CommandSummary>& commands) {
  std::string out =
      "# bash completion for quern\n"
      "_quern() {\n"
      "  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} words= files=1\n"
      "  if [ \"$COMP_CWORD\" = 1 ]; then\n";
  std::string names;
  for (const CommandSummary& command : commands) names += fmt::format("{} ", command.name);
  out += fmt::format("    words={}\n  else\n    case ${{COMP_WORDS[1]}} in\n",
                     quoted(names + "help version completions man"));
  for (const CommandTable& table : tables) {
    out += fmt::format("      {})\n        case $previous in\n", table.name);
    std::string options;
    for (const OptionRow& row : table.options) {
      for (const std::string& name : row.names) options += name + " ";
      if (!row.takes_value()) continue;
      const std::string words = row.choices.empty() ? "" : fmt::format("{}", fmt::join(row.choices, " "));
      out += fmt::format("          {}) ", fmt::join(row.names, "|"));
      if (row.choices.empty() && takes_file(row))
        out += "COMPREPLY=($(compgen -f -- \"$current\")); return ;;\n";
      else
        out += fmt::format("COMPREPLY=($(compgen -W {} -- \"$current\")); return ;;\n", quoted(words));
    }
    out += fmt::format("        esac\n        words={} ;;\n", quoted(options));
  }
  out += fmt::format("      help|man) words={}; files= ;;\n", quoted(names));
  out +=
      "      completions) words='bash zsh fish'; files= ;;\n"
      "    esac\n"
      "  fi\n"
      "  if [ \"$COMP_CWORD\" = 1 ] || [ \"${current#-}\" != \"$current\" ] || [ -z \"$files\" ]; then\n"
      "    COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
      "  else\n"
      "    COMPREPLY=($(compgen -f -- \"$current\"))\n"
      "  fi\n"
      "}\n"
      "complete -o filenames -F _quern quern\n";
  return out;
}

// Brackets and colons mean something in a specification of zsh's _arguments.
std::string zsh_text(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

std::string zsh_completions(const std::vector<CommandTable>& tables,
                            const std::vector<CommandSummary>& commands) {
  std::string out =
      "#compdef quern\n"
      "_quern() {\n"
      "  local -a commands=(\n";
  for (const CommandSummary& command : commands)
    out += fmt::format("    {}\n", quoted(fmt::format("{}:{}", command.name, command.summary)));
  out +=
      "    'help:describe a command'\n"
      "    'version:print the version'\n"
      "    'completions:print what a shell needs'\n"
      "    'man:print a manual page'\n"
      "  )\n"
      "  if (( CURRENT == 2 )); then\n"
      "    _describe command commands\n"
      "    return\n"
      "  fi\n"
      "  local command=$words[2]\n"
      "  shift words\n"
      "  (( CURRENT-- ))\n"
      "  case $command in\n"
      "    help|man) _describe command commands ;;\n"
      "    completions) _values shell bash zsh fish ;;\n";
  for (const CommandTable& table : tables) {
    out += fmt::format("    {})\n      _arguments \\\n", table.name);
    for (const OptionRow& row : table.options) {
      for (const std::string& name : row.names) {
        std::string spec = fmt::format("{}{}[{}]", row.repeatable ? "*" : "", name, zsh_text(row.help));
        if (row.takes_value()) {
          const std::string action = !row.choices.empty() ? fmt::format("({})", fmt::join(row.choices, " "))
                                     : takes_file(row)    ? "_files"
                                                          : "";
          spec += fmt::format(":{}:{}", zsh_text(row.placeholder), action);
        }
        out += fmt::format("        {} \\\n", quoted(spec));
      }
    }
    out += "        '*:file:_files' ;;\n";
  }
  return out + "  esac\n}\n_quern \"$@\"\n";
}

std::string fish_completions(const std::vector<CommandTable>& tables,
                             const std::vector<CommandSummary>& commands) {
  std::string out = "# fish completion for quern\n";
  for (const CommandSummary& command : commands)
    out += fmt::format("complete -c quern -n __fish_use_subcommand -f -a {} -d {}\n", command.name,
                       quoted(command.summary));
  out +=
      "complete -c quern -n __fish_use_subcommand -f -a help -d 'describe a command'\n"
      "complete -c quern -n __fish_use_subcommand -f -a version -d 'print the version'\n"
      "complete -c quern -n __fish_use_subcommand -f -a completions -d 'print what a shell needs'\n"
      "complete -c quern -n __fish_use_subcommand -f -a man -d 'print a manual page'\n"
      "complete -c quern -n '__fish_seen_subcommand_from completions' -f -a 'bash zsh fish'\n"
      "complete -c quern -n '__fish_seen_subcommand_from help man' -f -a '";
  for (const CommandSummary& command : commands) out += fmt::format("{} ", command.name);
  out.back() = '\'';
  out += '\n';
  for (const CommandTable& table : tables) {
    for (const OptionRow& row : table.options) {
      std::string line = fmt::format("complete -c quern -n '__fish_seen_subcommand_from {}'", table.name);
      for (const std::string& name : row.names) {
        if (name.starts_with("--"))
          line += fmt::format(" -l {}", name.substr(2));
        else
          line += fmt::format(" -{} {}", name.size() == 2 ? 's' : 'o', name.substr(1));
      }
      if (!row.choices.empty())
        line += fmt::format(" -x -a {}", quoted(fmt::format("{}", fmt::join(row.choices, " "))));
      else if (row.takes_value())
        line += takes_file(row) ? " -r -F" : " -x";
      out += line + fmt::format(" -d {}\n", quoted(row.help));
    }
  }
  return out;
}

}  // namespace

std::string OptionRow::joined_names() const { return fmt::format("{}", fmt::join(names, "/")); }

std::string wrap(std::string_view text, size_t width, size_t indent) {
  std::string out;
  while (true) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    size_t column = 0;
    while (!line.empty()) {
      // A word with the spaces before it.
      const size_t begin = std::min(line.find_first_not_of(' '), line.size());
      const size_t stop = std::min(line.find(' ', begin), line.size());
      const std::string_view spaced = line.substr(0, stop), word = line.substr(begin, stop - begin);
      if (column > indent && column + display_width(spaced) > width) {
        out += '\n';
        out.append(indent, ' ');
        out += word;
        column = indent + display_width(word);
      } else {
        out += spaced;
        column += display_width(spaced);
      }
      line.remove_prefix(stop);
    }
    if (end == text.size()) return out;
    out += '\n';
    text.remove_prefix(end + 1);
  }
}

std::string render_help(const CommandTable& table, size_t width) {
  std::string out = wrap(table.description, width, 0) + "\n\nUsage: " + usage_of(table) + "\n";
  if (!table.positionals.empty()) {
    out += "\nArguments:\n";
    append_rows(table.positionals, width, &out);
  }
  out += "\nOptions:\n";
  append_rows(table.options, width, &out);
  if (!table.examples.empty()) out += "\nExamples:\n" + table.examples + "\n";
  return out;
}

std::string render_man(const CommandTable& table, std::string_view version) {
  std::string out = man_header("quern-" + table.name, version);
  const std::string first = table.description.substr(0, table.description.find_first_of(".:;"));
  out += fmt::format(".SH NAME\nquern\\-{} \\- {}\n", table.name, man_text(first));
  out += fmt::format(".SH SYNOPSIS\n.B {}\n", man_text(usage_of(table)));
  out += fmt::format(".SH DESCRIPTION\n{}\n.SH OPTIONS\n", man_text(table.description));
  for (const std::vector<OptionRow>* rows : {&table.positionals, &table.options}) {
    for (const OptionRow& row : *rows)
      out += fmt::format(".TP\n.B {}\n{}{}\n", man_option(row), man_text(row.help),
                         row.repeatable ? " (may be repeated)" : "");
  }
  if (!table.examples.empty()) out += fmt::format(".SH EXAMPLES\n.nf\n{}\n.fi\n", man_text(table.examples));
  return out + ".SH SEE ALSO\n.BR quern (1)\n";
}

std::string render_main_man(const std::vector<CommandSummary>& commands, std::string_view version) {
  std::string out = man_header("quern", version) +
                    ".SH NAME\nquern \\- run large language models (GGUF) on a CPU\n"
                    ".SH SYNOPSIS\n.B quern\n.I COMMAND\n[options]\n.SH COMMANDS\n";
  for (const CommandSummary& command : commands)
    out += fmt::format(".TP\n.BR quern\\-{} (1)\n{}\n", command.name, man_text(command.summary));
  return out +
         ".SH EXIT STATUS\n0 done, 1 usage, 2 malformed input, 3 integrity or numbers that are not finite,\n"
         "4 memory or context, 5 input and output, 70 a fault of quern's own, 130 and 143 signals.\n"
         ".SH ENVIRONMENT\n.TP\n.B QUERN_ISA\nInstruction set, as \\-\\-isa.\n"
         ".TP\n.B QUERN_GPU\nGPUs to use, as \\-\\-gpu.\n"
         ".TP\n.B QUERN_NOW\nThe time that a chat template sees, as \\-\\-now.\n"
         ".TP\n.B XDG_STATE_HOME\nWhere quern/chat_history is, without it below ~/.local/state.\n";
}

std::string render_completions(std::string_view shell, const std::vector<CommandTable>& tables,
                               const std::vector<CommandSummary>& commands) {
  if (shell == "bash") return bash_completions(tables, commands);
  if (shell == "zsh") return zsh_completions(tables, commands);
  if (shell == "fish") return fish_completions(tables, commands);
  return "";
}

}  // namespace quern
