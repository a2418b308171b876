// Values that codes of four bits stand for, where they are not equal steps.
#pragma once

#include <cstdint>

namespace quern {

// IQ4_NL and IQ4_XS: formats.md 2.6.
inline constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};

// MXFP4: twice the values of E2M1 (OCP Microscaling Formats (MX) Specification v1.0, section 5.3.3), so that
// they are integers.
inline constexpr int8_t kMxfp4Values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

}  // namespace quern
