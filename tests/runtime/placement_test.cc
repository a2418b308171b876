// Which layers go to which GPU, over tables of sizes.
#include "runtime/placement.h"

#include <gtest/gtest.h>

#include "quant/error.h"

namespace quern {
namespace {

struct Case {
  const char* what;
  std::vector<LayerBytes> layers;
  LayerBytes output;
  std::vector<GpuRoom> gpus;
  std::optional<uint64_t> wanted;
  std::vector<size_t> places;
  size_t output_place;
  bool fits = true;
};

std::vector<LayerBytes> same(size_t n, uint64_t weights, uint64_t cache) {
  return std::vector<LayerBytes>(n, {weights, cache, true});
}

constexpr uint64_t kAll = UINT64_MAX;

std::vector<Case> cases() {
  std::vector<LayerBytes> mixed = same(5, 10, 0), growing = same(4, 0, 0);
  mixed[3].can_move = false;
  for (size_t i = 0; i < growing.size(); ++i) growing[i].weights = 10 * (i + 1);
  LayerBytes fixed_output{5, 0, false};
  return {
      {"no GPU", same(3, 10, 1), {5}, {}, std::nullopt, {0, 0, 0}, 0},
      {"no GPU, all", same(3, 10, 1), {5}, {}, kAll, {0, 0, 0}, 0},
      {"all fit", same(3, 10, 1), {5}, {{100, 20}}, std::nullopt, {1, 1, 1}, 1},
      {"all fit to the byte", same(3, 10, 1), {5}, {{58, 20}}, std::nullopt, {1, 1, 1}, 1},
      {"a byte short", same(3, 10, 1), {5}, {{57, 20}}, std::nullopt, {0, 1, 1}, 1},
      {"the output alone does not count", same(3, 10, 1), {50}, {{60, 20}}, std::nullopt, {0, 0, 0}, 0},
      {"less than the buffers", same(3, 10, 1), {5}, {{10, 20}}, std::nullopt, {0, 0, 0}, 0},
      {"none asked for", same(3, 10, 1), {5}, {{100, 20}}, 0, {0, 0, 0}, 0},
      {"the last one", same(3, 10, 1), {5}, {{100, 20}}, 1, {0, 0, 1}, 1},
      {"more than there are", same(3, 10, 1), {5}, {{100, 20}}, 99, {1, 1, 1}, 1},
      {"a number that does not fit", same(3, 10, 1), {5}, {{50, 20}}, 3, {1, 1, 1}, 1, false},
      {"layers that cannot move stay", mixed, {5}, {{100, 0}}, kAll, {1, 1, 1, 0, 1}, 1},
      {"and do not count", mixed, {5}, {{100, 0}}, 2, {0, 0, 1, 0, 1}, 1},
      {"an output that cannot move stays", same(2, 10, 0), fixed_output, {{20, 0}}, kAll, {1, 1}, 0},
      {"two alike", same(4, 10, 0), {5}, {{100, 0}, {100, 0}}, kAll, {1, 1, 2, 2}, 2},
      {"two alike, an odd number", same(3, 10, 0), {5}, {{100, 0}, {100, 0}}, kAll, {1, 1, 2}, 2},
      {"one of two", same(3, 10, 0), {5}, {{100, 0}, {100, 0}}, 1, {0, 0, 1}, 1},
      {"in proportion", same(4, 10, 0), {0}, {{90, 0}, {30, 0}}, kAll, {1, 1, 1, 2}, 2},
      {"the second has less than its share", growing, {0}, {{60, 0}, {60, 0}}, std::nullopt, {0, 1, 1, 2}, 2},
      {"more than can be counted", same(2, kAll, kAll), {kAll}, {{kAll, 0}}, std::nullopt, {0, 0}, 0},
  };
}

TEST(Placement, FollowsTheTable) {
  for (const Case& c : cases()) {
    const Placement p = place_layers(c.layers, c.output, c.gpus, c.wanted);
    EXPECT_EQ(p.places.layers, c.places) << c.what;
    EXPECT_EQ(p.places.output, c.output_place) << c.what;
    EXPECT_EQ(p.fits, c.fits) << c.what;
  }
}

TEST(Placement, TakesNoMoreThanThereIsAndCountsAll) {
  for (const Case& c : cases()) {
    const Placement p = place_layers(c.layers, c.output, c.gpus, c.wanted);
    size_t n = 0;
    for (size_t g = 0; g < c.gpus.size(); ++g) {
      uint64_t weights = 0, cache = 0;
      for (size_t i = 0; i < c.layers.size(); ++i) {
        if (p.places.layers[i] != g + 1) continue;
        weights += c.layers[i].weights;
        cache += c.layers[i].cache;
        ++n;
      }
      if (p.places.output == g + 1) weights += c.output.weights;
      EXPECT_EQ(p.taken[g].weights, weights) << c.what;
      EXPECT_EQ(p.taken[g].cache, cache) << c.what;
      EXPECT_EQ(p.taken[g].fixed, p.taken[g].n_layers == 0 ? 0 : c.gpus[g].fixed) << c.what;
      if (p.fits) {
        EXPECT_LE(p.taken[g].total(), c.gpus[g].free) << c.what;
      }
    }
    EXPECT_EQ(n, p.n_moved) << c.what;
  }
}

TEST(Placement, OfMoreMemoryIsNeverLess) {
  for (uint64_t layers = 1; layers < 9; ++layers) {
    size_t before = 0;
    for (uint64_t free = 0; free < 300; free += 7) {
      const GpuRoom gpu{free, 13};
      const Placement p = place_layers(same(layers, 20, 6), {11, 0, true}, {&gpu, 1}, std::nullopt);
      EXPECT_GE(p.n_moved, before);
      EXPECT_TRUE(p.fits);
      before = p.n_moved;
    }
    EXPECT_EQ(before, layers);
  }
}

TEST(Placement, TableSaysWhatWentWhere) {
  const GpuRoom gpu{1 << 20, 1024};
  const Placement p = place_layers(same(2, 1 << 20, 2048), {4096, 0, true}, {&gpu, 1}, 2);
  ASSERT_FALSE(p.fits);
  const std::string names[] = {"0: a GPU"};
  const std::string table = placement_table(p, {&gpu, 1}, names);
  for (const char* part : {"layers", "needed", "0: a GPU", "2.00 MiB", "4.00 KiB", "1.00 KiB", "1.00 MiB"})
    EXPECT_NE(table.find(part), std::string::npos) << part << "\n" << table;
}

TEST(GpuLayers, AreANumberAllOrAuto) {
  EXPECT_EQ(parse_gpu_layers("--gpu-layers", "auto"), std::nullopt);
  EXPECT_EQ(parse_gpu_layers("--gpu-layers", "all"), UINT64_MAX);
  EXPECT_EQ(parse_gpu_layers("--gpu-layers", "12"), 12u);
  for (const char* bad : {"", "-1", "1x", "some", "99999999999999999999999"})
    EXPECT_THROW((void)parse_gpu_layers("--gpu-layers", bad), Error) << bad;
}

}  // namespace
}  // namespace quern
