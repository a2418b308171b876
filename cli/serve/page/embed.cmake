# Writes the page of `quern serve`, one HTML file joined of its parts, as an array of bytes:
# cmake -D SOURCE=FOLDER -D OUTPUT=FILE -P this.
function(join placeholder file)
  file(READ ${SOURCE}/${file} text)
  string(STRIP "${text}" text)
  string(REPLACE "@${placeholder}@" "${text}" joined "${page}")
  set(page "${joined}" PARENT_SCOPE)
endfunction()
file(READ ${SOURCE}/index.html page)
join(STYLE page.css)
join(MARKDOWN markdown.js)
join(SCRIPT page.js)

string(HEX "${page}" hex)
string(REGEX REPLACE "(................................)" "\\1\n" lines "${hex}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${lines}")
file(WRITE ${OUTPUT} "// Made by cli/serve/page/embed.cmake.
#include \"cli/serve/page.h\"

namespace quern {
namespace {

constexpr unsigned char kBytes[] = {
${bytes}
};

}  // namespace

const std::string_view kPageHtml(reinterpret_cast<const char*>(kBytes), sizeof kBytes);

}  // namespace quern
")
