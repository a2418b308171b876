// Signals that end the process: SIGINT, SIGTERM and SIGHUP, which somebody sends, and SIGBUS, which a mapped
// file raises.
//
// Outside of a StopScope one that is sent ends the process at once: an unfinished output file is removed, the
// terminal gets its modes back, the exit code is 128 + signal. Inside a StopScope the first signal only sets
// a flag, which the work polls; the second ends the process at once.
#pragma once

#include <atomic>

namespace quern {

// Call once, from main. SIGHUP stays ignored where it was (nohup).
void install_stop_signals();

// Call once, from main: writing to a closed pipe or past a size limit (SIGPIPE, SIGXFSZ) becomes an error to
// report where it happens.
void ignore_write_signals();

// Call once, from main: a page of a mapped file that cannot be read any more (the file shrank, or the disk
// failed) raises SIGBUS. That is said in one line, unfinished outputs are removed, and the process ends with
// exit code 5.
void install_sigbus_handler();

// Remembers the terminal's modes now and restores them when a signal ends the process, after writing
// `farewell` to it, which must live as long as the process. For line editing.
void restore_terminal_on_exit(const char* farewell);

// At most one lives at a time; the flag starts cleared.
class StopScope {
 public:
  StopScope();
  ~StopScope();
  StopScope(const StopScope&) = delete;
  StopScope& operator=(const StopScope&) = delete;

  bool requested() const noexcept { return flag(); }
  // For work that reads a flag itself (StopFlag); it lives as long as the process.
  const std::atomic<bool>& flag() const noexcept;
  int signal() const noexcept;  // 0: none yet
};

// Thrown by work that a stop has ended, after it has tidied up.
struct Interrupted {};

// 130 or 143 after the signal that the last StopScope saw; 130 when it saw none.
int stop_exit_code() noexcept;

}  // namespace quern
