#include "runtime/tokenizer/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <optional>

#include "quant/error.h"
#include "quant/utf8.h"
#include "runtime/tokenizer/characters.h"
#include "runtime/tokenizer/prefixes.h"
#include "runtime/tokenizer/sentencepiece_proto.h"

namespace quern {

namespace {

constexpr std::string_view kSpaceSymbol = "\u2581";
constexpr std::string_view kReplacement = "\uFFFD";
constexpr std::string_view kUnknownText = " \u2047 ";

// sentencepiece's time per byte grows with the text (its tables fall out of the caches): 1 KiB parts take a
// quarter of the time that 1 MB takes whole.
constexpr size_t kPartBytes = 1024;
// A text that cannot be taken apart costs sentencepiece about 110 bytes of memory per byte.
constexpr size_t kMaxPartBytes = size_t{64} << 20;

// What sentencepiece's identity normalizer makes of a stretch. `places`: offsets in its text, ascending;
// become those of the same places in the result.
std::string normalise(const TextStretch& stretch, bool remove_extra_whitespaces,
                      std::vector<size_t>* places) {
  std::string_view text = stretch.text;
  std::string out;
  out.reserve(text.size() + text.size() / 2 + kSpaceSymbol.size());
  if (stretch.space_prefix) out += kSpaceSymbol;
  bool skip_spaces = remove_extra_whitespaces;
  auto place = places->begin();
  while (!text.empty()) {
    for (; place != places->end() && *place <= stretch.text.size() - text.size(); ++place)
      *place = out.size();
    const size_t length = utf8_length(text);  // 0: a malformed byte
    if (text.front() == ' ') {
      if (!skip_spaces) out += kSpaceSymbol;
      skip_spaces = remove_extra_whitespaces;
    } else {
      out += length == 0 ? kReplacement : text.substr(0, length);
      skip_spaces = false;
    }
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  for (; place != places->end(); ++place) *place = out.size();
  if (remove_extra_whitespaces) {
    while (out.ends_with(kSpaceSymbol)) out.resize(out.size() - kSpaceSymbol.size());
  }
  return out;
}

// Two characters as one number, by their bytes: at most four each.
uint64_t pair_key(std::string_view first, std::string_view second) {
  const auto as_number = [](std::string_view bytes) {
    uint64_t number = 0;
    for (const char byte : bytes) number = number << 8 | static_cast<uint8_t>(byte);
    return number;
  };
  return as_number(first) << 32 | as_number(second);
}

DecodedPiece decoded_piece(const Vocabulary& vocabulary, TokenId id) {
  const auto index = static_cast<size_t>(id);
  const std::string& piece = vocabulary.pieces[index];
  const TokenType type = vocabulary.types[index];
  // Converters mark <unk> as control now and then (formats.md 2.2); the id says what it is.
  const bool unknown = type == TokenType::kUnknown || (id == vocabulary.unk && type == TokenType::kControl);
  if (unknown) return {DecodedPiece::Kind::kText, false, std::string(kUnknownText)};
  if (type == TokenType::kControl) return {DecodedPiece::Kind::kControl, false, ""};
  if (type == TokenType::kByte) {
    const auto& byte_ids = vocabulary.sentencepiece().byte_ids;
    const auto byte = std::find(byte_ids.begin(), byte_ids.end(), id);
    QUERN_CHECK(byte != byte_ids.end());
    return {DecodedPiece::Kind::kBytes, false, std::string(1, static_cast<char>(byte - byte_ids.begin()))};
  }
  return {DecodedPiece::Kind::kText, piece.starts_with(kSpaceSymbol),
          well_formed_utf8(replace_all(piece, kSpaceSymbol, " "))};
}

// Pieces that are cut out of a text before anything is merged, the longest that begins at a place first.
class UserDefinedPieces {
 public:
  struct Match {
    TokenId id;
    size_t length;
  };

  // With or without those that are markup, which messages cannot spell.
  UserDefinedPieces(const Vocabulary& vocabulary, bool with_markup) {
    for (const TokenId id : vocabulary.sentencepiece().user_defined) {
      const std::string& piece = vocabulary.pieces[static_cast<size_t>(id)];
      if (!with_markup && is_markup(piece)) continue;
      const std::string text = replace_all(piece, " ", kSpaceSymbol);
      if (!text.empty() && is_valid_utf8(text)) pieces_.push_back({text, id});
    }
    const auto same = [](const Piece& a, const Piece& b) { return a.text == b.text; };
    std::stable_sort(pieces_.begin(), pieces_.end(),
                     [](const Piece& a, const Piece& b) { return a.text < b.text; });
    pieces_.erase(std::unique(pieces_.begin(), pieces_.end(), same), pieces_.end());  // the lowest id stays
  }

  bool empty() const { return pieces_.empty(); }

  std::optional<Match> longest_match(std::string_view text) const {
    std::optional<Match> longest;
    for_each_prefix(pieces_, text, [&](const Piece& piece) { longest = Match{piece.id, piece.text.size()}; });
    return longest;
  }

 private:
  struct Piece {
    std::string text;
    TokenId id;
  };
  std::vector<Piece> pieces_;  // by text, unique
};

std::vector<DecodedPiece> decode_pieces(const Vocabulary& vocabulary) {
  std::vector<DecodedPiece> decoded;
  decoded.reserve(vocabulary.size());
  for (size_t id = 0; id < vocabulary.size(); ++id)
    decoded.push_back(decoded_piece(vocabulary, static_cast<TokenId>(id)));
  return decoded;
}

AddedTokens added_tokens(const Vocabulary& vocabulary) {
  std::vector<AddedToken> tokens = added_tokens_of(vocabulary, vocabulary.sentencepiece().user_defined);
  // Files spell the spaces in these either way.
  for (AddedToken& token : tokens) token.text = replace_all(token.text, kSpaceSymbol, " ");
  return AddedTokens(std::move(tokens));
}

void load(sentencepiece::SentencePieceProcessor* processor, const std::string& model) {
  const sentencepiece::util::Status status = processor->LoadFromSerializedProto(model);
  if (!status.ok())
    fail(ErrorCode::kMalformed, "sentencepiece refuses the vocabulary: {}", printable(status.message(), 256));
}

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(Vocabulary vocabulary_of_file, std::vector<DecodedPiece> decoded_pieces,
                         AddedTokens added_tokens);

 private:
  void encode_stretch(const TextStretch& stretch, std::vector<TokenId>* ids) const override;
  void encode_raw(const TextStretch& stretch, std::vector<TokenId>* ids) const;
  void encode_without_user_defined(std::string_view text, std::vector<TokenId>* ids) const;
  void encode_part(const sentencepiece::SentencePieceProcessor& processor, std::string_view text,
                   std::vector<TokenId>* ids) const;
  size_t first_part(std::string_view text) const;

  sentencepiece::SentencePieceProcessor processor_;
  UserDefinedPieces user_defined_, user_defined_in_messages_;
  bool takes_raw_text_;  // the library's model does
  // Then it cannot tell who wrote a text: one in whose messages signs for the model are spelled goes through
  // a second model, without these (markup_: their spellings).
  std::vector<std::string> markup_;
  sentencepiece::SentencePieceProcessor processor_without_markup_;
  // A text may be taken apart between two characters that stand side by side in no piece: nothing is ever
  // merged across such a place, and merges on its two sides do not see each other. Not so with unused pieces,
  // which sentencepiece takes apart as it last built one anywhere in the text, and not without byte pieces:
  // it makes one token of neighbouring unknown characters.
  bool separable_;
  std::vector<uint64_t> joined_pairs_;  // pair_key of characters side by side in a piece; sorted
};

SentencePieceTokenizer::SentencePieceTokenizer(Vocabulary vocabulary_of_file,
                                               std::vector<DecodedPiece> decoded_pieces,
                                               AddedTokens added_tokens)
    : Tokenizer(std::move(vocabulary_of_file), std::move(decoded_pieces), std::move(added_tokens)),
      user_defined_(vocabulary(), true),
      user_defined_in_messages_(vocabulary(), false),
      takes_raw_text_(takes_raw_text(vocabulary())),
      separable_(!takes_raw_text_ && vocabulary().sentencepiece().byte_ids[0] != kNoToken &&
                 mergeable_unused(vocabulary()).empty()) {
  load(&processor_, build_sentencepiece_model(vocabulary(), true));
  for (const TokenId id : vocabulary().sentencepiece().user_defined)
    if (takes_raw_text_ && is_markup(piece(id))) markup_.push_back(piece(id));
  if (!markup_.empty()) load(&processor_without_markup_, build_sentencepiece_model(vocabulary(), false));
  for (size_t id = 0; id < size(); ++id) {
    std::string_view rest = vocabulary().pieces[id];
    if (vocabulary().types[id] != TokenType::kNormal || !is_valid_utf8(rest)) continue;
    for (size_t length = utf8_length(rest); length < rest.size(); length = utf8_length(rest)) {
      const std::string_view first = rest.substr(0, length);
      rest.remove_prefix(length);
      joined_pairs_.push_back(pair_key(first, rest.substr(0, utf8_length(rest))));
    }
  }
  std::sort(joined_pairs_.begin(), joined_pairs_.end());
  joined_pairs_.erase(std::unique(joined_pairs_.begin(), joined_pairs_.end()), joined_pairs_.end());
}

void SentencePieceTokenizer::encode_stretch(const TextStretch& stretch, std::vector<TokenId>* ids) const {
  if (takes_raw_text_) return encode_raw(stretch, ids);
  std::vector<size_t> places;  // begins and ends of messages by turns
  for (const TextRange& message : stretch.messages) {
    places.push_back(message.begin);
    places.push_back(message.end);
  }
  const std::string normalised = normalise(stretch, vocabulary().remove_extra_whitespaces, &places);
  const std::string_view text = normalised;
  auto place = places.begin();
  size_t plain = 0;  // where the text behind the last user-defined piece begins
  for (size_t at = 0; at < text.size() && !user_defined_.empty();) {
    auto match = user_defined_.longest_match(text.substr(at));
    while (place != places.end() && place[1] <= at) place += 2;
    if (match && place != places.end() && place[0] < at + match->length)
      match = user_defined_in_messages_.longest_match(text.substr(at));
    if (!match) {
      at += utf8_length(text.substr(at));
      continue;
    }
    encode_without_user_defined(text.substr(plain, at - plain), ids);
    ids->push_back(match->id);
    at += match->length;
    plain = at;
  }
  encode_without_user_defined(text.substr(plain), ids);
}

void SentencePieceTokenizer::encode_raw(const TextStretch& stretch, std::vector<TokenId>* ids) const {
  const bool forged =
      std::any_of(stretch.messages.begin(), stretch.messages.end(), [&](const TextRange& range) {
        const std::string_view message = stretch.text.substr(range.begin, range.end - range.begin);
        return std::any_of(markup_.begin(), markup_.end(),
                           [&](const std::string& piece) { return message.find(piece) != message.npos; });
      });
  encode_part(forged ? processor_without_markup_ : processor_, stretch.text, ids);
}

void SentencePieceTokenizer::encode_without_user_defined(std::string_view text,
                                                         std::vector<TokenId>* ids) const {
  while (!text.empty()) {
    const std::string_view part = text.substr(0, first_part(text));
    encode_part(processor_, part, ids);
    text.remove_prefix(part.size());
  }
}

void SentencePieceTokenizer::encode_part(const sentencepiece::SentencePieceProcessor& processor,
                                         std::string_view text, std::vector<TokenId>* ids) const {
  if (text.size() > kMaxPartBytes) {
    fail(ErrorCode::kResource,
         "a stretch of {} bytes of text can only be tokenized whole, and that needs too much memory "
         "(limit: {} bytes); shorten it",
         text.size(), kMaxPartBytes);
  }
  std::vector<int> part_ids;
  const sentencepiece::util::Status status = processor.Encode(text, &part_ids);
  QUERN_CHECK(status.ok());
  for (const int id : part_ids) {
    // One id more than the vocabulary's is the model's own unknown piece.
    ids->push_back(static_cast<size_t>(id) < size() ? id : vocabulary().unk);
  }
}

// Bytes up to the first place behind kPartBytes where the text may be taken apart; all when there is none.
size_t SentencePieceTokenizer::first_part(std::string_view text) const {
  if (!separable_ || text.size() <= kPartBytes) return text.size();
  size_t at = kPartBytes;
  while ((text[at] & 0xC0) == 0x80) --at;  // to the beginning of a character
  for (size_t length = utf8_length(text.substr(at)); at + length < text.size();) {
    const size_t next = at + length;
    const size_t next_length = utf8_length(text.substr(next));
    const uint64_t pair = pair_key(text.substr(at, length), text.substr(next, next_length));
    if (!std::binary_search(joined_pairs_.begin(), joined_pairs_.end(), pair)) return next;
    at = next;
    length = next_length;
  }
  return text.size();
}

}  // namespace

std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(Vocabulary vocabulary) {
  std::vector<DecodedPiece> decoded = decode_pieces(vocabulary);
  AddedTokens added = added_tokens(vocabulary);
  return std::make_unique<SentencePieceTokenizer>(std::move(vocabulary), std::move(decoded),
                                                  std::move(added));
}

}  // namespace quern
