// "gpt2": byte-level BPE vocabularies, and "gemma4": the same merges over characters.
#include <algorithm>
#include <optional>
#include <unordered_map>

#include "quant/byte_level.h"
#include "quant/pre_tokenizer.h"
#include "quant/vocabulary_families.h"

namespace quern {
namespace {

namespace keys = vocabulary_keys;

BytePairParts read_merges(const GgufReader& gguf) {
  const GgufValue* value = gguf.find(keys::kMerges);
  if (value == nullptr) gguf.refuse(fmt::format("key '{}' is missing", keys::kMerges));
  const auto merges = value->as_strings();
  if (!merges) gguf.refuse_value(keys::kMerges, "an array of strings");
  BytePairParts parts;
  parts.merges.assign(merges->begin(), merges->end());
  return parts;
}

// What GGUF has no key for. llama.cpp does not know these, and leaves them out.
constexpr std::string_view kWholeWordsKey = "quern.tokenizer.whole_words";
constexpr std::string_view kNormalizerKey = "quern.tokenizer.normalizer";

void read_own_keys(const GgufReader& gguf, BytePairParts* parts) {
  if (gguf.find(kWholeWordsKey) != nullptr) parts->whole_words = gguf.bool_or(kWholeWordsKey, false);
  const std::string_view normalizer = gguf.string_or(kNormalizerKey, "");
  if (!normalizer.empty() && normalizer != "nfc")
    gguf.refuse(fmt::format("{} is '{}', expected 'nfc'", kNormalizerKey, printable(normalizer)));
  parts->nfc = !normalizer.empty();
}

void write_own_keys(const BytePairParts& parts, GgufMetadata* metadata) {
  if (parts.whole_words) metadata->set_bool(kWholeWordsKey, *parts.whole_words);
  if (parts.nfc) metadata->set_string(kNormalizerKey, "nfc");
}

void read_gpt2_parts(const GgufReader& gguf, Vocabulary* vocabulary, const Notice&) {
  BytePairParts parts = read_merges(gguf);
  parts.pre_tokenizer = gguf.string_or(keys::kPre, "");
  const PreTokenizer* const row = find_pre_tokenizer(parts.pre_tokenizer);
  vocabulary->add_bos = row != nullptr && row->add_bos;
  read_own_keys(gguf, &parts);
  vocabulary->parts = std::move(parts);
}

void read_gemma4_parts(const GgufReader& gguf, Vocabulary* vocabulary, const Notice&) {
  BytePairParts parts = read_merges(gguf);
  parts.pre_tokenizer = "gemma4";
  read_own_keys(gguf, &parts);
  vocabulary->parts = std::move(parts);
}

void check_pre_tokenizer(std::string& name, const std::string& where, const Notice& notice) {
  if (name.empty()) {
    name = "default";
    if (notice) {
      notice(fmt::format(
          "{}: {} is missing, so text is cut into words by the rule 'default', which is no model's "
          "own (override: --pre)",
          where, keys::kPre));
    }
  }
  if (const std::string problem = unknown_pre_tokenizer(name); !problem.empty())
    fail(ErrorCode::kMalformed, "{}: {}", where, problem);
}

void check_merges(const Vocabulary& vocabulary, const std::string& where, const Notice& notice) {
  const std::vector<std::string>& merges = vocabulary.byte_pairs().merges;
  std::unordered_map<std::string_view, TokenType> types;
  types.reserve(vocabulary.size());
  for (size_t id = 0; id < vocabulary.size(); ++id)
    types.try_emplace(vocabulary.pieces[id], vocabulary.types[id]);
  const auto is_piece = [&](std::string_view text) { return types.contains(text); };
  size_t n_idle = 0, first_idle = 0;
  std::string merged;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const std::optional<MergeParts> parts = split_merge(merges[rank]);
    if (!parts) {
      fail(ErrorCode::kMalformed, "{}: merge {} is '{}', expected two parts with a space between them", where,
           rank, printable(merges[rank]));
    }
    merged.assign(parts->left).append(parts->right);
    if (is_piece(parts->left) && is_piece(parts->right) && is_piece(merged)) continue;
    if (n_idle++ == 0) first_idle = rank;
  }
  if (n_idle == 0 || !notice) return;
  notice(
      fmt::format("{}: {} of {} merges name what is no token and are left out; the first is merge {}, '{}'",
                  where, n_idle, merges.size(), first_idle, printable(merges[first_idle])));
}

void check_parts(Vocabulary& vocabulary, const std::string& where, const Notice& notice) {
  check_pre_tokenizer(vocabulary.byte_pairs().pre_tokenizer, where, notice);
  check_merges(vocabulary, where, notice);
}

// A byte without a token is left out of every text, as in tokenizers and llama.cpp. Many vocabularies lack
// bytes that hardly occur (SmolLM2's has no 0x04); one that lacks a printable one is damaged, or tiny.
void check_bytes(Vocabulary& vocabulary, const std::string& where, const Notice& notice) {
  check_parts(vocabulary, where, notice);
  std::vector<bool> has_token(256);
  for (const std::string& piece : vocabulary.pieces) {
    if (piece.size() > 2) continue;  // characters of that alphabet have one or two bytes
    const std::optional<std::string> bytes = byte_level_bytes(piece);
    if (bytes && bytes->size() == 1) has_token[static_cast<uint8_t>(bytes->front())] = true;
  }
  size_t n_missing = 0, first_missing = 0;
  for (size_t byte = ' '; byte <= '~'; ++byte)
    if (!has_token[byte] && n_missing++ == 0) first_missing = byte;
  if (n_missing == 0 || !notice) return;
  notice(fmt::format("{}: {} of the 95 printable bytes have no token, the first is '{}': texts lose them",
                     where, n_missing, static_cast<char>(first_missing)));
}

void write_pre(const Vocabulary& vocabulary, GgufMetadata* metadata) {
  metadata->set_string(keys::kPre, vocabulary.byte_pairs().pre_tokenizer);
}

void write_merges(const Vocabulary& vocabulary, GgufMetadata* metadata) {
  metadata->set_strings(keys::kMerges, vocabulary.byte_pairs().merges);
  write_own_keys(vocabulary.byte_pairs(), metadata);
}

}  // namespace

std::string unknown_pre_tokenizer(std::string_view name) {
  if (name.empty() || find_pre_tokenizer(name) != nullptr) return "";
  std::string names;
  for (const PreTokenizer& row : pre_tokenizers()) names.append(names.empty() ? "" : ", ").append(row.name);
  return fmt::format(
      "{} is '{}', which is not known; give the rule that the model was made with: --pre NAME ({})",
      keys::kPre, printable(name), names);
}

std::optional<MergeParts> split_merge(std::string_view merge) {
  // A part may itself begin with a space in vocabularies that are not byte-level: the separator is the first
  // one behind the first character.
  const size_t separator = merge.find(' ', 1);
  if (separator == std::string_view::npos || separator + 1 == merge.size()) return std::nullopt;
  return MergeParts{merge.substr(0, separator), merge.substr(separator + 1)};
}

// llama.cpp's defaults for bos and eos are the id 11, which is right for Falcon alone; here there is none.
const VocabularyFamily kBytePairFamily = {
    .model = "gpt2",
    .default_bos = kNoToken,
    .default_eos = kNoToken,
    .default_unk = kNoToken,
    .default_add_bos = false,
    .default_add_space_prefix = false,
    .read = read_gpt2_parts,
    .write_before_tokens = write_pre,
    .write_after_tokens = nullptr,
    .write_after_types = write_merges,
    .check = check_bytes,
};

const VocabularyFamily kGemma4Family = {
    .model = "gemma4",
    .default_bos = kNoToken,
    .default_eos = kNoToken,
    .default_unk = kNoToken,
    .default_add_bos = true,
    .default_add_space_prefix = false,
    .read = read_gemma4_parts,
    .write_before_tokens = nullptr,
    .write_after_tokens = nullptr,
    .write_after_types = write_merges,
    .check = check_parts,
};

}  // namespace quern
