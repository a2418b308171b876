// Which tokens begin and end a text, where the files of a folder disagree.
#pragma once

#include <string>
#include <vector>

#include "quant/error.h"
#include "quant/vocabulary.h"

namespace quern {

// Texts that tokenizer_config.json and special_tokens_map.json name as special tokens (bos_token, ...,
// additional_special_tokens).
std::vector<std::string> read_special_texts(const std::string& folder);

// Sets bos, eos, eot, eom, more_ends and, where it has none, pad. Statements count in this order:
// tokenizer_config.json, generation_config.json, config.json, what the vocabulary has already (of
// `vocabulary_path`), special_tokens_map.json. One counts only if its token is a control token and, for eos,
// is not bos; the others are named in a notice, as are two that differ. The first that counts is bos or eos;
// the other ends that generation_config.json and config.json state end an answer too: as eot, eom, then
// more_ends.
void resolve_special_ids(Vocabulary* vocabulary, const std::string& folder,
                         const std::string& vocabulary_path, const Notice& notice);

}  // namespace quern
