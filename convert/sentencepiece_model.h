// Reads a sentencepiece tokenizer.model.
//
// Source: google/sentencepiece, src/sentencepiece_model.proto; the wire format of Protocol Buffers (Google,
// "Encoding", protobuf.dev). An own bounded reader, since the distribution's sentencepiece package comes
// without its protobuf header, and since a broken file should be told with path and offset.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "quant/error.h"
#include "quant/vocabulary.h"

namespace quern {

// `path` only names the file in messages. Accepted are BPE and unigram models; what changes a text
// otherwise than by a charsmap (a denormalizer, white space as a suffix) is refused by name. User-defined
// pieces are of type 4 and listed, but for lone characters, which become normal ones (formats.md 2.2).
// `notice` gets warnings. Throws kMalformed "<path>: ... (offset 0x..)".
Vocabulary read_sentencepiece_model(std::span<const uint8_t> bytes, const std::string& path,
                                    const Notice& notice);

}  // namespace quern
