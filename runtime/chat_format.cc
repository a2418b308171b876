#include "runtime/chat_format.h"

#include <algorithm>
#include <array>

#include "quant/error.h"
#include "runtime/mistral_format.h"
#include "runtime/template/published_templates.h"

namespace quern {

namespace {

constexpr MistralVersion kMistralV1 = {"mistral-v1", false, false};
constexpr MistralVersion kMistralV2 = {"mistral-v2", true, false};
constexpr MistralVersion kMistralV3 = {"mistral-v3", true, false};
constexpr MistralVersion kMistralV3Tekken = {"mistral-v3-tekken", true, false};
constexpr MistralVersion kMistralV7 = {"mistral-v7", true, true};

bool holds(const Vocabulary& vocabulary, std::string_view piece) {
  return std::find(vocabulary.pieces.begin(), vocabulary.pieces.end(), piece) != vocabulary.pieces.end();
}

template <const MistralVersion& version>
std::vector<TokenId> encode(const Tokenizer& tokenizer, std::span<const ChatMessage> messages) {
  return encode_mistral(version, tokenizer, messages);
}

// v1 has no tokens of its own: it is plain text, of Mistral's first vocabulary, which two of its pieces tell.
bool is_first_vocabulary(const Vocabulary& vocabulary) {
  constexpr size_t kInst = 16289, kBracket = 28793;
  return vocabulary.pieces.size() > kBracket && vocabulary.pieces[kInst] == "INST" &&
         vocabulary.pieces[kBracket] == "]" && !holds(vocabulary, "[INST]");
}

template <const MistralVersion& version>
bool fits(const Vocabulary& vocabulary) {
  if (!version.markers_are_tokens) return is_first_vocabulary(vocabulary);
  return holds(vocabulary, "[INST]") && holds(vocabulary, "[/INST]") &&
         (!version.system_has_a_place || holds(vocabulary, "[SYSTEM_PROMPT]"));
}

constexpr std::array<ChatFormat, 5> kChatFormats = {{
    {kMistralV1.name, "[INST] ... [/INST] as plain text: Mistral-7B-Instruct v0.1 and v0.2", fits<kMistralV1>,
     encode<kMistralV1>},
    {kMistralV2.name, "[INST] as a token: Mistral's tokenizers of version 2", fits<kMistralV2>,
     encode<kMistralV2>},
    {kMistralV3.name, "Mistral-7B-Instruct v0.3, Mixtral-8x22B-Instruct", fits<kMistralV3>,
     encode<kMistralV3>},
    {kMistralV3Tekken.name, "Mistral-Nemo-Instruct", fits<kMistralV3Tekken>, encode<kMistralV3Tekken>},
    {kMistralV7.name, "[SYSTEM_PROMPT] as a token: Mistral-Large-Instruct-2411", fits<kMistralV7>,
     encode<kMistralV7>},
}};

}  // namespace

std::span<const ChatFormat> chat_formats() noexcept { return kChatFormats; }

const ChatFormat* find_chat_format(std::string_view name) noexcept {
  const auto* found = std::find_if(kChatFormats.begin(), kChatFormats.end(),
                                   [name](const ChatFormat& format) { return format.name == name; });
  return found == kChatFormats.end() ? nullptr : found;
}

std::string_view recognise_chat_format(const Vocabulary& vocabulary) {
  const std::string_view name = published_format(vocabulary.chat_template);
  // v0.3 was published with v0.2's template too, but its markers are tokens of their own.
  return holds(vocabulary, "[INST]") == (name != kMistralV1.name) ? name : "";
}

}  // namespace quern
