#include "tests/support/paths.h"

#include <cstdlib>

namespace quern::test {
namespace {

std::string below(const char* variable, const char* compiled_in, std::string_view name) {
  const char* const folder = std::getenv(variable);
  std::string path = folder != nullptr ? folder : compiled_in;
  if (!name.empty()) path.append("/").append(name);
  return path;
}

}  // namespace

std::string test_data(std::string_view name) { return below("QUERN_TEST_DATA", QUERN_TEST_DATA, name); }
std::string unpacked_data(std::string_view name) {
  return below("QUERN_UNPACKED_DATA", QUERN_UNPACKED_DATA, name);
}
std::string quern_binary() { return QUERN_BINARY; }

}  // namespace quern::test
