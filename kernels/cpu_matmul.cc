#include "kernels/cpu_matmul.h"

#include <algorithm>
#include <limits>

#include "quant/error.h"
#include "quant/machine/cache_sizes.h"

namespace quern {

namespace {

constexpr size_t kActivationGroup = 32;                     // values that share one activation scale
constexpr uint64_t kUnknownCacheBytes = uint64_t{8} << 20;  // a small laptop's, where the system tells none
constexpr size_t kBlockTokens = 64;                         // a multiple of every ActivationTiles::tokens
constexpr size_t kLeastBlockTokens = 128;

// On the rows that a product has just computed.
void add_bias(const float* bias, const MatmulArgs& args) {
  for (size_t t = 0; t < args.n_tokens; ++t) {
    float* const y = args.y + t * args.y_stride;
    for (size_t row = 0; row < args.row_end; ++row) y[row] = y[row] + bias[row];
  }
}

// Computes the part [panels.begin, panels.end) of all products' panels, laid one after the other, for the
// rows of `block`, the first of which is row `first_row` of y.
void run_products(const MatmulArgs& block, size_t first_row, std::span<const CpuProduct> products,
                  IndexRange panels) {
  size_t first = 0;  // this product's first panel
  for (const CpuProduct& product : products) {
    const CpuMatrix& weight = *product.weight;
    const size_t n_panels = count_panels(weight.rows());
    const size_t begin = std::max(panels.begin, first), end = std::min(panels.end, first + n_panels);
    if (begin < end) {
      MatmulArgs args = block;
      args.y_stride = product.y_stride;
      args.factor = weight.factor();
      // Many tokens: as many panels as the kernel uses for one reading of them. Few: kernels keep several
      // panels going at once.
      const size_t step = args.n_tokens == 1 ? end - begin : args.n_tokens < 4 ? 4 : weight.kernel().panels;
      for (size_t panel = begin - first; panel < end - first;) {
        size_t panel_end = std::min(panel + step, end - first);
        args.weights = weight.panels(panel, &panel_end);
        const size_t row = panel * kPanelRows;
        args.row_begin = 0;
        args.row_end = std::min(weight.rows(), panel_end * kPanelRows) - row;
        args.y = product.y + first_row * product.y_stride + row;
        weight.kernel().run(args);
        if (product.bias != nullptr) add_bias(product.bias + row, args);
        panel = panel_end;
      }
    }
    first += n_panels;
  }
}

struct Work {
  size_t n_panels = 0;
  uint64_t weight_bytes = 0;
  size_t panels_together = std::numeric_limits<size_t>::max();  // that all kernels take together

  void add(const Work& other) {
    n_panels += other.n_panels;
    weight_bytes += other.weight_bytes;
    panels_together = std::min(panels_together, other.panels_together);
  }
};
Work work_of(std::span<const CpuProduct> products) {
  Work work;
  for (const CpuProduct& product : products)
    work.add(
        {count_panels(product.weight->rows()), product.weight->bytes(), product.weight->kernel().panels});
  return work;
}

QuantizedRows from_row(const QuantizedRows& a, size_t row, size_t k) {
  const size_t groups = k / kActivationGroup;
  return {a.codes + row * k, a.scales + row * groups, a.sums + row * groups * 4};
}

}  // namespace

CpuMatmul::CpuMatmul(const KernelSet& kernels, ThreadPool& pool)
    : kernels_(kernels),
      pool_(pool),
      last_level_cache_(cache_sizes().last_level() != 0 ? cache_sizes().last_level() : kUnknownCacheBytes) {}

uint64_t CpuMatmul::scratch_bytes(uint64_t n, uint64_t k) {
  return n * k * 29 / 8;  // codes, scales and sums: 11 / 8 bytes a value; up to 18 / 8 packed in tiles
}

// Rows follow one another, so that threads may cut them anywhere between two groups.
QuantizedRows CpuMatmul::quantize(const float* x, size_t n, size_t k) {
  const size_t groups = k / kActivationGroup;
  const QuantizedRows all{codes_.at_least(n * k), scales_.at_least(n * groups),
                          sums_.at_least(n * groups * 4)};
  pool_.parallel_for(
      n * groups, elementwise_grain(n * k) / kActivationGroup, [&](int, size_t begin, size_t end) noexcept {
        const size_t at = begin * kActivationGroup;
        kernels_.quantize_activations(x + at, 1, (end - begin) * kActivationGroup,
                                      {all.codes + at, all.scales + begin, all.sums + begin * 4});
      });
  return all;
}

QuantizedRows CpuMatmul::gather(const QuantizedRows& a, size_t k, const uint32_t* rows, size_t n) {
  const size_t groups = k / kActivationGroup;
  const QuantizedRows out{gathered_codes_.at_least(n * k), gathered_scales_.at_least(n * groups),
                          gathered_sums_.at_least(n * groups * 4)};
  pool_.parallel_for(n, 16, [&](int, size_t begin, size_t end) noexcept {
    for (size_t i = begin; i < end; ++i) {
      const QuantizedRows from = from_row(a, rows[i], k), to = from_row(out, i, k);
      std::copy_n(from.codes, k, to.codes);
      std::copy_n(from.scales, groups, to.scales);
      std::copy_n(from.sums, groups * 4, to.sums);
    }
  });
  return out;
}

const float* CpuMatmul::gather(const float* x, size_t k, const uint32_t* rows, size_t n) {
  float* const out = gathered_.at_least(n * k);
  pool_.parallel_for(n, 16, [&](int, size_t begin, size_t end) noexcept {
    for (size_t i = begin; i < end; ++i) std::copy_n(x + rows[i] * k, k, out + i * k);
  });
  return out;
}

const uint8_t* CpuMatmul::pack_tiles(const ActivationTiles& tiles, const QuantizedRows& a, size_t n,
                                     size_t k) {
  uint8_t* const out = tiles_.at_least(tiles.bytes(n, k));
  pool_.parallel_for(n, tiles.tokens,
                     [&](int, size_t begin, size_t end) noexcept { tiles.pack(a, n, k, begin, end, out); });
  return out;
}

// Tokens whose activations take a small part of the last-level cache, which other cores and processes use
// too, so that every panel finds them there; a larger one where several panels read them together. Panels are
// read and taken apart again for each block, which costs one or two percent from some hundred tokens on.
size_t CpuMatmul::tokens_of_block(size_t n, uint64_t bytes_per_token, size_t panels_together) const {
  constexpr uint64_t kShare = 8, kLargestShare = 2;
  const uint64_t share = std::max(kShare / panels_together, kLargestShare);
  const size_t fit = static_cast<size_t>(last_level_cache_ / share / std::max<uint64_t>(bytes_per_token, 1));
  const size_t most = std::max(fit / kBlockTokens * kBlockTokens, kLeastBlockTokens);
  if (n <= most) return n;
  const size_t n_blocks = (n + most - 1) / most;
  return ((n + n_blocks - 1) / n_blocks + kBlockTokens - 1) / kBlockTokens * kBlockTokens;
}

// Small enough that a thread which is held up delays the others little, and that the last chunks end
// together; large enough that memory is read in long runs: tens of microseconds each. Many tokens: what the
// kernels take together.
size_t CpuMatmul::panels_of_chunk(size_t n_panels, uint64_t weight_bytes, size_t panels_together,
                                  size_t n_tokens) const {
  constexpr uint64_t kChunkBytes = 512 << 10;
  constexpr size_t kChunksOfThread = 8;
  const uint64_t panel_bytes = std::max<uint64_t>(weight_bytes / n_panels, 1);
  const size_t by_work = n_tokens < 16 ? kChunkBytes / panel_bytes : panels_together;
  const size_t by_threads = n_panels / (static_cast<size_t>(pool_.size()) * kChunksOfThread);
  const size_t panels = std::max(std::min(by_work, by_threads), size_t{1});
  // Kernels for few tokens read up to four panels at once.
  return panels >= 4 ? panels / 4 * 4 : panels;
}

size_t CpuMatmul::elementwise_grain(size_t n_values) const {
  constexpr size_t kLeast = 4096;
  const size_t even = n_values / (static_cast<size_t>(pool_.size()) * 4);
  return std::max(even, kLeast) / kLeast * kLeast;
}

void CpuMatmul::run(const float* x, size_t n, size_t k, std::span<const CpuProduct> products, bool add) {
  if (n == 0) return;
  MatmulArgs shared{};
  shared.k = k;
  shared.x = x;
  shared.add = add;
  for (const CpuProduct& product : products) {
    QUERN_CHECK(product.weight->columns() == k);
    if (!product.weight->format().is_float() && shared.a.codes == nullptr) shared.a = quantize(x, n, k);
  }
  // All that read the same tiles at once; there is room for one form of them.
  while (!products.empty()) {
    const ActivationTiles* tiles = nullptr;
    size_t n_products = 0;
    for (; n_products < products.size(); ++n_products) {
      const ActivationTiles* form = products[n_products].weight->kernel().tiles;
      if (form == nullptr) continue;
      if (tiles != nullptr && form != tiles) break;
      tiles = form;
    }
    multiply_by_blocks(shared, n, products.first(n_products), tiles);
    products = products.subspan(n_products);
  }
}

// shared: quantized activations, where some product reads them. tiles: the form that products read; or null.
void CpuMatmul::multiply_by_blocks(MatmulArgs shared, size_t n, std::span<const CpuProduct> products,
                                   const ActivationTiles* tiles) {
  if (tiles != nullptr) shared.tiles = pack_tiles(*tiles, shared.a, n, shared.k);
  const Work work = work_of(products);
  const bool quantized = shared.a.codes != nullptr;
  const size_t k = shared.k, groups = k / kActivationGroup;
  const uint64_t token_bytes = tiles != nullptr ? tiles->bytes(kBlockTokens, k) / kBlockTokens
                               : quantized      ? k + groups * 12
                                                : k * sizeof(float);
  const size_t block_tokens = tokens_of_block(n, token_bytes, work.panels_together);
  const size_t n_blocks = (n + block_tokens - 1) / block_tokens;
  const size_t grain = panels_of_chunk(work.n_panels, work.weight_bytes, work.panels_together, n);
  const size_t n_chunks = (work.n_panels + grain - 1) / grain;
  const auto run_chunk = [&](size_t item) noexcept {
    const size_t token = item / n_chunks * block_tokens, panel = item % n_chunks * grain;
    MatmulArgs block = shared;
    block.n_tokens = std::min(block_tokens, n - token);
    block.x = shared.x + token * k;
    if (quantized) block.a = from_row(shared.a, token, k);
    if (tiles != nullptr) block.tiles = shared.tiles + tiles->bytes(token, k);
    run_products(block, token, products, {panel, std::min(panel + grain, work.n_panels)});
  };
  // Block by block: all threads then read the same activations.
  for (size_t b = 0; b < n_blocks; ++b)
    pool_.parallel_for(n_chunks, 1, [&](int, size_t begin, size_t end) noexcept {
      for (size_t chunk = begin; chunk < end; ++chunk) run_chunk(b * n_chunks + chunk);
    });
}

void CpuMatmul::run_groups(const float* x, size_t n, size_t k, const uint32_t* rows, size_t n_rows,
                           std::span<const CpuRowGroup> groups) {
  if (n_rows == 0) return;
  bool quantized = false;
  const ActivationTiles* tiles = nullptr;
  bool same_tiles = true;
  for (const CpuRowGroup& group : groups)
    for (const CpuProduct& product : group.products) {
      QUERN_CHECK(product.weight->columns() == k);
      quantized = quantized || !product.weight->format().is_float();
      const ActivationTiles* form = product.weight->kernel().tiles;
      if (form == nullptr) continue;
      same_tiles = same_tiles && (tiles == nullptr || tiles == form);
      tiles = form;
    }
  if (!same_tiles) {  // products of different forms: one after the other
    for (size_t i = 0; i < groups.front().products.size(); ++i) {
      std::vector<CpuRowGroup> some(groups.begin(), groups.end());
      for (CpuRowGroup& group : some) group.products = {group.products[i]};
      run_groups(x, n, k, rows, n_rows, some);
    }
    return;
  }
  MatmulArgs shared{};
  shared.k = k;
  if (quantized) {
    shared.a = quantize(x, n, k);
    if (rows != nullptr) shared.a = gather(shared.a, k, rows, n_rows);
  } else {
    shared.x = rows == nullptr ? x : gather(x, k, rows, n_rows);
  }

  // Tiles of each group begin anew.
  std::vector<size_t> tiles_at(groups.size() + 1);
  if (tiles != nullptr) {
    for (size_t g = 0; g < groups.size(); ++g) tiles_at[g + 1] = tiles_at[g] + tiles->bytes(groups[g].n, k);
    uint8_t* const packed = tiles_.at_least(tiles_at.back());
    pool_.parallel_for(groups.size(), 1, [&](int, size_t begin, size_t end) noexcept {
      for (size_t g = begin; g < end; ++g)
        tiles->pack(from_row(shared.a, groups[g].row_begin, k), groups[g].n, k, 0, groups[g].n,
                    packed + tiles_at[g]);
    });
    shared.tiles = packed;
  }

  struct Chunk {
    size_t group;
    IndexRange panels;
  };
  std::vector<Chunk> chunks;
  Work all;
  for (const CpuRowGroup& group : groups) all.add(work_of(group.products));
  for (size_t g = 0; g < groups.size(); ++g) {
    const size_t n_panels = work_of(groups[g].products).n_panels;
    const size_t grain = panels_of_chunk(all.n_panels, all.weight_bytes, all.panels_together, groups[g].n);
    for (size_t panel = 0; panel < n_panels; panel += grain)
      chunks.push_back({g, {panel, std::min(panel + grain, n_panels)}});
  }
  pool_.parallel_for(chunks.size(), 1, [&](int, size_t begin, size_t end) noexcept {
    for (size_t i = begin; i < end; ++i) {
      const CpuRowGroup& group = groups[chunks[i].group];
      MatmulArgs block = shared;
      block.n_tokens = group.n;
      if (quantized)
        block.a = from_row(shared.a, group.row_begin, k);
      else
        block.x = shared.x + group.row_begin * k;
      if (tiles != nullptr) block.tiles = shared.tiles + tiles_at[chunks[i].group];
      run_products(block, group.row_begin, group.products, chunks[i].panels);
    }
  });
}

}  // namespace quern
