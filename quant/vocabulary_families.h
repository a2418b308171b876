// The families of tokenizers that a GGUF file can hold: a new one is a file and a row in vocabulary.cc.
#pragma once

#include <string>
#include <string_view>

#include "quant/vocabulary.h"

namespace quern {

namespace vocabulary_keys {
inline constexpr std::string_view kModel = "tokenizer.ggml.model", kPre = "tokenizer.ggml.pre",
                                  kTokens = "tokenizer.ggml.tokens", kScores = "tokenizer.ggml.scores",
                                  kTypes = "tokenizer.ggml.token_type", kMerges = "tokenizer.ggml.merges",
                                  kRemoveSpaces = "tokenizer.ggml.remove_extra_whitespaces";
}

// Why a vocabulary cannot be used whose tokenizer.ggml.pre has this name; empty: it is known, or absent.
std::string unknown_pre_tokenizer(std::string_view name);

struct VocabularyFamily {
  std::string_view model;  // tokenizer.ggml.model
  // Where a file leaves them out; those of llama.cpp.
  TokenId default_bos, default_eos, default_unk;
  bool default_add_bos, default_add_space_prefix;
  // Sets vocabulary->parts, and add_bos where the family's rule for a file that does not say depends on them;
  // may mend types. The core's pieces and types are there.
  void (*read)(const GgufReader& gguf, Vocabulary* vocabulary, const Notice& notice);
  // Own keys, in the order of other converters; null: none.
  void (*write_before_tokens)(const Vocabulary& vocabulary, GgufMetadata* metadata);
  void (*write_after_tokens)(const Vocabulary& vocabulary, GgufMetadata* metadata);
  void (*write_after_types)(const Vocabulary& vocabulary, GgufMetadata* metadata);
  // The family's part of check_vocabulary; ids in lists are in range.
  void (*check)(Vocabulary& vocabulary, const std::string& where, const Notice& notice);
};

// The ids of an optional u32 array; ascending, each once. Ids out of range are dropped with a notice.
std::vector<TokenId> read_token_list(const GgufReader& gguf, std::string_view key, size_t n_tokens,
                                     const Notice& notice);
void write_token_list(std::string_view key, const std::vector<TokenId>& ids, GgufMetadata* metadata);

// quant/vocabulary_sentencepiece.cc, quant/vocabulary_bpe.cc
extern const VocabularyFamily kSentencePieceFamily, kUnigramFamily, kBytePairFamily, kGemma4Family;

}  // namespace quern
