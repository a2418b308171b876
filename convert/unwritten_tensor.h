// A tensor of a checkpoint that is not in the file that is written.
#pragma once

#include <string>

namespace quern {

struct UnwrittenTensor {
  std::string name, file;  // file: its name in the folder
  std::string reason;      // "computed, not stored"
};

}  // namespace quern
