// The Llama family: Llama, Mistral, TinyLlama and others that GGUF calls "llama".
//
// Source: Touvron et al., "LLaMA: Open and Efficient Foundation Language Models", 2023; Jiang et al.,
// "Mistral 7B", 2023 (grouped-query attention, sliding window); rotary pairs are interleaved (2i, 2i+1) as
// GGUF's llama stores them.
#pragma once

#include "runtime/architecture.h"

namespace quern {

extern const Architecture kLlamaArchitecture;

}  // namespace quern
