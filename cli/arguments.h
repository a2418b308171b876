// The arguments of one command: declared in a table, described for --help, parsed strictly. (CLI11 splits
// them into options and values, behind a wall: it is included in arguments.cc only.)
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "cli/option_table.h"
#include "cli/parse.h"

namespace quern {

// Values are written to the targets, which must outlive parse(); a target whose option is absent keeps its
// value. `names`: "-n,--max-tokens". Every command has -h and -q too.
class Arguments {
 public:
  // examples: lines behind the command's name, printed at the end of --help.
  Arguments(std::string_view command, std::string_view description, std::string_view examples);
  ~Arguments();
  Arguments(const Arguments&) = delete;
  Arguments& operator=(const Arguments&) = delete;

  // Arguments without a dash, in their order: the first is required, a second may be left out.
  void positional(std::string_view name, std::string_view help, std::string* value);
  void optional_positional(std::string_view name, std::string_view help, std::optional<std::string>* value);
  void flag(const std::string& names, const std::string& help, bool* value);
  // Two flags that say yes and no.
  void yes_no(const std::string& yes, const std::string& no, const std::string& help,
              std::optional<bool>* value);
  void text(const std::string& names, const std::string& placeholder, const std::string& help,
            std::string* value);
  void text(const std::string& names, const std::string& placeholder, const std::string& help,
            std::optional<std::string>* value);
  // May be given several times.
  void texts(const std::string& names, const std::string& placeholder, const std::string& help,
             std::vector<std::string>* values);
  // One of `choices`, in any case; the target gets it as it stands there. `aliases`: other names, in lower
  // case, and the choices that they mean.
  void choice(const std::string& names, const std::string& help, std::vector<std::string> choices,
              std::string* value, std::vector<std::pair<std::string, std::string>> aliases = {});
  // A comma-separated list of integers.
  void integers(const std::string& names, const std::string& help, int64_t min, int64_t max,
                std::vector<int64_t>* values);

  // Whole numbers in [min, max].
  template <class T>
  void integer(const std::string& names, const std::string& help, T min, T max, T* value) {
    option(names, "N", help, [=](std::string_view name, const std::string& text) {
      if constexpr (std::is_unsigned_v<T>)
        *value = static_cast<T>(parse_unsigned(name, text, min, max));
      else
        *value = static_cast<T>(parse_integer(name, text, min, max));
    });
  }
  // Finite numbers in [min, max].
  template <class T>
  void number(const std::string& names, const std::string& help, double min, double max, T* value) {
    option(names, "X", help, [=](std::string_view name, const std::string& text) {
      *value = static_cast<T>(parse_number(name, text, min, max));
    });
  }
  template <class T>
  void integer(const std::string& names, const std::string& help, T min, T max, std::optional<T>* value) {
    option(names, "N", help, [=](std::string_view name, const std::string& text) {
      *value = static_cast<T>(parse_unsigned(name, text, min, max));
    });
  }

  // An option with a value of another kind: take is called with the option's names and each value, and throws
  // kUsage for what it does not like.
  using Take = std::function<void(std::string_view name, const std::string& text)>;
  void option(const std::string& names, const std::string& placeholder, const std::string& help, Take take);

  // False when --help was asked for, which is then on stdout. Of an option that is not declared repeatable
  // and given twice the last value counts, with a notice. Spellings of other programs are taken for ours
  // where both mean the same (foreign_options.h). Throws kUsage for everything that was not declared (with a
  // suggestion), lacking or out of range.
  bool parse(std::span<const std::string> arguments);

  // While one lives, parse() of the same thread only copies its table there and returns false.
  class Describing {
   public:
    explicit Describing(CommandTable* table);
    ~Describing();
    Describing(const Describing&) = delete;
    Describing& operator=(const Describing&) = delete;
  };

 private:
  struct Target {
    std::function<void()> set;  // of a flag
    Take take;                  // of an option
  };
  OptionRow& add(const std::string& names, const std::string& placeholder, const std::string& help,
                 Target target);
  std::vector<std::string> option_names() const;
  // Throws for a flag with a value and an option without one. Returns the place of the "--" that ends the
  // options, or the number of arguments.
  size_t check_values(const std::vector<std::string>& arguments) const;
  void take_positionals(const std::vector<std::string>& words) const;

  CommandTable table_;
  std::vector<Target> targets_;  // of table_.options
  std::vector<std::function<void(const std::string&)>> positionals_;
  bool help_ = false, quiet_ = false;
};

}  // namespace quern
