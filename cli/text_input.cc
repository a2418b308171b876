#include "cli/text_input.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <limits>

#include "cli/generation_report.h"
#include "cli/report.h"
#include "quant/error.h"
#include "quant/format_size.h"
#include "quant/json/json.h"
#include "quant/machine/file_descriptor.h"
#include "quant/utf8.h"
#include "runtime/model.h"

namespace quern {
namespace {

// /dev/null, by what it is: an empty text, as it is for other programs.
bool is_null_device(const struct stat& status) {
  struct stat null_device {};
  return S_ISCHR(status.st_mode) && stat("/dev/null", &null_device) == 0 &&
         status.st_rdev == null_device.st_rdev;
}

std::string without_returns(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i)
    if (text[i] != '\r' || i + 1 == text.size() || text[i + 1] != '\n') out += text[i];
  return out;
}

// The newline that an editor or `echo` put at the end.
void drop_newline(TextRule rule, std::string* text) {
  if (text->ends_with('\n')) text->pop_back();
  if (rule != TextRule::kExact && text->ends_with('\r')) text->pop_back();
}

}  // namespace

void add_text_input(Arguments& arguments, TextInput* input, std::string_view escapes_of) {
  arguments.text("-p,--prompt", "TEXT", "The text; - is stdin", &input->text);
  arguments.text(
      "-f,--file", "FILE",
      "Read the text from a file, less one newline at its end; - is stdin; behind -p's when both are given "
      "(neither: stdin)",
      &input->file);
  arguments.flag("-e,--escapes", fmt::format("\\n, \\t, \\\\ and \\xNN in {} stand for bytes", escapes_of),
                 &input->escapes);
}

void add_parse_special(Arguments& arguments, bool* parse_special) {
  arguments.flag("--parse-special", "Control tokens spelled in the text (</s>) become ids, not text",
                 parse_special);
}

TextRole role_of(bool parse_special) { return parse_special ? TextRole::kRawSpecial : TextRole::kRaw; }

std::string read_bytes(const std::string& path) {
  const bool is_stdin = path == "-";
  const FileDescriptor opened(is_stdin ? -1 : open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const int file = is_stdin ? STDIN_FILENO : opened.get();
  const std::string where = is_stdin ? "stdin" : fmt::format("'{}'", printable(path, kPathBytes));
  if (file < 0) fail_errno(errno, fmt::format("cannot open {}", where));
  struct stat status {};
  const bool is_text = fstat(file, &status) == 0 &&
                       (S_ISREG(status.st_mode) || S_ISFIFO(status.st_mode) || is_null_device(status));
  if (!is_stdin && !is_text)
    fail(ErrorCode::kIo, "{} is {}, not a file or a pipe", where,
         S_ISDIR(status.st_mode) ? "a folder" : "a device");
  std::string bytes;
  std::vector<char> chunk(1 << 16);
  for (;;) {
    const ssize_t n = read(file, chunk.data(), chunk.size());
    if (n == 0) {
      refuse_utf16(bytes, path == "-" ? where : printable(path, kPathBytes));
      return bytes;
    }
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno(errno, fmt::format("cannot read {}", where));
    bytes.append(chunk.data(), static_cast<size_t>(n));
    if (bytes.size() > kMaxTextBytes)
      fail(ErrorCode::kResource, "{} holds more than {}, the most that is read as text", where,
           format_size(kMaxTextBytes));
  }
}

std::string read_text(const TextInput& input, TextRule rule) {
  if (input.text == "-" && input.file == "-") fail(ErrorCode::kUsage, "-p - and -f - cannot both be stdin");
  if (!input.given() && stdin_is_terminal())
    fail(ErrorCode::kUsage, "no text: give -p TEXT, -f FILE or pipe it in");
  const auto read_person = [rule](const std::string& path) {
    std::string bytes = read_bytes(path);
    if (rule == TextRule::kExact) return bytes;
    if (skip_byte_order_mark(&bytes))
      print_notice("{}: the byte order mark at its start is skipped",
                   path == "-" ? "stdin" : printable(path, kPathBytes));
    return rule == TextRule::kMessage ? without_returns(bytes) : bytes;
  };
  std::string text;
  if (!input.given() || input.text == "-") {
    text = read_person("-");
    if (rule == TextRule::kMessage && !input.given()) drop_newline(rule, &text);
  } else if (input.text) {
    text = input.escapes ? unescape("--prompt", *input.text) : *input.text;
  }
  if (!input.file) return text;
  std::string content = read_person(*input.file);
  drop_newline(rule, &content);
  return text + content;
}

std::string unescape(std::string_view what, std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\') {
      out += text[i];
      continue;
    }
    const char kind = ++i < text.size() ? text[i] : '\0';
    uint8_t byte = 0;
    const char* const digits = text.data() + i + 1;
    if (kind == 'n') {
      out += '\n';
    } else if (kind == 't') {
      out += '\t';
    } else if (kind == '\\') {
      out += '\\';
    } else if (kind == 'x' && i + 2 < text.size() &&
               std::from_chars(digits, digits + 2, byte, 16).ptr == digits + 2) {
      out += static_cast<char>(byte);
      i += 2;
    } else {
      fail(ErrorCode::kUsage, "{}: '\\{}' is no escape: with -e there are \\n, \\t, \\\\ and \\xNN", what,
           printable(text.substr(i, 3)));
    }
  }
  return out;
}

void refuse_utf16(std::string_view text, std::string_view where) {
  if (begins_like_utf16(text)) fail(ErrorCode::kMalformed, "{}: {}", where, byte_order_problem(text));
}

bool stdin_holds_a_text() {
  struct stat status {};
  const bool is_file = fstat(STDIN_FILENO, &status) == 0 && S_ISREG(status.st_mode);
  return is_file && lseek(STDIN_FILENO, 0, SEEK_CUR) < status.st_size;
}

std::vector<TokenId> read_ids(const std::string& path, size_t least) {
  const std::string where = printable(path, kPathBytes);
  const Json json = parse_json(read_bytes(path), where);
  const Json* list = json.as_object() != nullptr ? json.find("ids") : &json;
  const Json::Array* numbers = list != nullptr ? list->as_array() : nullptr;
  if (numbers == nullptr)
    fail(ErrorCode::kMalformed, "{}: expected a JSON list of token ids, or an object with one as ids", where);
  std::vector<TokenId> ids;
  for (const Json& number : *numbers) {
    const uint64_t* id = number.as_uint();
    if (id == nullptr || *id > static_cast<uint64_t>(std::numeric_limits<TokenId>::max()))
      fail(ErrorCode::kMalformed, "{}: element {} is {}: expected a token id", where, ids.size(),
           number.describe());
    ids.push_back(static_cast<TokenId>(*id));
  }
  if (ids.size() < least)
    fail(ErrorCode::kMalformed, "{}: expected at least {} ids, found {}", where, least, ids.size());
  return ids;
}

void require_ids_of(const Model& model, const std::string& path, std::span<const TokenId> ids) {
  const uint32_t vocab_size = model.hparams().vocab_size;
  for (size_t i = 0; i < ids.size(); ++i)
    if (static_cast<uint32_t>(ids[i]) >= vocab_size)
      fail(ErrorCode::kMalformed, "{}: element {}: token id {}: expected 0 to {}",
           printable(path, kPathBytes), i, ids[i], vocab_size - 1);
}

bool is_same_file(const std::string& a, const std::string& b) {
  std::error_code ignored;
  return std::filesystem::equivalent(a, b, ignored);
}

void refuse_hopeless_text(const std::string& text, const Model& model) {
  const size_t longest = std::max<size_t>(model.tokenizer().longest_piece_bytes(), 1);
  const uint64_t at_least = text.size() / longest;
  if (at_least >= model.context())
    fail(ErrorCode::kResource, "the text has at least {} tokens and the context {} ({}); shorten it",
         at_least, model.context(), context_note(model));
}

}  // namespace quern
