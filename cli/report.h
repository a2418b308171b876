// What commands say: results on stdout, everything else on stderr.
#pragma once

#include <fmt/format.h>

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "quant/error.h"

namespace quern {

// Thrown when the reader of stdout went away (`quern ... | head -1`): the command ends quietly.
struct OutputClosed {};

// stdout, buffered. Both throw kIo when the text cannot be written (/dev/full), OutputClosed when nobody
// reads it.
void write_out(std::string_view text);
void flush_out();

template <class... Args>
void print_out(fmt::format_string<Args...> format, Args&&... args) {
  write_out(fmt::format(format, std::forward<Args>(args)...));
}

// One line on stderr, on a line of its own even where stdout goes to the same terminal or file and its last
// line is open. Usable as a Notice. Choices, which end in "override: --option)", are dropped when quiet; a
// line that begins with "warning:" never is.
void notice(std::string_view line);
// A line of timings: as notice(), dropped when quiet.
void timing(std::string_view line);

// From now on (-q): no progress, choices and timings.
void be_quiet();
bool is_quiet();

template <class... Args>
void print_notice(fmt::format_string<Args...> format, Args&&... args) {
  notice(fmt::format(format, std::forward<Args>(args)...));
}

bool stdin_is_terminal();
bool stdout_is_terminal();
bool stderr_is_terminal();
// False where a terminal says that it knows no control sequences (TERM=dumb, or none): it would show them.
bool terminal_knows_sequences();
// Characters of a line of the terminal that stdout or stderr is; `fallback` where it is none.
inline constexpr size_t kHelpWidth = 100;  // of help that goes to a file
size_t stdout_width(size_t fallback);
size_t stderr_width(size_t fallback);

// "7.24 B", "3.21 M", "512".
std::string format_count(uint64_t n);
// "0.31 s", "12.4 s", "3 min 05 s", "2 h 07 min".
std::string format_duration(double seconds);
// Characters (code points) of UTF-8 text: its width in a table.
size_t display_width(std::string_view text);

// A table for people: columns as wide as their widest cell, two spaces apart.
class Table {
 public:
  enum class Align { kLeft, kRight };
  struct Column {
    std::string title;
    Align align;
  };

  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  void add_row(std::vector<std::string> cells);  // as many as columns
  // Lines without trailing spaces, at most `width` characters long: the widest left-aligned columns give way,
  // their texts cut with "...", the first, which says what a row is about, after the others. Columns of
  // numbers keep theirs, so a very narrow terminal wraps after all.
  std::string render(size_t width = SIZE_MAX) const;

 private:
  void make_room(size_t width, std::vector<size_t>* widths) const;

  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// What progress is counted in.
enum class ProgressUnit { kBytes, kTokens };

// "[=========>          ]  47%  1.80/3.83 GiB  1.2 GB/s  ETA 4.1 s" for what is done after `seconds`, less
// what does not fit into `width` characters.
std::string progress_line(uint64_t done, uint64_t total, double seconds,
                          ProgressUnit unit = ProgressUnit::kBytes, size_t width = SIZE_MAX);

// A progress bar on stderr, redrawn ten times a second by a thread of its own, so that it is seen to go on
// while a step takes long; nothing at all when stderr is no terminal or one without control sequences, when
// quiet, and in the first `delay` seconds. One thread calls it.
class ProgressBar {
 public:
  explicit ProgressBar(ProgressUnit unit = ProgressUnit::kBytes, double delay = 0);
  ~ProgressBar() { clear(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void update(uint64_t done, uint64_t total);
  // Wipes the bar, so that a line can be printed in its place; the next update() brings it back.
  void clear();

 private:
  void redraw(const std::stop_token& stop, double delay);  // the thread
  void draw();

  const ProgressUnit unit_;
  const double start_;  // seconds of a monotonic clock
  std::mutex mutex_;    // of what follows
  std::condition_variable_any wanted_again_;
  uint64_t done_ = 0, total_ = 0;
  bool wanted_ = false, drawn_ = false;
  std::jthread thread_;  // last: it sees all of the above; none: nothing is drawn
};
inline constexpr double kProgressDelay = 0.5;  // seconds, of work that is usually done sooner

// Seconds of a monotonic clock.
double now_seconds();

}  // namespace quern
