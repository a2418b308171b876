// Random numbers of the system's, which nobody can guess. Any thread.
#pragma once

#include <cstdint>
#include <span>

namespace quern {

// Fills `out`. Throws kIo where the system has none to give.
void fill_random(std::span<uint8_t> out);

template <class T>
T random_value() {
  T value;
  fill_random({reinterpret_cast<uint8_t*>(&value), sizeof value});
  return value;
}

}  // namespace quern
