#include "quant/vocabulary.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string_view>
#include <unordered_map>

namespace quern {
namespace {

constexpr size_t kMaxPieceBytes = 65536;
constexpr size_t kMaxPieces = size_t{1} << 30;  // ids are int32

constexpr std::string_view kModelKey = "tokenizer.ggml.model";
constexpr std::string_view kTokensKey = "tokenizer.ggml.tokens";
constexpr std::string_view kScoresKey = "tokenizer.ggml.scores";
constexpr std::string_view kTypesKey = "tokenizer.ggml.token_type";
constexpr std::string_view kAddBosKey = "tokenizer.ggml.add_bos_token";
constexpr std::string_view kAddEosKey = "tokenizer.ggml.add_eos_token";
constexpr std::string_view kAddSpacePrefixKey = "tokenizer.ggml.add_space_prefix";
constexpr std::string_view kRemoveSpacesKey = "tokenizer.ggml.remove_extra_whitespaces";
constexpr std::string_view kChatTemplateKey = "tokenizer.chat_template";
constexpr std::string_view kChatFormatKey = "quern.chat_format";

// In the order in which they are written. The defaults are those of llama.cpp for SentencePiece models.
struct SpecialToken {
  std::string_view key;
  std::string_view name;
  TokenId Vocabulary::*id;
  TokenId fallback;
};
constexpr SpecialToken kSpecialTokens[] = {
    {"tokenizer.ggml.bos_token_id", "bos", &Vocabulary::bos, 1},
    {"tokenizer.ggml.eos_token_id", "eos", &Vocabulary::eos, 2},
    {"tokenizer.ggml.unknown_token_id", "unk", &Vocabulary::unk, 0},
    {"tokenizer.ggml.padding_token_id", "pad", &Vocabulary::pad, kNoToken},
};

// The byte of "<0xNN>"; two upper-case digits and nothing else (R11).
std::optional<uint8_t> parse_byte_piece(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece.back() != '>') return std::nullopt;
  int value = 0;
  for (const char c : piece.substr(3, 2)) {
    const bool is_digit = c >= '0' && c <= '9';
    if (!is_digit && !(c >= 'A' && c <= 'F')) return std::nullopt;
    value = value * 16 + (is_digit ? c - '0' : c - 'A' + 10);
  }
  return static_cast<uint8_t>(value);
}

void index_bytes(Vocabulary& vocabulary, const std::string& where) {
  vocabulary.byte_ids.fill(kNoToken);
  for (size_t id = 0; id < vocabulary.size(); ++id) {
    if (vocabulary.types[id] != TokenType::kByte) continue;
    const std::string& piece = vocabulary.pieces[id];
    const std::optional<uint8_t> byte = parse_byte_piece(piece);
    if (!byte) {
      fail(ErrorCode::kMalformed, "{}: byte token {} is '{}', expected the form <0x0A>", where, id,
           printable(piece));
    }
    TokenId& place = vocabulary.byte_ids[*byte];
    if (place != kNoToken) {
      fail(ErrorCode::kMalformed, "{}: byte token {} stands twice, as ids {} and {}", where, piece, place,
           id);
    }
    place = static_cast<TokenId>(id);
  }
  for (size_t byte = 0; byte < vocabulary.byte_ids.size(); ++byte) {
    if (vocabulary.byte_ids[byte] == kNoToken) {
      fail(ErrorCode::kMalformed,
           "{}: byte token <0x{:02X}> is missing; vocabularies without byte fallback are not supported",
           where, byte);
    }
  }
}

void check_special_ids(const Vocabulary& vocabulary, const std::string& where) {
  for (const SpecialToken& token : kSpecialTokens) {
    const TokenId id = vocabulary.*token.id;
    if (id != kNoToken && (id < 0 || static_cast<size_t>(id) >= vocabulary.size())) {
      fail(ErrorCode::kMalformed, "{}: {} id {} is outside the vocabulary of {} tokens", where, token.name,
           id, vocabulary.size());
    }
  }
  if (vocabulary.add_bos && vocabulary.bos == kNoToken) {
    fail(ErrorCode::kMalformed, "{}: a bos token is to be added, but there is no bos id", where);
  }
  if (vocabulary.add_eos && vocabulary.eos == kNoToken) {
    fail(ErrorCode::kMalformed, "{}: an eos token is to be added, but there is no eos id", where);
  }
}

void report_duplicates(const Vocabulary& vocabulary, const std::string& where, const Notice& notice) {
  std::unordered_map<std::string_view, size_t> first_ids;
  first_ids.reserve(vocabulary.size());
  size_t n_duplicates = 0, first = 0, second = 0;
  for (size_t id = 0; id < vocabulary.size(); ++id) {
    const auto [found, is_new] = first_ids.try_emplace(vocabulary.pieces[id], id);
    if (is_new || n_duplicates++ > 0) continue;
    first = found->second;
    second = id;
  }
  if (n_duplicates == 0 || !notice) return;
  notice(fmt::format("{}: duplicate token '{}' (ids {} and {}; {} in all): the lowest id is used", where,
                     printable(vocabulary.pieces[first]), first, second, n_duplicates));
}

const GgufValue& require(const GgufReader& gguf, std::string_view key) {
  const GgufValue* value = gguf.find(key);
  if (value == nullptr) gguf.refuse(fmt::format("key '{}' is missing", key));
  return *value;
}

std::vector<std::string> read_pieces(const GgufReader& gguf, uint64_t n_embedding_rows) {
  const GgufValue& value = require(gguf, kTokensKey);
  const auto texts = value.as_strings();
  if (!texts) gguf.refuse_value(kTokensKey, "an array of strings");
  if (texts->size() != n_embedding_rows || texts->size() > kMaxPieces) {
    gguf.refuse(fmt::format("vocabulary of {} tokens ({}), but token_embd.weight has {} rows", texts->size(),
                            kTokensKey, n_embedding_rows));
  }
  return {texts->begin(), texts->end()};
}

std::vector<float> read_scores(const GgufReader& gguf, size_t n) {
  const GgufValue& value = require(gguf, kScoresKey);
  auto scores = value.as_floats();
  if (!scores || scores->size() != n) gguf.refuse_value(kScoresKey, fmt::format("an array of {} f32", n));
  const auto bad =
      std::find_if(scores->begin(), scores->end(), [](float score) { return !std::isfinite(score); });
  if (bad != scores->end()) {
    gguf.refuse(fmt::format("{}: score of token {} is {}, expected a finite number", kScoresKey,
                            bad - scores->begin(), *bad));
  }
  return *std::move(scores);
}

std::vector<TokenType> read_types(const GgufReader& gguf, size_t n) {
  const GgufValue& value = require(gguf, kTypesKey);
  const auto numbers = value.as_int32s();
  if (!numbers || numbers->size() != n) gguf.refuse_value(kTypesKey, fmt::format("an array of {} i32", n));
  std::vector<TokenType> types;
  types.reserve(n);
  for (const int32_t number : *numbers) {
    if (number < static_cast<int32_t>(TokenType::kNormal) ||
        number > static_cast<int32_t>(TokenType::kByte)) {
      gguf.refuse(
          fmt::format("{}: type of token {} is {}, expected 1 to 6", kTypesKey, types.size(), number));
    }
    types.push_back(static_cast<TokenType>(number));
  }
  return types;
}

// Defaults are checked as well: a vocabulary of two tokens has no token 2.
TokenId read_special_id(const GgufReader& gguf, const SpecialToken& token, size_t n) {
  if (gguf.find(token.key) != nullptr) return static_cast<TokenId>(gguf.require_uint(token.key, 0, n - 1));
  if (token.fallback != kNoToken && static_cast<size_t>(token.fallback) >= n) {
    gguf.refuse(fmt::format("{} is missing, and its default {} is outside the vocabulary of {} tokens",
                            token.key, token.fallback, n));
  }
  return token.fallback;
}

}  // namespace

void check_vocabulary(Vocabulary& vocabulary, const std::string& where, const Notice& notice) {
  const size_t n = vocabulary.size();
  QUERN_CHECK(vocabulary.scores.size() == n && vocabulary.types.size() == n);
  if (n == 0) fail(ErrorCode::kMalformed, "{}: empty vocabulary", where);
  for (size_t id = 0; id < n; ++id) {
    if (vocabulary.pieces[id].size() > kMaxPieceBytes) {
      fail(ErrorCode::kMalformed, "{}: token {} has {} bytes, at most {} are supported", where, id,
           vocabulary.pieces[id].size(), kMaxPieceBytes);
    }
    if (!std::isfinite(vocabulary.scores[id])) {
      fail(ErrorCode::kMalformed, "{}: score of token {} is {}, expected a finite number", where, id,
           vocabulary.scores[id]);
    }
  }
  index_bytes(vocabulary, where);
  check_special_ids(vocabulary, where);
  report_duplicates(vocabulary, where, notice);
}

void set_no_vocabulary(GgufMetadata* metadata) { metadata->set_string(kModelKey, "no_vocab"); }

bool has_no_vocabulary(const GgufReader& gguf) {
  const GgufValue* model = gguf.find(kModelKey);
  return model != nullptr && model->as_string() == "no_vocab";
}

Vocabulary read_vocabulary(const GgufReader& gguf, uint64_t n_embedding_rows, const Notice& notice) {
  const std::string_view model = gguf.require_string(kModelKey);
  if (model == "no_vocab")
    gguf.refuse(fmt::format("{} is 'no_vocab': the file carries no tokenizer", kModelKey));
  if (model == "gpt2") {
    gguf.refuse(
        fmt::format("{} is 'gpt2' (byte-level BPE with merges and a pre-tokenizer): not supported, only "
                    "'llama' (SentencePiece) is",
                    kModelKey));
  }
  if (model != "llama") {
    gguf.refuse(fmt::format("{} is '{}': not supported, only 'llama' (SentencePiece) is", kModelKey,
                            printable(model)));
  }
  Vocabulary vocabulary;
  vocabulary.pieces = read_pieces(gguf, n_embedding_rows);
  const size_t n = vocabulary.size();
  vocabulary.scores = read_scores(gguf, n);
  vocabulary.types = read_types(gguf, n);
  for (const SpecialToken& token : kSpecialTokens) vocabulary.*token.id = read_special_id(gguf, token, n);
  vocabulary.add_bos = gguf.bool_or(kAddBosKey, vocabulary.add_bos);
  vocabulary.add_eos = gguf.bool_or(kAddEosKey, vocabulary.add_eos);
  vocabulary.add_space_prefix = gguf.bool_or(kAddSpacePrefixKey, vocabulary.add_space_prefix);
  vocabulary.remove_extra_whitespaces = gguf.bool_or(kRemoveSpacesKey, vocabulary.remove_extra_whitespaces);
  vocabulary.chat_template = gguf.string_or(kChatTemplateKey, "");
  vocabulary.chat_format = gguf.string_or(kChatFormatKey, "");
  check_vocabulary(vocabulary, printable(gguf.path(), kPathBytes), notice);
  return vocabulary;
}

void write_vocabulary(const Vocabulary& vocabulary, GgufMetadata* metadata) {
  metadata->set_string(kModelKey, "llama");
  metadata->set_string("tokenizer.ggml.pre", "default");
  metadata->set_strings(kTokensKey, vocabulary.pieces);
  metadata->set_floats(kScoresKey, vocabulary.scores);
  std::vector<int32_t> types;
  types.reserve(vocabulary.size());
  for (const TokenType type : vocabulary.types) types.push_back(static_cast<int32_t>(type));
  metadata->set_int32s(kTypesKey, types);
  for (const SpecialToken& token : kSpecialTokens) {
    const TokenId id = vocabulary.*token.id;
    if (id != kNoToken) metadata->set_u32(token.key, static_cast<uint32_t>(id));
  }
  metadata->set_bool(kAddBosKey, vocabulary.add_bos);
  metadata->set_bool(kAddEosKey, vocabulary.add_eos);
  if (!vocabulary.chat_template.empty()) metadata->set_string(kChatTemplateKey, vocabulary.chat_template);
  metadata->set_bool(kAddSpacePrefixKey, vocabulary.add_space_prefix);
  if (vocabulary.remove_extra_whitespaces) metadata->set_bool(kRemoveSpacesKey, true);
  if (!vocabulary.chat_format.empty()) metadata->set_string(kChatFormatKey, vocabulary.chat_format);
}

}  // namespace quern
