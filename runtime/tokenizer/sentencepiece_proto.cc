#include "runtime/tokenizer/sentencepiece_proto.h"

#include <algorithm>
#include <bit>
#include <string_view>
#include <unordered_set>

#include "quant/sentencepiece_fields.h"
#include "quant/utf8.h"

namespace quern {

namespace {

// Appends fields to a message in wire format.
class MessageWriter {
 public:
  void put_integer(uint32_t field, uint64_t value) {
    put_varint(field << 3 | kVarint);
    put_varint(value);
  }
  void put_bytes(uint32_t field, std::string_view value) {
    put_varint(field << 3 | kLengthDelimited);
    put_varint(value.size());
    bytes_ += value;
  }
  void put_float(uint32_t field, float value) {
    put_varint(field << 3 | kFixed32);
    const auto bits = std::bit_cast<uint32_t>(value);
    for (int shift = 0; shift < 32; shift += 8) bytes_ += static_cast<char>(bits >> shift & 0xFF);
  }
  const std::string& bytes() const { return bytes_; }

 private:
  void put_varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>((value & 0x7F) | 0x80);
    bytes_ += static_cast<char>(value);
  }

  std::string bytes_;
};

void put_piece(MessageWriter* model, std::string_view text, float score, TokenType type) {
  MessageWriter piece;
  piece.put_bytes(piece_field::kText, text);
  piece.put_float(piece_field::kScore, score);
  piece.put_integer(piece_field::kType, static_cast<uint64_t>(type));
  model->put_bytes(model_field::kPieces, piece.bytes());
}

// sentencepiece holds text in C strings here and there, hence no NUL; U+0020 never reaches it.
bool is_matchable(std::string_view text) {
  return !text.empty() && text.find('\0') == text.npos && text.find(' ') == text.npos && is_valid_utf8(text);
}

}  // namespace

bool is_markup(std::string_view piece) {
  static constexpr std::string_view kNames[] = {"<bos>", "<cls>", "<eos>", "<mask>",
                                                "<pad>", "<sep>", "<unk>"};
  if (piece.size() < 3) return false;
  if (std::find(std::begin(kNames), std::end(kNames), piece) != std::end(kNames)) return true;
  if (piece.front() == '[' && piece.back() == ']') return true;
  if (piece.front() != '<' || piece.back() != '>') return false;
  piece = piece.substr(1, piece.size() - 2);
  if (piece.front() == '/') piece.remove_prefix(1);
  return piece.empty() || !std::all_of(piece.begin(), piece.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
         });
}

bool takes_raw_text(const Vocabulary& vocabulary) {
  return vocabulary.is_unigram() || !vocabulary.sentencepiece().precompiled_charsmap.empty();
}

std::vector<TokenId> mergeable_unused(const Vocabulary& vocabulary) {
  const std::vector<TokenType>& types = vocabulary.types;
  std::vector<TokenId> ids;
  if (std::find(types.begin(), types.end(), TokenType::kUnused) == types.end()) return ids;
  std::unordered_set<std::string_view> parts;
  parts.reserve(vocabulary.size());
  for (size_t id = 0; id < vocabulary.size(); ++id)
    if (types[id] == TokenType::kNormal || types[id] == TokenType::kUnused)
      parts.insert(vocabulary.pieces[id]);
  const auto is_part = [&](std::string_view text) {
    return utf8_length(text) == text.size() || parts.contains(text);
  };
  for (size_t id = 0; id < vocabulary.size(); ++id) {
    const std::string_view piece = vocabulary.pieces[id];
    if (types[id] != TokenType::kUnused || !is_matchable(piece)) continue;
    bool reached = utf8_length(piece) == piece.size();
    for (size_t at = 1; at < piece.size() && !reached; ++at)
      reached = is_part(piece.substr(0, at)) && is_part(piece.substr(at));
    if (reached) ids.push_back(static_cast<TokenId>(id));
  }
  return ids;
}

std::string build_sentencepiece_model(const Vocabulary& vocabulary, bool with_markup) {
  MessageWriter model;
  // sentencepiece refuses duplicates, and looks names up among byte pieces before it does among others: a
  // normal piece that is spelled like a byte would come out as that byte.
  std::unordered_set<std::string_view> taken;
  taken.reserve(vocabulary.size());
  const SentencePieceParts& parts = vocabulary.sentencepiece();
  const std::vector<TokenId> unused = mergeable_unused(vocabulary);
  bool has_bytes = false;
  for (const TokenId id : vocabulary.sentencepiece().byte_ids) {
    if (id == kNoToken) continue;
    has_bytes = true;
    taken.insert(vocabulary.pieces[static_cast<size_t>(id)]);
  }
  for (size_t id = 0; id < vocabulary.size(); ++id) {
    const std::string& text = vocabulary.pieces[id];
    const TokenType type = vocabulary.types[id];
    const bool mergeable = type == TokenType::kNormal ||
                           (type == TokenType::kUnused &&
                            std::binary_search(unused.begin(), unused.end(), static_cast<TokenId>(id)));
    const bool user_defined =
        takes_raw_text(vocabulary) && type == TokenType::kUserDefined && (with_markup || !is_markup(text)) &&
        std::binary_search(parts.user_defined.begin(), parts.user_defined.end(), static_cast<TokenId>(id));
    const bool kept = type == TokenType::kByte ||
                      ((mergeable || user_defined) && is_matchable(text) && taken.insert(text).second);
    if (kept) {
      put_piece(&model, text, vocabulary.sentencepiece().scores[id], type);
    } else {
      put_piece(&model, fmt::format(" {}", id), 0, TokenType::kControl);
    }
  }
  put_piece(&model, " unknown", 0, TokenType::kUnknown);

  MessageWriter trainer_spec;
  trainer_spec.put_integer(trainer_field::kModelType,
                           vocabulary.is_unigram() ? kModelTypeUnigram : kModelTypeBpe);
  trainer_spec.put_integer(trainer_field::kByteFallback, has_bytes ? 1 : 0);
  model.put_bytes(model_field::kTrainerSpec, trainer_spec.bytes());
  MessageWriter normalizer_spec;
  const bool raw = takes_raw_text(vocabulary);
  normalizer_spec.put_bytes(normalizer_field::kName,
                            parts.precompiled_charsmap.empty() ? "identity" : "user_defined");
  if (!parts.precompiled_charsmap.empty())
    normalizer_spec.put_bytes(normalizer_field::kPrecompiledCharsmap, parts.precompiled_charsmap);
  normalizer_spec.put_integer(normalizer_field::kAddDummyPrefix, raw && vocabulary.add_space_prefix ? 1 : 0);
  normalizer_spec.put_integer(normalizer_field::kRemoveExtraWhitespaces,
                              raw && vocabulary.remove_extra_whitespaces ? 1 : 0);
  model.put_bytes(model_field::kNormalizerSpec, normalizer_spec.bytes());
  return model.bytes();
}

}  // namespace quern
