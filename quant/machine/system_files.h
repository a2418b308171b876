// The small text files of /proc, /sys and cgroups. What is missing or cannot be parsed is nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace quern {

// The first line; empty when the file cannot be read.
std::string read_line(const std::string& path);
// The number that the file begins with.
std::optional<uint64_t> read_number(const std::string& path);
// Value of "name <number>" or "name: <number> kB", in bytes, in a file of such lines.
std::optional<uint64_t> read_field(const std::string& path, const std::string& name);

}  // namespace quern
