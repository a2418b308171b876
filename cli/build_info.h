// What this build was made of and by. Written by the build (build_info.cc.in).
#pragma once

#include <string_view>

namespace quern {

extern const std::string_view kBuildCommit;    // "1a2b3c4", "1a2b3c4 with changes", "unknown" outside of git
extern const std::string_view kBuildCompiler;  // "GNU 12.2.0"

}  // namespace quern
