// Products of activations with weight matrices on the CPU: how their work is cut for threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cpu_matrix.h"
#include "kernels/kernel_set.h"
#include "quant/machine/host_memory.h"
#include "quant/parallel.h"

namespace quern {

struct CpuProduct {
  const CpuMatrix* weight;
  float* y;                     // [rows of the input, y_stride]
  size_t y_stride;              // in floats
  const float* bias = nullptr;  // [weight->rows()], added last
};

// Neighbouring rows of an input that go through matrices of their own: the tokens of one expert.
struct CpuRowGroup {
  size_t row_begin, n;
  std::vector<CpuProduct> products;  // y: of row 0 of the input
};

// Not thread-safe: it keeps scratch from call to call.
class CpuMatmul {
 public:
  // kernels and pool must outlive it.
  CpuMatmul(const KernelSet& kernels, ThreadPool& pool);

  // x: [n, k], whose rows all products share. y = x * W^T, or y + x * W^T with `add`.
  void run(const float* x, size_t n, size_t k, std::span<const CpuProduct> products, bool add);
  // The same of groups. rows: null, or [the groups' rows] for each the row of x that it is.
  void run_groups(const float* x, size_t n, size_t k, const uint32_t* rows, size_t n_rows,
                  std::span<const CpuRowGroup> groups);

  // Bytes of scratch for inputs of up to n rows and k columns.
  static uint64_t scratch_bytes(uint64_t n, uint64_t k);
  // Values that a thread takes at once in an elementwise operation of n_values: some microseconds, a whole
  // number of activation groups and of cache lines.
  size_t elementwise_grain(size_t n_values) const;

 private:
  QuantizedRows quantize(const float* x, size_t n, size_t k);
  QuantizedRows gather(const QuantizedRows& a, size_t k, const uint32_t* rows, size_t n);
  const float* gather(const float* x, size_t k, const uint32_t* rows, size_t n);
  const uint8_t* pack_tiles(const ActivationTiles& tiles, const QuantizedRows& a, size_t n, size_t k);
  void multiply_by_blocks(MatmulArgs shared, size_t n, std::span<const CpuProduct> products,
                          const ActivationTiles* tiles);
  size_t tokens_of_block(size_t n, uint64_t bytes_per_token, size_t panels_together) const;
  size_t panels_of_chunk(size_t n_panels, uint64_t weight_bytes, size_t panels_together,
                         size_t n_tokens) const;

  const KernelSet& kernels_;
  ThreadPool& pool_;
  const uint64_t last_level_cache_;
  Scratch<int8_t> codes_{"quantized activations"}, gathered_codes_{"quantized activations"};
  Scratch<float> scales_{"quantized activations"}, gathered_scales_{"quantized activations"};
  Scratch<int16_t> sums_{"quantized activations"}, gathered_sums_{"quantized activations"};
  Scratch<uint8_t> tiles_{"quantized activations"};
  Scratch<float> gathered_{"gathered activations"};
};

}  // namespace quern
