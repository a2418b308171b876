// Text that a command works on: -p TEXT, -f FILE, both, or stdin.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/arguments.h"
#include "quant/vocabulary.h"
#include "runtime/tokenizer/tokenizer.h"

namespace quern {

class Model;

struct TextInput {
  std::optional<std::string> text;
  std::optional<std::string> file;
  bool escapes = false;  // -e: of -p, and of what else the command applies unescape() to

  bool given() const { return text || file; }
};

// Declares -p, -f and -e; escapes_of: which options' texts -e is about, for the help.
void add_text_input(Arguments& arguments, TextInput* input, std::string_view escapes_of);
// Declares --parse-special, for raw text; what is said in a conversation spells no token.
void add_parse_special(Arguments& arguments, bool* parse_special);
// Which tokens the text can spell (formats.md 3.6).
TextRole role_of(bool parse_special);

// How a file's bytes become a text. Text that begins like UTF-16 (FF FE or FE FF) is refused whatever the
// rule.
enum class TextRule {
  kExact,    // every byte but one newline at the end: what is measured or counted
  kPrompt,   // and a file's "\r\n" goes like "\n", a byte order mark at the start is skipped, with a notice
  kMessage,  // and the "\r" before every newline goes: lines that a person wrote
};

// -p (its escapes resolved with -e), then -f, which has a newline at its end dropped (editors put one there);
// neither: all of stdin, its last newline included, but of a message. "-p -" and "-f -" are stdin. Throws
// kUsage when none is given and stdin is a terminal; kIo for what cannot be read; kMalformed for UTF-16;
// kResource beyond kMaxTextBytes.
std::string read_text(const TextInput& input, TextRule rule);
inline constexpr uint64_t kMaxTextBytes = 256u << 20;

// "\n", "\t", "\\" and "\xNN" as the bytes that they stand for. Throws kUsage "<what>: ..." for others.
std::string unescape(std::string_view what, std::string_view text);

// kMalformed "<where>: ..." for what begins with UTF-16's byte order mark.
void refuse_utf16(std::string_view text, std::string_view where);

// Whether stdin is a regular file with something left to read, which a user may have meant to be read.
bool stdin_holds_a_text();

// The bytes of a regular file, a pipe, /dev/null (none) or, with "-", of stdin: a text, a template or JSON.
// Same errors.
std::string read_bytes(const std::string& path);

// Token ids of a file: a JSON list of integers, or an object with such a list as its "ids". kMalformed for
// anything else and for fewer than `least`.
std::vector<TokenId> read_ids(const std::string& path, size_t least);
// kMalformed when one is not in the model's vocabulary.
void require_ids_of(const Model& model, const std::string& path, std::span<const TokenId> ids);

// Do two paths name one file? False where one does not exist. Ask before writing beside inputs that are
// mapped.
bool is_same_file(const std::string& a, const std::string& b);

// kResource when `text` cannot fit the context whatever its tokens are: no token is longer than the longest
// piece. Saves tokenizing what would be refused afterwards.
void refuse_hopeless_text(const std::string& text, const Model& model);

}  // namespace quern
