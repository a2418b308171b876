#include "quant/vocabulary.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "quant/vocabulary_families.h"

namespace quern {
namespace {

namespace keys = vocabulary_keys;

constexpr size_t kMaxPieceBytes = 65536;
constexpr size_t kMaxPieces = size_t{1} << 30;  // ids are int32

constexpr std::string_view kAddBosKey = "tokenizer.ggml.add_bos_token";
constexpr std::string_view kAddEosKey = "tokenizer.ggml.add_eos_token";
constexpr std::string_view kAddSpacePrefixKey = "tokenizer.ggml.add_space_prefix";
constexpr std::string_view kChatTemplateKey = "tokenizer.chat_template";
constexpr std::string_view kChatFormatKey = "quern.chat_format";

constexpr const VocabularyFamily* kFamilies[] = {&kSentencePieceFamily, &kUnigramFamily, &kBytePairFamily,
                                                 &kGemma4Family};

const VocabularyFamily& family_of(const Vocabulary& vocabulary) {
  for (const VocabularyFamily* family : kFamilies)
    if (family->model == vocabulary.model) return *family;
  fail(ErrorCode::kMalformed, "no tokenizer is called '{}'", printable(vocabulary.model));
}

// In the order in which they are written.
struct SpecialToken {
  std::string_view key;
  std::string_view name;
  TokenId Vocabulary::*id;
  TokenId VocabularyFamily::*fallback;  // null: none
};
constexpr SpecialToken kSpecialTokens[] = {
    {"tokenizer.ggml.bos_token_id", "bos", &Vocabulary::bos, &VocabularyFamily::default_bos},
    {"tokenizer.ggml.eos_token_id", "eos", &Vocabulary::eos, &VocabularyFamily::default_eos},
    {"tokenizer.ggml.eot_token_id", "eot", &Vocabulary::eot, nullptr},
    {"tokenizer.ggml.eom_token_id", "eom", &Vocabulary::eom, nullptr},
    {"tokenizer.ggml.unknown_token_id", "unk", &Vocabulary::unk, &VocabularyFamily::default_unk},
    {"tokenizer.ggml.padding_token_id", "pad", &Vocabulary::pad, nullptr},
};
struct TokenList {
  std::string_view key;
  std::vector<TokenId> Vocabulary::*ids;
};
constexpr TokenList kTokenLists[] = {
    {"quern.tokenizer.end_token_ids", &Vocabulary::more_ends},
    {"quern.tokenizer.lstrip_token_ids", &Vocabulary::strips_left},
    {"quern.tokenizer.rstrip_token_ids", &Vocabulary::strips_right},
    {"quern.tokenizer.single_word_token_ids", &Vocabulary::single_words},
    {"quern.tokenizer.normalized_token_ids", &Vocabulary::normalized},
};

void check_special_ids(const Vocabulary& vocabulary, const std::string& where) {
  for (const SpecialToken& token : kSpecialTokens) {
    const TokenId id = vocabulary.*token.id;
    if (id != kNoToken && (id < 0 || static_cast<size_t>(id) >= vocabulary.size())) {
      fail(ErrorCode::kMalformed, "{}: {} id {} is outside the vocabulary of {} tokens", where, token.name,
           id, vocabulary.size());
    }
  }
  if (vocabulary.add_bos && vocabulary.bos == kNoToken) {
    fail(ErrorCode::kMalformed, "{}: a bos token is to be added, but there is no bos id", where);
  }
  if (vocabulary.add_eos && vocabulary.eos == kNoToken) {
    fail(ErrorCode::kMalformed, "{}: an eos token is to be added, but there is no eos id", where);
  }
}

void report_duplicates(const Vocabulary& vocabulary, const std::string& where, const Notice& notice) {
  std::unordered_map<std::string_view, size_t> first_ids;
  first_ids.reserve(vocabulary.size());
  size_t n_duplicates = 0, first = 0, second = 0;
  for (size_t id = 0; id < vocabulary.size(); ++id) {
    const auto [found, is_new] = first_ids.try_emplace(vocabulary.pieces[id], id);
    if (is_new || n_duplicates++ > 0) continue;
    first = found->second;
    second = id;
  }
  if (n_duplicates == 0 || !notice) return;
  notice(fmt::format("{}: duplicate token '{}' (ids {} and {}; {} in all): the lowest id is used", where,
                     printable(vocabulary.pieces[first]), first, second, n_duplicates));
}

void check_lists(const Vocabulary& vocabulary) {
  for (const TokenList& list : kTokenLists) {
    for (const TokenId id : vocabulary.*list.ids)
      QUERN_CHECK(id >= 0 && static_cast<size_t>(id) < vocabulary.size());
  }
}

const GgufValue& require(const GgufReader& gguf, std::string_view key) {
  const GgufValue* value = gguf.find(key);
  if (value == nullptr) gguf.refuse(fmt::format("key '{}' is missing", key));
  return *value;
}

std::vector<std::string> read_pieces(const GgufReader& gguf, uint64_t n_embedding_rows) {
  const GgufValue& value = require(gguf, keys::kTokens);
  const auto texts = value.as_strings();
  if (!texts) gguf.refuse_value(keys::kTokens, "an array of strings");
  if (texts->size() != n_embedding_rows || texts->size() > kMaxPieces) {
    gguf.refuse(fmt::format("vocabulary of {} tokens ({}), but token_embd.weight has {} rows", texts->size(),
                            keys::kTokens, n_embedding_rows));
  }
  return {texts->begin(), texts->end()};
}

// What Gemma 4 ends its calls of tools with, in files of llama.cpp a token that the user defined.
constexpr std::string_view kGemmaCallsEnd = "<|tool_response>";
// Ends of turns and messages.
constexpr std::string_view kEndSpellings[] = {"<|eot_id|>", "<|im_end|>", "<end_of_turn>", "<turn|>",
                                              "<|end|>",    "<|eom_id|>", kGemmaCallsEnd};
bool is_spelled_like_an_end(std::string_view piece) {
  return std::find(std::begin(kEndSpellings), std::end(kEndSpellings), piece) != std::end(kEndSpellings);
}

// Without types in a file, their spelling tells, and special ids (mark_special_tokens).
std::vector<TokenType> guess_types(const std::vector<std::string>& pieces) {
  std::vector<TokenType> types(pieces.size(), TokenType::kNormal);
  for (size_t id = 0; id < pieces.size(); ++id) {
    if (pieces[id] == "<unk>") types[id] = TokenType::kUnknown;
    if (pieces[id] == "<s>" || pieces[id] == "</s>" || is_spelled_like_an_end(pieces[id]))
      types[id] = TokenType::kControl;
  }
  return types;
}

void mark_special_tokens(const GgufReader& gguf, Vocabulary* vocabulary) {
  for (const SpecialToken& token : kSpecialTokens) {
    const TokenId id = vocabulary->*token.id;
    if (gguf.find(token.key) == nullptr || id == kNoToken ||
        vocabulary->types[static_cast<size_t>(id)] != TokenType::kNormal)
      continue;
    vocabulary->types[static_cast<size_t>(id)] =
        token.id == &Vocabulary::unk ? TokenType::kUnknown : TokenType::kControl;
  }
}

std::vector<TokenType> read_types(const GgufReader& gguf, const std::vector<std::string>& pieces,
                                  const Notice& notice) {
  const size_t n = pieces.size();
  const auto tell = [&](const std::string& message) {
    if (notice) notice(gguf.notice_text(message));
  };
  const GgufValue* value = gguf.find(keys::kTypes);
  if (value == nullptr) {
    tell(fmt::format("{} is missing: tokens are known by their spelling", keys::kTypes));
    return guess_types(pieces);
  }
  const auto numbers = value->as_int32s();
  if (!numbers || numbers->size() != n) gguf.refuse_value(keys::kTypes, fmt::format("an array of {} i32", n));
  std::vector<TokenType> types;
  types.reserve(n);
  size_t n_undefined = 0;
  for (const int32_t number : *numbers) {
    if (number < 0 || number > static_cast<int32_t>(TokenType::kByte)) {
      gguf.refuse(
          fmt::format("{}: type of token {} is {}, expected 1 to 6", keys::kTypes, types.size(), number));
    }
    if (number == 0) ++n_undefined;
    types.push_back(number == 0 ? TokenType::kNormal : static_cast<TokenType>(number));
  }
  if (n_undefined > 0) {
    tell(fmt::format("{}: {} tokens are of type 0 (undefined): taken for ordinary ones", keys::kTypes,
                     n_undefined));
  }
  return types;
}

// Defaults that lie outside are none: a vocabulary of two tokens has no token 2.
TokenId read_special_id(const GgufReader& gguf, const SpecialToken& token, const VocabularyFamily& family,
                        const Vocabulary& vocabulary, const Notice& notice) {
  TokenId fallback = token.fallback == nullptr ? kNoToken : family.*token.fallback;
  if (fallback != kNoToken && static_cast<size_t>(fallback) >= vocabulary.size()) fallback = kNoToken;
  const GgufValue* value = gguf.find(token.key);
  if (value == nullptr) return fallback;
  const std::optional<uint64_t> id = value->as_uint();
  if (!id && !value->as_int()) gguf.refuse_value(token.key, "an integer");
  if (id && *id < vocabulary.size()) return static_cast<TokenId>(*id);
  if (notice) {
    notice(gguf.notice_text(fmt::format(
        "{} is {}, outside the vocabulary of {} tokens: ignored{}", token.key,
        id ? fmt::to_string(*id) : fmt::to_string(*value->as_int()), vocabulary.size(),
        fallback == kNoToken ? std::string() : fmt::format(", the default {} is taken", fallback))));
  }
  return fallback;
}

// Phi-3's added tokens take the white space behind them along, which GGUF has no key for; llama.cpp knows
// them by the model's name.
bool is_phi3(const GgufReader& gguf) {
  const GgufValue* value = gguf.find("general.name");
  std::string name(value == nullptr ? "" : value->as_string().value_or(""));
  std::transform(name.begin(), name.end(), name.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; });
  return name.find("phi-3") != name.npos || name.find("phi3") != name.npos;
}

std::vector<TokenId> phi3_strips_right(const Vocabulary& vocabulary) {
  std::vector<TokenId> ids;
  for (size_t id = 0; id < vocabulary.size(); ++id) {
    const TokenType type = vocabulary.types[id];
    const std::string& piece = vocabulary.pieces[id];
    const bool added = type == TokenType::kControl || type == TokenType::kUserDefined || piece == "</s>";
    if (added && piece != "<unk>" && piece != "<s>" && piece != "<|endoftext|>")
      ids.push_back(static_cast<TokenId>(id));
  }
  return ids;
}

// The ends of turns and messages of a file that does not state them.
void find_ends_by_spelling(Vocabulary* vocabulary) {
  bool harmony = false;  // its <|end|> is the end of a message that another follows
  for (const std::string& piece : vocabulary->pieces) harmony |= piece == "<|return|>" || piece == "<|call|>";
  for (size_t id = 0; id < vocabulary->size(); ++id) {
    const std::string& piece = vocabulary->pieces[id];
    const TokenType type = vocabulary->types[id];
    const bool may_end =
        type == TokenType::kControl || (type == TokenType::kUserDefined && piece == kGemmaCallsEnd);
    if (!may_end || (harmony && piece == "<|end|>")) continue;
    if (is_spelled_like_an_end(piece)) vocabulary->more_ends.push_back(static_cast<TokenId>(id));
  }
}

std::string read_chat_template(const GgufReader& gguf, const Notice& notice) {
  const GgufValue* value = gguf.find(kChatTemplateKey);
  if (value == nullptr) return "";
  if (const auto text = value->as_string()) return std::string(*text);
  if (notice) {
    notice(gguf.notice_text(fmt::format("{} is of type {}, expected a string: ignored", kChatTemplateKey,
                                        to_string(value->type))));
  }
  return "";
}

const VocabularyFamily* find_family(std::string_view model) {
  for (const VocabularyFamily* family : kFamilies)
    if (family->model == model) return family;
  return nullptr;
}

std::string unknown_family(std::string_view model) {
  return fmt::format(
      "{} is '{}': not supported, only 'llama' and 't5' (SentencePiece), 'gpt2' and 'gemma4' (BPE "
      "with merges) are",
      keys::kModel, printable(model));
}

const VocabularyFamily& require_family(const GgufReader& gguf) {
  const std::string_view model = gguf.require_string(keys::kModel);
  if (model == "no_vocab")
    gguf.refuse(fmt::format("{} is 'no_vocab': the file carries no tokenizer", keys::kModel));
  if (const VocabularyFamily* family = find_family(model)) return *family;
  gguf.refuse(unknown_family(model));
}

void replace_pre_tokenizer(Vocabulary* vocabulary, const std::string& name) {
  auto* const parts = std::get_if<BytePairParts>(&vocabulary->parts);
  if (parts == nullptr) {
    fail(ErrorCode::kUsage, "--pre: the tokenizer is '{}' (SentencePiece), which has no pre-tokenizer",
         vocabulary->model);
  }
  parts->pre_tokenizer = name;
}

}  // namespace

void check_vocabulary(Vocabulary& vocabulary, const std::string& where, const Notice& notice) {
  const size_t n = vocabulary.size();
  QUERN_CHECK(vocabulary.types.size() == n);
  if (n == 0) fail(ErrorCode::kMalformed, "{}: empty vocabulary", where);
  for (size_t id = 0; id < n; ++id) {
    if (vocabulary.pieces[id].size() > kMaxPieceBytes) {
      fail(ErrorCode::kMalformed, "{}: token {} has {} bytes, at most {} are supported", where, id,
           vocabulary.pieces[id].size(), kMaxPieceBytes);
    }
  }
  check_special_ids(vocabulary, where);
  check_lists(vocabulary);
  family_of(vocabulary).check(vocabulary, where, notice);
  report_duplicates(vocabulary, where, notice);
}

void set_no_vocabulary(GgufMetadata* metadata) { metadata->set_string(keys::kModel, "no_vocab"); }

std::vector<TokenId> read_token_list(const GgufReader& gguf, std::string_view key, size_t n_tokens,
                                     const Notice& notice) {
  const GgufValue* value = gguf.find(key);
  if (value == nullptr) return {};
  const auto numbers = value->as_uint32s();
  if (!numbers) gguf.refuse_value(key, "an array of u32");
  std::vector<TokenId> ids;
  for (const uint32_t number : *numbers) {
    if (number < n_tokens) {
      ids.push_back(static_cast<TokenId>(number));
    } else if (notice) {
      notice(gguf.notice_text(
          fmt::format("{}: {} is outside the vocabulary of {} tokens: ignored", key, number, n_tokens)));
    }
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

void write_token_list(std::string_view key, const std::vector<TokenId>& ids, GgufMetadata* metadata) {
  if (!ids.empty()) metadata->set_uint32s(key, std::vector<uint32_t>(ids.begin(), ids.end()));
}

bool has_no_vocabulary(const GgufReader& gguf) {
  const GgufValue* model = gguf.find(keys::kModel);
  return model != nullptr && model->as_string() == "no_vocab";
}

ConversationKeys read_conversation_keys(const GgufReader& gguf, const Notice& notice) {
  return {read_chat_template(gguf, notice), std::string(gguf.string_or(kChatFormatKey, ""))};
}

std::string unknown_tokenizer(const GgufReader& gguf, const std::string& pre_tokenizer) {
  if (gguf.find(keys::kModel) == nullptr) return fmt::format("key '{}' is missing", keys::kModel);
  const std::string_view model = gguf.require_string(keys::kModel);
  if (find_family(model) == nullptr) return unknown_family(model);
  if (model != "gpt2" || !pre_tokenizer.empty()) return "";  // the others have a rule of their own
  return unknown_pre_tokenizer(gguf.string_or(keys::kPre, ""));
}

Vocabulary read_vocabulary(const GgufReader& gguf, uint64_t n_embedding_rows, const Notice& notice,
                           const std::string& pre_tokenizer) {
  const VocabularyFamily& family = require_family(gguf);
  Vocabulary vocabulary;
  vocabulary.model = family.model;
  vocabulary.pieces = read_pieces(gguf, n_embedding_rows);
  vocabulary.types = read_types(gguf, vocabulary.pieces, notice);
  vocabulary.add_bos = family.default_add_bos;
  family.read(gguf, &vocabulary, notice);
  if (!pre_tokenizer.empty()) replace_pre_tokenizer(&vocabulary, pre_tokenizer);
  bool states_ends = false;
  for (const SpecialToken& token : kSpecialTokens) {
    vocabulary.*token.id = read_special_id(gguf, token, family, vocabulary, notice);
    if (token.id == &Vocabulary::eot || token.id == &Vocabulary::eom)
      states_ends |= vocabulary.*token.id != kNoToken;
  }
  if (gguf.find(keys::kTypes) == nullptr) mark_special_tokens(gguf, &vocabulary);
  for (const TokenList& list : kTokenLists)
    vocabulary.*list.ids = read_token_list(gguf, list.key, vocabulary.size(), notice);
  states_ends |= !vocabulary.more_ends.empty();
  if (!states_ends) find_ends_by_spelling(&vocabulary);
  if (vocabulary.strips_right.empty() && is_phi3(gguf))
    vocabulary.strips_right = phi3_strips_right(vocabulary);
  // Without a bos that could be added, none is; only a file that asks for it breaks its word.
  vocabulary.add_bos = gguf.bool_or(kAddBosKey, vocabulary.add_bos && vocabulary.bos != kNoToken);
  vocabulary.add_eos = gguf.bool_or(kAddEosKey, vocabulary.add_eos);
  vocabulary.add_space_prefix = gguf.bool_or(kAddSpacePrefixKey, family.default_add_space_prefix);
  vocabulary.remove_extra_whitespaces =
      gguf.bool_or(keys::kRemoveSpaces, vocabulary.remove_extra_whitespaces);
  ConversationKeys conversation = read_conversation_keys(gguf, notice);
  vocabulary.chat_template = std::move(conversation.chat_template);
  vocabulary.chat_format = std::move(conversation.chat_format);
  check_vocabulary(vocabulary, printable(gguf.path(), kPathBytes), notice);
  return vocabulary;
}

void write_vocabulary(const Vocabulary& vocabulary, GgufMetadata* metadata) {
  const VocabularyFamily& family = family_of(vocabulary);
  metadata->set_string(keys::kModel, family.model);
  const auto write = [&](auto keys_of_family) {
    if (keys_of_family != nullptr) keys_of_family(vocabulary, metadata);
  };
  write(family.write_before_tokens);
  metadata->set_strings(keys::kTokens, vocabulary.pieces);
  write(family.write_after_tokens);
  std::vector<int32_t> types;
  types.reserve(vocabulary.size());
  for (const TokenType type : vocabulary.types) types.push_back(static_cast<int32_t>(type));
  metadata->set_int32s(keys::kTypes, types);
  write(family.write_after_types);
  for (const SpecialToken& token : kSpecialTokens) {
    const TokenId id = vocabulary.*token.id;
    if (id != kNoToken) metadata->set_u32(token.key, static_cast<uint32_t>(id));
  }
  for (const TokenList& list : kTokenLists) write_token_list(list.key, vocabulary.*list.ids, metadata);
  metadata->set_bool(kAddBosKey, vocabulary.add_bos);
  metadata->set_bool(kAddEosKey, vocabulary.add_eos);
  if (!vocabulary.chat_template.empty()) metadata->set_string(kChatTemplateKey, vocabulary.chat_template);
  metadata->set_bool(kAddSpacePrefixKey, vocabulary.add_space_prefix);
  if (vocabulary.remove_extra_whitespaces) metadata->set_bool(keys::kRemoveSpaces, true);
  if (!vocabulary.chat_format.empty()) metadata->set_string(kChatFormatKey, vocabulary.chat_format);
}

}  // namespace quern
