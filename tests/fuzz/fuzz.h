// What fuzz targets share: the entry, and what counts as a finding beside a sanitizer's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

#include "quant/error.h"

namespace quern::fuzz {

// Ends the program with what is wrong.
[[noreturn]] inline void found(const std::string& what) {
  std::fprintf(stderr, "finding: %s\n", what.c_str());
  std::abort();
}

// Runs a body on bytes from anywhere: it may throw an Error of these two codes, whose text is one printable
// line, and nothing else.
template <class Body>
void take(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kMalformed && error.code() != ErrorCode::kResource)
      found(std::string("an error of another code: ") + error.what());
    for (const char c : std::string_view(error.what()))
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) found("a control byte in a message");
  } catch (const std::exception& error) {
    found(std::string("an exception of another kind: ") + error.what());
  }
}

inline std::string_view as_text(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace quern::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
