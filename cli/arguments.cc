#include "cli/arguments.h"

#include <fmt/ranges.h>
#include <CLI/CLI.hpp>

#include <algorithm>

#include "cli/foreign_options.h"
#include "cli/report.h"
#include "cli/suggest.h"
#include "quant/error.h"
#include "quant/utf8.h"

namespace quern {
namespace {

thread_local CommandTable* described = nullptr;

std::vector<std::string> split_names(const std::string& names) {
  std::vector<std::string> out;
  for (size_t begin = 0; begin <= names.size();) {
    const size_t end = std::min(names.find(',', begin), names.size());
    out.push_back(names.substr(begin, end - begin));
    begin = end + 1;
  }
  return out;
}

const OptionRow* find_option(const CommandTable& table, std::string_view name) {
  for (const OptionRow& row : table.options)
    if (std::find(row.names.begin(), row.names.end(), name) != row.names.end()) return &row;
  return nullptr;
}

// " (did you mean '--temp'?)", or nothing. names: of all options of the table.
std::string suggested_option(const CommandTable& table, const std::vector<std::string>& names,
                             const std::string& name) {
  const std::string short_name = name.starts_with("--") ? name.substr(1) : name;  // "--n" for "-n"
  if (short_name != name && (find_option(table, short_name) != nullptr || is_foreign(short_name, table.name)))
    return fmt::format(" (did you mean '{}'?)", short_name);
  return suggestion(name, names);
}

// "-n5" and "-qe" are options of one letter that stand together. CLI11 would take any others so, too: "-hfd"
// of another program as "-h", and "-fitt" as a file "itt". A value that follows without a space is a number.
void check_joined(const CommandTable& table, const std::vector<std::string>& names,
                  const std::string& argument) {
  if (argument.size() < 3 || argument[0] != '-' || argument[1] == '-') return;
  for (size_t i = 1; i < argument.size(); ++i) {
    const OptionRow* const row = find_option(table, std::string{'-', argument[i]});
    const std::string rest = argument.substr(i + 1);
    if (row != nullptr && (rest.empty() || !row->takes_value())) continue;
    const size_t digit = rest.find_first_not_of("-.");
    if (row != nullptr && digit <= 2 && rest[digit] >= '0' && rest[digit] <= '9') return;
    const std::string apart =
        i == 1 && row != nullptr
            ? fmt::format(" (a value of {0} stands apart: {0} {1})", argument.substr(0, 2), printable(rest))
            : suggested_option(table, names, argument);
    fail(ErrorCode::kUsage, "unknown option '{}'{}; see quern {} --help", printable(argument), apart,
         table.name);
  }
}

}  // namespace

Arguments::Arguments(std::string_view command, std::string_view description, std::string_view examples) {
  table_.name = command;
  table_.description = description;
  table_.examples = examples;
  flag("-h,--help", "Print this help", &help_);
  flag("-q,--quiet", "No progress, choices and timings; warnings and errors stay", &quiet_);
}

Arguments::~Arguments() = default;

Arguments::Describing::Describing(CommandTable* table) { described = table; }
Arguments::Describing::~Describing() { described = nullptr; }

OptionRow& Arguments::add(const std::string& names, const std::string& placeholder, const std::string& help,
                          Target target) {
  targets_.push_back(std::move(target));
  return table_.options.emplace_back(OptionRow{split_names(names), placeholder, help});
}

void Arguments::positional(std::string_view name, std::string_view help, std::string* value) {
  OptionRow row{{std::string(name)}, "", std::string(help)};
  row.required = true;
  table_.positionals.push_back(std::move(row));
  positionals_.emplace_back([value](const std::string& text) { *value = text; });
}

void Arguments::optional_positional(std::string_view name, std::string_view help,
                                    std::optional<std::string>* value) {
  table_.positionals.push_back({{std::string(name)}, "", std::string(help)});
  positionals_.emplace_back([value](const std::string& text) { *value = text; });
}

void Arguments::flag(const std::string& names, const std::string& help, bool* value) {
  add(names, "", help, {[value] { *value = true; }, {}});
}

void Arguments::yes_no(const std::string& yes, const std::string& no, const std::string& help,
                       std::optional<bool>* value) {
  add(yes, "", help, {[value] { *value = true; }, {}});
  add(no, "", "Do not", {[value] { *value = false; }, {}});
}

void Arguments::option(const std::string& names, const std::string& placeholder, const std::string& help,
                       Take take) {
  add(names, placeholder, help, {{}, std::move(take)});
}

void Arguments::text(const std::string& names, const std::string& placeholder, const std::string& help,
                     std::string* value) {
  option(names, placeholder, help, [=](std::string_view, const std::string& text) { *value = text; });
}

void Arguments::text(const std::string& names, const std::string& placeholder, const std::string& help,
                     std::optional<std::string>* value) {
  option(names, placeholder, help, [=](std::string_view, const std::string& text) { *value = text; });
}

void Arguments::texts(const std::string& names, const std::string& placeholder, const std::string& help,
                      std::vector<std::string>* values) {
  option(names, placeholder, help,
         [=](std::string_view, const std::string& text) { values->push_back(text); });
  table_.options.back().repeatable = true;
}

void Arguments::choice(const std::string& names, const std::string& help, std::vector<std::string> choices,
                       std::string* value, std::vector<std::pair<std::string, std::string>> aliases) {
  option(names, "NAME", help,
         [choices, aliases = std::move(aliases), value](std::string_view name, const std::string& text) {
           std::string wanted = lower_ascii(text);
           for (const auto& [alias, choice] : aliases)
             if (alias == wanted) wanted = lower_ascii(choice);
           const auto found = std::find_if(choices.begin(), choices.end(), [&](const std::string& choice) {
             return lower_ascii(choice) == wanted;
           });
           if (found == choices.end())
             fail(ErrorCode::kUsage, "{}: '{}' is none of {}{}", name, printable(text),
                  fmt::join(choices, ", "), suggestion(lower_ascii(text), choices));
           *value = *found;
         });
  table_.options.back().choices = std::move(choices);
}

void Arguments::integers(const std::string& names, const std::string& help, int64_t min, int64_t max,
                         std::vector<int64_t>* values) {
  option(names, "N,N,...", help, [=](std::string_view name, const std::string& text) {
    *values = parse_integers(name, text, min, max);
  });
}

std::vector<std::string> Arguments::option_names() const {
  std::vector<std::string> names;
  for (const OptionRow& row : table_.options) names.insert(names.end(), row.names.begin(), row.names.end());
  return names;
}

size_t Arguments::check_values(const std::vector<std::string>& arguments) const {
  size_t i = 0;
  for (; i < arguments.size() && arguments[i] != "--"; ++i) {
    const std::string name = arguments[i].substr(0, arguments[i].find('='));
    const OptionRow* const row = find_option(table_, name);
    if (row == nullptr) {
      check_joined(table_, option_names(), arguments[i]);
      continue;
    }
    const bool has_value = name.size() < arguments[i].size();
    // CLI11 would take some of them ("--json=1") and not others.
    if (has_value && !row->takes_value())
      fail(ErrorCode::kUsage, "{} takes no value, found '{}'", name, printable(arguments[i]));
    if (!row->takes_value() || has_value) continue;
    if (i + 1 == arguments.size())
      fail(ErrorCode::kUsage, "{} needs a value ({}; see quern {} --help)", row->joined_names(),
           row->placeholder, table_.name);
    ++i;
  }
  return i;
}

void Arguments::take_positionals(const std::vector<std::string>& words) const {
  for (size_t i = 0; i < table_.positionals.size(); ++i) {
    const OptionRow& row = table_.positionals[i];
    if (i < words.size())
      positionals_[i](words[i]);
    else if (row.required)
      fail(ErrorCode::kUsage, "{} is missing: {} (see quern {} --help)", row.names.front(), row.help,
           table_.name);
  }
  if (words.size() > table_.positionals.size())
    fail(ErrorCode::kUsage, "unexpected argument '{}'{} (see quern {} --help)",
         printable(words[table_.positionals.size()]), advice_for_argument(table_.name), table_.name);
}

bool Arguments::parse(std::span<const std::string> arguments) {
  if (described != nullptr) {
    *described = table_;
    return false;
  }
  std::vector<std::string> words = translate_foreign(table_, arguments);
  // What stands behind "--" is no option, whatever it looks like.
  std::vector<std::string> behind_dashes;
  const size_t end = check_values(words);
  if (end < words.size()) {
    behind_dashes.assign(words.begin() + static_cast<std::ptrdiff_t>(end) + 1, words.end());
    words.resize(end);
  }
  CLI::App app;
  app.set_help_flag();
  app.set_config();
  app.allow_extras();  // refused below, with a suggestion
  std::vector<CLI::Option*> options;
  std::vector<std::vector<std::string>> values(table_.options.size());
  for (size_t i = 0; i < table_.options.size(); ++i) {
    const std::string names = fmt::format("{}", fmt::join(table_.options[i].names, ","));
    if (table_.options[i].takes_value())
      // One value per occurrence, taken as it is: CLI11 would cut "[a,b]" into two otherwise.
      options.push_back(app.add_option(names, values[i])
                            ->expected(1)
                            ->allow_extra_args(false)
                            ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll));
    else
      options.push_back(app.add_flag(names));
  }
  std::vector<std::string> rest;
  try {
    app.parse(std::vector<std::string>(words.rbegin(), words.rend()));  // CLI11 takes them from the back
    rest = app.remaining();
  } catch (const CLI::ParseError& error) {
    // CLI11's exceptions end here and become ours.
    fail(ErrorCode::kUsage, "{} (see quern {} --help)", printable(error.what(), 512), table_.name);
  }
  const auto is_option = [](const std::string& text) { return text.size() > 1 && text[0] == '-'; };
  if (const auto unknown = std::find_if(rest.begin(), rest.end(), is_option); unknown != rest.end()) {
    const std::string name = unknown->substr(0, unknown->find('='));
    fail(ErrorCode::kUsage, "unknown option '{}'{}; see quern {} --help", printable(name),
         suggested_option(table_, option_names(), name), table_.name);
  }
  rest.insert(rest.end(), behind_dashes.begin(), behind_dashes.end());
  for (size_t i = 0; i < options.size(); ++i)
    if (options[i]->count() > 0 && targets_[i].set) targets_[i].set();
  if (help_) {
    write_out(render_help(table_, stdout_width(kHelpWidth)));
    return false;
  }
  if (quiet_) be_quiet();
  take_positionals(rest);
  for (size_t i = 0; i < options.size(); ++i) {
    const OptionRow& row = table_.options[i];
    if (values[i].size() > 1 && !row.repeatable) {
      print_notice("{} is given {} times: the last counts ('{}')", row.joined_names(), values[i].size(),
                   printable(values[i].back()));
      values[i].erase(values[i].begin(), values[i].end() - 1);
    }
    for (const std::string& value : values[i]) targets_[i].take(row.joined_names(), value);
  }
  return true;
}

}  // namespace quern
