// What the table of commands in main.cc holds.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace quern {

struct Command {
  std::string_view name;     // "run"
  std::string_view summary;  // one line for `quern --help`
  // arguments: those behind the command's name. Returns the exit code; throws Error, OutputClosed,
  // Interrupted.
  int (*run)(std::span<const std::string> arguments);
};

int run_convert(std::span<const std::string> arguments);
int run_inspect(std::span<const std::string> arguments);
int run_run(std::span<const std::string> arguments);
int run_chat(std::span<const std::string> arguments);
int run_serve(std::span<const std::string> arguments);
int run_imatrix(std::span<const std::string> arguments);
int run_perplexity(std::span<const std::string> arguments);
int run_bench(std::span<const std::string> arguments);
int run_tokenize(std::span<const std::string> arguments);
int run_doctor(std::span<const std::string> arguments);

}  // namespace quern
