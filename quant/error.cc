#include "quant/error.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace quern {

void fail_errno(int error_number, const std::string& message) {
  throw Error(ErrorCode::kIo, message + ": " + std::strerror(error_number));
}

void check_failed(const char* condition, const char* file, int line) noexcept {
  std::fprintf(stderr, "quern: internal error: %s:%d: %s\n", file, line, condition);
  std::abort();
}

}  // namespace quern
