# Writes build_info.cc anew when the commit has changed: cmake -D INPUT= -D OUTPUT= -D SOURCE= -D CMAKE_CXX_... -P
# this. At build time, not when configuring: commits come and go without a change to any CMakeLists.txt.
set(QUERN_COMMIT unknown)
find_package(Git QUIET)
if(GIT_FOUND)
  execute_process(COMMAND ${GIT_EXECUTABLE} -C ${SOURCE} rev-parse --short HEAD
    OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
  # Where the source was unpacked inside of another project's repository, the commit is that project's.
  execute_process(COMMAND ${GIT_EXECUTABLE} -C ${SOURCE} rev-parse --show-prefix
    OUTPUT_VARIABLE prefix OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(NOT failed AND prefix STREQUAL "")
    set(QUERN_COMMIT ${commit})
    execute_process(COMMAND ${GIT_EXECUTABLE} -C ${SOURCE} diff --quiet HEAD RESULT_VARIABLE changed ERROR_QUIET)
    if(changed)
      string(APPEND QUERN_COMMIT " with changes")
    endif()
  endif()
endif()
configure_file(${INPUT} ${OUTPUT} @ONLY)
