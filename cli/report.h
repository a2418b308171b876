// What commands say: results on stdout, everything else on stderr.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>
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

// One line on stderr. Usable as a Notice.
void notice(std::string_view line);

template <class... Args>
void print_notice(fmt::format_string<Args...> format, Args&&... args) {
  notice(fmt::format(format, std::forward<Args>(args)...));
}

bool stdout_is_terminal();
bool stderr_is_terminal();

// "3.83 GiB", "5.20 MiB", "448 bytes".
std::string format_size(uint64_t bytes);
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
  std::string render() const;                    // lines, no trailing spaces

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// "[=========>          ]  47%  1.80/3.83 GiB  1.2 GB/s  ETA 4.1 s" for bytes done after `seconds`.
std::string progress_line(uint64_t done, uint64_t total, double seconds);

// A progress bar on stderr, redrawn at most ten times a second; nothing at all when stderr is no terminal.
class ProgressBar {
 public:
  ProgressBar();
  ~ProgressBar() { clear(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void update(uint64_t done, uint64_t total);
  // Wipes the bar, so that a line can be printed in its place.
  void clear();

 private:
  bool enabled_;
  bool drawn_ = false;
  double start_ = 0, last_ = 0;  // seconds of a monotonic clock
};

// Seconds of a monotonic clock.
double now_seconds();

}  // namespace quern
