// What downloads leave behind in place of a file.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace quern {

// When the bytes are what a download leaves in place of a file (a git-lfs pointer, an HTML or other error
// page, nothing but zeros) or a file of another kind that is often taken for a model (safetensors, PyTorch's
// pickles, archives): a sentence that says so and what to do, beginning with "; " so that it can end an error
// message. Empty otherwise.
std::string placeholder_hint(std::span<const uint8_t> bytes);

}  // namespace quern
