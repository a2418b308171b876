// A checkpoint's tokenizer files -> the vocabulary that goes into the GGUF file.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "convert/hf_config.h"
#include "quant/error.h"
#include "quant/vocabulary.h"

namespace quern {

// Reads tokenizer.model (SentencePiece), what tokenizer_config.json adds to it (add_bos_token,
// add_eos_token, chat_template) and chat_template.jinja. Throws kMalformed when there is no tokenizer.model,
// naming the kinds of tokenizer that are there instead, and when it does not have vocab_size pieces.
// `recognise_chat_format` gives the name of the built-in format that the vocabulary's template describes, or
// ""; may be null.
Vocabulary read_checkpoint_tokenizer(
    const std::string& folder, const ModelConfig& config,
    const std::function<std::string(const Vocabulary&)>& recognise_chat_format, const Notice& notice);

}  // namespace quern
