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

#include "convert/hf_config.h"
#include "quant/tensor_view.h"

namespace quern {

enum class CheckpointLayout { kHuggingFace, kMistral };

struct DeclaredTensor {
  std::string source;     // the checkpoint's name
  std::string gguf;       // GGUF's
  Shape shape;            // outermost first
  std::string shape_key;  // the same in the config's keys, "[vocab_size, hidden_size]"; for messages
  // Heads whose rows the Hugging Face layout keeps in another order than GGUF (Q and K); 0: rows stay.
  uint32_t permuted_heads = 0;
};

// Throws kMalformed "<where>: ..." when the names are of neither layout.
CheckpointLayout detect_layout(std::span<const std::string_view> names, const std::string& where);

// Every tensor of the model, in the order in which they stand in a GGUF file (formats.md 2.4).
std::vector<DeclaredTensor> declare_checkpoint_tensors(const ModelConfig& config, CheckpointLayout layout);

// The order of tensors in a GGUF file: by block number (none first), then by name.
bool gguf_tensor_less(std::string_view a, std::string_view b);

// Tensors that old checkpoints carry and that are computed, not stored (*.rotary_emb.inv_freq).
bool is_ignored_tensor(std::string_view name);

// The tensor that a tied model may carry and does not use: a copy of the embedding.
std::string_view output_tensor_name(CheckpointLayout layout);

}  // namespace quern
