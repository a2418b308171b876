// Vocabulary -> a sentencepiece ModelProto that encodes with it.
//
// Source: google/sentencepiece, src/sentencepiece_model.proto (the wire format of protocol buffers).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "quant/vocabulary.h"

namespace quern {

// Unused pieces (type 5) that merges can reach: of two that are pieces or characters. sentencepiece takes
// these apart again. Padding of an embedding is not among them.
std::vector<TokenId> mergeable_unused(const Vocabulary& vocabulary);

// Is a user-defined piece a sign for the model rather than text that people write ("\n", "<table>")? In
// brackets stands something else than the lower-case name of an HTML element, or one that vocabularies give
// to signs (<sep>).
bool is_markup(std::string_view piece);

// Does the model take a text as it is (unigram, and where characters are mapped), or normalised?
bool takes_raw_text(const Vocabulary& vocabulary);

// A model whose piece ids are the vocabulary's, with byte fallback where that has byte pieces. Unless it
// takes raw text, it expects one that is normalised already: well-formed UTF-8, spaces written as U+2581, the
// space prefix put in, user-defined pieces cut out; otherwise it finds these itself, markup only
// `with_markup`. Pieces that must never match such text (control, unknown and the other user-defined ones,
// duplicates, malformed UTF-8) are there under names that it cannot contain. One id more, size(), is the
// model's own unknown piece, which only a vocabulary without byte pieces lets it emit.
std::string build_sentencepiece_model(const Vocabulary& vocabulary, bool with_markup);

}  // namespace quern
