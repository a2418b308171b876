// Paths in commands that a message proposes.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

#include "quant/error.h"

namespace quern {

// A path as it is typed at a shell's prompt: in quotes where the shell would otherwise cut or change it.
inline std::string shell_word(std::string_view path) {
  std::string shown = printable(path, kPathBytes);
  const auto is_plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           static_cast<unsigned char>(c) >= 0x80 ||
           std::string_view("_./+:=@%,-").find(c) != std::string_view::npos;
  };
  if (!shown.empty() && std::all_of(shown.begin(), shown.end(), is_plain)) return shown;
  std::string quoted = "'";
  for (const char c : shown) c == '\'' ? quoted += "'\\''" : quoted += c;
  return quoted + "'";
}

}  // namespace quern
