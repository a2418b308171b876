// Where tests find their data and the program. Paths are compiled into one file, so that objects of tests are
// the same in every folder they are built in; the variables QUERN_TEST_DATA
// and QUERN_UNPACKED_DATA name other folders, where a test runs on a machine that did not build it.
#pragma once

#include <string>
#include <string_view>

namespace quern::test {

// A file or folder of tests/data in the source tree; the folder itself for "".
std::string test_data(std::string_view name);
// The same for what the build has unpacked from archives there.
std::string unpacked_data(std::string_view name);
// The built program; there only where the build has it.
std::string quern_binary();

}  // namespace quern::test
