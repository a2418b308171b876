// What lines that a user types are read with.
#pragma once

#include <string>
#include <vector>

namespace quern {

struct LineReaderOptions {
  std::string prompt;  // shown (on stderr) when stdin is a terminal
  std::vector<std::string>
      commands;              // "/help": Tab completes them at the start of a line, file names behind them
  std::string history_path;  // empty: the history ends with the process
};

}  // namespace quern
