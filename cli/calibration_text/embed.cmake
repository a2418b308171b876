# The text of an archive as an array of bytes: cmake -D ARCHIVE=FILE -D OUTPUT=FILE -P this.
include(${CMAKE_CURRENT_LIST_DIR}/../../cmake/embed.cmake)
get_filename_component(folder ${OUTPUT} DIRECTORY)
execute_process(COMMAND ${CMAKE_COMMAND} -E tar xf ${ARCHIVE} WORKING_DIRECTORY ${folder} COMMAND_ERROR_IS_FATAL ANY)
file(READ ${folder}/calibration_text.txt hex HEX)
quern_embed("${hex}" cli/calibrated_conversion.h kCalibrationText ${OUTPUT})
