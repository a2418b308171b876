// The router of a mixture of experts on the CPU (arithmetic.md "Router").
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/device.h"

namespace quern {

// For each of n rows the experts that it goes to, and the same sorted by expert.
class CpuRouting final : public DeviceRouting {
 public:
  CpuRouting(size_t max_rows, size_t experts, size_t used)
      : n_experts(experts),
        n_used(used),
        place(max_rows * used),
        row(max_rows * used),
        expert(max_rows * used),
        weight(max_rows * used),
        begin(experts + 1) {}

  const size_t n_experts, n_used;
  size_t n = 0;                  // rows routed
  std::vector<uint32_t> place;   // [n, n_used] of a row's choices, best first: index in sorted order
  std::vector<uint32_t> row;     // [n * n_used] sorted by expert, then by row: the row
  std::vector<uint32_t> expert;  // [n, n_used]
  std::vector<float> weight;     // [n, n_used]
  std::vector<uint32_t> begin;   // [n_experts + 1] of each expert in sorted order
};

// logits: [n_experts]. bias, factors: the rule's on the host, [n_experts], or null. Writes n_used experts,
// best first, and their weights; the groups that count have as many.
void choose_experts(const RouterRule& rule, const float* logits, const float* bias, const float* factors,
                    size_t n_experts, size_t n_used, uint32_t* experts, float* weights) noexcept;
// Fills place, row and begin from `expert` of n rows.
void sort_by_expert(size_t n, CpuRouting* routing);

}  // namespace quern
