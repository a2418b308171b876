#include "cli/report.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>

namespace quern {
namespace {

[[noreturn]] void fail_output(int error_number) {
  if (error_number == EPIPE) throw OutputClosed();
  fail_errno(error_number, "cannot write to stdout");
}

}  // namespace

void write_out(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) fail_output(errno);
}

void flush_out() {
  if (std::fflush(stdout) != 0) fail_output(errno);
}

void notice(std::string_view line) {
  // One write, so that lines of several processes do not mix. stderr that cannot be written has nobody to
  // complain to.
  const std::string text = fmt::format("{}\n", line);
  std::fwrite(text.data(), 1, text.size(), stderr);
}

bool stdout_is_terminal() { return isatty(STDOUT_FILENO) != 0; }
bool stderr_is_terminal() { return isatty(STDERR_FILENO) != 0; }

std::string format_size(uint64_t bytes) {
  const double b = static_cast<double>(bytes);
  if (bytes >= 1ull << 30) return fmt::format("{:.2f} GiB", b / 0x1p30);
  if (bytes >= 1ull << 20) return fmt::format("{:.2f} MiB", b / 0x1p20);
  if (bytes >= 1ull << 10) return fmt::format("{:.2f} KiB", b / 0x1p10);
  return fmt::format("{} bytes", bytes);
}

std::string format_count(uint64_t n) {
  const double x = static_cast<double>(n);
  if (n >= 1'000'000'000) return fmt::format("{:.2f} B", x / 1e9);
  if (n >= 1'000'000) return fmt::format("{:.2f} M", x / 1e6);
  return fmt::format("{}", n);
}

std::string format_duration(double seconds) {
  if (seconds < 10) return fmt::format("{:.2f} s", seconds);
  if (seconds < 60) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<uint64_t>(std::min(seconds, 1e15));
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole / 60 % 60);
}

size_t display_width(std::string_view text) {
  // Continuation bytes of UTF-8 are 10xxxxxx.
  return static_cast<size_t>(std::count_if(text.begin(), text.end(),
                                           [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; }));
}

void Table::add_row(std::vector<std::string> cells) {
  QUERN_CHECK(cells.size() == columns_.size());
  rows_.push_back(std::move(cells));
}

std::string Table::render() const {
  std::vector<size_t> widths;
  for (const Column& column : columns_) widths.push_back(display_width(column.title));
  for (const auto& row : rows_)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], display_width(row[i]));

  std::string out;
  const auto append_row = [&](auto&& cell) {
    for (size_t i = 0; i < columns_.size(); ++i) {
      const std::string& text = cell(i);
      const size_t padding = widths[i] - display_width(text);
      if (columns_[i].align == Align::kRight) out.append(padding, ' ');
      out += text;
      if (columns_[i].align == Align::kLeft) out.append(padding, ' ');
      out += "  ";
    }
    out.erase(out.find_last_not_of(' ') + 1);
    out += '\n';
  };
  append_row([&](size_t i) -> const std::string& { return columns_[i].title; });
  for (const auto& row : rows_) append_row([&](size_t i) -> const std::string& { return row[i]; });
  return out;
}

std::string progress_line(uint64_t done, uint64_t total, double seconds) {
  constexpr size_t kBarWidth = 24;
  done = std::min(done, total);
  const double fraction = total == 0 ? 1.0 : static_cast<double>(done) / static_cast<double>(total);
  const auto filled = static_cast<size_t>(fraction * kBarWidth);
  std::string line = fmt::format("[{:<{}}] {:3.0f}%  {} of {}", std::string(filled, '='), kBarWidth,
                                 std::floor(fraction * 100), format_size(done), format_size(total));
  if (seconds <= 0 || done == 0) return line;
  const double bytes_per_second = static_cast<double>(done) / seconds;
  line += fmt::format("  {:.2f} GB/s", bytes_per_second / 1e9);
  if (done < total)
    line += fmt::format("  ETA {}", format_duration(static_cast<double>(total - done) / bytes_per_second));
  return line;
}

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

ProgressBar::ProgressBar() : enabled_(stderr_is_terminal()), start_(now_seconds()) {}

void ProgressBar::update(uint64_t done, uint64_t total) {
  constexpr double kRedrawSeconds = 0.1;
  if (!enabled_) return;
  const double now = now_seconds();
  if (now - last_ < kRedrawSeconds) return;
  last_ = now;
  drawn_ = true;
  // "\033[K" erases what a longer line left.
  fmt::print(stderr, "\r{}\033[K", progress_line(done, total, now - start_));
  std::fflush(stderr);
}

void ProgressBar::clear() {
  if (!drawn_) return;
  drawn_ = false;
  last_ = 0;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
}

}  // namespace quern
