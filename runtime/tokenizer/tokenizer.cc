#include "runtime/tokenizer/tokenizer.h"

#include <algorithm>

#include "quant/error.h"
#include "quant/utf8.h"
#include "runtime/tokenizer/byte_pair_tokenizer.h"
#include "runtime/tokenizer/nfc.h"
#include "runtime/tokenizer/sentencepiece_tokenizer.h"

namespace quern {

namespace {

constexpr std::string_view kReplacement = "\uFFFD";

struct Family {
  std::string_view model;  // Vocabulary::model
  std::unique_ptr<Tokenizer> (*make)(Vocabulary vocabulary);
};
constexpr Family kFamilies[] = {{"llama", make_sentencepiece_tokenizer},
                                {"t5", make_sentencepiece_tokenizer},
                                {"gpt2", make_byte_pair_tokenizer},
                                {"gemma4", make_byte_pair_tokenizer}};

// True when more bytes could make these into one well-formed character. A second byte is restricted from
// below or from above, never both, so one of the extremes fits if anything does.
bool is_incomplete_character(std::string_view bytes) {
  const std::string begin(bytes);
  return !bytes.empty() && bytes.size() < 4 &&
         (utf8_length(begin + "\x80\x80\x80") > bytes.size() ||
          utf8_length(begin + "\xBF\xBF\xBF") > bytes.size());
}

// Moves what is certain from the front of `bytes` to the end of `out`: characters, and U+FFFD for each byte
// that belongs to none.
void take_characters(std::string* bytes, std::string* out) {
  std::string_view rest = *bytes;
  while (!rest.empty() && !is_incomplete_character(rest)) {
    const size_t length = utf8_length(rest);
    *out += length == 0 ? kReplacement : rest.substr(0, length);
    rest.remove_prefix(std::max<size_t>(length, 1));
  }
  bytes->erase(0, bytes->size() - rest.size());
}

// Every byte that is left becomes U+FFFD.
void give_up_characters(std::string* bytes, std::string* out) {
  for (size_t i = 0; i < bytes->size(); ++i) *out += kReplacement;
  bytes->clear();
}

// The parts of a piece of the spans' text that messages wrote, counted from the piece's begin.
std::vector<TextRange> messages_in(std::span<const TextSpan> spans, const TextPiece& piece) {
  std::vector<TextRange> messages;
  size_t at = 0;
  for (const TextSpan& span : spans) {
    const size_t begin = std::max(at, piece.begin), end = std::min(at + span.text.size(), piece.end);
    if (span.role == TextRole::kMessage && begin < end)
      messages.push_back({begin - piece.begin, end - piece.begin});
    at += span.text.size();
  }
  return messages;
}

}  // namespace

Tokenizer::Tokenizer(Vocabulary vocabulary, std::vector<DecodedPiece> decoded, AddedTokens added)
    : vocabulary_(std::move(vocabulary)),
      decoded_(std::move(decoded)),
      added_(std::move(added)),
      normalized_(normalized_tokens_of(vocabulary_)) {
  QUERN_CHECK(decoded_.size() == vocabulary_.size());
  ids_.reserve(vocabulary_.size());
  for (size_t id = 0; id < vocabulary_.size(); ++id) {
    ids_.try_emplace(vocabulary_.pieces[id], static_cast<TokenId>(id));
    longest_piece_bytes_ = std::max(longest_piece_bytes_, vocabulary_.pieces[id].size());
  }
  for (const TokenId id : {vocabulary_.eos, vocabulary_.eot, vocabulary_.eom})
    if (id != kNoToken) end_ids_.push_back(id);
  end_ids_.insert(end_ids_.end(), vocabulary_.more_ends.begin(), vocabulary_.more_ends.end());
  for (size_t id = 0; id < vocabulary_.size(); ++id)
    if (vocabulary_.types[id] == TokenType::kUnused) unused_ids_.push_back(static_cast<TokenId>(id));
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, TextRole role) const {
  const TextSpan span{text, role};
  return encode({&span, 1});
}

std::vector<TokenId> Tokenizer::encode(std::span<const TextSpan> spans) const {
  std::string joined;
  std::string_view text;
  if (spans.size() == 1) {
    text = spans[0].text;
  } else {
    for (const TextSpan& span : spans) joined += span.text;
    text = joined;
  }
  std::vector<TokenId> ids;
  for (const TextPiece& piece : added_.cut(text, spans)) {
    if (piece.id != kNoToken) {
      ids.push_back(piece.id);
    } else if (!normalized_.empty()) {
      encode_between(spans, piece, &ids);
    } else {
      encode_stretch({text.substr(piece.begin, piece.end - piece.begin), vocabulary_.add_space_prefix,
                      messages_in(spans, piece)},
                     &ids);
    }
  }
  return ids;
}

// Nothing is composed across the border of two spans of unlike roles before tokens are cut out, so that what
// a message begins with does not take part in the template's own tokens.
void Tokenizer::encode_between(std::span<const TextSpan> spans, const TextPiece& piece,
                               std::vector<TokenId>* ids) const {
  std::vector<std::pair<std::string, TextRole>> runs;
  size_t at = 0;
  for (const TextSpan& span : spans) {
    const size_t begin = std::max(at, piece.begin), end = std::min(at + span.text.size(), piece.end);
    if (begin < end) {
      if (runs.empty() || runs.back().second != span.role) runs.emplace_back("", span.role);
      runs.back().first += span.text.substr(begin - at, end - begin);
    }
    at += span.text.size();
  }
  std::string text;
  std::vector<TextSpan> normalized;
  for (auto& [run, role] : runs) {
    if (std::optional<std::string> composed = to_nfc(run)) run = std::move(*composed);
    text += run;
    normalized.push_back({run, role});
  }
  for (const TextPiece& part : normalized_.cut(text, normalized)) {
    if (part.id != kNoToken) {
      ids->push_back(part.id);
      continue;
    }
    encode_stretch({std::string_view(text).substr(part.begin, part.end - part.begin),
                    vocabulary_.add_space_prefix, messages_in(normalized, part)},
                   ids);
  }
}

std::vector<TokenId> Tokenizer::encode_message(std::string_view text) const {
  std::vector<TokenId> ids;
  if (!text.empty()) encode_stretch({text, true, {{0, text.size()}}}, &ids);
  return ids;
}

std::vector<TokenId> Tokenizer::encode_prompt(std::string_view text, TextRole role) const {
  std::vector<TokenId> ids = encode(text, role);
  const TokenId bos = vocabulary_.bos;
  if (vocabulary_.add_bos && bos != kNoToken && (ids.empty() || ids.front() != bos))
    ids.insert(ids.begin(), bos);
  return ids;
}

std::vector<TokenId> Tokenizer::encode_document(std::string_view text, TextRole role) const {
  std::vector<TokenId> ids = encode_prompt(text, role);
  if (vocabulary_.add_eos && vocabulary_.eos != kNoToken) ids.push_back(vocabulary_.eos);
  return ids;
}

std::string Tokenizer::decode(std::span<const TokenId> ids) const {
  StreamDecoder decoder(*this, {});
  std::string text;
  for (const TokenId id : ids) text += decoder.push(id);
  return text + decoder.finish();
}

size_t Tokenizer::index(TokenId id) const {
  if (id < 0 || static_cast<size_t>(id) >= size())
    fail(ErrorCode::kUsage, "token id {} is not in the vocabulary (0 to {})", id, size() - 1);
  return static_cast<size_t>(id);
}

std::optional<TokenId> Tokenizer::find(std::string_view piece) const {
  const auto found = ids_.find(piece);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

const std::string& Tokenizer::piece(TokenId id) const { return vocabulary_.pieces[index(id)]; }
const DecodedPiece& Tokenizer::decoded(TokenId id) const { return decoded_[index(id)]; }
bool Tokenizer::ends_text(TokenId id) const {
  return std::find(end_ids_.begin(), end_ids_.end(), id) != end_ids_.end();
}
bool Tokenizer::is_control(TokenId id) const { return vocabulary_.types[index(id)] == TokenType::kControl; }

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, std::span<const TokenId> context, bool own_text)
    : tokenizer_(tokenizer),
      drops_space_(own_text || tokenizer.vocabulary().add_space_prefix ||
                   tokenizer.vocabulary().remove_extra_whitespaces),
      at_start_(true) {
  for (const TokenId id : context) push(id);
  pending_.clear();  // shown as U+FFFD at the end of the context's text
}

std::string StreamDecoder::push(TokenId id) {
  const DecodedPiece& piece = tokenizer_.decoded(id);
  std::string out;
  if (piece.kind == DecodedPiece::Kind::kBytes) {
    at_start_ = false;
    pending_ += piece.text;
    take_characters(&pending_, &out);
    return out;
  }
  give_up_characters(&pending_, &out);  // only bytes that follow each other make a character
  if (piece.kind == DecodedPiece::Kind::kControl) return out;
  const bool drop_space = at_start_ && drops_space_ && piece.begins_with_prefix;
  const std::string_view text = std::string_view(piece.text).substr(drop_space ? 1 : 0);
  out += text;
  // Where extra spaces go, all that stand before a text do.
  at_start_ = at_start_ && text.empty() && tokenizer_.vocabulary().remove_extra_whitespaces;
  return out;
}

std::string StreamDecoder::push_text(std::string_view text) {
  std::string out;
  give_up_characters(&pending_, &out);
  at_start_ = false;
  return out += text;
}

std::string StreamDecoder::finish() {
  std::string out;
  give_up_characters(&pending_, &out);
  return out;
}

std::unique_ptr<Tokenizer> make_tokenizer(Vocabulary vocabulary) {
  for (const Family& family : kFamilies)
    if (family.model == vocabulary.model) return family.make(std::move(vocabulary));
  fail(ErrorCode::kMalformed, "no tokenizer is called '{}'", printable(vocabulary.model));
}

}  // namespace quern
