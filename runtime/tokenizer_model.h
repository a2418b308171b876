// Vocabulary -> a sentencepiece ModelProto that encodes with it.
//
// Source: google/sentencepiece, src/sentencepiece_model.proto (the wire format of protocol buffers).
#pragma once

#include <string>

#include "quant/vocabulary.h"

namespace quern {

// A BPE model with byte fallback whose piece ids are the vocabulary's. It expects text that is normalised
// already: well-formed UTF-8, spaces written as U+2581, the space prefix put in. Pieces that must never match
// such text (control, unknown and user-defined ones, duplicates, malformed UTF-8) are there under names that
// it cannot contain. One id more, size(), is the model's own unknown piece; byte fallback keeps it from ever
// being emitted.
std::string build_sentencepiece_model(const Vocabulary& vocabulary);

}  // namespace quern
