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

// What encode_mistral() asks for.
bool has_control_token(const Vocabulary& vocabulary, std::string_view piece) {
  const auto found = std::find(vocabulary.pieces.begin(), vocabulary.pieces.end(), piece);
  return found != vocabulary.pieces.end() &&
         vocabulary.types[static_cast<size_t>(found - vocabulary.pieces.begin())] == TokenType::kControl;
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

bool has_marks(const MistralVersion& version, const Vocabulary& vocabulary) {
  for (const std::string_view mark : {"[INST]", "[/INST]"})
    if (!has_control_token(vocabulary, mark)) return false;
  for (const std::string_view mark : {"[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"})
    if (version.system_has_a_place && !has_control_token(vocabulary, mark)) return false;
  return true;
}

// Tekken is BPE; the vocabularies of versions 2 and 3 are SentencePiece's; version 7 has both.
template <const MistralVersion& version>
bool fits(const Vocabulary& vocabulary) {
  if (!version.markers_are_tokens) return is_first_vocabulary(vocabulary);
  const bool is_tekken = std::holds_alternative<BytePairParts>(vocabulary.parts);
  return has_marks(version, vocabulary) &&
         (version.system_has_a_place || is_tekken == (version.name == kMistralV3Tekken.name));
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
  const bool fits =
      name == kMistralV1.name ? !holds(vocabulary, "[INST]") : has_marks(kMistralV3, vocabulary);
  return fits ? name : "";
}

}  // namespace quern
