// A line on a terminal, edited: libedit, through its own interface.
#pragma once

#include <histedit.h>

#include <optional>
#include <string>

#include "cli/line_options.h"

namespace quern {

// One instance at a time: terminals have one set of modes. Between two calls of read() the terminal is in the
// modes that it had.
class LineEditor {
 public:
  explicit LineEditor(const LineReaderOptions& options);
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  // A message, lines of a paste with newlines between them; empty at the end of the input.
  // `continued`: another line of one, which Ctrl-C gives up as a whole.
  std::optional<std::string> read(bool continued);
  bool abandoned() const { return abandoned_; }  // read() ended so

 private:
  static char* prompt(EditLine* editor);
  static unsigned char on_tab(EditLine* editor, int key);
  static unsigned char on_interrupt(EditLine* editor, int key);
  static unsigned char on_suspend(EditLine* editor, int key);
  static unsigned char on_paste(EditLine* editor, int key);
  static LineEditor& self(EditLine* editor);
  void remember(const std::string& message);

  const LineReaderOptions& options_;
  EditLine* editor_;
  History* history_;
  HistEvent event_{};
  std::string prompt_;
  bool continued_ = false, abandoned_ = false;
  bool asked_to_leave_ = false;  // by Ctrl-C on an empty line, and nothing typed since
};

}  // namespace quern
