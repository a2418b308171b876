#include "convert/rank_vocabulary.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <unordered_map>

#include "quant/byte_level.h"
#include "quant/json/json.h"
#include "quant/pre_tokenizer.h"
#include "quant/utf8.h"

namespace quern {
namespace {

constexpr size_t kMaxTokens = size_t{1} << 21;  // eight times the largest vocabulary of the field
constexpr size_t kMaxTokenBytes = 4096;         // of the lists of the field, the longest has about 500

// Standard alphabet, padded (RFC 4648 section 4); none: malformed.
std::optional<std::string> decode_base64(std::string_view text) {
  if (text.empty() || text.size() % 4 != 0) return std::nullopt;
  const size_t n_padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  std::string bytes;
  uint32_t bits = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    uint32_t value = 0;
    if (c >= 'A' && c <= 'Z') {
      value = static_cast<uint32_t>(c - 'A');
    } else if (c >= 'a' && c <= 'z') {
      value = static_cast<uint32_t>(c - 'a') + 26;
    } else if (c >= '0' && c <= '9') {
      value = static_cast<uint32_t>(c - '0') + 52;
    } else if (c == '+') {
      value = 62;
    } else if (c == '/') {
      value = 63;
    } else if (c != '=' || i < text.size() - n_padding) {
      return std::nullopt;
    }
    bits = bits << 6 | value;
    if (i % 4 == 3) {
      for (const int shift : {16, 8, 0}) bytes += static_cast<char>(bits >> shift & 0xFF);
      bits = 0;
    }
  }
  bytes.resize(bytes.size() - n_padding);
  return bytes;
}

std::string_view take_line(std::string_view* text) {
  const size_t end = std::min(text->find('\n'), text->size());
  std::string_view line = text->substr(0, end);
  text->remove_prefix(std::min(end + 1, text->size()));
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

struct RankedToken {
  std::string bytes;
  size_t rank = 0;
};

std::optional<RankedToken> parse_rank_line(std::string_view line) {
  const size_t space = line.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  std::optional<std::string> bytes = decode_base64(line.substr(0, space));
  size_t rank = 0;
  const char* const end = line.data() + line.size();
  const auto [stop, error] = std::from_chars(line.data() + space + 1, end, rank);
  if (!bytes || bytes->empty() || error != std::errc() || stop != end) return std::nullopt;
  return RankedToken{*std::move(bytes), rank};
}

// Appends the tokens as pieces of a vocabulary, and their merges.
void add_ranked_tokens(const std::vector<std::string>& tokens, const std::string& pre_tokenizer,
                       Vocabulary* vocabulary) {
  for (const std::string& token : tokens) vocabulary->pieces.push_back(byte_level_spelling(token));
  vocabulary->types.resize(vocabulary->pieces.size(), TokenType::kNormal);
  vocabulary->parts = merges_of_ranks(tokens, pre_tokenizer);
}

void check_tokens(const std::vector<std::string>& tokens, const std::string& where) {
  std::unordered_map<std::string_view, size_t> ranks;
  ranks.reserve(tokens.size());
  for (size_t rank = 0; rank < tokens.size(); ++rank) {
    if (tokens[rank].size() > kMaxTokenBytes) {
      fail(ErrorCode::kMalformed, "{}: token {} has {} bytes, at most {} are supported", where, rank,
           tokens[rank].size(), kMaxTokenBytes);
    }
    const auto [found, is_new] = ranks.try_emplace(tokens[rank], rank);
    if (!is_new) {
      fail(ErrorCode::kMalformed, "{}: tokens {} and {} are the same bytes, '{}'", where, found->second, rank,
           printable(tokens[rank]));
    }
  }
}

}  // namespace

BytePairParts merges_of_ranks(const std::vector<std::string>& tokens, std::string pre_tokenizer) {
  std::unordered_map<std::string_view, uint32_t> ranks;
  ranks.reserve(tokens.size());
  for (const std::string& token : tokens) ranks.emplace(token, static_cast<uint32_t>(ranks.size()));
  BytePairParts parts;
  parts.pre_tokenizer = std::move(pre_tokenizer);
  parts.whole_words = true;
  struct Cut {
    uint32_t left, right;
    size_t at;
  };
  std::vector<Cut> cuts;
  for (size_t rank = 0; rank < tokens.size(); ++rank) {
    const std::string_view token = tokens[rank];
    cuts.clear();
    for (size_t at = 1; at < token.size(); ++at) {
      const auto left = ranks.find(token.substr(0, at)), right = ranks.find(token.substr(at));
      if (left != ranks.end() && right != ranks.end()) cuts.push_back({left->second, right->second, at});
    }
    std::sort(cuts.begin(), cuts.end(), [](const Cut& a, const Cut& b) {
      return std::pair(a.left, a.right) < std::pair(b.left, b.right);
    });
    for (const Cut& cut : cuts) {
      parts.merges.push_back(byte_level_spelling(token.substr(0, cut.at)) + ' ' +
                             byte_level_spelling(token.substr(cut.at)));
      parts.ranks.push_back(static_cast<uint32_t>(rank));
    }
  }
  return parts;
}

std::string pre_tokenizer_of_pattern(std::string_view pattern, const std::string& where) {
  for (const PreTokenizer& row : pre_tokenizers()) {
    if (row.steps.size() == 1 && is_same_pattern(row.steps[0].pattern, pattern)) return std::string(row.name);
  }
  fail(ErrorCode::kMalformed,
       "{}: text is cut into words by the pattern '{}', which no known pre-tokenizer has (override: --pre "
       "NAME)",
       where, printable(pattern, 512));
}

bool is_rank_file(std::string_view text) { return parse_rank_line(take_line(&text)).has_value(); }

Vocabulary read_rank_file(std::string_view text, const std::string& where, const std::string& pre_tokenizer,
                          const Notice& notice) {
  if (pre_tokenizer.empty()) {
    fail(ErrorCode::kUsage,
         "{}: a list of ranks (tiktoken), which does not say how text is cut into words; give --pre NAME, "
         "such as "
         "llama-bpe for Llama 3, gpt-4o for Llama 4, qwen2 for Qwen",
         where);
  }
  std::vector<RankedToken> ranked;
  for (size_t n_lines = 1; !text.empty(); ++n_lines) {
    const std::string_view line = take_line(&text);
    if (line.empty()) continue;
    std::optional<RankedToken> token = parse_rank_line(line);
    if (!token || ranked.size() == kMaxTokens) {
      fail(ErrorCode::kMalformed, "{}: line {} is '{}', expected base64, a space and a number", where,
           n_lines, printable(line));
    }
    ranked.push_back(*std::move(token));
  }
  std::vector<std::string> tokens(ranked.size());
  for (RankedToken& token : ranked) {
    if (token.rank >= tokens.size() || !tokens[token.rank].empty()) {
      fail(ErrorCode::kMalformed, "{}: rank {} {}; expected those from 0 to {}, each once", where, token.rank,
           token.rank >= tokens.size() ? "is beyond the number of lines" : "stands twice", tokens.size() - 1);
    }
    tokens[token.rank] = std::move(token.bytes);
  }
  check_tokens(tokens, where);
  Vocabulary vocabulary;
  vocabulary.model = "gpt2";
  vocabulary.add_bos = vocabulary.add_space_prefix = false;
  add_ranked_tokens(tokens, pre_tokenizer, &vocabulary);
  check_vocabulary(vocabulary, where, notice);
  return vocabulary;
}

namespace {

constexpr JsonLimits kTekkenLimits{.max_depth = 16, .max_values = size_t{1} << 22};

// Of tokenizer version v3: what a file without a list of its own has.
constexpr std::string_view kTekkenV3Tokens[] = {"<unk>",
                                                "<s>",
                                                "</s>",
                                                "[INST]",
                                                "[/INST]",
                                                "[AVAILABLE_TOOLS]",
                                                "[/AVAILABLE_TOOLS]",
                                                "[TOOL_RESULTS]",
                                                "[/TOOL_RESULTS]",
                                                "[TOOL_CALLS]",
                                                "[IMG]",
                                                "<pad>",
                                                "[IMG_BREAK]",
                                                "[IMG_END]",
                                                "[PREFIX]",
                                                "[MIDDLE]",
                                                "[SUFFIX]",
                                                "[SYSTEM_PROMPT]",
                                                "[/SYSTEM_PROMPT]",
                                                "[TOOL_CONTENT]"};

struct TekkenConfig {
  std::string pattern;
  size_t vocab_size = 0, n_special = 0;
};

TekkenConfig read_tekken_config(const Json& json, const std::string& where) {
  TekkenConfig config;
  const std::string* const pattern = json["pattern"].as_string();
  if (pattern == nullptr)
    fail(ErrorCode::kMalformed, "{}: config.pattern must be a string, found {}", where,
         json["pattern"].describe());
  config.pattern = *pattern;
  const auto size = [&](const char* key) {
    const uint64_t* const value = json[key].as_uint();
    if (value == nullptr || *value > kMaxTokens)
      fail(ErrorCode::kMalformed, "{}: config.{} must be a number up to {}, found {}", where, key, kMaxTokens,
           json[key].describe());
    return static_cast<size_t>(*value);
  };
  config.vocab_size = size("default_vocab_size");
  config.n_special = size("default_num_special_tokens");
  if (config.n_special >= config.vocab_size)
    fail(ErrorCode::kMalformed, "{}: {} special tokens of {} (config.default_num_special_tokens)", where,
         config.n_special, config.vocab_size);
  return config;
}

std::vector<std::string> read_tekken_tokens(const Json& json, const std::string& where) {
  const Json::Array* const entries = json.as_array();
  if (entries == nullptr)
    fail(ErrorCode::kMalformed, "{}: vocab must be a list, found {}", where, json.describe());
  std::vector<std::string> tokens;
  tokens.reserve(entries->size());
  for (const Json& entry : *entries) {
    const uint64_t* const rank = entry["rank"].as_uint();
    const std::string* const text = entry["token_bytes"].as_string();
    std::optional<std::string> bytes = text == nullptr ? std::nullopt : decode_base64(*text);
    if (rank == nullptr || *rank != tokens.size() || !bytes || bytes->empty()) {
      fail(ErrorCode::kMalformed, "{}: vocab[{}] is {}, expected rank {} and token_bytes in base64", where,
           tokens.size(), entry.describe(), tokens.size());
    }
    tokens.push_back(*std::move(bytes));
  }
  return tokens;
}

// Fills the first n_special pieces.
void add_special_tokens(const Json& json, const std::string& where, size_t n_special,
                        Vocabulary* vocabulary) {
  for (size_t id = 0; id < n_special; ++id) vocabulary->pieces.push_back(fmt::format("<SPECIAL_{}>", id));
  vocabulary->types.assign(n_special, TokenType::kControl);
  const auto set = [&](uint64_t id, std::string_view text, bool is_control) {
    if (id >= n_special)
      fail(ErrorCode::kMalformed, "{}: special token '{}' has rank {}, of {}", where, printable(text), id,
           n_special);
    vocabulary->pieces[id] = text;
    vocabulary->types[id] = is_control ? TokenType::kControl : TokenType::kUserDefined;
  };
  if (json.is_null()) {
    for (size_t id = 0; id < std::min(n_special, std::size(kTekkenV3Tokens)); ++id)
      set(id, kTekkenV3Tokens[id], true);
  } else if (const Json::Array* const entries = json.as_array()) {
    for (const Json& entry : *entries) {
      const uint64_t* const rank = entry["rank"].as_uint();
      const std::string* const text = entry["token_str"].as_string();
      const bool* const is_control = entry["is_control"].as_bool();
      if (rank == nullptr || text == nullptr)
        fail(ErrorCode::kMalformed, "{}: special_tokens holds {}, expected rank and token_str", where,
             entry.describe());
      set(*rank, *text, is_control == nullptr || *is_control);
    }
  } else {
    fail(ErrorCode::kMalformed, "{}: special_tokens must be a list, found {}", where, json.describe());
  }
  const auto find = [&](std::string_view text) {
    const auto found = std::find(vocabulary->pieces.begin(), vocabulary->pieces.end(), text);
    return found == vocabulary->pieces.end() ? kNoToken
                                             : static_cast<TokenId>(found - vocabulary->pieces.begin());
  };
  vocabulary->unk = find("<unk>");
  vocabulary->bos = find("<s>");
  vocabulary->eos = find("</s>");
  vocabulary->pad = find("<pad>");
}

}  // namespace

bool is_tekken_json(std::string_view text) {
  return text.find("\"token_bytes\"") != std::string_view::npos &&
         text.find("\"default_vocab_size\"") != std::string_view::npos;
}

Vocabulary read_tekken_json(std::string_view text, const std::string& where, const std::string& pre_tokenizer,
                            const Notice& notice) {
  std::optional<TekkenConfig> config;
  std::optional<std::vector<std::string>> tokens;
  Json special_tokens;
  parse_json_members(text, where, kTekkenLimits, [&](std::string_view key, const Json& value) {
    if (key == "config") config = read_tekken_config(value, where);
    if (key == "vocab") tokens = read_tekken_tokens(value, where);
    if (key == "special_tokens") special_tokens = value;
  });
  if (!config || !tokens)
    fail(ErrorCode::kMalformed, "{}: tekken.json without {}", where, config ? "vocab" : "config");
  const size_t n_tokens = config->vocab_size - config->n_special;
  if (tokens->size() < n_tokens) {
    fail(ErrorCode::kMalformed, "{}: vocab holds {} tokens, config asks for {} ({} less {} special ones)",
         where, tokens->size(), n_tokens, config->vocab_size, config->n_special);
  }
  tokens->resize(n_tokens);
  check_tokens(*tokens, where);
  Vocabulary vocabulary;
  vocabulary.model = "gpt2";
  vocabulary.add_space_prefix = false;
  add_special_tokens(special_tokens, where, config->n_special, &vocabulary);
  vocabulary.add_bos = vocabulary.bos != kNoToken;
  add_ranked_tokens(*tokens,
                    pre_tokenizer.empty() ? pre_tokenizer_of_pattern(config->pattern, where) : pre_tokenizer,
                    &vocabulary);
  check_vocabulary(vocabulary, where, notice);
  return vocabulary;
}

}  // namespace quern
