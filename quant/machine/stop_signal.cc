#include "quant/machine/stop_signal.h"

#include <signal.h>
#include <termios.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <string_view>

#include "quant/error.h"
#include "quant/output_file.h"

namespace quern {
namespace {

// All that the handler touches is lock-free.
std::atomic<bool> in_scope = false;
std::atomic<int> seen_signal = 0;
std::atomic<bool> stop_requested = false;
std::atomic<bool> has_saved_modes = false;
termios saved_modes;
const char* farewell_text = "";  // set before has_saved_modes

void on_signal(int signal_number) {
  if (in_scope && seen_signal == 0) {
    seen_signal = signal_number;
    stop_requested = true;
    return;
  }
  remove_unfinished_outputs();
  if (has_saved_modes) {
    tcsetattr(STDIN_FILENO, TCSANOW, &saved_modes);
    [[maybe_unused]] ssize_t n = write(STDERR_FILENO, farewell_text, strlen(farewell_text));
    n = write(STDERR_FILENO, "\n", 1);  // ends the line being edited
  }
  _exit(128 + signal_number);
}

void on_sigbus(int signal_number, siginfo_t* info, void*) {
  if (info->si_code == BUS_ADRERR) {
    constexpr std::string_view kMessage =
        "error: a mapped file cannot be read any more: it shrank, or its disk failed\n";
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kMessage.data(), kMessage.size());
    remove_unfinished_outputs();
    _exit(static_cast<int>(ErrorCode::kIo));
  }
  signal(signal_number, SIG_DFL);  // not ours to explain
  raise(signal_number);
}

void install(int signal_number, bool keep_ignored) {
  struct sigaction action {};
  if (keep_ignored && sigaction(signal_number, nullptr, &action) == 0 && action.sa_handler == SIG_IGN) return;
  action = {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;  // nobody else has to know about EINTR
  sigemptyset(&action.sa_mask);
  QUERN_CHECK(sigaction(signal_number, &action, nullptr) == 0);
}

}  // namespace

void install_stop_signals() {
  install(SIGINT, false);
  install(SIGTERM, false);
  install(SIGHUP, true);
}

void install_sigbus_handler() {
  struct sigaction action {};
  action.sa_sigaction = on_sigbus;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  QUERN_CHECK(sigaction(SIGBUS, &action, nullptr) == 0);
}

void ignore_write_signals() {
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
}

void restore_terminal_on_exit(const char* farewell) {
  farewell_text = farewell;
  if (tcgetattr(STDIN_FILENO, &saved_modes) == 0) has_saved_modes = true;
}

StopScope::StopScope() {
  seen_signal = 0;
  stop_requested = false;
  QUERN_CHECK(!in_scope.exchange(true));
}

StopScope::~StopScope() { in_scope = false; }

const std::atomic<bool>& StopScope::flag() const noexcept { return stop_requested; }

int StopScope::signal() const noexcept { return seen_signal; }

int stop_exit_code() noexcept { return 128 + (seen_signal != 0 ? seen_signal.load() : SIGINT); }

}  // namespace quern
