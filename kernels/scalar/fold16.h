// fold16 of arithmetic.md, rule 3.
#pragma once

namespace quern::scalar {

// Overwrites lanes.
template <class T>
T fold16(T (&lanes)[16]) noexcept {
  for (int h = 8; h >= 1; h /= 2)
    for (int i = 0; i < h; ++i) lanes[i] = lanes[i] + lanes[i + h];
  return lanes[0];
}

}  // namespace quern::scalar
