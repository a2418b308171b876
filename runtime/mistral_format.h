// Mistral's conversations as mistral_common encodes them, message by message: special tokens in what a user
// typed stay text (formats.md 3.4).
//
// Source: mistral_common 1.11.7 (v1) and 1.13.1 (v2 to v7), `MistralTokenizer`, measured by its ids.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "runtime/chat_format.h"

namespace quern {

// What tells the versions of Mistral's tokenizers apart, where no tools are in play.
struct MistralVersion {
  std::string_view name;    // "mistral-v3"
  bool markers_are_tokens;  // [INST] is a token of its own, not text
  bool system_has_a_place;  // [SYSTEM_PROMPT] ... where it stands, not in front of a user's text
};

// Ids to feed before the model answers. Throws kMalformed with mistral_common's reason for what it refuses,
// and for a vocabulary that lacks one of the tokens.
std::vector<TokenId> encode_mistral(const MistralVersion& version, const Tokenizer& tokenizer,
                                    std::span<const ChatMessage> messages);

}  // namespace quern
