// Vocabularies that are a list of byte strings, the likeliest first, with no merges: tiktoken's.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "quant/error.h"
#include "quant/vocabulary.h"

namespace quern {

// tiktoken merges two neighbours when what they make is a token, the one of the lowest rank first. That is
// every way to cut a token into two tokens as a merge, all those of one token of the same rank. `tokens`:
// [rank], each once. In the order of Hugging Face's converter (by the token's rank, then those of the parts),
// which most files were written by.
BytePairParts merges_of_ranks(const std::vector<std::string>& tokens, std::string pre_tokenizer);

// The row whose only step is this pattern; throws kMalformed "<where>: ..." naming the pattern where there is
// none.
std::string pre_tokenizer_of_pattern(std::string_view pattern, const std::string& where);

// A rank file: lines of base64 and a number (tiktoken's load_tiktoken_bpe). Whether the first line is one.
bool is_rank_file(std::string_view text);
// Ranks must be those from 0 on, each once. The file holds neither special tokens nor a pre-tokenizer, so one
// must be given; throws kUsage where it is not.
Vocabulary read_rank_file(std::string_view text, const std::string& where, const std::string& pre_tokenizer,
                          const Notice& notice);

// Mistral's tekken.json. Whether a JSON document is one, going by its members.
bool is_tekken_json(std::string_view text);
// The first default_vocab_size - default_num_special_tokens entries count, behind the special tokens; a file
// that lists none of these has those of tokenizer version v3. Source: mistral_common 1.13,
// tokens/tokenizers/tekken.py.
Vocabulary read_tekken_json(std::string_view text, const std::string& where, const std::string& pre_tokenizer,
                            const Notice& notice);

}  // namespace quern
