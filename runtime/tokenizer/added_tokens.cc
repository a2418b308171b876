#include "runtime/tokenizer/added_tokens.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <variant>

#include "runtime/tokenizer/characters.h"
#include "runtime/tokenizer/nfc.h"
#include "runtime/tokenizer/prefixes.h"

namespace quern {
namespace {

enum class Allowed { kNone, kAdded, kAddedAndControl };

Allowed allowed_in(TextRole role) {
  switch (role) {
    case TextRole::kRaw:
      return Allowed::kAdded;
    case TextRole::kRawSpecial:
    case TextRole::kTemplate:
      return Allowed::kAddedAndControl;
    case TextRole::kMessage:
      return Allowed::kNone;
  }
  return Allowed::kNone;
}

// True when a word goes on before or behind this part of the text.
bool is_inside_word(std::string_view text, size_t begin, size_t end) {
  return (begin > 0 && is_word_character(last_character(text.substr(0, begin)))) ||
         (end < text.size() && is_word_character(first_character(text.substr(end))));
}

bool contains(const std::vector<TokenId>& ids, TokenId id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

bool normalizes(const Vocabulary& vocabulary) {
  const auto* const parts = std::get_if<BytePairParts>(&vocabulary.parts);
  return parts != nullptr && parts->nfc;
}

bool is_special(TokenType type) { return type == TokenType::kControl || type == TokenType::kUnknown; }

AddedToken added_token(const Vocabulary& vocabulary, TokenId id) {
  const auto i = static_cast<size_t>(id);
  return {.text = vocabulary.pieces[i],
          .id = id,
          .special = is_special(vocabulary.types[i]),
          .strips_left = contains(vocabulary.strips_left, id),
          .strips_right = contains(vocabulary.strips_right, id),
          .single_word = contains(vocabulary.single_words, id)};
}

}  // namespace

std::vector<AddedToken> added_tokens_of(const Vocabulary& vocabulary, std::span<const TokenId> user_defined) {
  std::vector<AddedToken> tokens;
  for (size_t i = 0; i < vocabulary.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    const TokenType type = vocabulary.types[i];
    const bool special = is_special(type);
    const bool added =
        type == TokenType::kUserDefined && !std::binary_search(user_defined.begin(), user_defined.end(), id);
    if ((!special && !added) || (normalizes(vocabulary) && contains(vocabulary.normalized, id))) continue;
    tokens.push_back(added_token(vocabulary, id));
  }
  return tokens;
}

std::vector<AddedToken> normalized_tokens_of(const Vocabulary& vocabulary) {
  std::vector<AddedToken> tokens;
  if (!normalizes(vocabulary)) return tokens;
  for (const TokenId id : vocabulary.normalized) {
    const TokenType type = vocabulary.types[static_cast<size_t>(id)];
    if (!is_special(type) && type != TokenType::kUserDefined) continue;  // a list that names another token
    tokens.push_back(added_token(vocabulary, id));
    std::string& text = tokens.back().text;
    if (std::optional<std::string> composed = to_nfc(text)) text = std::move(*composed);
  }
  return tokens;
}

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::erase_if(tokens_, [](const AddedToken& token) { return token.text.empty(); });
  std::stable_sort(tokens_.begin(), tokens_.end(),
                   [](const AddedToken& a, const AddedToken& b) { return a.text < b.text; });
  const auto same = [](const AddedToken& a, const AddedToken& b) { return a.text == b.text; };
  tokens_.erase(std::unique(tokens_.begin(), tokens_.end(), same), tokens_.end());
  for (const AddedToken& token : tokens_) {
    begins_[static_cast<uint8_t>(token.text.front())] = true;
    strips_ |= token.strips_left || token.strips_right;
  }
}

template <class Visit>
void AddedTokens::for_each_match(std::string_view text, Visit visit) const {
  for_each_prefix(tokens_, text, visit);
}

const AddedToken* AddedTokens::find(std::string_view text, bool special) const {
  const auto found =
      std::lower_bound(tokens_.begin(), tokens_.end(), text,
                       [](const AddedToken& token, std::string_view wanted) { return token.text < wanted; });
  return found != tokens_.end() && found->text == text && (special || !found->special) ? &*found : nullptr;
}

// Tokens whose spellings overlap in the text form a cluster; only there does their order matter.
void AddedTokens::cut_region(std::string_view text, TextRange region, bool special,
                             std::vector<TextPiece>* found) const {
  std::vector<size_t> lengths;
  for (size_t at = region.begin; at < region.end;) {
    TextRange cluster{at, at};
    TokenId id = kNoToken;
    lengths.clear();
    for (; at < region.end && (at == cluster.begin || at < cluster.end); ++at) {
      if (!begins_[static_cast<uint8_t>(text[at])]) continue;
      for_each_match(text.substr(at, region.end - at), [&](const AddedToken& token) {
        if (token.special && !special) return;
        if (token.single_word && is_inside_word(text, at, at + token.text.size())) return;
        cluster.end = std::max(cluster.end, at + token.text.size());
        lengths.push_back(token.text.size());
        id = token.id;
      });
    }
    if (lengths.empty()) continue;
    at = cluster.end;
    if (lengths.size() == 1) {
      found->push_back({cluster.begin, cluster.end, id});
      continue;
    }
    std::sort(lengths.begin(), lengths.end(), std::greater<>());
    lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
    cut_cluster(text, cluster, lengths, special, found);
  }
}

void AddedTokens::cut_cluster(std::string_view text, TextRange cluster, std::span<const size_t> lengths,
                              bool special, std::vector<TextPiece>* found) const {
  const size_t first = found->size();
  std::vector<TextRange> free = {cluster}, left;
  for (const size_t length : lengths) {
    left.clear();
    for (TextRange range : free) {
      for (size_t at = range.begin; at + length <= range.end;) {
        const AddedToken* token = find(text.substr(at, length), special);
        if (token == nullptr || (token->single_word && is_inside_word(text, at, at + length))) {
          ++at;
          continue;
        }
        found->push_back({at, at + length, token->id});
        if (at > range.begin) left.push_back({range.begin, at});
        range.begin = at += length;
      }
      if (range.begin < range.end) left.push_back(range);
    }
    free.swap(left);
  }
  std::sort(found->begin() + static_cast<ptrdiff_t>(first), found->end(),
            [](const TextPiece& a, const TextPiece& b) { return a.begin < b.begin; });
}

void AddedTokens::strip(std::string_view text, std::vector<TextPiece>* pieces) const {
  for (size_t i = 0; i < pieces->size(); ++i) {
    const TextPiece& piece = (*pieces)[i];
    if (piece.id == kNoToken) continue;
    const AddedToken* token = find(text.substr(piece.begin, piece.end - piece.begin), true);
    if (token->strips_left && i > 0 && (*pieces)[i - 1].id == kNoToken) {
      TextPiece& before = (*pieces)[i - 1];
      for (std::string_view rest = text.substr(before.begin, before.end - before.begin);
           is_white_space(last_character(rest)); rest.remove_suffix(last_character(rest).size()))
        before.end -= last_character(rest).size();
    }
    if (token->strips_right && i + 1 < pieces->size() && (*pieces)[i + 1].id == kNoToken) {
      TextPiece& after = (*pieces)[i + 1];
      for (std::string_view rest = text.substr(after.begin, after.end - after.begin);
           is_white_space(first_character(rest)); rest.remove_prefix(first_character(rest).size()))
        after.begin += first_character(rest).size();
    }
  }
  std::erase_if(*pieces, [](const TextPiece& piece) { return piece.begin == piece.end; });
}

std::vector<TextPiece> AddedTokens::cut(std::string_view text, std::span<const TextSpan> spans) const {
  std::vector<TextPiece> found;
  size_t at = 0;
  for (size_t i = 0; i < spans.size() && !tokens_.empty();) {
    const Allowed allowed = allowed_in(spans[i].role);
    TextRange region{at, at};
    for (; i < spans.size() && allowed_in(spans[i].role) == allowed; ++i) region.end += spans[i].text.size();
    if (allowed != Allowed::kNone) cut_region(text, region, allowed == Allowed::kAddedAndControl, &found);
    at = region.end;
  }
  std::vector<TextPiece> pieces;
  size_t plain = 0;  // where the text behind the last token begins
  for (const TextPiece& token : found) {
    if (token.begin > plain) pieces.push_back({plain, token.begin, kNoToken});
    pieces.push_back(token);
    plain = token.end;
  }
  if (plain < text.size()) pieces.push_back({plain, text.size(), kNoToken});
  if (strips_) strip(text, &pieces);
  return pieces;
}

}  // namespace quern
