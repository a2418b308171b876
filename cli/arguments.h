// The arguments of one command: declared, described for --help, parsed strictly. (CLI11 behind a wall: it is
// included in arguments.cc only.)
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "cli/parse.h"

namespace CLI {
class App;
}

namespace quern {

// Values are written to the targets, which must outlive parse(); a target whose option is absent keeps its
// value. `names` are CLI11's: "-n,--max-tokens".
class Arguments {
 public:
  // examples: lines behind the command's name, printed at the end of --help.
  Arguments(std::string_view command, std::string_view description, std::string_view examples);
  ~Arguments();
  Arguments(const Arguments&) = delete;
  Arguments& operator=(const Arguments&) = delete;

  // The one argument without a dash; required.
  void positional(std::string_view name, std::string_view help, std::string* value);
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
  // One of `choices`.
  void choice(const std::string& names, const std::string& help, std::vector<std::string> choices,
              std::string* value);
  // A comma-separated list of integers.
  void integers(const std::string& names, const std::string& help, int64_t min, int64_t max,
                std::vector<int64_t>* values);

  // Whole numbers in [min, max].
  template <class T>
  void integer(const std::string& names, const std::string& help, T min, T max, T* value) {
    add(names, "N", help, [=](std::string_view name, const std::string& text) {
      if constexpr (std::is_unsigned_v<T>)
        *value = static_cast<T>(parse_unsigned(name, text, min, max));
      else
        *value = static_cast<T>(parse_integer(name, text, min, max));
    });
  }
  // Finite numbers in [min, max].
  template <class T>
  void number(const std::string& names, const std::string& help, double min, double max, T* value) {
    add(names, "X", help, [=](std::string_view name, const std::string& text) {
      *value = static_cast<T>(parse_number(name, text, min, max));
    });
  }
  template <class T>
  void integer(const std::string& names, const std::string& help, T min, T max, std::optional<T>* value) {
    add(names, "N", help, [=](std::string_view name, const std::string& text) {
      *value = static_cast<T>(parse_unsigned(name, text, min, max));
    });
  }

  // False when --help was asked for, which is then on stdout. Throws kUsage for everything that was not
  // declared (with a suggestion), given twice, lacking or out of range.
  bool parse(std::span<const std::string> arguments);

 private:
  using Take = std::function<void(std::string_view name, const std::string& text)>;
  void add(const std::string& names, const std::string& placeholder, const std::string& help, Take take);
  std::vector<std::string> option_names() const;
  void refuse_extras() const;

  std::string command_;
  std::unique_ptr<CLI::App> app_;
};

}  // namespace quern
