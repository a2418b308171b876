#include "cli/arguments.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "cli/report.h"
#include "cli/suggest.h"
#include "quant/error.h"

namespace quern {

Arguments::Arguments(std::string_view command, std::string_view description, std::string_view examples)
    : command_(command),
      app_(std::make_unique<CLI::App>(std::string(description) + "\n", "quern " + command_)) {
  app_->set_help_flag("-h,--help", "Print this help");
  app_->allow_extras();  // refused in parse(), with a suggestion
  app_->get_formatter()->label("Positionals", "Arguments");
  app_->get_formatter()->label("REQUIRED", "");
  app_->get_formatter()->label("OPTIONS", "options");
  app_->get_formatter()->column_width(34);
  if (!examples.empty()) app_->footer("Examples:\n" + std::string(examples));
}

Arguments::~Arguments() = default;

void Arguments::positional(std::string_view name, std::string_view help, std::string* value) {
  app_->add_option(std::string(name), *value, std::string(help))->required()->type_name("");
}

void Arguments::flag(const std::string& names, const std::string& help, bool* value) {
  app_->add_flag_function(
      names, [value](int64_t count) { *value = count > 0; }, help);
}

void Arguments::yes_no(const std::string& yes, const std::string& no, const std::string& help,
                       std::optional<bool>* value) {
  app_->add_flag_function(
      yes, [value](int64_t) { *value = true; }, help);
  app_->add_flag_function(
      no, [value](int64_t) { *value = false; }, "Do not");
}

void Arguments::add(const std::string& names, const std::string& placeholder, const std::string& help,
                    Take take) {
  std::string name = names;  // for messages: "-t/--threads"
  std::replace(name.begin(), name.end(), ',', '/');
  app_->add_option_function<std::string>(
          names, [name, take = std::move(take)](const std::string& text) { take(name, text); }, help)
      ->type_name(placeholder);
}

void Arguments::text(const std::string& names, const std::string& placeholder, const std::string& help,
                     std::string* value) {
  add(names, placeholder, help, [=](std::string_view, const std::string& text) { *value = text; });
}

void Arguments::text(const std::string& names, const std::string& placeholder, const std::string& help,
                     std::optional<std::string>* value) {
  add(names, placeholder, help, [=](std::string_view, const std::string& text) { *value = text; });
}

void Arguments::texts(const std::string& names, const std::string& placeholder, const std::string& help,
                      std::vector<std::string>* values) {
  // One value per occurrence, taken as it is: CLI11 would cut "[a,b]" into two otherwise.
  app_->add_option(names, *values, help)
      ->type_name(placeholder)
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

void Arguments::choice(const std::string& names, const std::string& help, std::vector<std::string> choices,
                       std::string* value) {
  const std::string placeholder = fmt::format("{}", fmt::join(choices, "|"));
  add(names, placeholder, help, [=](std::string_view name, const std::string& text) {
    if (std::find(choices.begin(), choices.end(), text) == choices.end())
      fail(ErrorCode::kUsage, "{}: '{}' is none of {}{}", name, printable(text), fmt::join(choices, ", "),
           suggestion(text, choices));
    *value = text;
  });
}

void Arguments::integers(const std::string& names, const std::string& help, int64_t min, int64_t max,
                         std::vector<int64_t>* values) {
  add(names, "N,N,...", help, [=](std::string_view name, const std::string& text) {
    *values = parse_integers(name, text, min, max);
  });
}

std::vector<std::string> Arguments::option_names() const {
  std::vector<std::string> names;
  for (const CLI::Option* option : app_->get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    for (const std::string& name : option->get_snames()) names.push_back("-" + name);
  }
  return names;
}

void Arguments::refuse_extras() const {
  const std::vector<std::string> extras = app_->remaining();
  if (extras.empty()) return;
  const auto is_option = [](const std::string& text) { return text.size() > 1 && text[0] == '-'; };
  const auto option = std::find_if(extras.begin(), extras.end(), is_option);
  if (option == extras.end())
    fail(ErrorCode::kUsage, "unexpected argument '{}' (see quern {} --help)", printable(extras.front()),
         command_);
  const std::string name = option->substr(0, option->find('='));
  fail(ErrorCode::kUsage, "unknown option '{}'{}; see quern {} --help", printable(name),
       suggestion(name, option_names()), command_);
}

bool Arguments::parse(std::span<const std::string> arguments) {
  // CLI11 takes them from the back.
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
  try {
    app_->parse(reversed);
  } catch (const CLI::CallForHelp&) {
    write_out(app_->help());
    return false;
  } catch (const CLI::ArgumentMismatch& error) {
    fail(ErrorCode::kUsage, "{}: an option is given once, with one value (see quern {} --help)",
         printable(error.what(), 512), command_);
  } catch (const CLI::ParseError& error) {
    // CLI11's exceptions end here and become ours. An unknown option is the better explanation of whatever
    // else is wrong.
    refuse_extras();
    fail(ErrorCode::kUsage, "{} (see quern {} --help)", printable(error.what(), 512), command_);
  }
  refuse_extras();
  return true;
}

}  // namespace quern
