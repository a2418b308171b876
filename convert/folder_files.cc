#include "convert/folder_files.h"

#include <filesystem>

namespace quern {

std::optional<std::string> find_file(const std::string& folder, const char* name) {
  const std::filesystem::path path = std::filesystem::path(folder) / name;
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return std::nullopt;
  return path.string();
}

}  // namespace quern
