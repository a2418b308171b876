// Lines that a user types, with editing and a history on a terminal, plainly otherwise.
#pragma once

#include <optional>
#include <string>

namespace quern {

// One instance at a time. The history lives as long as the process and is written nowhere.
class LineReader {
 public:
  // prompt: shown (on stderr) when stdin is a terminal.
  explicit LineReader(std::string prompt);

  // The next line without its newline; empty at the end of the input. Throws kIo when stdin cannot be read,
  // kResource for a line beyond any sense.
  std::optional<std::string> read();
  bool interactive() const { return interactive_; }

 private:
  std::string prompt_;
  bool interactive_;
};

}  // namespace quern
