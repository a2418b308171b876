#include "runtime/tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <optional>

#include "quant/error.h"
#include "quant/utf8.h"
#include "runtime/tokenizer_model.h"

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

// What sentencepiece's identity normalizer makes of a text.
std::string normalise(std::string_view text, bool space_prefix, bool remove_extra_whitespaces) {
  std::string out;
  out.reserve(text.size() + text.size() / 2 + kSpaceSymbol.size());
  if (space_prefix) out += kSpaceSymbol;
  bool skip_spaces = remove_extra_whitespaces;
  while (!text.empty()) {
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
  if (remove_extra_whitespaces) {
    while (out.ends_with(kSpaceSymbol)) out.resize(out.size() - kSpaceSymbol.size());
  }
  return out;
}

std::string well_formed(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    out += length == 0 ? kReplacement : text.substr(0, length);
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  return out;
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  for (size_t at; (at = text.find(from)) != text.npos; text.remove_prefix(at + from.size())) {
    out += text.substr(0, at);
    out += to;
  }
  out += text;
  return out;
}

// True when more bytes could make these into one well-formed character. A second byte is restricted from
// below or from above, never both, so one of the extremes fits if anything does.
bool is_incomplete_character(const std::string& bytes) {
  return !bytes.empty() && (utf8_length(bytes + "\x80\x80\x80") > bytes.size() ||
                            utf8_length(bytes + "\xBF\xBF\xBF") > bytes.size());
}

// Moves what is certain from the front of `bytes` (a few) to the end of `out`: characters, and U+FFFD for
// each byte that belongs to none.
void take_characters(std::string* bytes, std::string* out) {
  while (!bytes->empty() && !is_incomplete_character(*bytes)) {
    const size_t length = utf8_length(*bytes);
    *out += length == 0 ? kReplacement : std::string_view(*bytes).substr(0, length);
    bytes->erase(0, std::max<size_t>(length, 1));
  }
}

// Every byte that is left becomes U+FFFD.
void give_up_characters(std::string* bytes, std::string* out) {
  for (size_t i = 0; i < bytes->size(); ++i) *out += kReplacement;
  bytes->clear();
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

// What one id contributes to decoded text.
struct DecodedPiece {
  enum class Kind { kText, kByte, kControl };
  Kind kind = Kind::kText;
  bool begins_with_symbol = false;  // a leading U+2581: dropped where the piece is the first one
  std::string text;                 // well-formed UTF-8, except a byte's
};

DecodedPiece decoded_piece(const Vocabulary& vocabulary, TokenId id) {
  const auto index = static_cast<size_t>(id);
  const std::string& piece = vocabulary.pieces[index];
  const TokenType type = vocabulary.types[index];
  // Converters mark <unk> as control now and then (formats.md 2.2); the id says what it is.
  const bool unknown = type == TokenType::kUnknown || (id == vocabulary.unk && type == TokenType::kControl);
  if (unknown) return {DecodedPiece::Kind::kText, false, std::string(kUnknownText)};
  if (type == TokenType::kControl) return {DecodedPiece::Kind::kControl, false, ""};
  if (type == TokenType::kByte) {
    const auto byte = std::find(vocabulary.byte_ids.begin(), vocabulary.byte_ids.end(), id);
    QUERN_CHECK(byte != vocabulary.byte_ids.end());
    return {DecodedPiece::Kind::kByte, false,
            std::string(1, static_cast<char>(byte - vocabulary.byte_ids.begin()))};
  }
  return {DecodedPiece::Kind::kText, piece.starts_with(kSpaceSymbol),
          well_formed(replace_all(piece, kSpaceSymbol, " "))};
}

// Pieces that are cut out of a text before anything is merged, the longest that begins at a place first.
class UserDefinedPieces {
 public:
  struct Match {
    TokenId id;
    size_t length;
  };

  explicit UserDefinedPieces(const Vocabulary& vocabulary) {
    for (size_t id = 0; id < vocabulary.size(); ++id) {
      if (vocabulary.types[id] != TokenType::kUserDefined) continue;
      // Files spell the spaces in these either way (formats.md 2.2: added_tokens are written raw).
      const std::string text = replace_all(vocabulary.pieces[id], " ", kSpaceSymbol);
      if (!text.empty() && is_valid_utf8(text)) pieces_.push_back({text, static_cast<TokenId>(id)});
    }
    const auto same = [](const Piece& a, const Piece& b) { return a.text == b.text; };
    std::stable_sort(pieces_.begin(), pieces_.end(),
                     [](const Piece& a, const Piece& b) { return a.text < b.text; });
    pieces_.erase(std::unique(pieces_.begin(), pieces_.end(), same), pieces_.end());  // the lowest id stays
  }

  bool empty() const { return pieces_.empty(); }

  // Narrows the range of pieces that begin as `text` does, byte by byte.
  std::optional<Match> longest_match(std::string_view text) const {
    std::optional<Match> longest;
    auto low = pieces_.begin(), high = pieces_.end();
    for (size_t depth = 0; low != high; ++depth) {
      if (low->text.size() == depth) {
        longest = Match{low->id, depth};
        ++low;
      }
      if (depth == text.size()) break;
      const auto byte_before = [depth](const Piece& piece, uint8_t byte) {
        return static_cast<uint8_t>(piece.text[depth]) < byte;
      };
      const auto byte_after = [depth](uint8_t byte, const Piece& piece) {
        return byte < static_cast<uint8_t>(piece.text[depth]);
      };
      const auto byte = static_cast<uint8_t>(text[depth]);
      low = std::lower_bound(low, high, byte, byte_before);
      high = std::upper_bound(low, high, byte, byte_after);
    }
    return longest;
  }

 private:
  struct Piece {
    std::string text;
    TokenId id;
  };
  std::vector<Piece> pieces_;  // by text, unique
};

}  // namespace

struct Tokenizer::Encoder {
  explicit Encoder(const Vocabulary& vocabulary);

  // `text` is normalised.
  std::vector<TokenId> encode(std::string_view text) const;
  void encode_without_user_defined(std::string_view text, std::vector<TokenId>* ids) const;
  size_t first_part(std::string_view text) const;

  sentencepiece::SentencePieceProcessor processor;
  UserDefinedPieces user_defined;
  // A text may be taken apart between two characters that stand side by side in no piece: nothing is ever
  // merged across such a place, and merges on its two sides do not see each other. Not so with unused pieces,
  // which sentencepiece takes apart as it last built one anywhere in the text.
  bool separable;
  std::vector<uint64_t> joined_pairs;  // pair_key of characters side by side in a piece; sorted
  std::vector<DecodedPiece> decoded;
};

Tokenizer::Encoder::Encoder(const Vocabulary& vocabulary)
    : user_defined(vocabulary),
      separable(std::find(vocabulary.types.begin(), vocabulary.types.end(), TokenType::kUnused) ==
                vocabulary.types.end()) {
  const sentencepiece::util::Status status =
      processor.LoadFromSerializedProto(build_sentencepiece_model(vocabulary));
  if (!status.ok()) {
    fail(ErrorCode::kMalformed, "sentencepiece refuses the vocabulary: {}", printable(status.message(), 256));
  }
  decoded.reserve(vocabulary.size());
  for (size_t id = 0; id < vocabulary.size(); ++id) {
    decoded.push_back(decoded_piece(vocabulary, static_cast<TokenId>(id)));
    std::string_view rest = vocabulary.pieces[id];
    if (vocabulary.types[id] != TokenType::kNormal || !is_valid_utf8(rest)) continue;
    for (size_t length = utf8_length(rest); length < rest.size(); length = utf8_length(rest)) {
      const std::string_view first = rest.substr(0, length);
      rest.remove_prefix(length);
      joined_pairs.push_back(pair_key(first, rest.substr(0, utf8_length(rest))));
    }
  }
  std::sort(joined_pairs.begin(), joined_pairs.end());
  joined_pairs.erase(std::unique(joined_pairs.begin(), joined_pairs.end()), joined_pairs.end());
}

std::vector<TokenId> Tokenizer::Encoder::encode(std::string_view text) const {
  std::vector<TokenId> ids;
  size_t plain = 0;  // where the text behind the last user-defined piece begins
  for (size_t at = 0; at < text.size() && !user_defined.empty();) {
    const auto match = user_defined.longest_match(text.substr(at));
    if (!match) {
      at += utf8_length(text.substr(at));
      continue;
    }
    encode_without_user_defined(text.substr(plain, at - plain), &ids);
    ids.push_back(match->id);
    at += match->length;
    plain = at;
  }
  encode_without_user_defined(text.substr(plain), &ids);
  return ids;
}

void Tokenizer::Encoder::encode_without_user_defined(std::string_view text, std::vector<TokenId>* ids) const {
  std::vector<int> part_ids;
  while (!text.empty()) {
    const std::string_view part = text.substr(0, first_part(text));
    if (part.size() > kMaxPartBytes) {
      fail(ErrorCode::kResource,
           "a stretch of {} bytes of text can only be tokenized whole, and that needs too much memory "
           "(limit: {} bytes); shorten it",
           part.size(), kMaxPartBytes);
    }
    part_ids.clear();
    const sentencepiece::util::Status status = processor.Encode(part, &part_ids);
    QUERN_CHECK(status.ok());
    ids->insert(ids->end(), part_ids.begin(), part_ids.end());
    text.remove_prefix(part.size());
  }
}

// Bytes up to the first place behind kPartBytes where the text may be taken apart; all when there is none.
size_t Tokenizer::Encoder::first_part(std::string_view text) const {
  if (!separable || text.size() <= kPartBytes) return text.size();
  size_t at = kPartBytes;
  while ((text[at] & 0xC0) == 0x80) --at;  // to the beginning of a character
  for (size_t length = utf8_length(text.substr(at)); at + length < text.size();) {
    const size_t next = at + length;
    const size_t next_length = utf8_length(text.substr(next));
    const uint64_t pair = pair_key(text.substr(at, length), text.substr(next, next_length));
    if (!std::binary_search(joined_pairs.begin(), joined_pairs.end(), pair)) return next;
    at = next;
    length = next_length;
  }
  return text.size();
}

Tokenizer::Tokenizer(Vocabulary vocabulary)
    : vocabulary_(std::move(vocabulary)), encoder_(std::make_unique<Encoder>(vocabulary_)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

std::vector<TokenId> Tokenizer::encode(std::string_view text) const {
  if (text.empty()) return {};
  return encoder_->encode(
      normalise(text, vocabulary_.add_space_prefix, vocabulary_.remove_extra_whitespaces));
}

std::vector<TokenId> Tokenizer::encode_message(std::string_view text) const {
  if (text.empty()) return {};
  return encoder_->encode(normalise(text, true, vocabulary_.remove_extra_whitespaces));
}

std::vector<TokenId> Tokenizer::encode_prompt(std::string_view text) const {
  std::vector<TokenId> ids = encode(text);
  if (vocabulary_.add_bos && vocabulary_.bos != kNoToken) ids.insert(ids.begin(), vocabulary_.bos);
  return ids;
}

std::string Tokenizer::decode(std::span<const TokenId> ids) const {
  StreamDecoder decoder(*this, {});
  std::string text;
  for (const TokenId id : ids) text += decoder.push(id);
  return text + decoder.finish();
}

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, std::span<const TokenId> context)
    : tokenizer_(tokenizer), at_start_(true) {
  for (const TokenId id : context) push(id);
  pending_.clear();  // shown as U+FFFD at the end of the context's text
}

std::string StreamDecoder::push(TokenId id) {
  if (id < 0 || static_cast<size_t>(id) >= tokenizer_.size()) {
    fail(ErrorCode::kUsage, "token id {} is not in the vocabulary (0 to {})", id, tokenizer_.size() - 1);
  }
  const DecodedPiece& piece = tokenizer_.encoder_->decoded[static_cast<size_t>(id)];
  std::string out;
  if (piece.kind == DecodedPiece::Kind::kByte) {
    at_start_ = false;
    pending_ += piece.text;
    take_characters(&pending_, &out);
    return out;
  }
  give_up_characters(&pending_, &out);  // only bytes that follow each other make a character
  if (piece.kind == DecodedPiece::Kind::kControl) return out;
  const bool drop_space = at_start_ && piece.begins_with_symbol;
  out += std::string_view(piece.text).substr(drop_space ? 1 : 0);
  at_start_ = false;
  return out;
}

std::string StreamDecoder::finish() {
  std::string out;
  give_up_characters(&pending_, &out);
  return out;
}

}  // namespace quern
