#include "runtime/placement.h"

#include <algorithm>
#include <charconv>

#include "quant/checked_math.h"
#include "quant/error.h"
#include "quant/format_size.h"

namespace quern {
namespace {

uint64_t saturating_add(uint64_t a, uint64_t b) { return checked_add(a, b, &a) ? a : UINT64_MAX; }

uint64_t room_of(const GpuRoom& gpu) { return gpu.free - std::min(gpu.free, gpu.fixed); }

// Deals layers `moved`, ascending, and the output to the GPUs.
Placement deal(std::span<const LayerBytes> layers, const LayerBytes& output, std::span<const GpuRoom> gpus,
               std::span<const size_t> moved) {
  Placement placement;
  placement.places.layers.assign(layers.size(), 0);
  placement.taken.resize(gpus.size());
  placement.n_moved = moved.size();
  if (moved.empty()) return placement;
  uint64_t room_left = 0;
  for (const GpuRoom& gpu : gpus) room_left = saturating_add(room_left, room_of(gpu));
  size_t next = 0;
  for (size_t g = 0; g < gpus.size() && next < moved.size(); ++g) {
    Placement::Taken& taken = placement.taken[g];
    const bool is_last = g + 1 == gpus.size();
    const size_t left = moved.size() - next;
    const double share =
        room_left == 0 ? 1 : static_cast<double>(room_of(gpus[g])) / static_cast<double>(room_left);
    const size_t target =
        is_last ? left : std::min(left, static_cast<size_t>(static_cast<double>(left) * share + 0.5));
    room_left -= std::min(room_left, room_of(gpus[g]));
    for (size_t i = 0; i < target; ++i) {
      const LayerBytes& layer = layers[moved[next]];
      const uint64_t weights = saturating_add(taken.weights, layer.weights);
      const uint64_t cache = saturating_add(taken.cache, layer.cache);
      // The output stands behind the last layer, on the same GPU.
      const bool ends = next + 1 == moved.size();
      const uint64_t all =
          saturating_add(saturating_add(weights, cache), ends && output.can_move ? output.weights : 0);
      if (all > room_of(gpus[g]) || all == UINT64_MAX) {  // the largest number: more than can be counted
        if (!is_last) break;                              // the next one may have room
        placement.fits = false;
      }
      taken.n_layers += 1;
      taken.weights = weights;
      taken.cache = cache;
      taken.fixed = gpus[g].fixed;
      placement.places.layers[moved[next++]] = g + 1;
      if (!ends || !output.can_move) continue;
      taken.weights = saturating_add(taken.weights, output.weights);
      placement.places.output = g + 1;
    }
  }
  return placement;
}

}  // namespace

Placement place_layers(std::span<const LayerBytes> layers, const LayerBytes& output,
                       std::span<const GpuRoom> gpus, std::optional<uint64_t> n_wanted) {
  std::vector<size_t> movable;
  for (size_t i = 0; i < layers.size(); ++i)
    if (layers[i].can_move && !gpus.empty()) movable.push_back(i);
  const auto last = [&](size_t n) { return std::span<const size_t>(movable).last(n); };
  if (n_wanted) return deal(layers, output, gpus, last(std::min<uint64_t>(*n_wanted, movable.size())));
  for (size_t n = movable.size(); n > 0; --n)
    if (Placement placement = deal(layers, output, gpus, last(n)); placement.fits) return placement;
  return deal(layers, output, gpus, {});
}

std::string placement_table(const Placement& placement, std::span<const GpuRoom> gpus,
                            std::span<const std::string> names) {
  std::string table = fmt::format("{:<24} {:>6} {:>12} {:>12} {:>12} {:>12} {:>12}", "GPU", "layers",
                                  "weights", "cache", "buffers", "needed", "free");
  for (size_t g = 0; g < gpus.size(); ++g) {
    const Placement::Taken& t = placement.taken[g];
    table += fmt::format("\n{:<24} {:>6} {:>12} {:>12} {:>12} {:>12} {:>12}", names[g], t.n_layers,
                         format_size(t.weights), format_size(t.cache), format_size(t.fixed),
                         format_size(t.total()), format_size(gpus[g].free));
  }
  return table;
}

std::optional<uint64_t> parse_gpu_layers(std::string_view option, std::string_view text) {
  if (text == "auto") return std::nullopt;
  if (text == "all") return UINT64_MAX;
  uint64_t n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (error != std::errc() || end != text.data() + text.size())
    fail(ErrorCode::kUsage, "{}: expected a number of layers, auto or all, found '{}'", option,
         printable(text));
  return n;
}

}  // namespace quern
