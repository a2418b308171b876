// Child processes for end-to-end tests: what they print, how they end, how long and how large they were.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace quern::test {

struct ProcessOptions {
  std::string input;                     // written to stdin, which is then closed
  bool keep_stdin_open = false;          // the test writes more with write_line() and ends with close_stdin()
  std::string stdout_path;               // stdout goes to this file or device; empty: captured
  size_t close_stdout_after_lines = 0;   // like `| head -N`: the reader leaves after N lines; 0: never
  double timeout_seconds = 120;          // then the child is killed, and timed_out is set
  std::vector<std::string> environment;  // NAME=VALUE, beside the test's own
};

struct ProcessResult {
  int exit_code = -1;  // -1: ended by a signal
  int signal = 0;      // 0: ended by exit
  bool timed_out = false;
  std::string out, err;
  double seconds = 0;      // wall time from start to end
  double cpu_seconds = 0;  // processor time of all its threads: what other programs take is not in it
  uint64_t peak_rss_bytes = 0;
};

// A running child. Single-threaded; the destructor kills and reaps what was not waited for.
class Process {
 public:
  // arguments[0] is the program's path. Throws std::system_error when it cannot be started.
  explicit Process(const std::vector<std::string>& arguments, const ProcessOptions& options = {});
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // Runs the pipes until `text` was seen; false when the child ended or the time was up before.
  bool wait_for_stdout(std::string_view text);
  bool wait_for_stderr(std::string_view text);
  // What was read of stderr so far.
  const std::string& stderr_text() const { return result_.err; }
  // Gives the child time, running the pipes; returns early when it ends.
  void run_for(double seconds);

  void write_line(std::string_view line);
  void close_stdin();
  void send_signal(int signal);
  bool running();
  pid_t pid() const { return pid_; }
  // Processor time that the child has taken so far, all its threads together; NaN when it has ended.
  double cpu_seconds();

  // To the end of the child.
  ProcessResult wait();

 private:
  // One turn of the pipes, of at most `seconds`; false when the child has ended and both pipes are empty.
  bool step(double seconds);
  bool wait_for(const std::string& stream, std::string_view text);
  void drain(int& fd, std::string& into);
  void feed_stdin();
  void reap(bool block);
  void enforce_timeout();

  ProcessOptions options_;
  ProcessResult result_;
  std::chrono::steady_clock::time_point start_;
  std::string pending_input_;
  pid_t pid_ = -1;
  bool ended_ = false;
  int stdin_fd_ = -1, stdout_fd_ = -1, stderr_fd_ = -1;
};

ProcessResult run_process(const std::vector<std::string>& arguments, const ProcessOptions& options = {});

}  // namespace quern::test
