// Which tensors a checkpoint must hold, under which name and shape, and what GGUF calls them
// (formats.md 2.2).
//
// Two layouts: Hugging Face's (model.layers.N.self_attn.q_proj.weight) and Mistral's own
// (layers.N.attention.wq.weight). They differ in the order of Q's and K's rows too (tensor_transforms.h), so
// the names decide, not the file that the tensors came in.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "convert/tensor_transforms.h"
#include "quant/tensor_view.h"

namespace quern {

struct ModelConfig;

enum class CheckpointLayout { kHuggingFace, kMistral };

struct DeclaredTensor {
  std::string source;     // the checkpoint's name
  std::string gguf;       // GGUF's
  Shape shape;            // outermost first
  std::string shape_key;  // the same in the config's keys, "[vocab_size, hidden_size]"; for messages
  // Heads whose rows the Hugging Face layout keeps in another order than GGUF (Q and K); 0: rows stay.
  uint32_t permuted_heads = 0;
  // Where a tensor is made of several, or changed: the others, each one's shape when it is not `shape`, and
  // how. Without a source it is computed.
  std::vector<std::string> more_sources;
  Shape source_shape;
  TensorMaker make;
  std::vector<Shape> byte_shapes;  // where the sources hold bytes (U8): the shape of each; then no weights
  bool optional = false;           // a checkpoint may be without
  bool is_output = false;          // a tied one is
};

// Throws kMalformed "<where>: ..." when the names are of neither layout.
CheckpointLayout detect_layout(std::span<const std::string_view> names, const std::string& where);

// Every tensor of the model, in the order in which they stand in a GGUF file (formats.md 2.4).
std::vector<DeclaredTensor> declare_checkpoint_tensors(const ModelConfig& config, CheckpointLayout layout);

// The order of tensors in a GGUF file: by block number (none first), then by name.
bool gguf_tensor_less(std::string_view a, std::string_view b);

// Why a model of this family has no need of a tensor of this name, "computed, not stored"; empty when it may
// need it. What is named here cannot change what the model computes: buffers that a program computes anew,
// heads of training that text does not pass, bookkeeping.
std::string_view needless_tensor_reason(std::string_view name);

// The embedding, and the output matrix of a model that is not tied.
std::string_view embedding_tensor_name(CheckpointLayout layout);
std::string_view output_tensor_name(CheckpointLayout layout);
bool is_output_tensor(std::string_view name);  // of either layout

}  // namespace quern
