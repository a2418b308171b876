// Conversations -> token ids, structurally per message: special tokens in what a user typed stay text
// (formats.md 3.4).
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/tokenizer/tokenizer.h"

namespace quern {

struct ChatMessage {
  std::string role;     // "system", "user", "assistant"
  std::string content;  // chunk lists already joined with "\n\n"
  bool prefix = false;  // last assistant message that the model is to continue
};

struct ChatFormat {
  std::string_view name;         // "mistral-v1"
  std::string_view description;  // one line for --help
  // Whether a model of this vocabulary could have been trained on the format: its marks are there.
  bool (*fits)(const Vocabulary& vocabulary);
  // Ids to feed before the model answers. Throws kMalformed with mistral_common's reason for what it refuses.
  std::vector<TokenId> (*encode)(const Tokenizer& tokenizer, std::span<const ChatMessage> messages);
};

std::span<const ChatFormat> chat_formats() noexcept;
const ChatFormat* find_chat_format(std::string_view name) noexcept;  // null when unknown
// Name of the built-in format that a vocabulary's chat template is known to describe; empty when there is
// none or it is not that template, whole: others are executed (runtime/template/chat_template.h).
std::string_view recognise_chat_format(const Vocabulary& vocabulary);

}  // namespace quern
