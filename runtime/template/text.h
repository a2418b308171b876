// Text that knows which of its bytes came from the template and which from a message. Only the former may
// become special tokens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "quant/utf8.h"

namespace quern::jinja {

enum class Origin : uint8_t { kMessage, kTemplate };

// UTF-8; a malformed byte counts as one character.
class Text {
 public:
  // Bytes of one origin; neighbours differ.
  struct Run {
    size_t end;  // exclusive
    Origin origin;
  };

  Text() = default;
  Text(std::string bytes, Origin origin) : bytes_(std::move(bytes)), origin_(origin) {}

  std::string_view bytes() const { return bytes_; }
  const std::string& string() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  size_t n_runs() const { return runs_.empty() ? 1 : runs_.size(); }
  Origin origin_at(size_t byte) const;

  void append(std::string_view bytes, Origin origin);
  void append(const Text& other) { append(other, 0, other.size()); }
  void append(const Text& other, size_t begin, size_t end);  // bytes [begin, end) of `other`
  Text part(size_t begin, size_t end) const;

  // Calls each(bytes, origin) for the stretches of [begin, end) that have one origin, in order.
  template <class Each>
  void for_each_run(size_t begin, size_t end, const Each& each) const {
    if (runs_.empty()) {
      if (begin < end) each(bytes().substr(begin, end - begin), origin_);
      return;
    }
    for (size_t i = first_run(begin); begin < end; ++i) {
      const size_t stop = runs_[i].end < end ? runs_[i].end : end;
      each(bytes().substr(begin, stop - begin), runs_[i].origin);
      begin = stop;
    }
  }

 private:
  size_t first_run(size_t byte) const;  // the run that holds the byte

  std::string bytes_;
  std::vector<Run> runs_;              // empty: all bytes are of origin_
  Origin origin_ = Origin::kTemplate;  // without runs
};

// ---- characters ----

// Bytes of the character at `at`, which is inside the text; at least 1.
size_t char_bytes(std::string_view text, size_t at) noexcept;
size_t count_chars(std::string_view text) noexcept;
// Byte where character `index` begins; text.size() when there is none.
size_t byte_of_char(std::string_view text, size_t index) noexcept;

}  // namespace quern::jinja
