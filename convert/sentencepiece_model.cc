#include "convert/sentencepiece_model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <optional>
#include <string_view>
#include <unordered_set>

#include "quant/download_check.h"
#include "quant/sentencepiece_fields.h"
#include "quant/utf8.h"

namespace quern {

namespace {

constexpr size_t kMaxPieceBytes = 64 * 1024;  // robustness.md R11

// A message: a stretch of the file, and where in the file it lies.
struct Message {
  std::span<const uint8_t> bytes;
  uint64_t offset = 0;
};

struct Field {
  uint32_t number = 0;
  uint32_t wire_type = 0;
  uint64_t value = 0;   // varint, fixed64, fixed32
  Message payload;      // length-delimited
  uint64_t offset = 0;  // of its tag in the file
};

// Where the file is, for messages.
struct Source {
  const std::string& path;

  template <class... Args>
  [[noreturn]] void refuse(uint64_t offset, fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorCode::kMalformed, "{}: {} (offset {:#x})", path,
         fmt::format(format, std::forward<Args>(args)...), offset);
  }
};

// Hands out the fields of one message in file order.
class FieldReader {
 public:
  FieldReader(const Source& source, const Message& message) : source_(source), message_(message) {}

  std::optional<Field> next();

 private:
  uint64_t offset() const { return message_.offset + at_; }
  size_t left() const { return message_.bytes.size() - at_; }
  uint64_t read_varint();
  uint64_t read_fixed(size_t n_bytes);

  const Source& source_;
  const Message message_;
  size_t at_ = 0;
};

std::optional<Field> FieldReader::next() {
  if (left() == 0) return std::nullopt;
  Field field;
  field.offset = offset();
  const uint64_t tag = read_varint();
  field.wire_type = static_cast<uint32_t>(tag & 7);
  if (tag >> 3 == 0 || tag >> 3 > std::numeric_limits<uint32_t>::max() >> 3) {
    const std::span<const uint8_t> rest = message_.bytes.subspan(field.offset - message_.offset);
    const bool zeros = std::all_of(rest.begin(), rest.end(), [](uint8_t byte) { return byte == 0; });
    source_.refuse(field.offset, "not a sentencepiece tokenizer.model: field number {} does not exist{}",
                   tag >> 3,
                   zeros ? "; only zeros follow, as in an unfinished download: download it again" : "");
  }
  field.number = static_cast<uint32_t>(tag >> 3);
  switch (field.wire_type) {
    case kVarint:
      field.value = read_varint();
      break;
    case kFixed64:
      field.value = read_fixed(8);
      break;
    case kFixed32:
      field.value = read_fixed(4);
      break;
    case kLengthDelimited: {
      const uint64_t length = read_varint();
      if (length > left()) {
        source_.refuse(field.offset,
                       "field {} claims a length of {} bytes where {} are left: truncated or damaged file",
                       field.number, length, left());
      }
      field.payload = {message_.bytes.subspan(at_, static_cast<size_t>(length)), offset()};
      at_ += static_cast<size_t>(length);
      break;
    }
    default:
      source_.refuse(field.offset,
                     "not a sentencepiece tokenizer.model: field {} has the unknown wire type {}",
                     field.number, field.wire_type);
  }
  return field;
}

uint64_t FieldReader::read_varint() {
  const uint64_t start = offset();
  uint64_t value = 0;
  for (unsigned shift = 0; shift < 64; shift += 7) {
    if (left() == 0) source_.refuse(start, "truncated in the middle of a number");
    const uint8_t byte = message_.bytes[at_++];
    if (shift == 63 && byte > 1) break;
    value |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return value;
  }
  source_.refuse(start, "a number is longer than 64 bits");
}

uint64_t FieldReader::read_fixed(size_t n_bytes) {
  if (left() < n_bytes) source_.refuse(offset(), "truncated in the middle of a number");
  uint64_t value = 0;
  for (size_t i = 0; i < n_bytes; ++i) value |= static_cast<uint64_t>(message_.bytes[at_++]) << (8 * i);
  return value;
}

void expect_wire_type(const Source& source, const Field& field, WireType expected, std::string_view name) {
  if (field.wire_type == expected) return;
  source.refuse(field.offset, "{} has wire type {} (expected {})", name, field.wire_type,
                static_cast<uint32_t>(expected));
}

// int32 and enum fields: varints, negative ones sign-extended to 64 bits.
int32_t as_int32(const Source& source, const Field& field, std::string_view name) {
  expect_wire_type(source, field, kVarint, name);
  const auto value = static_cast<int64_t>(field.value);
  if (value != static_cast<int32_t>(value))
    source.refuse(field.offset, "{} is {}, beyond 32 bits", name, value);
  return static_cast<int32_t>(value);
}

bool as_bool(const Source& source, const Field& field, std::string_view name) {
  expect_wire_type(source, field, kVarint, name);
  return field.value != 0;
}

float as_float(const Source& source, const Field& field, std::string_view name) {
  expect_wire_type(source, field, kFixed32, name);
  return std::bit_cast<float>(static_cast<uint32_t>(field.value));
}

std::string_view as_bytes(const Source& source, const Field& field, std::string_view name) {
  expect_wire_type(source, field, kLengthDelimited, name);
  return {reinterpret_cast<const char*>(field.payload.bytes.data()), field.payload.bytes.size()};
}

const Message& as_message(const Source& source, const Field& field, std::string_view name) {
  expect_wire_type(source, field, kLengthDelimited, name);
  return field.payload;
}

// What the two specs say, starting from sentencepiece's defaults.
struct Specs {
  int32_t model_type = kModelTypeUnigram;
  bool byte_fallback = false;
  bool treat_whitespace_as_suffix = false;
  int32_t unk_id = 0, bos_id = 1, eos_id = 2, pad_id = kNoToken;
  std::string normalizer_name;
  std::string charsmap;
  bool has_denormalizer = false;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

void read_trainer_spec(const Source& source, const Message& message, Specs* specs) {
  FieldReader reader(source, message);
  while (const auto field = reader.next()) {
    switch (field->number) {
      case trainer_field::kModelType:
        specs->model_type = as_int32(source, *field, "model_type");
        break;
      case trainer_field::kByteFallback:
        specs->byte_fallback = as_bool(source, *field, "byte_fallback");
        break;
      case trainer_field::kTreatWhitespaceAsSuffix:
        specs->treat_whitespace_as_suffix = as_bool(source, *field, "treat_whitespace_as_suffix");
        break;
      case trainer_field::kUnkId:
        specs->unk_id = as_int32(source, *field, "unk_id");
        break;
      case trainer_field::kBosId:
        specs->bos_id = as_int32(source, *field, "bos_id");
        break;
      case trainer_field::kEosId:
        specs->eos_id = as_int32(source, *field, "eos_id");
        break;
      case trainer_field::kPadId:
        specs->pad_id = as_int32(source, *field, "pad_id");
        break;
      default:
        break;  // about training
    }
  }
}

void read_normalizer_spec(const Source& source, const Message& message, Specs* specs) {
  FieldReader reader(source, message);
  while (const auto field = reader.next()) {
    switch (field->number) {
      case normalizer_field::kName:
        specs->normalizer_name = as_bytes(source, *field, "the normalizer's name");
        break;
      case normalizer_field::kPrecompiledCharsmap:
        specs->charsmap = as_bytes(source, *field, "precompiled_charsmap");
        break;
      case normalizer_field::kAddDummyPrefix:
        specs->add_dummy_prefix = as_bool(source, *field, "add_dummy_prefix");
        break;
      case normalizer_field::kRemoveExtraWhitespaces:
        specs->remove_extra_whitespaces = as_bool(source, *field, "remove_extra_whitespaces");
        break;
      case normalizer_field::kEscapeWhitespaces:
        specs->escape_whitespaces = as_bool(source, *field, "escape_whitespaces");
        break;
      default:
        break;  // the rules that the charsmap was made from
    }
  }
}

// The denormalizer changes decoded text by a charsmap of its own.
void read_denormalizer_spec(const Source& source, const Message& message, Specs* specs) {
  FieldReader reader(source, message);
  while (const auto field = reader.next()) {
    if (field->number != normalizer_field::kPrecompiledCharsmap) continue;
    specs->has_denormalizer = !as_bytes(source, *field, "the denormalizer's charsmap").empty();
  }
}

// Collects the pieces, each checked as it comes.
class PieceCollector {
 public:
  PieceCollector(const Source& source, Vocabulary* vocabulary) : source_(source), vocabulary_(*vocabulary) {}

  void add(const Message& message);
  TokenId unknown() const { return unknown_; }

 private:
  const Source& source_;
  Vocabulary& vocabulary_;
  // As in sentencepiece, pieces that match text and those that do not are apart: either may hold "<s>".
  std::unordered_set<std::string> matching_, reserved_;
  TokenId unknown_ = kNoToken;
};

void PieceCollector::add(const Message& message) {
  std::string_view text;
  float score = 0;
  int32_t type = static_cast<int32_t>(TokenType::kNormal);
  FieldReader reader(source_, message);
  while (const auto field = reader.next()) {
    switch (field->number) {
      case piece_field::kText:
        text = as_bytes(source_, *field, "a piece's text");
        break;
      case piece_field::kScore:
        score = as_float(source_, *field, "a piece's score");
        break;
      case piece_field::kType:
        type = as_int32(source_, *field, "a piece's type");
        break;
      default:
        break;
    }
  }

  const size_t id = vocabulary_.size();
  const uint64_t offset = message.offset;
  if (text.empty()) source_.refuse(offset, "piece {} has no text", id);
  if (text.size() > kMaxPieceBytes) {
    source_.refuse(offset, "piece {} is {} bytes long (at most {})", id, text.size(), kMaxPieceBytes);
  }
  if (!is_valid_utf8(text)) source_.refuse(offset, "piece {} ({}) is not valid UTF-8", id, printable(text));
  if (type < static_cast<int32_t>(TokenType::kNormal) || type > static_cast<int32_t>(TokenType::kByte)) {
    source_.refuse(offset, "piece {} ({}) has type {} (expected 1 to 6)", id, printable(text), type);
  }
  if (!std::isfinite(score)) source_.refuse(offset, "piece {} ({}) has score {}", id, printable(text), score);

  const auto token_type = static_cast<TokenType>(type);
  const bool matches = token_type == TokenType::kNormal || token_type == TokenType::kUserDefined ||
                       token_type == TokenType::kUnused;
  if (!(matches ? matching_ : reserved_).emplace(text).second) {
    source_.refuse(offset, "piece {} ({}) is already defined", id, printable(text));
  }
  if (token_type == TokenType::kUnknown) {
    if (unknown_ != kNoToken) {
      source_.refuse(offset, "piece {} ({}) is a second unk (type UNKNOWN) beside piece {}", id,
                     printable(text), unknown_);
    }
    unknown_ = static_cast<TokenId>(id);
  }
  if (token_type == TokenType::kUserDefined) {
    vocabulary_.sentencepiece().user_defined.push_back(static_cast<TokenId>(id));
  }
  vocabulary_.pieces.emplace_back(text);
  vocabulary_.sentencepiece().scores.push_back(score);
  vocabulary_.types.push_back(token_type);
}

// A user-defined piece of one character that is in no other piece of a BPE model is what an ordinary one is,
// and other programs put a space behind what has the type of an added token (formats.md 2.2). Not so in a
// unigram model, where a user-defined piece has a score of its own making.
void make_lone_characters_normal(Vocabulary* vocabulary) {
  std::vector<TokenId>& user_defined = vocabulary->sentencepiece().user_defined;
  std::unordered_set<std::string_view> characters;
  for (const TokenId id : user_defined) {
    const std::string& piece = vocabulary->pieces[static_cast<size_t>(id)];
    if (utf8_length(piece) == piece.size()) characters.insert(piece);
  }
  for (size_t id = 0; id < vocabulary->size() && !characters.empty(); ++id) {
    const TokenType type = vocabulary->types[id];
    if (type != TokenType::kNormal && type != TokenType::kUnused) continue;
    std::string_view rest = vocabulary->pieces[id];
    for (; !rest.empty(); rest.remove_prefix(utf8_length(rest)))
      characters.erase(rest.substr(0, utf8_length(rest)));
  }
  std::erase_if(user_defined, [&](TokenId id) {
    const bool lone = characters.contains(vocabulary->pieces[static_cast<size_t>(id)]);
    if (lone) vocabulary->types[static_cast<size_t>(id)] = TokenType::kNormal;
    return lone;
  });
}

std::string_view model_type_name(int32_t type) {
  switch (type) {
    case kModelTypeUnigram:
      return "unigram";
    case kModelTypeBpe:
      return "BPE";
    case kModelTypeWord:
      return "word";
    case kModelTypeChar:
      return "char";
    default:
      return "unknown";
  }
}

// Refuses by name what we do not do.
void check_specs(const Source& source, const Specs& specs, uint64_t offset) {
  if (specs.model_type != kModelTypeBpe && specs.model_type != kModelTypeUnigram) {
    source.refuse(offset, "model_type is {} ({}); only BPE ({}) and unigram ({}) are supported",
                  specs.model_type, model_type_name(specs.model_type), kModelTypeBpe, kModelTypeUnigram);
  }
  if (specs.charsmap.empty() && specs.normalizer_name != "identity" && !specs.normalizer_name.empty()) {
    source.refuse(offset, "the normalizer ({}) has no precompiled_charsmap, which would say what it does",
                  printable(specs.normalizer_name));
  }
  if (specs.has_denormalizer) source.refuse(offset, "a denormalizer with a charsmap is not supported");
  if (!specs.escape_whitespaces) {
    source.refuse(offset, "a normalizer with escape_whitespaces off is not supported");
  }
  if (specs.treat_whitespace_as_suffix) {
    source.refuse(offset, "treat_whitespace_as_suffix is not supported");
  }
}

// A unigram model's scores are logarithms of probabilities; whole numbers are the ranks of BPE's merges.
bool has_ranks_for_scores(const Vocabulary& vocabulary) {
  for (size_t id = 0; id < vocabulary.size(); ++id) {
    const float score = vocabulary.sentencepiece().scores[id];
    if (vocabulary.types[id] == TokenType::kNormal && score != std::trunc(score)) return false;
  }
  return true;
}

// An id of the trainer spec; any negative one means that there is no such piece.
TokenId checked_id(const Source& source, int32_t id, std::string_view name, size_t n_pieces,
                   uint64_t offset) {
  if (id < 0) return kNoToken;
  if (static_cast<size_t>(id) >= n_pieces) {
    source.refuse(offset, "{} is {}, beyond the vocabulary of {} pieces", name, id, n_pieces);
  }
  return id;
}

}  // namespace

Vocabulary read_sentencepiece_model(std::span<const uint8_t> bytes, const std::string& path,
                                    const Notice& notice) {
  const Source source{path};
  const std::string hint = placeholder_hint(bytes);
  if (bytes.empty() || !hint.empty()) {
    source.refuse(0, "not a sentencepiece tokenizer.model: {}{}",
                  bytes.empty() ? "the file is empty" : "its first bytes are not of that format", hint);
  }
  if (bytes.front() == '{') {
    source.refuse(0,
                  "this is JSON (a tokenizer.json?), which is not supported; a sentencepiece tokenizer.model "
                  "is needed");
  }

  Vocabulary vocabulary;
  Specs specs;
  PieceCollector pieces(source, &vocabulary);
  uint64_t specs_offset = 0;
  FieldReader reader(source, {bytes, 0});
  while (const auto field = reader.next()) {
    switch (field->number) {
      case model_field::kPieces:
        pieces.add(as_message(source, *field, "a piece"));
        break;
      case model_field::kTrainerSpec:
        specs_offset = field->offset;
        read_trainer_spec(source, as_message(source, *field, "trainer_spec"), &specs);
        break;
      case model_field::kNormalizerSpec:
        read_normalizer_spec(source, as_message(source, *field, "normalizer_spec"), &specs);
        break;
      case model_field::kDenormalizerSpec:
        read_denormalizer_spec(source, as_message(source, *field, "denormalizer_spec"), &specs);
        break;
      default:
        break;  // self-test data and extensions
    }
  }

  if (vocabulary.size() == 0) source.refuse(bytes.size(), "the vocabulary is empty: no pieces");
  check_specs(source, specs, specs_offset);
  vocabulary.unk = checked_id(source, specs.unk_id, "unk_id", vocabulary.size(), specs_offset);
  vocabulary.bos = checked_id(source, specs.bos_id, "bos_id", vocabulary.size(), specs_offset);
  vocabulary.eos = checked_id(source, specs.eos_id, "eos_id", vocabulary.size(), specs_offset);
  vocabulary.pad = checked_id(source, specs.pad_id, "pad_id", vocabulary.size(), specs_offset);
  if (pieces.unknown() == kNoToken) source.refuse(bytes.size(), "no unk: no piece has type UNKNOWN");
  if (vocabulary.unk != pieces.unknown()) {
    source.refuse(specs_offset, "unk_id is {}, but piece {} is the one with type UNKNOWN", specs.unk_id,
                  pieces.unknown());
  }
  if (specs.model_type == kModelTypeBpe) make_lone_characters_normal(&vocabulary);
  if (specs.model_type == kModelTypeUnigram) {
    if (has_ranks_for_scores(vocabulary))
      source.refuse(
          specs_offset, "model_type is 1 (unigram), but the scores are whole numbers, a BPE model's ranks{}",
          specs_offset != 0 ? ""
                            : "; the trainer_spec, which would say otherwise, is missing: cut short? "
                              "Download it again");
    vocabulary.model = "t5";
  }
  vocabulary.sentencepiece().precompiled_charsmap = specs.charsmap;
  vocabulary.add_bos = vocabulary.bos != kNoToken;
  vocabulary.add_space_prefix = specs.add_dummy_prefix;
  vocabulary.remove_extra_whitespaces = specs.remove_extra_whitespaces;
  if (specs.remove_extra_whitespaces && notice) {
    notice(path + ": remove_extra_whitespaces is on: runs of spaces in a text count as one");
  }
  check_vocabulary(vocabulary, path, notice);
  const bool has_bytes = vocabulary.sentencepiece().byte_ids[0] != kNoToken;
  if (has_bytes != specs.byte_fallback) {
    source.refuse(specs_offset, "byte_fallback is {}, but there are {} byte tokens",
                  specs.byte_fallback ? "on" : "off", has_bytes ? "256" : "no");
  }
  return vocabulary;
}

}  // namespace quern
