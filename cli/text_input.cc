#include "cli/text_input.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "cli/report.h"
#include "quant/error.h"
#include "runtime/tokenizer.h"

namespace quern {
namespace {

struct FileDescriptor {
  int fd;
  ~FileDescriptor() {
    if (fd > STDERR_FILENO) close(fd);
  }
};

}  // namespace

void add_text_input(Arguments& arguments, TextInput* input) {
  arguments.text("-p,--prompt", "TEXT", "The text", &input->text);
  arguments.text("-f,--file", "FILE", "Read the text from a file, less one trailing newline (neither: stdin)",
                 &input->file);
}

std::string read_bytes(const std::string& path) {
  // O_NONBLOCK: opening a pipe without a writer must not wait for one.
  const FileDescriptor file{path == "-" ? STDIN_FILENO
                                        : open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0) fail_errno(errno, fmt::format("cannot open '{}'", printable(path, kPathBytes)));
  struct stat status {};
  if (file.fd != STDIN_FILENO && (fstat(file.fd, &status) != 0 || !S_ISREG(status.st_mode)))
    fail(ErrorCode::kIo, "'{}' is not a regular file; pipes are read from stdin",
         printable(path, kPathBytes));
  std::string bytes;
  std::vector<char> chunk(1 << 16);
  for (;;) {
    const ssize_t n = read(file.fd, chunk.data(), chunk.size());
    if (n == 0) return bytes;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno(errno, fmt::format("cannot read '{}'", printable(path, kPathBytes)));
    bytes.append(chunk.data(), static_cast<size_t>(n));
    if (bytes.size() > kMaxTextBytes)
      fail(ErrorCode::kResource, "'{}' holds more than {}, the most that is read as text",
           printable(path, kPathBytes), format_size(kMaxTextBytes));
  }
}

std::string read_text(const TextInput& input) {
  if (input.text && input.file) fail(ErrorCode::kUsage, "--prompt and --file exclude each other");
  if (input.text) return *input.text;
  if (!input.file) {
    if (isatty(STDIN_FILENO) != 0) fail(ErrorCode::kUsage, "no text: give -p TEXT, -f FILE or pipe it in");
    return read_bytes("-");
  }
  std::string text = read_bytes(*input.file);
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

bool is_same_file(const std::string& a, const std::string& b) {
  std::error_code ignored;
  return std::filesystem::equivalent(a, b, ignored);
}

void refuse_hopeless_text(const std::string& text, const Tokenizer& tokenizer, uint64_t context) {
  size_t longest = 1;
  for (const std::string& piece : tokenizer.vocabulary().pieces) longest = std::max(longest, piece.size());
  const uint64_t at_least = text.size() / longest;
  if (at_least >= context)
    fail(ErrorCode::kResource,
         "the text has at least {} tokens and the context {}; raise --ctx or shorten it", at_least, context);
}

}  // namespace quern
