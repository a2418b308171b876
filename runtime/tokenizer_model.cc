#include "runtime/tokenizer_model.h"

#include <bit>
#include <string_view>
#include <unordered_set>

#include "quant/utf8.h"

namespace quern {

namespace {

// Field numbers and values of sentencepiece_model.proto. Piece types have TokenType's values.
constexpr uint32_t kModelPieces = 1, kModelTrainerSpec = 2, kModelNormalizerSpec = 3;
constexpr uint32_t kPieceText = 1, kPieceScore = 2, kPieceType = 3;
constexpr uint32_t kTrainerModelType = 3, kTrainerByteFallback = 35;
constexpr uint32_t kNormalizerName = 1, kNormalizerAddDummyPrefix = 3, kNormalizerRemoveExtraWhitespaces = 4;
constexpr uint64_t kModelTypeBpe = 2;

// Appends fields to a message in wire format.
class MessageWriter {
 public:
  void put_integer(uint32_t field, uint64_t value) {
    put_varint(field << 3 | 0);
    put_varint(value);
  }
  void put_bytes(uint32_t field, std::string_view value) {
    put_varint(field << 3 | 2);
    put_varint(value.size());
    bytes_ += value;
  }
  void put_float(uint32_t field, float value) {
    put_varint(field << 3 | 5);
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
  piece.put_bytes(kPieceText, text);
  piece.put_float(kPieceScore, score);
  piece.put_integer(kPieceType, static_cast<uint64_t>(type));
  model->put_bytes(kModelPieces, piece.bytes());
}

bool is_mergeable(TokenType type) { return type == TokenType::kNormal || type == TokenType::kUnused; }

// sentencepiece holds text in C strings here and there, hence no NUL; U+0020 never reaches it.
bool is_matchable(std::string_view text) {
  return !text.empty() && text.find('\0') == text.npos && text.find(' ') == text.npos && is_valid_utf8(text);
}

}  // namespace

std::string build_sentencepiece_model(const Vocabulary& vocabulary) {
  MessageWriter model;
  // sentencepiece refuses duplicates, and looks names up among byte pieces before it does among others: a
  // normal piece that is spelled like a byte would come out as that byte.
  std::unordered_set<std::string_view> taken;
  taken.reserve(vocabulary.size());
  for (const TokenId id : vocabulary.byte_ids) taken.insert(vocabulary.pieces[static_cast<size_t>(id)]);
  for (size_t id = 0; id < vocabulary.size(); ++id) {
    const std::string& text = vocabulary.pieces[id];
    const TokenType type = vocabulary.types[id];
    const bool kept =
        type == TokenType::kByte || (is_mergeable(type) && is_matchable(text) && taken.insert(text).second);
    if (kept) {
      put_piece(&model, text, vocabulary.scores[id], type);
    } else {
      put_piece(&model, fmt::format(" {}", id), 0, TokenType::kControl);
    }
  }
  put_piece(&model, " unknown", 0, TokenType::kUnknown);

  MessageWriter trainer_spec;
  trainer_spec.put_integer(kTrainerModelType, kModelTypeBpe);
  trainer_spec.put_integer(kTrainerByteFallback, 1);
  model.put_bytes(kModelTrainerSpec, trainer_spec.bytes());
  MessageWriter normalizer_spec;
  normalizer_spec.put_bytes(kNormalizerName, "identity");
  normalizer_spec.put_integer(kNormalizerAddDummyPrefix, 0);
  normalizer_spec.put_integer(kNormalizerRemoveExtraWhitespaces, 0);
  model.put_bytes(kModelNormalizerSpec, normalizer_spec.bytes());
  return model.bytes();
}

}  // namespace quern
