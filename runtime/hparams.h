// What every model's shape is made of, read from GGUF metadata and checked (robustness.md R10). What only
// some architectures have is theirs.
#pragma once

#include <cstdint>
#include <string>

namespace quern {

struct HParams {
  std::string architecture;  // "llama"
  std::string name;          // general.name, may be empty
  uint32_t n_layers = 0;
  uint32_t dim = 0;
  uint32_t hidden_dim = 0;
  uint32_t n_heads = 0;
  uint32_t n_kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t vocab_size = 0;      // rows of token_embd
  uint32_t context_length = 0;  // trained
  float norm_eps = 0;
  uint32_t file_type = 0;  // general.file_type, informational
};

}  // namespace quern
