#include "quant/download_check.h"

#include <algorithm>
#include <string_view>

namespace quern {

std::string placeholder_hint(std::span<const uint8_t> bytes) {
  std::string start(bytes.begin(), bytes.begin() + std::min<size_t>(bytes.size(), 64));
  std::transform(start.begin(), start.end(), start.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  if (start.starts_with("version https://git-lfs")) {
    return "; this is a git-lfs pointer, not the file itself: run 'git lfs pull' in its folder";
  }
  const size_t text = start.find_first_not_of(" \t\r\n");
  if (text == start.npos) return "";
  const std::string_view body = std::string_view(start).substr(text);
  if (body.starts_with("<!doctype") || body.starts_with("<html") || body.starts_with("<?xml")) {
    return "; this is an HTML page, perhaps an error page saved under the file's name: download it again";
  }
  return "";
}

}  // namespace quern
