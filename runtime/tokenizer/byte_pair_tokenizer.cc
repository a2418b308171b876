#include "runtime/tokenizer/byte_pair_tokenizer.h"

#include <algorithm>
#include <array>

#include "quant/byte_level.h"
#include "quant/error.h"
#include "quant/pre_tokenizer.h"
#include "quant/utf8.h"
#include "runtime/tokenizer/byte_pair_merger.h"
#include "runtime/tokenizer/characters.h"
#include "runtime/tokenizer/nfc.h"
#include "runtime/tokenizer/word_cache.h"
#include "runtime/tokenizer/word_splitter.h"

namespace quern {
namespace {

constexpr std::string_view kSpaceSymbol = "\u2581";

const PreTokenizer& require_pre_tokenizer(const Vocabulary& vocabulary) {
  const PreTokenizer* const row = find_pre_tokenizer(vocabulary.byte_pairs().pre_tokenizer);
  QUERN_CHECK(row != nullptr);  // check_vocabulary refuses names without a row
  return *row;
}

WholeWords whole_words_of(const Vocabulary& vocabulary) {
  const std::optional<bool> stated = vocabulary.byte_pairs().whole_words;
  if (stated) return *stated ? WholeWords::kAll : WholeWords::kNone;
  return require_pre_tokenizer(vocabulary).whole_words;
}

// Text never becomes a piece of another type by merging.
bool is_mergeable(TokenType type) {
  return type == TokenType::kNormal || type == TokenType::kUserDefined || type == TokenType::kByte;
}

std::string bytes_of_piece(const Vocabulary& vocabulary, PieceAlphabet alphabet, size_t id) {
  const std::string& piece = vocabulary.pieces[id];
  if (vocabulary.types[id] == TokenType::kUserDefined) return piece;  // added tokens are spelled as they are
  if (vocabulary.types[id] == TokenType::kByte) {
    if (const std::optional<uint8_t> byte = parse_byte_piece(piece)) return {static_cast<char>(*byte)};
  }
  if (alphabet == PieceAlphabet::kSpaceSymbol) return replace_all(piece, kSpaceSymbol, " ");
  return byte_level_bytes(piece).value_or(piece);
}

std::vector<DecodedPiece> decode_pieces(const Vocabulary& vocabulary) {
  const PieceAlphabet alphabet = require_pre_tokenizer(vocabulary).alphabet;
  std::vector<DecodedPiece> decoded(vocabulary.size());
  for (size_t id = 0; id < vocabulary.size(); ++id) {
    if (is_mergeable(vocabulary.types[id])) {
      decoded[id] = {DecodedPiece::Kind::kBytes, false, bytes_of_piece(vocabulary, alphabet, id)};
    } else {
      decoded[id] = {DecodedPiece::Kind::kControl, false, ""};
    }
  }
  return decoded;
}

// Bytes from the front of `text` that are well-formed UTF-8.
size_t well_formed_bytes(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const size_t length = utf8_length(text.substr(at));
    if (length == 0) break;
    at += length;
  }
  return at;
}

// Bytes from the front of `text` that begin no character.
size_t malformed_bytes(std::string_view text) {
  size_t at = 0;
  while (at < text.size() && utf8_length(text.substr(at)) == 0) ++at;
  return at;
}

// Ids by a text, the lowest of several. Views are into what the texts were taken from.
using TextIds = std::unordered_map<std::string_view, TokenId>;

// Ids of the pieces that merging may lead to, by `text_of(id)`; added tokens come second to others.
template <class TextOf>
TextIds index_mergeable(const Vocabulary& vocabulary, TextOf text_of) {
  TextIds ids;
  ids.reserve(vocabulary.size());
  for (const TokenType type : {TokenType::kNormal, TokenType::kUserDefined}) {
    for (size_t id = 0; id < vocabulary.size(); ++id)
      if (vocabulary.types[id] == type) ids.try_emplace(text_of(id), static_cast<TokenId>(id));
  }
  return ids;
}

BytePairMerger make_merger(const Vocabulary& vocabulary) {
  const TextIds ids =
      index_mergeable(vocabulary, [&](size_t id) -> const std::string& { return vocabulary.pieces[id]; });
  const auto find = [&](std::string_view spelling) {
    const auto found = ids.find(spelling);
    return found == ids.end() ? kNoToken : found->second;
  };
  const std::vector<std::string>& rules = vocabulary.byte_pairs().merges;
  const std::vector<uint32_t>& ranks = vocabulary.byte_pairs().ranks;
  std::vector<PairMerge> merges;
  merges.reserve(rules.size());
  std::string joined;
  for (size_t rank = 0; rank < rules.size(); ++rank) {
    const MergeParts parts = split_merge(rules[rank]).value();  // checked
    joined.assign(parts.left).append(parts.right);
    const uint32_t order = ranks.empty() ? static_cast<uint32_t>(rank) : ranks[rank];
    const PairMerge merge{find(parts.left), find(parts.right), find(joined), order};
    // check_vocabulary has told of the others.
    if (merge.left != kNoToken && merge.right != kNoToken && merge.merged != kNoToken)
      merges.push_back(merge);
  }
  return BytePairMerger(merges);
}

class BytePairTokenizer final : public Tokenizer {
 public:
  BytePairTokenizer(Vocabulary vocabulary_of_file, std::vector<DecodedPiece> decoded_pieces,
                    AddedTokens added_tokens);

 private:
  void encode_stretch(const TextStretch& stretch, std::vector<TokenId>* ids) const override;
  void encode_words(std::span<const std::string_view> words, WordCache* cache,
                    std::vector<TokenId>* ids) const;
  // `symbols`: room to work in.
  void encode_word(std::string_view word, std::vector<TokenId>* symbols) const;
  bool is_whole(std::string_view word, TokenId* id) const;

  const PreTokenizer& pre_tokenizer_;
  const WholeWords whole_words_;
  WordSplitter splitter_;
  BytePairMerger merger_;
  std::array<TokenId, 256> byte_ids_;  // kNoToken: none
  TextIds texts_;                      // by what a piece reads as
};

BytePairTokenizer::BytePairTokenizer(Vocabulary vocabulary_of_file, std::vector<DecodedPiece> decoded_pieces,
                                     AddedTokens added_tokens)
    : Tokenizer(std::move(vocabulary_of_file), std::move(decoded_pieces), std::move(added_tokens)),
      pre_tokenizer_(require_pre_tokenizer(vocabulary())),
      whole_words_(whole_words_of(vocabulary())),
      splitter_(pre_tokenizer_),
      merger_(make_merger(vocabulary())),
      texts_(index_mergeable(vocabulary(), [this](size_t id) -> const std::string& {
        return decoded(static_cast<TokenId>(id)).text;
      })) {
  // Bytes of a byte-level alphabet are pieces like others; "<0xNN>" is a byte in any alphabet.
  byte_ids_.fill(kNoToken);
  const bool byte_level = pre_tokenizer_.alphabet == PieceAlphabet::kByteLevel;
  for (const TokenType type : {TokenType::kNormal, TokenType::kByte}) {
    if (type == TokenType::kNormal && !byte_level) continue;
    for (size_t id = 0; id < size(); ++id) {
      const std::string& text = decoded(static_cast<TokenId>(id)).text;
      if (vocabulary().types[id] != type || text.size() != 1) continue;
      TokenId& byte_id = byte_ids_[static_cast<uint8_t>(text[0])];
      if (byte_id == kNoToken) byte_id = static_cast<TokenId>(id);
    }
  }
}

void BytePairTokenizer::encode_stretch(const TextStretch& stretch, std::vector<TokenId>* ids) const {
  std::string_view text = stretch.text;
  std::optional<std::string> normalized;
  if (vocabulary().byte_pairs().nfc) normalized = to_nfc(text);
  if (normalized) text = *normalized;
  std::string prefixed;
  if (vocabulary().add_space_prefix && !text.starts_with(' ')) {
    prefixed.append(" ").append(text);
    text = prefixed;
  }
  WordCache cache(text.size());
  std::vector<std::string_view> words;
  while (!text.empty()) {
    words.clear();
    const size_t n_well_formed = well_formed_bytes(text);
    splitter_.split(text.substr(0, n_well_formed), &words);
    text.remove_prefix(n_well_formed);
    const size_t n_malformed = malformed_bytes(text);
    if (n_malformed > 0) words.push_back(text.substr(0, n_malformed));
    text.remove_prefix(n_malformed);
    encode_words(words, &cache, ids);
  }
}

void BytePairTokenizer::encode_words(std::span<const std::string_view> words, WordCache* cache,
                                     std::vector<TokenId>* ids) const {
  // Places are asked for some words ahead, so that they are there when their turn comes.
  constexpr size_t kAhead = 16;
  std::array<WordCache::Word*, kAhead> places{};
  std::array<std::array<uint64_t, 2>, kAhead> keys{};
  const auto ask_for = [&](size_t i) {
    if (i >= words.size() || words[i].size() > WordCache::kMaxWordBytes) return;
    keys[i % kAhead] = WordCache::key_of(words[i]);
    places[i % kAhead] = &cache->place(keys[i % kAhead]);
    __builtin_prefetch(places[i % kAhead]);
  };
  for (size_t i = 0; i < kAhead; ++i) ask_for(i);

  std::vector<TokenId> symbols;
  std::array<TokenId, 1024> made;  // whole places are copied into it
  size_t n_made = 0;
  const auto hand_over = [&] {
    ids->insert(ids->end(), made.begin(), made.begin() + static_cast<ptrdiff_t>(n_made));
    n_made = 0;
  };
  for (size_t i = 0; i < words.size(); ++i) {
    if (n_made + WordCache::kMaxIds > made.size()) hand_over();
    WordCache::Word* const place = words[i].size() <= WordCache::kMaxWordBytes ? places[i % kAhead] : nullptr;
    bool known = place != nullptr && place->key == keys[i % kAhead];
    if (!known) {
      encode_word(words[i], &symbols);
      known = place != nullptr && symbols.size() <= WordCache::kMaxIds;
      if (known) {
        place->key = keys[i % kAhead];
        place->ids.fill(kNoToken);
        std::copy(symbols.begin(), symbols.end(), place->ids.begin());
      } else {
        hand_over();
        ids->insert(ids->end(), symbols.begin(), symbols.end());
      }
    }
    if (known) {
      std::copy(place->ids.begin(), place->ids.end(), made.begin() + static_cast<ptrdiff_t>(n_made));
      for (const TokenId id : place->ids) n_made += id != kNoToken;
    }
    ask_for(i + kAhead);
  }
  hand_over();
}

bool BytePairTokenizer::is_whole(std::string_view word, TokenId* id) const {
  const bool counts =
      whole_words_ == WholeWords::kAll ||
      (whole_words_ == WholeWords::kLineBreaks && word.find_first_not_of('\n') == std::string_view::npos);
  const auto found = counts ? texts_.find(word) : texts_.end();
  if (found == texts_.end()) return false;
  *id = found->second;
  return true;
}

void BytePairTokenizer::encode_word(std::string_view word, std::vector<TokenId>* symbols) const {
  symbols->clear();
  if (TokenId id; is_whole(word, &id)) {
    symbols->push_back(id);
    return;
  }
  const auto push_bytes = [&](std::string_view bytes) {
    for (const char byte : bytes) symbols->push_back(byte_ids_[static_cast<uint8_t>(byte)]);
  };
  if (pre_tokenizer_.alphabet == PieceAlphabet::kByteLevel) {
    push_bytes(word);
  } else {
    for (std::string_view rest = word; !rest.empty();) {
      const std::string_view character = rest.substr(0, std::max<size_t>(utf8_length(rest), 1));
      const auto found = texts_.find(character == kSpaceSymbol ? " " : character);
      found != texts_.end() ? symbols->push_back(found->second) : push_bytes(character);
      rest.remove_prefix(character.size());
    }
  }
  merger_.merge(symbols);
  std::erase(*symbols, kNoToken);
}

}  // namespace

std::unique_ptr<Tokenizer> make_byte_pair_tokenizer(Vocabulary vocabulary) {
  std::vector<DecodedPiece> decoded = decode_pieces(vocabulary);
  AddedTokens added(added_tokens_of(vocabulary, {}));
  return std::make_unique<BytePairTokenizer>(std::move(vocabulary), std::move(decoded), std::move(added));
}

}  // namespace quern
