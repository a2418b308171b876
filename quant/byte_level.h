// The alphabet of byte-level BPE: every byte as one printable character, so that a vocabulary of any bytes
// can be written as text. Source: openai/gpt-2 encoder.py, bytes_to_unicode, 2019.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace quern {

// One character a byte: the printable ones of Latin-1 stand for themselves, the rest for U+0100 onwards.
std::string byte_level_spelling(std::string_view bytes);
// The byte of "<0xNN>", two upper-case digits and nothing else (robustness.md R11): the spelling of bytes in
// other alphabets.
std::optional<uint8_t> parse_byte_piece(std::string_view piece);
// The bytes that a text in this alphabet spells; none when it holds another character or malformed UTF-8.
std::optional<std::string> byte_level_bytes(std::string_view spelling);

}  // namespace quern
