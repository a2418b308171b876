// GGUF's primitives as bytes, for the files that write them.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>
#include <vector>

namespace quern {

static_assert(std::endian::native == std::endian::little, "GGUF's numbers are copied, not converted");

template <class T>
void append_number(std::vector<uint8_t>* out, T value) {
  static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>);
  const size_t at = out->size();
  out->resize(at + sizeof value);
  std::memcpy(out->data() + at, &value, sizeof value);
}

// u64 length and the bytes, no NUL.
inline void append_string(std::vector<uint8_t>* out, std::string_view text) {
  append_number<uint64_t>(out, text.size());
  out->insert(out->end(), text.begin(), text.end());
}

}  // namespace quern
