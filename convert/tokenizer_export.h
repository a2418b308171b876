// A checkpoint's tokenizer files -> the vocabulary that goes into the GGUF file.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "convert/hf_config.h"
#include "quant/error.h"
#include "quant/vocabulary.h"

namespace quern {

// Reads the folder's tokenizer (tokenizer.model, tokenizer.json, tekken.json, *.tiktoken; each known by what
// is in it, the first of SentencePiece, tokenizer.json, tekken, ranks counts), what its other files add to it
// (added tokens, bos, eos and further ends, add_bos_token, add_eos_token, beside a tokenizer.model
// add_prefix_space) and the first chat template of
// chat_template.jinja, tokenizer_config.json and chat_template.json. The vocabulary has config.vocab_size
// tokens, the embedding's rows: those that nothing names are unused ones. Throws kMalformed when there is no
// tokenizer, or it has more pieces. `recognise_chat_format` gives the name of the built-in format that the
// vocabulary's template describes, or
// ""; may be null. `pre_tokenizer`: as in read_tokenizer_file.
Vocabulary read_checkpoint_tokenizer(
    const std::string& folder, const ModelConfig& config,
    const std::function<std::string(const Vocabulary&)>& recognise_chat_format, const Notice& notice,
    const std::string& pre_tokenizer = {});

// The same where no model is asked for: the vocabulary is as large as its files make it.
Vocabulary read_folder_tokenizer(const std::string& folder, const std::string& pre_tokenizer,
                                 const Notice& notice);

}  // namespace quern
