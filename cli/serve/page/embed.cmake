# Writes the page of `quern serve`, one HTML file joined of its parts, as an array of bytes:
# cmake -D SOURCE=FOLDER -D OUTPUT=FILE -P this.
include(${CMAKE_CURRENT_LIST_DIR}/../../../cmake/embed.cmake)
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
quern_embed("${hex}" cli/serve/page.h kPageHtml ${OUTPUT})
