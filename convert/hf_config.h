// A checkpoint's hyper-parameters: config.json (Hugging Face) or params.json (Mistral), checked.
//
// Sources: transformers' LlamaConfig and MistralConfig; mistral-inference's ModelArgs (formats.md 2.3). Every
// value is range-checked and named by its key when it is refused (kMalformed), and so is everything that
// would change the mathematics and is not implemented. Thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "convert/tensor_names.h"
#include "quant/gguf.h"

#include "quant/json/json.h"

namespace quern {

enum class ConfigDialect { kHuggingFace, kMistral };

// The keys under which a dialect keeps the sizes that shapes are made of; for messages.
struct ConfigKeys {
  const char *dim, *hidden_dim, *n_layers, *n_heads, *n_kv_heads, *head_dim, *vocab_size, *tied;
};

const ConfigKeys& config_keys(ConfigDialect dialect) noexcept;

struct ModelConfig {
  ConfigDialect dialect = ConfigDialect::kHuggingFace;
  std::string path;  // of the file it was read from, for messages

  uint32_t n_layers = 0;        // 1 .. 512
  uint32_t dim = 0;             // 1 .. 2^20
  uint32_t hidden_dim = 0;      // 1 .. 2^20
  uint32_t n_heads = 0;         // 1 .. 2^16; divides dim unless head_dim is given
  uint32_t n_kv_heads = 0;      // divides n_heads
  uint32_t head_dim = 0;        // even, 2 .. 2^16
  bool head_dim_given = false;  // by the file, not derived as dim / n_heads
  uint32_t vocab_size = 0;      // 1 .. 2^24
  uint32_t context_length = 0;  // 1 .. 2^24
  std::optional<uint32_t> sliding_window;
  double rope_theta = 0;                 // finite, > 0
  double rms_norm_eps = 0;               // finite, > 0
  bool tied = false;                     // the output matrix is the embedding
  uint32_t n_guessing_layers = 0;        // behind n_layers, of heads that guess further tokens; never written
  std::string bias_key;                  // the first key that says the matrices have biases; empty: none does
  std::optional<uint32_t> pad_token_id;  // < vocab_size

  // Of config.json: GGUF's name of the architecture, its keys below that, and its tensors. Empty for
  // params.json, which describes a llama.
  std::string architecture;
  GgufMetadata metadata;
  std::vector<DeclaredTensor> tensors;
};

// `path` names the file in messages. `notice` hears of statements that contradict each other, and which one
// won; of keys that were ignored; of keys that stand for another that is missing:
// - what config.json leaves out is what transformers' class of that model takes (CheckpointModel::defaults);
// - rope_scaling's or rope_parameters' rope_theta wins over the outer one (as in transformers 5);
// - a sliding_window counts for MistralForCausalLM and in params.json, never for LlamaForCausalLM, which has
//   none; where architectures and model_type disagree, architectures wins.
ModelConfig read_model_config(const Json& json, ConfigDialect dialect, const std::string& path,
                              const Notice& notice = {});

}  // namespace quern
