// The time that strftime_now shows.
#pragma once

#include <ctime>
#include <optional>
#include <string>
#include <string_view>

namespace quern {

// A moment, broken down: now in local time, or pinned, in UTC.
class Clock {
 public:
  Clock() = default;  // now, whenever it is asked
  // "2026-11-29" or "2026-11-29T12:34:56"; absent when the text is neither.
  static std::optional<Clock> parse(std::string_view text);

  // datetime.strftime of Python, in the C locale; directives that it does not have stay as they are.
  std::string format(std::string_view format) const;

 private:
  std::optional<std::tm> pinned_;
};

}  // namespace quern
