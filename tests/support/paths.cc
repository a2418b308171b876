#include "tests/support/paths.h"

namespace quern::test {
namespace {

std::string below(const char* folder, std::string_view name) {
  std::string path = folder;
  if (!name.empty()) path.append("/").append(name);
  return path;
}

}  // namespace

std::string test_data(std::string_view name) { return below(QUERN_TEST_DATA, name); }
std::string unpacked_data(std::string_view name) { return below(QUERN_UNPACKED_DATA, name); }
std::string quern_binary() { return QUERN_BINARY; }

}  // namespace quern::test
