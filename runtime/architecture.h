// The table of architectures: how to read hyper-parameters, which tensors there are, and the forward pass of
// a layer.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/device.h"
#include "quant/gguf_reader.h"
#include "runtime/hparams.h"
#include "runtime/model.h"

namespace quern {

struct TensorDeclaration {
  std::string name;
  Shape shape;  // outermost first
  enum class Role { kEmbedding, kVector, kMatrix, kOutput } role;
  bool optional = false;
};

// Buffers of one micro-batch, and where it stands.
struct LayerContext {
  Device& device;
  const HParams& hparams;
  size_t position;                 // of the first token
  size_t n;                        // tokens
  std::span<const float> cos_sin;  // [n, rotary_dim / 2, 2]
  DeviceKvCache& cache;
  DeviceBuffer &x, &h;          // [micro_batch, dim]
  DeviceBuffer& q;              // [micro_batch, n_heads * head_dim]
  DeviceBuffer &k, &v;          // [micro_batch, n_kv_heads * head_dim]
  DeviceBuffer& attention_out;  // [micro_batch, n_heads * head_dim]
  DeviceBuffer &gate, &up;      // [micro_batch, hidden_dim]
};

struct Architecture {
  std::string_view name;
  // Throws kMalformed naming the key; hyper-parameters that change the mathematics and are not implemented
  // are refused by name.
  HParams (*read_hparams)(const GgufReader& gguf, const Notice& notice);
  // Every tensor a file of this shape holds; others are an error.
  std::vector<TensorDeclaration> (*declare_tensors)(const HParams& hparams);
  // Runs layer `index` on context.x. Throws kIntegrity when K or V holds a NaN.
  void (*layer)(const LayerWeights& weights, size_t index, LayerContext& context);
};

std::span<const Architecture> architectures() noexcept;
const Architecture* find_architecture(std::string_view name) noexcept;  // null when unknown

}  // namespace quern
