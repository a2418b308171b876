#include "convert/added_tokens.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "convert/checkpoint.h"
#include "convert/folder_files.h"

namespace quern {
namespace {

// tokenizer.json of a large vocabulary: a value for each piece, up to three for each merge.
constexpr JsonLimits kTokenizerJsonLimits = {.max_depth = 32, .max_values = 8u << 20};

bool flag(const Json& json, std::string_view key) {
  const Json* member = json.find(key);
  const bool* value = member == nullptr ? nullptr : member->as_bool();
  return value != nullptr && *value;
}

std::optional<uint64_t> parse_id(std::string_view text) {
  uint64_t id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return id;
}

std::vector<AddedTokenEntry> read_decoder(const Json& decoder, const std::string& path,
                                          const Notice& notice) {
  std::vector<AddedTokenEntry> added;
  FirstOfEachId first(path + ": added_tokens_decoder");  // "7" and "07" are two keys
  if (decoder.as_object() == nullptr)
    fail(ErrorCode::kMalformed, "{}: added_tokens_decoder must be an object, found {}", path,
         decoder.describe());
  for (const JsonMember& member : *decoder.as_object()) {
    const std::optional<uint64_t> id = parse_id(member.key);
    if (!id) {
      fail(ErrorCode::kMalformed, "{}: added_tokens_decoder: '{}' is not a token id", path,
           printable(member.key));
    }
    AddedTokenEntry token = read_added_token(member.value, *id, path + ": added_tokens_decoder");
    if (first.take(*id, token.text)) added.push_back(std::move(token));
  }
  first.tell(notice);
  return added;
}

std::vector<AddedTokenEntry> read_added_tokens_json(const std::string& path,
                                                    const std::vector<std::string>& special_texts,
                                                    const Notice& notice) {
  std::vector<AddedTokenEntry> added;
  FirstOfEachId first(path);
  const Json json = parse_json(read_text_file(path), path);
  if (json.as_object() == nullptr)
    fail(ErrorCode::kMalformed, "{}: expected an object of tokens and ids, found {}", path, json.describe());
  for (const JsonMember& member : *json.as_object()) {
    const std::optional<uint64_t> id = member.value.as_whole();
    if (!id)
      fail(ErrorCode::kMalformed, "{}: the id of '{}' is {}, expected a whole number from 0 on", path,
           printable(member.key), member.value.describe());
    const bool special =
        std::find(special_texts.begin(), special_texts.end(), member.key) != special_texts.end();
    if (first.take(*id, member.key)) added.push_back({*id, member.key, special, false, false});
  }
  first.tell(notice);
  return added;
}

std::vector<AddedTokenEntry> read_tokenizer_json(const std::string& path, const Notice& notice) {
  std::vector<AddedTokenEntry> added;
  FirstOfEachId first(path + ": added_tokens");
  const auto collect = [&](std::string_view key, const Json& value) {
    if (key != "added_tokens" || value.as_array() == nullptr) return;
    for (const Json& entry : *value.as_array()) {
      const Json* id = entry.find("id");
      if (id == nullptr || id->as_uint() == nullptr)
        fail(ErrorCode::kMalformed, "{}: added_tokens holds an entry without an id", path);
      AddedTokenEntry token = read_added_token(entry, *id->as_uint(), path + ": added_tokens");
      if (first.take(token.id, token.text)) added.push_back(std::move(token));
    }
  };
  parse_json_members(read_text_file(path), path, kTokenizerJsonLimits, collect);
  first.tell(notice);
  return added;
}

// The first file's entries, and the second's at ids that the first does not name.
std::vector<AddedTokenEntry> merge(std::vector<AddedTokenEntry> first, const std::string& first_name,
                                   const std::vector<AddedTokenEntry>& second, const std::string& second_name,
                                   const Notice& notice) {
  std::unordered_map<uint64_t, std::string> named;
  for (const AddedTokenEntry& entry : first) named.try_emplace(entry.id, entry.text);
  size_t n_other = 0;
  const AddedTokenEntry* other = nullptr;
  for (const AddedTokenEntry& entry : second) {
    const auto [found, is_new] = named.try_emplace(entry.id, entry.text);
    if (is_new) {
      first.push_back(entry);
    } else if (found->second != entry.text) {
      ++n_other;
      if (other == nullptr) other = &entry;
    }
  }
  if (notice && other != nullptr)
    notice(fmt::format("token {} is '{}' in {} and '{}' in {}: the former counts ({} in all)", other->id,
                       printable(named.at(other->id)), first_name, printable(other->text), second_name,
                       n_other));
  return first;
}

std::vector<AddedTokenEntry> read_any(const std::string& folder,
                                      const std::vector<std::string>& special_texts, const Notice& notice) {
  std::vector<AddedTokenEntry> added;
  if (const auto path = find_file(folder, "tokenizer_config.json")) {
    const Json json = parse_json(read_text_file(*path), *path);
    const Json* decoder = json.find("added_tokens_decoder");
    if (decoder != nullptr && !decoder->is_null()) added = read_decoder(*decoder, *path, notice);
  }
  if (const auto path = find_file(folder, "added_tokens.json"))
    added = merge(std::move(added), "tokenizer_config.json",
                  read_added_tokens_json(*path, special_texts, notice), "added_tokens.json", notice);
  if (!added.empty()) return added;
  if (const auto path = find_file(folder, "tokenizer.json")) return read_tokenizer_json(*path, notice);
  return added;
}

// Gives the token at an id that the vocabulary has already the entry's spelling and type. A user-defined
// piece of sentencepiece's that gets another of either is Hugging Face's from then on.
void mark_token(Vocabulary* vocabulary, const AddedTokenEntry& entry, const std::string& where,
                const Notice& notice) {
  const auto id = static_cast<size_t>(entry.id);
  std::string& piece = vocabulary->pieces[id];
  TokenType& type = vocabulary->types[id];
  const bool is_renamed = piece != entry.text;
  if (is_renamed) {
    if (type == TokenType::kByte) {
      fail(ErrorCode::kMalformed, "{}: added token {} is '{}', but that id is the byte token {}", where, id,
           printable(entry.text), piece);
    }
    if (notice) {
      notice(fmt::format("{}: token {} is called '{}', not '{}'", where, id, printable(entry.text),
                         printable(piece)));
    }
    piece = entry.text;
    type = TokenType::kNormal;
  }
  if (entry.special && type != TokenType::kUnknown) {
    type = TokenType::kControl;
  } else if (!entry.special && type == TokenType::kNormal) {
    type = TokenType::kUserDefined;
  }
  if (auto* parts = std::get_if<SentencePieceParts>(&vocabulary->parts);
      parts != nullptr && (is_renamed || type != TokenType::kUserDefined))
    std::erase(parts->user_defined, static_cast<TokenId>(id));
}

// A tokenizer.json has told of its own tokens already.
void list_once(TokenId id, std::vector<TokenId>* ids) {
  if (std::find(ids->begin(), ids->end(), id) == ids->end()) ids->push_back(id);
}

// A tokenizer.json's own list may be longer than the embedding: its last tokens are dropped, if they are no
// more than added ones.
void drop_added_beyond(uint64_t n_tokens, const std::vector<AddedTokenEntry>& added, Vocabulary* vocabulary) {
  if (!std::holds_alternative<BytePairParts>(vocabulary->parts)) return;
  std::unordered_set<uint64_t> ids;
  for (const AddedTokenEntry& entry : added) ids.insert(entry.id);
  size_t n = vocabulary->size();
  while (n > n_tokens && (ids.contains(n - 1) || vocabulary->types[n - 1] == TokenType::kUnused)) --n;
  if (n > n_tokens || n == vocabulary->size()) return;
  vocabulary->pieces.resize(n);
  vocabulary->types.resize(n);
  const auto is_beyond = [n](TokenId id) { return id != kNoToken && static_cast<size_t>(id) >= n; };
  for (std::vector<TokenId>* list : {&vocabulary->strips_left, &vocabulary->strips_right,
                                     &vocabulary->single_words, &vocabulary->normalized})
    std::erase_if(*list, is_beyond);
  for (TokenId* special : {&vocabulary->bos, &vocabulary->eos, &vocabulary->unk, &vocabulary->pad})
    if (is_beyond(*special)) *special = kNoToken;
}

void append_token(Vocabulary* vocabulary, std::string text, TokenType type) {
  // Beyond every merge: such tokens are cut out, or never made.
  constexpr float kScore = -1000;
  vocabulary->pieces.push_back(std::move(text));
  vocabulary->types.push_back(type);
  if (auto* parts = std::get_if<SentencePieceParts>(&vocabulary->parts)) parts->scores.push_back(kScore);
}

}  // namespace

bool FirstOfEachId::take(uint64_t id, const std::string& text) {
  const auto [found, is_new] = texts_.try_emplace(id, text);
  if (!is_new && n_repeated_++ == 0)
    first_ = fmt::format("token {} is '{}' and '{}'", id, printable(found->second), printable(text));
  return is_new;
}

void FirstOfEachId::tell(const Notice& notice) const {
  if (notice && n_repeated_ > 0)
    notice(fmt::format("{}: {}: the former counts ({} in all)", where_, first_, n_repeated_));
}

AddedTokenEntry read_added_token(const Json& json, uint64_t id, const std::string& where) {
  const Json* content = json.find("content");
  if (content == nullptr || content->as_string() == nullptr || content->as_string()->empty())
    fail(ErrorCode::kMalformed, "{}: token {} has no content", where, id);
  return {id, *content->as_string(), flag(json, "special"), flag(json, "lstrip"), flag(json, "rstrip")};
}

std::vector<AddedTokenEntry> read_added_tokens(const std::string& folder,
                                               const std::vector<std::string>& special_texts,
                                               const Notice& notice) {
  std::vector<AddedTokenEntry> added = read_any(folder, special_texts, notice);
  std::sort(added.begin(), added.end(),
            [](const AddedTokenEntry& a, const AddedTokenEntry& b) { return a.id < b.id; });
  return added;
}

void add_tokens(Vocabulary* vocabulary, const std::vector<AddedTokenEntry>& added, uint64_t n_tokens,
                const std::string& where, const Notice& notice) {
  drop_added_beyond(n_tokens, added, vocabulary);
  const size_t n_before = vocabulary->size();
  uint64_t n_named = n_before;
  for (const AddedTokenEntry& entry : added) n_named += entry.id >= n_before && entry.id < n_tokens ? 1 : 0;
  if (n_before > n_tokens || n_tokens - n_named > n_tokens / 4) {
    fail(ErrorCode::kMalformed,
         "{}: {} pieces and {} added tokens, but the embedding has {} rows (vocab_size = {}): the tokenizer "
         "of "
         "another model?",
         where, n_before, n_named - n_before, n_tokens, n_tokens);
  }
  const auto pad_to = [&](uint64_t n) {
    while (vocabulary->size() < n)
      append_token(vocabulary, fmt::format("[PAD{}]", vocabulary->size()), TokenType::kUnused);
  };
  size_t n_added = 0;
  std::vector<const AddedTokenEntry*> beyond;
  for (const AddedTokenEntry& entry : added) {
    if (entry.id >= n_tokens) {
      beyond.push_back(&entry);
      continue;
    }
    if (entry.id < vocabulary->size()) {
      mark_token(vocabulary, entry, where, notice);
    } else {
      pad_to(entry.id);
      append_token(vocabulary, entry.text, entry.special ? TokenType::kControl : TokenType::kUserDefined);
      ++n_added;
    }
    const auto id = static_cast<TokenId>(entry.id);
    if (entry.lstrip) list_once(id, &vocabulary->strips_left);
    if (entry.rstrip) list_once(id, &vocabulary->strips_right);
  }
  pad_to(n_tokens);
  if (!notice) return;
  if (!beyond.empty()) {
    notice(fmt::format("{}: token {} ('{}') lies beyond the embedding's {} rows: dropped ({} in all)", where,
                       beyond[0]->id, printable(beyond[0]->text), n_tokens, beyond.size()));
  }
  const size_t n_padding = n_tokens - n_before - n_added;
  if (n_added > 0 || n_padding > 0) {
    notice(fmt::format("{}: {} pieces, {} added tokens, {} unused rows of the embedding", where, n_before,
                       n_added, n_padding));
  }
}

}  // namespace quern
