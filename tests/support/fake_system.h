// A file system of a test's own below a folder, for what reads /proc, /sys and cgroups.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "tests/support/temp_folder.h"

namespace quern::test {

class FakeSystem {
 public:
  // path: absolute, as if the folder were the root.
  void write(const std::string& path, std::string_view content) const {
    const std::filesystem::path full = root() + path;
    std::filesystem::create_directories(full.parent_path());
    std::ofstream(full) << content;
  }
  std::string root() const { return folder_.path().string(); }

 private:
  TempFolder folder_;
};

}  // namespace quern::test
