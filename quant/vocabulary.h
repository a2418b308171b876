// A SentencePiece vocabulary as GGUF's tokenizer.* keys hold it (formats.md 2.2, 3).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "quant/error.h"
#include "quant/gguf.h"
#include "quant/gguf_reader.h"

namespace quern {

// Values are those of tokenizer.ggml.token_type.
enum class TokenType : int32_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

using TokenId = int32_t;
inline constexpr TokenId kNoToken = -1;

struct Vocabulary {
  std::vector<std::string> pieces;  // index = id; "▁" (U+2581) stands for a space
  std::vector<float> scores;
  std::vector<TokenType> types;
  TokenId bos = kNoToken, eos = kNoToken, unk = kNoToken, pad = kNoToken;
  bool add_bos = true, add_eos = false;
  bool add_space_prefix = true;  // of raw text; chat is built per message and does not ask (formats.md 3.4)
  bool remove_extra_whitespaces = false;
  std::array<TokenId, 256> byte_ids{};  // id of "<0xNN>"; every byte has one
  std::string chat_template;            // data, never executed; empty: none
  std::string chat_format;              // quern.chat_format, "mistral-v1"; empty: not known

  size_t size() const { return pieces.size(); }
};

// Fills byte_ids and checks what a vocabulary must hold whatever file it came from (robustness.md R11): byte
// pieces strictly "<0xNN>" and each byte exactly once, special ids in range, finite scores. Throws kMalformed
// "<where>: ...". Duplicate pieces are a notice, the lowest id wins.
void check_vocabulary(Vocabulary& vocabulary, const std::string& where, const Notice& notice);

// True when the file carries no tokenizer on purpose (tokenizer.ggml.model = "no_vocab").
bool has_no_vocabulary(const GgufReader& gguf);
void set_no_vocabulary(GgufMetadata* metadata);
// Throws kMalformed naming the key, also for models other than "llama" (SentencePiece), which are refused by
// name, and when the number of tokens is not n_embedding_rows.
Vocabulary read_vocabulary(const GgufReader& gguf, uint64_t n_embedding_rows, const Notice& notice);
// Appends the tokenizer.* keys in the order of formats.md 2.2.
void write_vocabulary(const Vocabulary& vocabulary, GgufMetadata* metadata);

}  // namespace quern
