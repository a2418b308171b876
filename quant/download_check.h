// What downloads leave behind in place of a file.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace quern {

// When the bytes are a git-lfs pointer or an HTML page: a sentence that says so and what to do, beginning
// with "; " so that it can end an error message. Empty otherwise.
std::string placeholder_hint(std::span<const uint8_t> bytes);

}  // namespace quern
