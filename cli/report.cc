#include "cli/report.h"

#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <system_error>

#include "quant/format_size.h"

namespace quern {
namespace {

[[noreturn]] void fail_output(int error_number) {
  if (error_number == EPIPE) throw OutputClosed();
  fail_errno(error_number, "cannot write to stdout");
}

bool quiet = false;
bool line_is_open = false;  // stdout's last line has no newline yet

bool is_choice(std::string_view line) {
  return line.ends_with(')') && line.find("override: --") != line.npos && !line.starts_with("warning:");
}

// Do stdout and stderr go to one terminal, file or pipe?
bool outputs_meet() {
  struct stat out {
  }, err{};
  return fstat(STDOUT_FILENO, &out) == 0 && fstat(STDERR_FILENO, &err) == 0 && out.st_dev == err.st_dev &&
         out.st_ino == err.st_ino &&
         (S_ISREG(out.st_mode) || S_ISFIFO(out.st_mode) || isatty(STDERR_FILENO) != 0);
}

size_t width_of(int fd, size_t fallback) {
  winsize size{};
  return ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : fallback;
}

// The text cut to `width` characters.
std::string cut(std::string_view text, size_t width) {
  if (display_width(text) <= width) return std::string(text);
  constexpr std::string_view kDots = "...";
  const size_t keep = width > kDots.size() ? width - kDots.size() : 0;
  size_t n_bytes = 0;
  for (size_t n = 0; n_bytes < text.size(); ++n_bytes) {
    if ((static_cast<uint8_t>(text[n_bytes]) & 0xC0) != 0x80 && n++ == keep) break;
  }
  return std::string(text.substr(0, n_bytes)) + std::string(kDots);
}

}  // namespace

void write_out(std::string_view text) {
  if (text.empty()) return;
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) fail_output(errno);
  line_is_open = text.back() != '\n';
}

void flush_out() {
  if (std::fflush(stdout) != 0) fail_output(errno);
}

void notice(std::string_view line) {
  if (quiet && is_choice(line)) return;
  // What is written to stdout stands before it also where the two meet.
  const bool opens_line = line_is_open && outputs_meet();
  if (opens_line) {
    std::fflush(stdout);
    line_is_open = false;
  }
  // One write, so that lines of several processes do not mix. stderr that cannot be written has nobody to
  // complain to.
  const std::string text = fmt::format("{}{}\n", opens_line ? "\n" : "", line);
  std::fwrite(text.data(), 1, text.size(), stderr);
}

void timing(std::string_view line) {
  if (!quiet) notice(line);
}

void be_quiet() { quiet = true; }
bool is_quiet() { return quiet; }

size_t stdout_width(size_t fallback) { return width_of(STDOUT_FILENO, fallback); }
size_t stderr_width(size_t fallback) { return width_of(STDERR_FILENO, fallback); }

bool stdin_is_terminal() { return isatty(STDIN_FILENO) != 0; }
bool stdout_is_terminal() { return isatty(STDOUT_FILENO) != 0; }
bool stderr_is_terminal() { return isatty(STDERR_FILENO) != 0; }

bool terminal_knows_sequences() {
  const char* const term = std::getenv("TERM");
  return term != nullptr && *term != '\0' && std::string_view(term) != "dumb";
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

std::string Table::render(size_t width) const {
  std::vector<size_t> widths;
  for (const Column& column : columns_) widths.push_back(display_width(column.title));
  for (const auto& row : rows_)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], display_width(row[i]));
  make_room(width, &widths);

  std::string out;
  const auto append_row = [&](auto&& cell) {
    for (size_t i = 0; i < columns_.size(); ++i) {
      const std::string text = cut(cell(i), widths[i]);
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

void Table::make_room(size_t width, std::vector<size_t>* widths) const {
  constexpr size_t kNarrowest = 8, kNarrow = 12, kGap = 2;
  size_t total = kGap * (widths->size() - 1);
  for (const size_t w : *widths) total += w;
  const auto widest_from = [&](size_t first, size_t narrowest) {
    size_t* widest = nullptr;
    for (size_t i = first; i < widths->size(); ++i) {
      size_t& w = (*widths)[i];
      if (columns_[i].align == Align::kLeft && w > narrowest && (widest == nullptr || w > *widest))
        widest = &w;
    }
    return widest;
  };
  while (total > width) {
    size_t narrowest = kNarrow;
    size_t* widest = widest_from(1, narrowest);
    if (widest == nullptr) widest = widest_from(0, narrowest = kNarrowest);
    if (widest == nullptr) return;
    const size_t less = std::min(total - width, *widest - narrowest);
    *widest -= less;
    total -= less;
  }
}

std::string progress_line(uint64_t done, uint64_t total, double seconds, ProgressUnit unit, size_t width) {
  constexpr size_t kBarWidth = 24;
  const auto amount = [&](uint64_t n) {
    return unit == ProgressUnit::kBytes ? format_size(n) : std::to_string(n);
  };
  done = std::min(done, total);
  const double fraction = total == 0 ? 1.0 : static_cast<double>(done) / static_cast<double>(total);
  const auto filled = static_cast<size_t>(fraction * kBarWidth);
  std::vector<std::string> parts = {fmt::format("[{:<{}}] ", std::string(filled, '='), kBarWidth),
                                    fmt::format("{:3.0f}%", std::floor(fraction * 100)),
                                    fmt::format("  {} of {}{}", amount(done), amount(total),
                                                unit == ProgressUnit::kBytes ? "" : " tokens")};
  if (seconds > 0 && done > 0) {
    const double rate = static_cast<double>(done) / seconds;
    parts.push_back(unit == ProgressUnit::kBytes ? fmt::format("  {:.2f} GB/s", rate / 1e9)
                                                 : fmt::format("  {:.1f} tok/s", rate));
    if (done < total)
      parts.push_back(fmt::format("  ETA {}", format_duration(static_cast<double>(total - done) / rate)));
  }
  std::string line;
  for (const std::string& part : parts)
    if (line.size() + part.size() <= width) line += part;
  return line;
}

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

ProgressBar::ProgressBar(ProgressUnit unit, double delay) : unit_(unit), start_(now_seconds()) {
  if (!stderr_is_terminal() || !terminal_knows_sequences() || is_quiet()) return;
  try {
    thread_ = std::jthread([this, delay](const std::stop_token& stop) { redraw(stop, delay); });
  } catch (const std::system_error&) {  // no more threads: the work matters, not the bar
  }
}

void ProgressBar::redraw(const std::stop_token& stop, double delay) {
  constexpr std::chrono::milliseconds kPeriod{100};
  std::unique_lock lock(mutex_);
  wanted_again_.wait_for(lock, stop, std::chrono::duration<double>(delay), [] { return false; });
  while (!stop.stop_requested()) {
    if (wanted_) draw();
    wanted_again_.wait_for(lock, stop, kPeriod, [this] { return wanted_ && !drawn_; });
  }
}

// Under the mutex. Throws nothing, as the thread that calls it must not: fmt::print would where the terminal
// is gone.
void ProgressBar::draw() {
  drawn_ = true;
  // "\033[K" erases what a longer line left. The last column stays free: a full line would wrap.
  const std::string line = progress_line(done_, total_, now_seconds() - start_, unit_, stderr_width(80) - 1);
  std::fputs(fmt::format("\r{}\033[K", line).c_str(), stderr);
  std::fflush(stderr);
}

void ProgressBar::update(uint64_t done, uint64_t total) {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    done_ = done;
    total_ = total;
    wanted_ = true;
    if (drawn_) return;
  }
  wanted_again_.notify_one();
}

void ProgressBar::clear() {
  const std::lock_guard lock(mutex_);
  wanted_ = false;
  if (!drawn_) return;
  drawn_ = false;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
}

}  // namespace quern
