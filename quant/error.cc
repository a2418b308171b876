#include "quant/error.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "quant/utf8.h"

namespace quern {
namespace {

// Characters of valid UTF-8 that steer a terminal or change how the text around them reads: controls (C0,
// DEL, C1), line and paragraph separators, and the marks that turn the direction of writing round.
bool misleads(std::string_view character) {
  if (character.size() == 1) return character[0] < 0x20 || character[0] == 0x7F;
  if (character.size() == 2) return character[0] == '\xC2' && static_cast<uint8_t>(character[1]) < 0xA0;
  if (character.size() != 3 || character[0] != '\xE2') return false;
  const auto last = static_cast<uint8_t>(character[2]);
  if (character[1] == '\x80') return last == 0x8E || last == 0x8F || (last >= 0xA8 && last <= 0xAE);
  return character[1] == '\x81' && last >= 0xA6 && last <= 0xA9;
}

}  // namespace

void fail_errno(int error_number, const std::string& message) {
  throw Error(ErrorCode::kIo, message + ": " + std::strerror(error_number));
}

std::string printable(std::string_view text, size_t max_bytes) {
  std::string out;
  size_t position = 0;
  while (position < text.size()) {
    const size_t length = utf8_length(text.substr(position));
    const std::string_view character = text.substr(position, length == 0 ? 1 : length);
    if (position + character.size() > max_bytes) return out + "...";
    // A backslash is escaped too: otherwise the four characters \x1B would look like an escaped byte.
    if (length == 0 || misleads(character) || character == "\\") {
      for (const char c : character) out += fmt::format("\\x{:02X}", static_cast<uint8_t>(c));
    } else {
      out += character;
    }
    position += character.size();
  }
  return out;
}

void check_failed(const char* condition, const char* file, int line) noexcept {
  std::fprintf(stderr, "quern: internal error: %s:%d: %s\n", file, line, condition);
  std::abort();
}

}  // namespace quern
