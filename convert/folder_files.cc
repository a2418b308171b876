#include "convert/folder_files.h"

#include <filesystem>

#include "quant/error.h"

namespace quern {

std::optional<std::string> find_file(const std::string& folder, const char* name) {
  const std::filesystem::path path = std::filesystem::path(folder) / name;
  std::error_code ignored;
  if (std::filesystem::exists(path, ignored)) return path.string();
  if (std::filesystem::is_symlink(path, ignored))
    fail(ErrorCode::kMalformed, "{}: {}", printable(path.string(), kPathBytes),
         describe_missing_file(path.string()));
  return std::nullopt;
}

std::string describe_missing_file(const std::string& path) {
  std::error_code ignored;
  if (!std::filesystem::is_symlink(path, ignored)) return "file is missing: download it";
  return fmt::format("is a link to {}, which is not there: download it again",
                     printable(std::filesystem::read_symlink(path, ignored).string(), kPathBytes));
}

}  // namespace quern
