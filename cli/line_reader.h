// Messages that a user types: with editing, a history and completion on a terminal, plainly otherwise.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "cli/line_options.h"

namespace quern {

// One instance at a time.
class LineReader {
 public:
  explicit LineReader(LineReaderOptions options);
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  // The next message without the newline (and the carriage return before it) that ends it; empty at the end
  // of the input. A line that ends in a backslash goes on in the next one. On a terminal: what is pasted is
  // one message however many lines it has; Ctrl-C clears what is typed, all lines of it, and asked twice on
  // an empty line it leaves. A byte order mark at the start of the input is skipped. Throws kIo when stdin
  // cannot be read, kMalformed for UTF-16, kResource for a message beyond any sense.
  std::optional<std::string> read();
  bool interactive() const { return interactive_; }

 private:
  std::optional<std::string> read_line(bool continued);

  LineReaderOptions options_;
  bool interactive_;
  bool at_start_ = true;
  class Editor;
  std::unique_ptr<Editor> editor_;  // null: not interactive, or built without libedit
};

// Where the history of messages is kept: $XDG_STATE_HOME/quern/chat_history, or
// ~/.local/state/quern/chat_history; its folder is made. Empty when there is no such place.
std::string default_history_file();

}  // namespace quern
