# For aarch64 with Debian's cross compiler, tests under qemu:
#
#   cmake --preset aarch64        (packages: the group `aarch64` of .ci/packages.sh)
#
# No package of that architecture is installed. What quern needs comes as headers (fmt, nlohmann-json) or as source
# (GoogleTest); the files beside this one stand in for their CMake packages. There is no sentencepiece, no PCRE2 and
# no libedit, so that the preset leaves out what needs them.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)  # GoogleTest asks for one
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64-static)
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)
execute_process(COMMAND aarch64-linux-gnu-g++ -print-file-name=libgomp.a OUTPUT_VARIABLE gomp
                OUTPUT_STRIP_TRAILING_WHITESPACE)
set(OpenMP_gomp_LIBRARY ${gomp} CACHE FILEPATH "FindOpenMP would take the shared one" FORCE)

set(CMAKE_FIND_PACKAGE_PREFER_CONFIG ON)
set(fmt_DIR ${CMAKE_CURRENT_LIST_DIR})
set(nlohmann_json_DIR ${CMAKE_CURRENT_LIST_DIR})
set(GTest_DIR ${CMAKE_CURRENT_LIST_DIR})
