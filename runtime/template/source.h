// A template's text, and the errors that name a place in it.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <string>
#include <string_view>

#include "quant/error.h"

namespace quern::jinja {

// Line ends are turned into \n and one at the very end is dropped, as jinja2 does.
class Source {
 public:
  // name: what messages call the template, such as its file.
  Source(std::string_view text, std::string name);

  std::string_view text() const { return text_; }
  // Throws kMalformed "<message> (<name>, line N, column N)"; columns count characters, from 1.
  [[noreturn]] void refuse(size_t offset, std::string_view message) const;

 private:
  std::string text_, name_;
};

// Bounds on what a template may take (all of them end in Source::refuse).
inline constexpr size_t kMaxTemplateBytes = size_t{4} << 20;
inline constexpr int64_t kMaxSteps = 10'000'000;
inline constexpr int kMaxNesting = 100;                    // of expressions, statements, calls and values
inline constexpr size_t kMaxTextBytes = size_t{16} << 20;  // of the output, and of any one string

}  // namespace quern::jinja
