#include "cli/line_reader.h"

#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "cli/report.h"
#include "cli/stop_signal.h"
#include "cli/text_input.h"
#ifdef QUERN_HAVE_LIBEDIT
#include <editline/readline.h>
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

#ifdef QUERN_HAVE_LIBEDIT
std::optional<std::string> read_edited_line(const std::string& prompt) {
  const std::unique_ptr<char, decltype(&std::free)> line(readline(prompt.c_str()), &std::free);
  if (line == nullptr) return std::nullopt;
  if (line.get()[0] != '\0') add_history(line.get());
  return line.get();
}
#else
std::optional<std::string> read_edited_line(const std::string& prompt) {
  std::fputs(prompt.c_str(), stderr);
  return read_plain_line();
}
#endif

}  // namespace

LineReader::LineReader(std::string prompt)
    : prompt_(std::move(prompt)), interactive_(isatty(STDIN_FILENO) != 0) {
  if (!interactive_) return;
  restore_terminal_on_exit();
#ifdef QUERN_HAVE_LIBEDIT
  std::setlocale(LC_CTYPE, "");  // libedit counts characters by it
  rl_outstream = stderr;         // stdout is for answers
  using_history();
#endif
}

std::optional<std::string> LineReader::read() {
  return interactive_ ? read_edited_line(prompt_) : read_plain_line();
}

}  // namespace quern
