// Sizes for people.
#pragma once

#include <cstdint>
#include <string>

namespace quern {

enum class SizeUnit { kBytes, kMiB };

// In the largest binary unit of which there is one, none below `smallest`: "448 bytes", "3.83 GiB"; with kMiB
// "0.02 MiB".
std::string format_size(uint64_t bytes, SizeUnit smallest = SizeUnit::kBytes);

}  // namespace quern
