// How fast the disk under a file gives its bytes.
#pragma once

#include <string>

namespace quern {

// Bytes per second, of reads past the page cache (O_DIRECT) in the file's middle, for a third of a second at
// most. 0: not known: the file is shorter than 16 MiB, or its file system cannot be read so.
double disk_read_rate(const std::string& path);

}  // namespace quern
