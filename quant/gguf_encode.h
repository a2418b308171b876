// GGUF's primitives as bytes, for the files that write them.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
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

inline void append_bytes(std::vector<uint8_t>* out, std::span<const uint8_t> bytes) {
  // Not insert(): GCC 12 takes its inlined reallocation for an overflow.
  const size_t at = out->size();
  out->resize(at + bytes.size());
  std::copy(bytes.begin(), bytes.end(), out->begin() + static_cast<std::ptrdiff_t>(at));
}

// u64 length and the bytes, no NUL.
inline void append_string(std::vector<uint8_t>* out, std::string_view text) {
  append_number<uint64_t>(out, text.size());
  append_bytes(out, {reinterpret_cast<const uint8_t*>(text.data()), text.size()});
}

}  // namespace quern
