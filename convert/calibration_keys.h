// Keys of a file's metadata that say how codes were chosen on a text (runtime/calibration/).
#pragma once

#include <string_view>

namespace quern::calibration_keys {

inline constexpr std::string_view kMethod = "quern.calibration.method";
inline constexpr std::string_view kTextHash = "quern.calibration.text_xxh3";
inline constexpr std::string_view kTokens = "quern.calibration.tokens";
inline constexpr std::string_view kStrength = "quern.calibration.strength";
inline constexpr std::string_view kDamping = "quern.calibration.damping";

inline constexpr std::string_view kAll[] = {kMethod, kTextHash, kTokens, kStrength, kDamping};

}  // namespace quern::calibration_keys
