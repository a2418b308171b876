#include "tests/support/subprocess.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <system_error>

extern char** environ;

namespace quern::test {
namespace {

struct Pipe {
  int read_end, write_end;
};

Pipe open_pipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw std::system_error(errno, std::generic_category(), "pipe2");
  return {ends[0], ends[1]};
}

void close_fd(int& fd) {
  if (fd >= 0) close(fd);
  fd = -1;
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> result;
  for (std::string& s : strings) result.push_back(s.data());
  result.push_back(nullptr);
  return result;
}

// The test's environment with `changes` in front of it: getenv() returns the first match.
std::vector<std::string> environment_with(const std::vector<std::string>& changes) {
  std::vector<std::string> result = changes;
  for (char** variable = environ; *variable != nullptr; ++variable) result.emplace_back(*variable);
  return result;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

Process::Process(const std::vector<std::string>& arguments, const ProcessOptions& options)
    : options_(options), pending_input_(options.input) {
  // A child that leaves early must not end the test: write() reports EPIPE instead.
  signal(SIGPIPE, SIG_IGN);

  Pipe in = open_pipe();
  Pipe out = open_pipe();
  Pipe err = open_pipe();

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in.read_end, STDIN_FILENO);
  if (options.stdout_path.empty()) {
    posix_spawn_file_actions_adddup2(&actions, out.write_end, STDOUT_FILENO);
  } else {
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, options.stdout_path.c_str(),
                                     O_WRONLY | O_CREAT | O_TRUNC, 0644);
  }
  posix_spawn_file_actions_adddup2(&actions, err.write_end, STDERR_FILENO);

  // Ignored signals survive exec; the child starts with the defaults, as from a shell.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t defaults;
  sigemptyset(&defaults);
  posix_spawnattr_setsigmask(&attributes, &defaults);
  sigaddset(&defaults, SIGPIPE);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);

  std::vector<std::string> argument_copies = arguments;
  std::vector<std::string> environment = environment_with(options.environment);
  start_ = std::chrono::steady_clock::now();
  const int error = posix_spawn(&pid_, arguments[0].c_str(), &actions, &attributes,
                                pointers(argument_copies).data(), pointers(environment).data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  close_fd(in.read_end);
  close_fd(out.write_end);
  close_fd(err.write_end);
  stdin_fd_ = in.write_end;
  stdout_fd_ = out.read_end;
  stderr_fd_ = err.read_end;
  if (error != 0) {
    close_fd(stdin_fd_);
    close_fd(stdout_fd_);
    close_fd(stderr_fd_);
    throw std::system_error(error, std::generic_category(), "posix_spawn " + arguments[0]);
  }
  for (const int fd : {stdin_fd_, stdout_fd_, stderr_fd_}) fcntl(fd, F_SETFL, O_NONBLOCK);
}

Process::~Process() {
  if (!ended_) {
    send_signal(SIGKILL);
    reap(/*block=*/true);
  }
  close_fd(stdin_fd_);
  close_fd(stdout_fd_);
  close_fd(stderr_fd_);
}

bool Process::wait_for_stdout(std::string_view text) { return wait_for(result_.out, text); }
bool Process::wait_for_stderr(std::string_view text) { return wait_for(result_.err, text); }

bool Process::wait_for(const std::string& stream, std::string_view text) {
  while (stream.find(text) == std::string::npos) {
    if (!step(0.1)) return stream.find(text) != std::string::npos;
  }
  return true;
}

void Process::run_for(double seconds) {
  const auto begin = std::chrono::steady_clock::now();
  for (double left = seconds; left > 0; left = seconds - seconds_since(begin)) {
    if (!step(std::min(left, 0.05))) return;
  }
}

void Process::write_line(std::string_view line) {
  pending_input_.append(line).push_back('\n');
  feed_stdin();
}

void Process::close_stdin() {
  options_.keep_stdin_open = false;
  feed_stdin();
}

void Process::send_signal(int signal) {
  if (!ended_) kill(pid_, signal);
}

bool Process::running() {
  reap(/*block=*/false);
  return !ended_;
}

double Process::cpu_seconds() {
  clockid_t clock;
  timespec time{};
  if (!running() || clock_getcpuclockid(pid_, &clock) != 0 || clock_gettime(clock, &time) != 0)
    return std::numeric_limits<double>::quiet_NaN();
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

ProcessResult Process::wait() {
  close_stdin();
  while (step(0.1)) {
  }
  return result_;
}

bool Process::step(double seconds) {
  feed_stdin();
  pollfd fds[] = {{pending_input_.empty() ? -1 : stdin_fd_, POLLOUT, 0},
                  {stdout_fd_, POLLIN, 0},
                  {stderr_fd_, POLLIN, 0}};
  poll(fds, 3, std::max(1, static_cast<int>(seconds * 1000)));
  drain(stdout_fd_, result_.out);
  drain(stderr_fd_, result_.err);
  reap(/*block=*/false);
  enforce_timeout();
  return !ended_ || stdout_fd_ >= 0 || stderr_fd_ >= 0;
}

void Process::drain(int& fd, std::string& into) {
  char buffer[1 << 16];
  while (fd >= 0) {
    const ssize_t n = read(fd, buffer, sizeof buffer);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
      // A grandchild may hold the pipe open after the child's end; what it says is not waited for.
      if (ended_) close_fd(fd);
      return;
    }
    if (n <= 0) {
      close_fd(fd);
      return;
    }
    into.append(buffer, static_cast<size_t>(n));
    if (&fd == &stdout_fd_ && options_.close_stdout_after_lines > 0 &&
        static_cast<size_t>(std::count(into.begin(), into.end(), '\n')) >=
            options_.close_stdout_after_lines) {
      close_fd(fd);
    }
  }
}

void Process::feed_stdin() {
  while (stdin_fd_ >= 0 && !pending_input_.empty()) {
    const ssize_t n = write(stdin_fd_, pending_input_.data(), pending_input_.size());
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n < 0) {  // the reader is gone
      pending_input_.clear();
      close_fd(stdin_fd_);
      return;
    }
    pending_input_.erase(0, static_cast<size_t>(n));
  }
  if (pending_input_.empty() && !options_.keep_stdin_open) close_fd(stdin_fd_);
}

void Process::reap(bool block) {
  if (ended_) return;
  int status = 0;
  rusage usage{};
  pid_t pid;
  do {
    pid = wait4(pid_, &status, block ? 0 : WNOHANG, &usage);
  } while (pid < 0 && errno == EINTR);
  if (pid != pid_) return;
  ended_ = true;
  result_.seconds = seconds_since(start_);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  result_.cpu_seconds = seconds(usage.ru_utime) + seconds(usage.ru_stime);
  result_.peak_rss_bytes = static_cast<uint64_t>(usage.ru_maxrss) * 1024;
  if (WIFEXITED(status)) result_.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result_.signal = WTERMSIG(status);
}

void Process::enforce_timeout() {
  if (ended_ || seconds_since(start_) < options_.timeout_seconds) return;
  result_.timed_out = true;
  send_signal(SIGKILL);
  reap(/*block=*/true);
}

ProcessResult run_process(const std::vector<std::string>& arguments, const ProcessOptions& options) {
  return Process(arguments, options).wait();
}

}  // namespace quern::test
