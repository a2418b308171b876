// A child process on a terminal of its own (a pseudo terminal): what a user types and sees.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

namespace quern::test {

class Terminal {
 public:
  // arguments[0] is the program's path; environment: NAME=VALUE, beside the test's own. Throws
  // std::system_error.
  Terminal(const std::vector<std::string>& arguments, const std::vector<std::string>& environment,
           unsigned short columns = 80);
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  void type(std::string_view text);
  // Waits until `text` has appeared n times since the start, at most 60 seconds. False: it has not.
  bool wait_for(std::string_view text, size_t n = 1);
  // To the child's end, at most 60 seconds, then it is killed: its exit code, or 128 + signal.
  int wait();
  // What the terminal has received so far, control sequences and all.
  const std::string& seen() const { return seen_; }

 private:
  bool receive();  // false: nothing more will come

  pid_t pid_ = -1;
  int fd_ = -1;
  std::string seen_;
};

}  // namespace quern::test
