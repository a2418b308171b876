// The small files of a checkpoint's folder.
#pragma once

#include <optional>
#include <string>

namespace quern {

// Path of the folder's file of this name; empty when there is none. Throws kMalformed for a link that leads
// nowhere: caches that lost a part have those, and without a file's statements it is another model.
std::optional<std::string> find_file(const std::string& folder, const char* name);

// That the file is missing, or where a link points to that leads nowhere, and what to do.
std::string describe_missing_file(const std::string& path);

}  // namespace quern
