// Which layers of a model go to which GPU: a pure function of exact sizes.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/split_device.h"

namespace quern {

// Bytes that a layer takes on a GPU: its matrices and vectors, and its part of all sequences' caches.
struct LayerBytes {
  uint64_t weights = 0, cache = 0;
  bool can_move = true;  // the GPU has kernels for all of it
};

struct GpuRoom {
  uint64_t free = 0;   // bytes that may be taken
  uint64_t fixed = 0;  // buffers and scratch, once a layer is there
};

// The last n_wanted of the layers that can move, or as many of these as fit; the output goes behind them
// where it can. GPUs take layers in order, each in proportion to its room. A layer's cache goes with it.
struct Placement {
  LayerPlaces places;
  size_t n_moved = 0;  // layers
  // Of each GPU, in all.
  struct Taken {
    size_t n_layers = 0;
    uint64_t weights = 0, cache = 0, fixed = 0;
    uint64_t total() const { return weights + cache + fixed; }
  };
  std::vector<Taken> taken;
  bool fits = true;  // false: the number that was asked for does not; the rest shows what it would take
};

// n_wanted: nothing for as many as fit.
Placement place_layers(std::span<const LayerBytes> layers, const LayerBytes& output,
                       std::span<const GpuRoom> gpus, std::optional<uint64_t> n_wanted);

// A line for each GPU and one for the sum, with what was free.
std::string placement_table(const Placement& placement, std::span<const GpuRoom> gpus,
                            std::span<const std::string> names);

// --gpu-layers: "auto" is nothing, "all" more layers than there are. Throws kUsage.
std::optional<uint64_t> parse_gpu_layers(std::string_view option, std::string_view text);

}  // namespace quern
