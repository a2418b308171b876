// GGUF files written field by field, so that tests can write the wrong ones.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "quant/error.h"

namespace quern::test {

class FileBytes {
 public:
  template <class T>
  FileBytes& number(T value) {
    std::memcpy(grow(sizeof value), &value, sizeof value);
    return *this;
  }
  FileBytes& u8(uint8_t value) { return number(value); }
  FileBytes& u32(uint32_t value) { return number(value); }
  FileBytes& u64(uint64_t value) { return number(value); }
  FileBytes& raw(std::string_view text) {
    std::copy(text.begin(), text.end(), grow(text.size()));
    return *this;
  }
  // Length, then the bytes.
  FileBytes& text(std::string_view value) { return u64(value.size()).raw(value); }
  FileBytes& zeros(size_t n) {
    grow(n);
    return *this;
  }
  FileBytes& pad(size_t alignment) { return zeros((alignment - bytes_.size() % alignment) % alignment); }

  FileBytes& header(uint64_t n_tensors, uint64_t n_keys, uint32_t version = 3) {
    return raw("GGUF").u32(version).u64(n_tensors).u64(n_keys);
  }
  // ne: innermost first, as the file has it.
  FileBytes& tensor(std::string_view name, const std::vector<uint64_t>& ne, uint32_t type, uint64_t offset) {
    text(name).u32(static_cast<uint32_t>(ne.size()));
    for (const uint64_t n : ne) u64(n);
    return u32(type).u64(offset);
  }

  size_t size() const { return bytes_.size(); }
  // Exactly as large as the file: a sanitizer sees a read of one byte more.
  const std::vector<uint8_t>& bytes() const { return bytes_; }

 private:
  // `n` more bytes, zero. Not inlined: GCC 12 then sees overflows that are not there.
  [[gnu::noinline]] uint8_t* grow(size_t n) {
    bytes_.resize(bytes_.size() + n);
    return bytes_.data() + bytes_.size() - n;
  }

  std::vector<uint8_t> bytes_;
};

// Runs `action`, which must throw an Error of this code whose message contains `part`.
inline void expect_error(ErrorCode code, std::string_view part, const std::function<void()>& action) {
  try {
    action();
    ADD_FAILURE() << "nothing was thrown; expected: " << part;
  } catch (const Error& error) {
    EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(code)) << error.what();
    EXPECT_NE(std::string_view(error.what()).find(part), std::string_view::npos)
        << "message: " << error.what() << "\nexpected in it: " << part;
  }
}

}  // namespace quern::test
