// Field numbers and values of sentencepiece_model.proto, and the wire types of Protocol Buffers that they are
// written in. Piece types have TokenType's values (vocabulary.h).
//
// Source: google/sentencepiece, src/sentencepiece_model.proto; Google, Protocol Buffers, "Encoding"
// (protobuf.dev).
#pragma once

#include <cstdint>

namespace quern {

enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kLengthDelimited = 2, kFixed32 = 5 };

namespace model_field {
constexpr uint32_t kPieces = 1, kTrainerSpec = 2, kNormalizerSpec = 3, kDenormalizerSpec = 5;
}
namespace piece_field {
constexpr uint32_t kText = 1, kScore = 2, kType = 3;
}
namespace trainer_field {
constexpr uint32_t kModelType = 3, kTreatWhitespaceAsSuffix = 24, kByteFallback = 35, kUnkId = 40,
                   kBosId = 41, kEosId = 42, kPadId = 43;
}
namespace normalizer_field {
constexpr uint32_t kName = 1, kPrecompiledCharsmap = 2, kAddDummyPrefix = 3, kRemoveExtraWhitespaces = 4,
                   kEscapeWhitespaces = 5;
}
constexpr int32_t kModelTypeUnigram = 1, kModelTypeBpe = 2, kModelTypeWord = 3, kModelTypeChar = 4;

}  // namespace quern
