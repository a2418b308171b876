#include "tests/support/terminal.h"

#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <system_error>

namespace quern::test {
namespace {

constexpr std::chrono::seconds kPatience(60);

}  // namespace

Terminal::Terminal(const std::vector<std::string>& arguments, const std::vector<std::string>& environment,
                   unsigned short columns) {
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  winsize size{};
  size.ws_row = 24;
  size.ws_col = columns;
  pid_ = forkpty(&fd_, nullptr, nullptr, &size);
  if (pid_ < 0) throw std::system_error(errno, std::generic_category(), "forkpty");
  if (pid_ > 0) return;
  for (const std::string& variable : environment) putenv(const_cast<char*>(variable.c_str()));
  execv(argv[0], argv.data());
  _exit(127);
}

Terminal::~Terminal() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  if (fd_ >= 0) close(fd_);
}

void Terminal::type(std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = write(fd_, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw std::system_error(errno, std::generic_category(), "cannot type");
    text.remove_prefix(static_cast<size_t>(n));
  }
}

bool Terminal::receive() {
  pollfd waiting{fd_, POLLIN, 0};
  if (poll(&waiting, 1, 50) <= 0) return true;
  char chunk[4096];
  const ssize_t n = read(fd_, chunk, sizeof chunk);
  if (n <= 0) return n < 0 && errno == EINTR;  // EIO: the child has closed its side
  seen_.append(chunk, static_cast<size_t>(n));
  return true;
}

bool Terminal::wait_for(std::string_view text, size_t n) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  const auto count = [&] {
    size_t found = 0;
    for (size_t at = seen_.find(text); at != seen_.npos; at = seen_.find(text, at + text.size())) ++found;
    return found;
  };
  while (count() < n) {
    if (!receive() || std::chrono::steady_clock::now() > deadline) return false;
  }
  return true;
}

int Terminal::wait() {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (receive()) {
    if (std::chrono::steady_clock::now() > deadline) kill(pid_, SIGKILL);
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) != pid_) continue;
    pid_ = -1;
    while (true) {  // what it has written last
      const size_t before = seen_.size();
      if (!receive() || seen_.size() == before) break;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace quern::test
