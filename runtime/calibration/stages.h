// Which matrices of a layer share an input, in the order in which they are multiplied.
#pragma once

#include <span>
#include <string_view>

namespace quern {

struct CalibrationStage {
  std::span<const std::string_view> matrices;  // names behind "blk.N."
};

struct ArchitectureStages {
  std::string_view architecture;
  std::span<const CalibrationStage> stages;
};

std::span<const ArchitectureStages> architecture_stages() noexcept;

}  // namespace quern
