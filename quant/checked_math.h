// Size arithmetic on numbers that come from files: true when the result fits, false on overflow.
#pragma once

#include <cstdint>

namespace quern {

[[nodiscard]] inline bool checked_add(uint64_t a, uint64_t b, uint64_t* out) {
  return !__builtin_add_overflow(a, b, out);
}

[[nodiscard]] inline bool checked_mul(uint64_t a, uint64_t b, uint64_t* out) {
  return !__builtin_mul_overflow(a, b, out);
}

// The smallest multiple of `alignment` (a power of two) that is >= a.
[[nodiscard]] inline bool checked_align(uint64_t a, uint64_t alignment, uint64_t* out) {
  if (!checked_add(a, alignment - 1, out)) return false;
  *out &= ~(alignment - 1);
  return true;
}

}  // namespace quern
