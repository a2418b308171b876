#include "runtime/template/clock.h"

#include <fmt/format.h>

#include <charconv>

namespace quern {
namespace {

std::optional<int> parse_digits(std::string_view text) {
  int value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + (c - '0');
  }
  return value;
}

}  // namespace

std::optional<Clock> Clock::parse(std::string_view text) {
  const bool has_time = text.size() == 19;
  if ((!has_time && text.size() != 10) || text[4] != '-' || text[7] != '-') return std::nullopt;
  if (has_time && (text[10] != 'T' || text[13] != ':' || text[16] != ':')) return std::nullopt;
  const auto field = [&](size_t at, size_t n) {
    return has_time || at < 10 ? parse_digits(text.substr(at, n)) : 0;
  };
  const auto year = field(0, 4), month = field(5, 2), day = field(8, 2);
  const auto hour = field(11, 2), minute = field(14, 2), second = field(17, 2);
  if (!year || !month || !day || !hour || !minute || !second) return std::nullopt;
  std::tm time{};
  time.tm_year = *year - 1900;
  time.tm_mon = *month - 1;
  time.tm_mday = *day;
  time.tm_hour = *hour;
  time.tm_min = *minute;
  time.tm_sec = *second;
  std::tm normal = time;
  timegm(&normal);  // a day that the month lacks comes out as another one
  const bool same = normal.tm_mon == time.tm_mon && normal.tm_mday == time.tm_mday &&
                    normal.tm_hour == time.tm_hour && normal.tm_min == time.tm_min &&
                    normal.tm_sec == time.tm_sec;
  if (!same) return std::nullopt;
  Clock clock;
  clock.pinned_ = normal;
  return clock;
}

std::string Clock::format(std::string_view format) const {
  timespec now{};
  std::tm time{};
  if (pinned_) {
    time = *pinned_;
  } else {
    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &time);
  }
  std::string out;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 == format.size()) {
      out += format[i];
      continue;
    }
    const size_t begin = i++;
    const bool has_flag =
        i + 1 < format.size() && std::string_view("-_0^#").find(format[i]) != std::string_view::npos;
    if (has_flag) ++i;
    const char directive = format[i];
    // A time without a zone has neither a name nor an offset.
    if (directive == 'z' || directive == 'Z') continue;
    if (directive == 'f') {
      out += fmt::format("{:06}", now.tv_nsec / 1000);
    } else if (std::string_view("aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyY%").find(directive) !=
               std::string_view::npos) {
      const std::string one(format.substr(begin, i + 1 - begin));
      char text[256];
      out.append(text, std::strftime(text, sizeof text, one.c_str(), &time));
    } else {
      out += format.substr(begin, i + 1 - begin);
    }
  }
  return out;
}

}  // namespace quern
