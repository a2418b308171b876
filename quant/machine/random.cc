#include "quant/machine/random.h"

#include <sys/random.h>

#include <cerrno>

#include "quant/error.h"

namespace quern {

void fill_random(std::span<uint8_t> out) {
  while (!out.empty()) {
    const ssize_t n = ::getrandom(out.data(), out.size(), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail_errno(errno, "cannot draw random numbers");
    out = out.subspan(static_cast<size_t>(n));
  }
}

}  // namespace quern
