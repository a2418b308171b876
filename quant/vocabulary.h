// A vocabulary as GGUF's tokenizer.* keys hold it (formats.md 2.2, 3): a core that every family of tokenizers
// has, and what only one family has. A family is a row of quant/vocabulary_families.h.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
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

// What only a SentencePiece vocabulary has ("llama": BPE; "t5": unigram). "▁" (U+2581) stands for a space in
// its pieces.
struct SentencePieceParts {
  std::vector<float> scores;  // [size]
  // Type 4 and sentencepiece's own: cut out of text as sentencepiece does, not as an added token; ascending.
  std::vector<TokenId> user_defined;
  // Id of "<0xNN>", or kNoToken for all: unknown characters become unk then. Filled by check_vocabulary.
  std::array<TokenId, 256> byte_ids{};
  // sentencepiece's table of what characters are turned into before anything else; empty: nothing is. Checked
  // by check_vocabulary (quant/charsmap.h).
  std::string precompiled_charsmap{};
};

// What only a BPE vocabulary with merges has ("gpt2", "gemma4").
struct BytePairParts {
  std::string pre_tokenizer;  // a row of quant/pre_tokenizer.h; empty before check_vocabulary: not stated
  std::vector<std::string> merges;  // "LEFT RIGHT", the first merged first
  // [merges]: those of one rank are as good as each other, and the leftmost place comes first. Empty: each
  // has its own.
  std::vector<uint32_t> ranks{};
  // Whether a word that is a piece is that piece whatever the merges say; none: as the pre-tokenizer's row
  // says.
  std::optional<bool> whole_words{};
  bool nfc = false;  // text is brought into Unicode's normalization form C first
};

struct MergeParts {
  std::string_view left, right;
};
// None: not of the form.
std::optional<MergeParts> split_merge(std::string_view merge);

struct Vocabulary {
  std::string model = "llama";      // tokenizer.ggml.model: the family
  std::vector<std::string> pieces;  // index = id
  std::vector<TokenType> types;     // [size]
  TokenId bos = kNoToken, eos = kNoToken, unk = kNoToken, pad = kNoToken;
  TokenId eot = kNoToken, eom = kNoToken;  // ends of a turn and of a message: they end an answer as eos does
  std::vector<TokenId> more_ends;          // and so do these
  std::vector<TokenId> strips_left, strips_right;  // added tokens that take white space beside them along
  // Added tokens that are looked for, by their spelling in form C, where the text is in form C already
  // (BytePairParts::nfc); without that normalization they are like others.
  std::vector<TokenId> normalized;
  std::vector<TokenId> single_words;  // and those that are found only where no word goes on beside them
  bool add_bos = true, add_eos = false;
  bool add_space_prefix = true;  // of raw text; chat is built per message and does not ask (formats.md 3.4)
  bool remove_extra_whitespaces = false;
  std::string chat_template;  // data, never executed; empty: none
  std::string chat_format;    // quern.chat_format, "mistral-v1"; empty: not known

  std::variant<SentencePieceParts, BytePairParts> parts;

  size_t size() const { return pieces.size(); }
  bool is_unigram() const { return model == "t5"; }
  // Only for a vocabulary of that family.
  SentencePieceParts& sentencepiece() { return std::get<SentencePieceParts>(parts); }
  const SentencePieceParts& sentencepiece() const { return std::get<SentencePieceParts>(parts); }
  BytePairParts& byte_pairs() { return std::get<BytePairParts>(parts); }
  const BytePairParts& byte_pairs() const { return std::get<BytePairParts>(parts); }
};

// Checks what a vocabulary must hold whatever file it came from (robustness.md R11): special ids in range,
// and what its family asks for (SentencePiece: byte pieces strictly "<0xNN>" and each byte exactly once,
// finite scores; BPE: merges of two parts). Fills what is derived from the pieces. Throws kMalformed
// "<where>: ...". Duplicate pieces are a notice, the lowest id wins.
void check_vocabulary(Vocabulary& vocabulary, const std::string& where, const Notice& notice);

// True when the file carries no tokenizer on purpose (tokenizer.ggml.model = "no_vocab").
bool has_no_vocabulary(const GgufReader& gguf);
void set_no_vocabulary(GgufMetadata* metadata);
// Why nobody here can read or write text with this file's tokenizer, as read_vocabulary() would say it
// without the file's name: its kind is not known (tokenizer.ggml.model is absent or names another), or how it
// cuts words (tokenizer.ggml.pre, where `pre_tokenizer` does not stand in for it). Empty: both are known.
// Such a file still runs on token ids.
std::string unknown_tokenizer(const GgufReader& gguf, const std::string& pre_tokenizer = {});
// What a file says of conversations; empty: nothing.
struct ConversationKeys {
  std::string chat_template;  // tokenizer.chat_template
  std::string chat_format;    // quern.chat_format
};
ConversationKeys read_conversation_keys(const GgufReader& gguf, const Notice& notice);
// Throws kMalformed naming the key, also for models of no known family, which are refused by name, and when
// the number of tokens is not n_embedding_rows. What other writers leave out or get wrong without changing a
// token is mended with a notice: ids out of range (dropped), types and scores that are absent, bytes that are
// typed as text. Where the file names no end of a turn or message, control tokens that are spelled like one
// end an answer too.
// `pre_tokenizer`: instead of the one that the file names; empty: that one.
Vocabulary read_vocabulary(const GgufReader& gguf, uint64_t n_embedding_rows, const Notice& notice,
                           const std::string& pre_tokenizer = {});
// Appends the tokenizer.* keys in the order of formats.md 2.2.
void write_vocabulary(const Vocabulary& vocabulary, GgufMetadata* metadata);

}  // namespace quern
