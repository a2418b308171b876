// Errors, and the text of others made fit to print.
//
// What the world can cause (files, arguments, memory) throws quern::Error, whose message says what, where,
// expected, found and what to do next. What only a bug of ours can cause is a QUERN_CHECK. One catch, in
// cli/main.cc, turns an Error into "error: ..." on stderr and its code into the exit code.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace quern {

// The values are the process's exit codes.
enum class ErrorCode : int {
  kUsage = 1,      // arguments
  kMalformed = 2,  // a file that breaks its format, or that we refuse by name
  kIntegrity = 3,  // non-finite numbers, checksums
  kResource = 4,   // memory, context length
  kIo = 5,         // the operating system said no
};

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

template <class... Args>
[[noreturn]] void fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

// kIo with the text of errno at the end: "cannot open 'x': No such file or directory".
[[noreturn]] void fail_errno(int error_number, const std::string& message);

// Text of others made safe for a terminal: every byte of a control character, of a mark that turns the
// direction of writing round, of invalid UTF-8, and every backslash, becomes \xNN. What is longer than
// max_bytes is cut there, between characters, and ends in "...".
std::string printable(std::string_view text, size_t max_bytes = 64);
inline constexpr size_t kPathBytes = 4096;  // max_bytes for paths, which are shown whole

// Receives one line (no newline) that a user should see on stderr: a warning, or an automatic choice.
using Notice = std::function<void(std::string_view line)>;

[[noreturn]] void check_failed(const char* condition, const char* file, int line) noexcept;

}  // namespace quern

#define QUERN_CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::quern::check_failed(#condition, __FILE__, __LINE__))
