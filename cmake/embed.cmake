# quern_embed(HEX HEADER NAME OUTPUT): a source file that holds bytes, given as hexadecimal digits, as the
# std::string_view NAME that HEADER declares. For scripts (cmake -P), which include this.
function(quern_embed hex header name output)
  string(REGEX REPLACE "(................................)" "\\1\n" lines "${hex}")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${lines}")
  file(WRITE ${output} "// Made by cmake/embed.cmake.
#include \"${header}\"

namespace quern {
namespace {

constexpr unsigned char kBytes[] = {
${bytes}
};

}  // namespace

const std::string_view ${name}(reinterpret_cast<const char*>(kBytes), sizeof kBytes);

}  // namespace quern
")
endfunction()
