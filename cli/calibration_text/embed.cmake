# Writes the text of an archive as an array of bytes: cmake -D ARCHIVE=FILE -D OUTPUT=FILE -P this.
get_filename_component(folder ${OUTPUT} DIRECTORY)
execute_process(COMMAND ${CMAKE_COMMAND} -E tar xf ${ARCHIVE} WORKING_DIRECTORY ${folder} COMMAND_ERROR_IS_FATAL ANY)
file(READ ${folder}/calibration_text.txt hex HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
file(WRITE ${OUTPUT} "// Made by cli/calibration_text/embed.cmake.
#include \"cli/calibrated_conversion.h\"

namespace quern {
namespace {

constexpr unsigned char kBytes[] = {
${bytes}
};

}  // namespace

const std::string_view kCalibrationText(reinterpret_cast<const char*>(kBytes), sizeof kBytes);

}  // namespace quern
")
