// SentencePiece vocabularies (formats.md 3). Encoding is sentencepiece's own, on a model rebuilt from the
// vocabulary.
#pragma once

#include <memory>

#include "runtime/tokenizer/tokenizer.h"

namespace quern {

// Malformed UTF-8 counts as one U+FFFD a byte. Throws kMalformed when no working model can be built from the
// vocabulary; its encode() throws kResource for a long text that can only be tokenized whole.
std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(Vocabulary vocabulary);

}  // namespace quern
