// Text that a command works on: -p TEXT, -f FILE or stdin.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "cli/arguments.h"

namespace quern {

class Tokenizer;

struct TextInput {
  std::optional<std::string> text;
  std::optional<std::string> file;

  bool given() const { return text || file; }
};

// Declares -p and -f.
void add_text_input(Arguments& arguments, TextInput* input);

// -p as it is; -f with one trailing newline dropped (editors put one there); otherwise all of stdin, raw.
// Throws kUsage when more than one is given, or none and stdin is a terminal; kIo for what cannot be read;
// kResource beyond kMaxTextBytes.
std::string read_text(const TextInput& input);
inline constexpr uint64_t kMaxTextBytes = 256u << 20;

// The bytes of a regular file or, with "-", of stdin. Same errors.
std::string read_bytes(const std::string& path);

// Do two paths name one file? False where one does not exist. Ask before writing beside inputs that are
// mapped.
bool is_same_file(const std::string& a, const std::string& b);

// kResource when `text` cannot fit the context whatever its tokens are: no token is longer than the longest
// piece. Saves tokenizing what would be refused afterwards.
void refuse_hopeless_text(const std::string& text, const Tokenizer& tokenizer, uint64_t context);

}  // namespace quern
