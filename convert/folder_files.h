// The small files of a checkpoint's folder.
#pragma once

#include <optional>
#include <string>

namespace quern {

// Path of the folder's file of this name; empty when there is none.
std::optional<std::string> find_file(const std::string& folder, const char* name);

}  // namespace quern
