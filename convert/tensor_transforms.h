// Changes to tensors on their way into a GGUF file.
#pragma once

#include <cstdint>
#include <vector>

namespace quern {

// Rows of Q and K as GGUF's `llama` wants them, from rows as Hugging Face stores them.
//
// Rotary position embedding turns pairs of elements of a head. Hugging Face pairs element i with
// i + head_dim / 2 (the halves of a head), GGUF's llama, like Meta's and Mistral's own code, 2i with 2i + 1.
// Both compute the same scores as long as Q and K are in one order, so the checkpoint's rows (a row is what
// makes one element) are moved once, here (formats.md 2.3). Only whole rows move, so this commutes with
// quantization, which works along a row.
//
// Returns for every row of the GGUF tensor the row of the checkpoint's: [n_heads * head_dim], a permutation
// within each head. head_dim is even.
std::vector<uint64_t> interleaved_row_map(uint32_t n_heads, uint32_t head_dim);

}  // namespace quern
