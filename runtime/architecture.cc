#include "runtime/architecture.h"

#include "runtime/arch/llama.h"

namespace quern {

std::span<const Architecture> architectures() noexcept {
  static const Architecture table[] = {
      kLlamaArchitecture,
  };
  return table;
}

const Architecture* find_architecture(std::string_view name) noexcept {
  for (const Architecture& row : architectures())
    if (row.name == name) return &row;
  return nullptr;
}

}  // namespace quern
