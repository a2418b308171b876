// The tokens that Hugging Face's files add to a tokenizer.model or mark in it.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "quant/error.h"
#include "quant/json/json.h"
#include "quant/vocabulary.h"

namespace quern {

struct AddedTokenEntry {
  uint64_t id = 0;
  std::string text;
  bool special = false;                 // a control token
  bool lstrip = false, rstrip = false;  // takes white space beside it along
};

// Of the tokens that one file gives the same id, the first counts, as in Hugging Face's tokenizers.
class FirstOfEachId {
 public:
  // where: the file and place, for the notice.
  explicit FirstOfEachId(std::string where) : where_(std::move(where)) {}

  // Is it the first of its id?
  bool take(uint64_t id, const std::string& text);
  // One line about those that were not.
  void tell(const Notice& notice) const;

 private:
  std::string where_, first_;
  std::unordered_map<uint64_t, std::string> texts_;
  size_t n_repeated_ = 0;
};

// An object {"content": ..., "special": ...} of tokenizer.json's "added_tokens" or of tokenizer_config.json's
// "added_tokens_decoder"; `where` names it in errors (kMalformed).
AddedTokenEntry read_added_token(const Json& json, uint64_t id, const std::string& where);

// What the folder says of added tokens, by ascending id, each id once: tokenizer_config.json's
// added_tokens_decoder, then added_tokens.json (special are the ones that `special_texts` names); where
// neither names any, tokenizer.json's added_tokens. Notices tell of ids that two files spell differently, and
// of those that one file names twice.
std::vector<AddedTokenEntry> read_added_tokens(const std::string& folder,
                                               const std::vector<std::string>& special_texts,
                                               const Notice& notice);

// Adds them to a vocabulary and brings it to n_tokens, the embedding's rows: a token becomes control (type 3)
// or added (type 4) by its flag, ids that nothing names unused ones ("[PAD32001]", type 5). Notices say how
// many were added, and which tokens are renamed or lie beyond the embedding: these are dropped, of a
// byte-level vocabulary (tokenizer.json has them already) too. Throws kMalformed when the vocabulary has more
// than n_tokens others, or would be padded by more than a quarter: then the files do not belong together.
void add_tokens(Vocabulary* vocabulary, const std::vector<AddedTokenEntry>& added, uint64_t n_tokens,
                const std::string& where, const Notice& notice);

}  // namespace quern
