// A folder of a test's own, gone with everything in it at the end of the scope.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace quern::test {

class TempFolder {
 public:
  TempFolder();
  ~TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::string file(std::string_view name) const { return (path_ / name).string(); }
  // Writes a file into the folder and returns its path.
  std::string write(std::string_view name, std::string_view content) const;
  // Names of everything in the folder, sorted.
  std::vector<std::string> names() const;

 private:
  std::filesystem::path path_;
};

// Whole content; throws std::runtime_error when the file cannot be read.
std::string read_file(const std::filesystem::path& path);

}  // namespace quern::test
