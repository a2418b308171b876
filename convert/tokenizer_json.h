// Hugging Face's tokenizer.json -> a vocabulary.
//
// The file says how it works (normalizer, pre-tokenizer, model, post-processor); each part is read as what it
// is, and the steps of the pre-tokenizer are looked up among the rows of quant/pre_tokenizer.h. Source: the
// crate tokenizers 0.23, its serialised form.
#pragma once

#include <string>
#include <string_view>

#include "quant/error.h"
#include "quant/vocabulary.h"

namespace quern {

// bos and eos are those that the post-processor puts around a text. Throws kMalformed "<where>: ..." for what
// is malformed, and for what the program does not do (other models than BPE, normalizers that change letters,
// pre-tokenizers without a row), naming the part. `pre_tokenizer`: a row instead of the file's own steps.
Vocabulary read_tokenizer_json(std::string_view text, const std::string& where,
                               const std::string& pre_tokenizer, const Notice& notice);

}  // namespace quern
