// The table of architectures: how a file's name for one becomes a Network.
#pragma once

#include <memory>
#include <span>
#include <string_view>

#include "runtime/hparam_reader.h"
#include "runtime/network.h"

namespace quern {

struct Architecture {
  std::string_view name;  // general.architecture
  // Reads and checks the hyper-parameters. Throws kMalformed naming the key; what changes the mathematics and
  // is not implemented is refused by name.
  std::unique_ptr<Network> (*make)(HParamReader& keys);
};

std::span<const Architecture> architectures() noexcept;
const Architecture* find_architecture(std::string_view name) noexcept;  // null when unknown

}  // namespace quern
