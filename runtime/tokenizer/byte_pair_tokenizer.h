// Byte-level BPE vocabularies, and those of the same merges over characters (formats.md 3.7).
#pragma once

#include <memory>

#include "runtime/tokenizer/tokenizer.h"

namespace quern {

// Bytes that are no UTF-8 are words of their own, a run a word: a vocabulary with all bytes gives any text
// back byte by byte. Bytes without a piece are left out, as tokenizers and llama.cpp leave them out. Throws
// kMalformed where the vocabulary's pre-tokenizer is not known; encode() throws kResource for a word of more
// than 2^26 symbols.
std::unique_ptr<Tokenizer> make_byte_pair_tokenizer(Vocabulary vocabulary);

}  // namespace quern
