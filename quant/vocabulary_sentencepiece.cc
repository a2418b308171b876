// "llama" and "t5": SentencePiece vocabularies, BPE and unigram.
#include <algorithm>
#include <cmath>
#include <optional>

#include "quant/byte_level.h"
#include "quant/charsmap.h"
#include "quant/vocabulary_families.h"

namespace quern {
namespace {

namespace keys = vocabulary_keys;

constexpr std::string_view kUserDefinedKey = "quern.tokenizer.sentencepiece_user_defined";
constexpr std::string_view kCharsmapKey = "tokenizer.ggml.precompiled_charsmap";

// Every byte has a token, or none has.
void index_bytes(Vocabulary& vocabulary, const std::string& where) {
  auto& byte_ids = vocabulary.sentencepiece().byte_ids;
  byte_ids.fill(kNoToken);
  for (size_t id = 0; id < vocabulary.size(); ++id) {
    if (vocabulary.types[id] != TokenType::kByte) continue;
    const std::string& piece = vocabulary.pieces[id];
    const std::optional<uint8_t> byte = parse_byte_piece(piece);
    if (!byte) {
      fail(ErrorCode::kMalformed, "{}: byte token {} is '{}', expected the form <0x0A>", where, id,
           printable(piece));
    }
    TokenId& place = byte_ids[*byte];
    if (place != kNoToken) {
      fail(ErrorCode::kMalformed, "{}: byte token {} stands twice, as ids {} and {}", where, piece, place,
           id);
    }
    place = static_cast<TokenId>(id);
  }
  const auto missing = std::find(byte_ids.begin(), byte_ids.end(), kNoToken);
  if (missing == byte_ids.end()) return;
  const auto is_missing = [](TokenId id) { return id == kNoToken; };
  const std::string byte = fmt::format("<0x{:02X}>", missing - byte_ids.begin());
  if (!std::all_of(byte_ids.begin(), byte_ids.end(), is_missing))
    fail(ErrorCode::kMalformed, "{}: byte token {} is missing, and others are there", where, byte);
  if (vocabulary.unk == kNoToken) {
    fail(ErrorCode::kMalformed,
         "{}: byte token {} is missing, and there is no unk token that could stand for unknown characters",
         where, byte);
  }
}

void check_parts(Vocabulary& vocabulary, const std::string& where, const Notice&) {
  const std::vector<float>& scores = vocabulary.sentencepiece().scores;
  QUERN_CHECK(scores.size() == vocabulary.size());
  const auto bad =
      std::find_if(scores.begin(), scores.end(), [](float score) { return !std::isfinite(score); });
  if (bad != scores.end()) {
    fail(ErrorCode::kMalformed, "{}: score of token {} is {}, expected a finite number", where,
         bad - scores.begin(), *bad);
  }
  index_bytes(vocabulary, where);
  check_charsmap(vocabulary.sentencepiece().precompiled_charsmap, where);
}

// Where a file has none: sentencepiece numbers the pieces of a BPE model in the order of its merges.
std::vector<float> scores_by_id(size_t n) {
  std::vector<float> scores;
  scores.reserve(n);
  for (size_t id = 0; id < n; ++id) scores.push_back(-static_cast<float>(id));
  return scores;
}

std::vector<float> read_scores(const GgufReader& gguf, size_t n, bool is_unigram, const Notice& notice) {
  if (gguf.find(keys::kScores) == nullptr) {
    if (is_unigram) gguf.refuse(fmt::format("key '{}' is missing", keys::kScores));
    if (notice)
      notice(gguf.notice_text(fmt::format("{} is missing: tokens merge in their order", keys::kScores)));
    return scores_by_id(n);
  }
  auto scores = gguf.find(keys::kScores)->as_floats();
  if (!scores || scores->size() != n) {
    gguf.refuse_value(keys::kScores, fmt::format("an array of {} f32", n));
  }
  const auto bad =
      std::find_if(scores->begin(), scores->end(), [](float score) { return !std::isfinite(score); });
  if (bad != scores->end()) {
    gguf.refuse(fmt::format("{}: score of token {} is {}, expected a finite number", keys::kScores,
                            bad - scores->begin(), *bad));
  }
  return *std::move(scores);
}

// Writers of 2023 typed byte tokens as text: where no token has the type, those that are spelled so get it.
void find_byte_tokens(const GgufReader& gguf, Vocabulary* vocabulary, const Notice& notice) {
  std::vector<TokenType>& types = vocabulary->types;
  if (std::find(types.begin(), types.end(), TokenType::kByte) != types.end()) return;
  size_t n = 0;
  std::array<bool, 256> seen{};
  for (size_t id = 0; id < vocabulary->size(); ++id) {
    const std::optional<uint8_t> byte = parse_byte_piece(vocabulary->pieces[id]);
    if (!byte || types[id] != TokenType::kNormal || seen[*byte]) continue;
    types[id] = TokenType::kByte;
    seen[*byte] = true;
    ++n;
  }
  if (n > 0 && notice) {
    notice(gguf.notice_text(
        fmt::format("no byte tokens by type: the {} that are spelled like <0x0A> are taken for them", n)));
  }
}

std::string read_charsmap(const GgufReader& gguf) {
  const GgufValue* value = gguf.find(kCharsmapKey);
  if (value == nullptr) return "";
  const bool bytes = value->type == GgufType::kArray &&
                     (value->element_type == GgufType::kU8 || value->element_type == GgufType::kI8);
  if (!bytes) gguf.refuse_value(kCharsmapKey, "an array of u8");
  return {reinterpret_cast<const char*>(value->payload.data()), value->payload.size()};
}

void read_parts(const GgufReader& gguf, Vocabulary* vocabulary, const Notice& notice) {
  find_byte_tokens(gguf, vocabulary, notice);
  SentencePieceParts parts;
  parts.scores = read_scores(gguf, vocabulary->size(), vocabulary->is_unigram(), notice);
  for (const TokenId id : read_token_list(gguf, kUserDefinedKey, vocabulary->size(), notice))
    if (vocabulary->types[static_cast<size_t>(id)] == TokenType::kUserDefined)
      parts.user_defined.push_back(id);
  parts.precompiled_charsmap = read_charsmap(gguf);
  vocabulary->parts = std::move(parts);
}

void read_unigram_parts(const GgufReader& gguf, Vocabulary* vocabulary, const Notice& notice) {
  if (gguf.find(kCharsmapKey) == nullptr && gguf.find(keys::kRemoveSpaces) == nullptr) {
    gguf.refuse(
        fmt::format("{} is 't5' (SentencePiece unigram), but neither {} nor {} says what happens to a "
                    "text before it is cut",
                    keys::kModel, kCharsmapKey, keys::kRemoveSpaces));
  }
  read_parts(gguf, vocabulary, notice);
}

void write_pre(const Vocabulary&, GgufMetadata* metadata) { metadata->set_string(keys::kPre, "default"); }

void write_scores(const Vocabulary& vocabulary, GgufMetadata* metadata) {
  metadata->set_floats(keys::kScores, vocabulary.sentencepiece().scores);
}

void write_text_rules(const Vocabulary& vocabulary, GgufMetadata* metadata) {
  const SentencePieceParts& parts = vocabulary.sentencepiece();
  write_token_list(kUserDefinedKey, parts.user_defined, metadata);
  if (!parts.precompiled_charsmap.empty()) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(parts.precompiled_charsmap.data());
    const size_t n = parts.precompiled_charsmap.size();
    metadata->set_value(kCharsmapKey, {GgufType::kArray, GgufType::kU8, n, {bytes, n}});
  }
  if (vocabulary.is_unigram()) metadata->set_bool(keys::kRemoveSpaces, vocabulary.remove_extra_whitespaces);
}

}  // namespace

const VocabularyFamily kSentencePieceFamily = {
    .model = "llama",
    .default_bos = 1,
    .default_eos = 2,
    .default_unk = 0,
    .default_add_bos = true,
    .default_add_space_prefix = true,
    .read = read_parts,
    .write_before_tokens = write_pre,
    .write_after_tokens = write_scores,
    .write_after_types = write_text_rules,
    .check = check_parts,
};

const VocabularyFamily kUnigramFamily = {
    .model = "t5",
    .default_bos = kNoToken,
    .default_eos = 1,
    .default_unk = 2,
    .default_add_bos = false,
    .default_add_space_prefix = false,
    .read = read_unigram_parts,
    .write_before_tokens = write_pre,
    .write_after_tokens = write_scores,
    .write_after_types = write_text_rules,
    .check = check_parts,
};

}  // namespace quern
