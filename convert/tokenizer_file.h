// Any file that holds a tokenizer, known by what is in it, never by its name: real ones are called
// "tekken_240911.json", "qwen.tiktoken", and Llama 3's "tokenizer.model" is a list of ranks.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "quant/error.h"
#include "quant/vocabulary.h"

namespace quern {

enum class TokenizerFile { kGguf, kTokenizerJson, kTekken, kRanks, kSentencePiece };

// What the file would be read as; what is nothing else counts as SentencePiece's.
TokenizerFile recognise_tokenizer_file(std::span<const uint8_t> bytes);

// Throws kMalformed as the file's own reader does. `pre_tokenizer`: a row of quant/pre_tokenizer.h instead of
// what the file says; a list of ranks says nothing and needs one (kUsage). A GGUF file may hold nothing but a
// vocabulary.
Vocabulary read_tokenizer_file(std::span<const uint8_t> bytes, const std::string& path,
                               const std::string& pre_tokenizer, const Notice& notice);

}  // namespace quern
