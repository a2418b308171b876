#include "cli/line_reader.h"

#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "cli/report.h"
#include "cli/text_input.h"
#include "quant/format_size.h"
#include "quant/machine/stop_signal.h"
#ifdef QUERN_HAVE_LIBEDIT
#include "cli/line_editor.h"
#include "quant/utf8.h"
#endif

namespace quern {
namespace {

std::optional<std::string> read_plain_line() {
  std::string line;
  for (;;) {
    const int c = std::getc(stdin);
    if (c == EOF && std::ferror(stdin) != 0) fail_errno(errno, "cannot read stdin");
    if (c == EOF && line.empty()) return std::nullopt;
    if (c == EOF || c == '\n') return line;
    line += static_cast<char>(c);
    if (line.size() > kMaxTextBytes)
      fail(ErrorCode::kResource, "a line holds more than {}, the most that is read as text",
           format_size(kMaxTextBytes));
  }
}

}  // namespace

#ifdef QUERN_HAVE_LIBEDIT
class LineReader::Editor : public LineEditor {
 public:
  using LineEditor::LineEditor;
};
#else
// Lines are read plainly, behind a prompt.
class LineReader::Editor {
 public:
  explicit Editor(const LineReaderOptions& options) : prompt_(options.prompt) {}
  std::optional<std::string> read(bool continued) {
    std::fputs(continued ? ". " : prompt_.c_str(), stderr);
    return read_plain_line();
  }
  bool abandoned() const { return false; }

 private:
  std::string prompt_;
};
#endif

LineReader::LineReader(LineReaderOptions options)
    : options_(std::move(options)), interactive_(stdin_is_terminal()) {
  if (interactive_) editor_ = std::make_unique<Editor>(options_);
}

// What is left in the terminal's queue, such as the rest of a paste behind /exit, is not for the shell.
LineReader::~LineReader() {
  if (interactive_) tcflush(STDIN_FILENO, TCIFLUSH);
}

std::optional<std::string> LineReader::read_line(bool continued) {
  std::optional<std::string> line = editor_ ? editor_->read(continued) : read_plain_line();
  if (!line) return line;
  if (at_start_ && !interactive_) {
    refuse_utf16(*line, "stdin");
    skip_byte_order_mark(&*line);
  }
  at_start_ = false;
  if (line->ends_with('\r')) line->pop_back();
  return line;
}

std::optional<std::string> LineReader::read() {
  std::optional<std::string> message = read_line(false);
  while (message && message->ends_with('\\')) {
    const std::optional<std::string> next = read_line(true);
    if (editor_ && editor_->abandoned()) {
      message = read_line(false);
      continue;
    }
    if (!next) break;
    message->back() = '\n';
    *message += *next;
  }
  return message;
}

std::string default_history_file() {
  namespace fs = std::filesystem;
  const char* state = std::getenv("XDG_STATE_HOME");
  const char* home = std::getenv("HOME");
  fs::path folder;
  if (state != nullptr && state[0] == '/')
    folder = state;
  else if (home != nullptr && home[0] == '/')
    folder = fs::path(home) / ".local" / "state";
  else
    return "";
  folder /= "quern";
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return "";
  fs::permissions(folder, fs::perms::owner_all, error);
  return (folder / "chat_history").string();
}

}  // namespace quern
