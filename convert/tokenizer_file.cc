#include "convert/tokenizer_file.h"

#include <algorithm>
#include <string_view>

#include "convert/rank_vocabulary.h"
#include "convert/sentencepiece_model.h"
#include "convert/tokenizer_json.h"
#include "quant/download_check.h"
#include "quant/gguf_files.h"
#include "quant/gguf_reader.h"
#include "quant/utf8.h"

namespace quern {
namespace {

// The largest tokenizer.json of the field have about 40 MB.
constexpr size_t kMaxTextBytes = size_t{512} << 20;

std::string_view text_of(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// No control characters but those of lines, in what the file begins with: a SentencePiece model's lengths and
// scores are some.
bool is_plain_text(std::span<const uint8_t> bytes) {
  constexpr size_t kLooked = 512;
  const auto is_text = [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return (byte >= 0x20 && byte != 0x7F) || c == '\n' || c == '\r' || c == '\t';
  };
  const std::string_view begin = text_of(bytes).substr(0, kLooked);
  return !begin.empty() && std::all_of(begin.begin(), begin.end(), is_text);
}

Vocabulary read_gguf(std::span<const uint8_t> bytes, const std::string& path,
                     const std::string& pre_tokenizer, const Notice& notice) {
  const GgufReader gguf(bytes, path, notice);
  if (const uint64_t no = gguf.uint_or(kSplitNoKey, 0, 0, UINT16_MAX); no > 0)
    gguf.refuse(fmt::format("part {} of a split GGUF; the vocabulary is in the first part", no + 1));
  if (has_no_vocabulary(gguf)) gguf.refuse("the file has no vocabulary (tokenizer.ggml.model is no_vocab)");
  // A file with nothing but a vocabulary has no embedding to agree with.
  const TensorView* const embedding = gguf.find_tensor("token_embd.weight");
  const GgufValue* const tokens = gguf.find("tokenizer.ggml.tokens");
  const uint64_t n_rows = embedding != nullptr ? embedding->rows() : tokens != nullptr ? tokens->count : 0;
  return read_vocabulary(gguf, n_rows, notice, pre_tokenizer);
}

}  // namespace

TokenizerFile recognise_tokenizer_file(std::span<const uint8_t> bytes) {
  const std::string_view text = text_of(bytes);
  if (text.starts_with("GGUF")) return TokenizerFile::kGguf;
  // Refused as such; no message of SentencePiece's begins so.
  if (!byte_order_problem(text).empty()) return TokenizerFile::kTokenizerJson;
  const size_t begin = text.find_first_not_of(" \t\r\n");
  // A serialised message of SentencePiece's holds zeros: its scores are floats.
  if (begin != std::string_view::npos && text[begin] == '{' && text.find('\0') == std::string_view::npos)
    return is_tekken_json(text) ? TokenizerFile::kTekken : TokenizerFile::kTokenizerJson;
  return is_rank_file(text) ? TokenizerFile::kRanks : TokenizerFile::kSentencePiece;
}

Vocabulary read_tokenizer_file(std::span<const uint8_t> bytes, const std::string& path,
                               const std::string& pre_tokenizer, const Notice& notice) {
  const TokenizerFile kind = recognise_tokenizer_file(bytes);
  const std::string where = printable(path, kPathBytes);
  if (kind != TokenizerFile::kGguf && bytes.size() > kMaxTextBytes)
    fail(ErrorCode::kMalformed, "{}: {} bytes, at most {} are read as a tokenizer", where, bytes.size(),
         kMaxTextBytes);
  switch (kind) {
    case TokenizerFile::kGguf:
      return read_gguf(bytes, path, pre_tokenizer, notice);
    case TokenizerFile::kTokenizerJson:
      return read_tokenizer_json(text_of(bytes), where, pre_tokenizer, notice);
    case TokenizerFile::kTekken:
      return read_tekken_json(text_of(bytes), where, pre_tokenizer, notice);
    case TokenizerFile::kRanks:
      return read_rank_file(text_of(bytes), where, pre_tokenizer, notice);
    case TokenizerFile::kSentencePiece:
      break;
  }
  if (!pre_tokenizer.empty())
    fail(ErrorCode::kUsage, "--pre: {} is read as a SentencePiece model, which has no pre-tokenizer", where);
  if (is_plain_text(bytes) && placeholder_hint(bytes).empty())
    fail(ErrorCode::kMalformed,
         "{}: not a sentencepiece tokenizer.model, but a text; expected a GGUF, a tokenizer.model, "
         "tokenizer.json, tekken.json or a rank file",
         where);
  return read_sentencepiece_model(bytes, path, notice);
}

}  // namespace quern
