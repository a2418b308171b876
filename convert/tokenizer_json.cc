#include "convert/tokenizer_json.h"

#include <algorithm>
#include <optional>
#include <unordered_map>
#include <vector>

#include "convert/added_tokens.h"
#include "quant/byte_level.h"
#include "quant/json/json.h"
#include "quant/pre_tokenizer.h"

namespace quern {
namespace {

constexpr const char* kSentencePieceMerges =
    "SentencePiece's merges written as BPE; only the tokenizer.model that they come from is read: put it "
    "into "
    "the same folder";

constexpr JsonLimits kLimits{.max_depth = 32, .max_values = size_t{1} << 23};
constexpr size_t kMaxTokens = size_t{1} << 21;  // eight times the largest vocabulary of the field
constexpr std::string_view kSpaceSymbol = "\u2581";

// What a text goes through before it is merged, in the words of quant/pre_tokenizer.h.
struct Steps {
  struct Step {
    std::string pattern;
    bool sees_bytes = false;
  };
  std::vector<Step> steps;
  PieceAlphabet alphabet = PieceAlphabet::kSpaceSymbol;
  bool add_space_prefix = false;
};

class Reader {
 public:
  Reader(const std::string& where, const std::string& pre_tokenizer, const Notice& notice)
      : where_(where), pre_tokenizer_(pre_tokenizer), notice_(notice) {}

  Vocabulary read(std::string_view text);

 private:
  template <class... Arguments>
  [[noreturn]] void refuse(fmt::format_string<Arguments...> format, Arguments&&... arguments) const {
    fail(ErrorCode::kMalformed, "{}: {}", where_, fmt::format(format, std::forward<Arguments>(arguments)...));
  }
  std::string require_string(const Json& json, std::string_view key, std::string_view place) const;
  bool flag_or(const Json& json, std::string_view key, bool fallback, std::string_view place) const;

  void read_model(const Json& model);
  void read_pieces(const Json& vocab);
  void read_merges(const Json& merges);
  void read_added_tokens(const Json& tokens);
  void read_normalizer(const Json& normalizer);
  void read_steps(const Json& pre_tokenizer);
  void read_split(const Json& split);
  void read_post_processor(const Json& processor);
  void read_template(const Json& processor);
  std::string row_of_steps() const;
  void add_piece(uint64_t id, std::string_view text, TokenType type);

  const std::string& where_;
  const std::string& pre_tokenizer_;
  const Notice& notice_;

  Vocabulary vocabulary_;
  BytePairParts parts_;
  Steps steps_;
  bool has_model_ = false, byte_fallback_ = false, ignore_merges_ = false, replaces_spaces_ = false;
  std::string unk_token_;
};

std::string type_of(const Json& json) {
  const std::string* const type = json["type"].as_string();
  return type == nullptr ? "" : *type;
}

std::string Reader::require_string(const Json& json, std::string_view key, std::string_view place) const {
  const std::string* const text = json[key].as_string();
  if (text == nullptr) refuse("{}.{} must be a string, found {}", place, key, json[key].describe());
  return *text;
}

bool Reader::flag_or(const Json& json, std::string_view key, bool fallback, std::string_view place) const {
  const Json& member = json[key];
  if (member.is_null()) return fallback;
  if (member.as_bool() == nullptr)
    refuse("{}.{} must be true or false, found {}", place, key, member.describe());
  return *member.as_bool();
}

void Reader::add_piece(uint64_t id, std::string_view text, TokenType type) {
  if (id >= kMaxTokens)
    refuse("token '{}' has the id {}, at most {} are supported", printable(text), id, kMaxTokens);
  if (id >= vocabulary_.pieces.size()) {
    // Ids that nothing names; pieces of their own, so that none stands twice.
    for (size_t gap = vocabulary_.pieces.size(); gap <= id; ++gap)
      vocabulary_.pieces.push_back(fmt::format("[PAD{}]", gap));
    vocabulary_.types.resize(vocabulary_.pieces.size(), TokenType::kUnused);
  }
  vocabulary_.pieces[id] = text;
  vocabulary_.types[id] = type;
}

void Reader::read_pieces(const Json& vocab) {
  const Json::Object* const members = vocab.as_object();
  if (members == nullptr) refuse("model.vocab must be an object, found {}", vocab.describe());
  for (const JsonMember& member : *members) {
    const uint64_t* const id = member.value.as_uint();
    if (id == nullptr)
      refuse("model.vocab['{}'] must be an id, found {}", printable(member.key), member.value.describe());
    if (*id < vocabulary_.size() && vocabulary_.types[*id] != TokenType::kUnused)
      refuse("'{}' and '{}' both have the id {}", printable(vocabulary_.pieces[*id]), printable(member.key),
             *id);
    const bool is_byte = byte_fallback_ && parse_byte_piece(member.key);
    add_piece(*id, member.key, is_byte ? TokenType::kByte : TokenType::kNormal);
  }
}

// "LEFT RIGHT", or since 2024 ["LEFT", "RIGHT"].
void Reader::read_merges(const Json& merges) {
  const Json::Array* const rules = merges.as_array();
  if (rules == nullptr) refuse("model.merges must be a list, found {}", merges.describe());
  parts_.merges.reserve(rules->size());
  for (const Json& rule : *rules) {
    if (const std::string* const text = rule.as_string()) {
      parts_.merges.push_back(*text);
      continue;
    }
    const std::string *const left = rule[0].as_string(), *const right = rule[1].as_string();
    if (left == nullptr || right == nullptr || rule.size() != 2)
      refuse("merge {} is {}, expected two parts", parts_.merges.size(), rule.describe());
    if (left->find(' ', 1) != std::string::npos || left->empty())
      refuse("merge {} is {}: GGUF has no way to write down such a part", parts_.merges.size(),
             rule.describe());
    parts_.merges.push_back(*left + ' ' + *right);
  }
}

void Reader::read_model(const Json& model) {
  has_model_ = true;
  const std::string type = type_of(model);
  // Files of 2020 do not name the type.
  if (type != "BPE" && !(type.empty() && !model["merges"].is_null())) {
    refuse(
        "the tokenizer's model is '{}', which is not supported, only 'BPE' is; a tokenizer.model beside it "
        "is read",
        printable(type));
  }
  for (const char* const key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const std::string* const text = model[key].as_string();
    if (text != nullptr && !text->empty())
      refuse("model.{} is '{}', which is not supported", key, printable(*text));
  }
  if (const auto dropout = model["dropout"].as_number(); dropout && *dropout != 0 && notice_)
    notice_(fmt::format("{}: model.dropout ({}) is for training and left out", where_, *dropout));
  byte_fallback_ = flag_or(model, "byte_fallback", false, "model");
  ignore_merges_ = flag_or(model, "ignore_merges", false, "model");
  if (const std::string* const unk = model["unk_token"].as_string()) unk_token_ = *unk;
  read_pieces(model["vocab"]);
  read_merges(model["merges"]);
}

void Reader::read_added_tokens(const Json& tokens) {
  if (tokens.is_null()) return;
  const Json::Array* const entries = tokens.as_array();
  if (entries == nullptr) refuse("added_tokens must be a list, found {}", tokens.describe());
  FirstOfEachId first(where_ + ": added_tokens");
  size_t n_renamed = 0;
  std::string renamed;
  for (const Json& entry : *entries) {
    const uint64_t* const id = entry["id"].as_uint();
    if (id == nullptr) refuse("added_tokens holds {}, expected an id and content", entry.describe());
    const std::string content = require_string(entry, "content", "added_tokens");
    if (!first.take(*id, content)) continue;
    if (*id < vocabulary_.size() && vocabulary_.types[*id] != TokenType::kUnused &&
        vocabulary_.pieces[*id] != content && ++n_renamed == 1) {
      renamed = fmt::format("token {} is called '{}', not '{}'", *id, printable(content),
                            printable(vocabulary_.pieces[*id]));
    }
    const bool special = flag_or(entry, "special", false, "added_tokens");
    add_piece(*id, content, special ? TokenType::kControl : TokenType::kUserDefined);
    const auto list = [&](std::string_view key, std::vector<TokenId>* ids) {
      if (flag_or(entry, key, false, "added_tokens")) ids->push_back(static_cast<TokenId>(*id));
    };
    list("lstrip", &vocabulary_.strips_left);
    list("rstrip", &vocabulary_.strips_right);
    list("single_word", &vocabulary_.single_words);
    if (parts_.nfc) list("normalized", &vocabulary_.normalized);
  }
  first.tell(notice_);
  if (notice_ && n_renamed > 0)
    notice_(fmt::format("{}: added_tokens: {} ({} in all)", where_, renamed, n_renamed));
}

void Reader::read_normalizer(const Json& normalizer) {
  const std::string type = type_of(normalizer);
  if (normalizer.is_null()) return;
  if (type == "Sequence") {
    const Json::Array* const parts = normalizer["normalizers"].as_array();
    if (parts == nullptr) refuse("normalizer.normalizers must be a list");
    for (const Json& part : *parts) read_normalizer(part);
  } else if (type == "NFC") {
    parts_.nfc = true;
  } else if (type == "Replace" && normalizer["pattern"]["String"].as_string() != nullptr &&
             *normalizer["pattern"]["String"].as_string() == " " &&
             require_string(normalizer, "content", "normalizer") == kSpaceSymbol) {
    replaces_spaces_ = true;
  } else if (type == "Prepend" && require_string(normalizer, "prepend", "normalizer") == kSpaceSymbol) {
    steps_.add_space_prefix = true;
  } else {
    refuse("the normalizer {} is not supported; NFC and the ones for spaces are", normalizer.describe());
  }
}

void Reader::read_split(const Json& split) {
  const std::string behavior = require_string(split, "behavior", "pre_tokenizer");
  const bool invert = flag_or(split, "invert", false, "pre_tokenizer");
  // What is not matched is either a word or, in patterns that match everything, not there.
  const bool isolates = (behavior == "Isolated" && !invert) || (behavior == "Removed" && invert);
  const std::string* const regex = split["pattern"]["Regex"].as_string();
  const std::string* const literal = split["pattern"]["String"].as_string();
  // Gemma's: the normalizer left no space to split at.
  if (replaces_spaces_ && literal != nullptr && *literal == " ") return;
  if (!isolates || regex == nullptr) refuse("the pre-tokenizer {} is not supported", split.describe());
  steps_.steps.push_back({*regex, steps_.alphabet == PieceAlphabet::kByteLevel});
}

void Reader::read_steps(const Json& pre_tokenizer) {
  if (pre_tokenizer.is_null()) return;
  const std::string type = type_of(pre_tokenizer);
  const bool sees_bytes = steps_.alphabet == PieceAlphabet::kByteLevel;
  if (type == "Sequence") {
    const Json::Array* const parts = pre_tokenizer["pretokenizers"].as_array();
    if (parts == nullptr) refuse("pre_tokenizer.pretokenizers must be a list");
    for (const Json& part : *parts) read_steps(part);
  } else if (type == "Split") {
    read_split(pre_tokenizer);
  } else if (type == "ByteLevel" && !sees_bytes) {
    steps_.alphabet = PieceAlphabet::kByteLevel;
    steps_.add_space_prefix = flag_or(pre_tokenizer, "add_prefix_space", true, "pre_tokenizer");
    if (flag_or(pre_tokenizer, "use_regex", true, "pre_tokenizer"))
      steps_.steps.push_back({std::string(find_pre_tokenizer("gpt-2")->steps[0].pattern), false});
  } else if (type == "Digits") {
    const bool each = flag_or(pre_tokenizer, "individual_digits", false, "pre_tokenizer");
    // Behind ByteLevel: the numbers among the characters that bytes became.
    const std::string_view digits = sees_bytes ? kByteLevelNumber : std::string_view(R"(\p{N})");
    steps_.steps.push_back({fmt::format("{}{}", digits, each ? "" : "+"), sees_bytes});
  } else if (type == "Punctuation" && !sees_bytes &&
             require_string(pre_tokenizer, "behavior", "pre_tokenizer") == "Contiguous") {
    steps_.steps.push_back({std::string(kPunctuationRuns), false});
  } else if (type == "Metaspace") {
    refuse(kSentencePieceMerges);  // since 2024 in place of the normalizers Prepend and Replace
  } else {
    refuse("the pre-tokenizer {} is not supported", pre_tokenizer.describe());
  }
}

bool same_steps(const PreTokenizer& row, const Steps& steps) {
  return row.alphabet == steps.alphabet &&
         std::equal(row.steps.begin(), row.steps.end(), steps.steps.begin(), steps.steps.end(),
                    [](const SplitStep& a, const Steps::Step& b) {
                      return a.sees_bytes == b.sees_bytes && is_same_pattern(a.pattern, b.pattern);
                    });
}

// Of rows with these steps, one that treats whole words alike, if there is any.
std::string Reader::row_of_steps() const {
  if (steps_.alphabet == PieceAlphabet::kSpaceSymbol && steps_.steps.empty() && replaces_spaces_) {
    if (!steps_.add_space_prefix) return "gemma4";  // whose merges join no line break with anything else
    refuse(kSentencePieceMerges);
  }
  const PreTokenizer* found = nullptr;
  for (const PreTokenizer& row : pre_tokenizers()) {
    if (!same_steps(row, steps_)) continue;
    const bool alike = (row.whole_words == WholeWords::kAll) == ignore_merges_;
    if (found == nullptr || (alike && (found->whole_words == WholeWords::kAll) != ignore_merges_))
      found = &row;
  }
  if (found != nullptr) return std::string(found->name);
  std::string steps;
  for (const Steps::Step& step : steps_.steps)
    steps += fmt::format("{}'{}'", steps.empty() ? "" : ", ", printable(step.pattern, 512));
  refuse("text is cut into words by {}, which no known pre-tokenizer does (override: --pre NAME)",
         steps.empty() ? "nothing" : steps);
}

// [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}, ...]: what is put around a text.
void Reader::read_template(const Json& processor) {
  const Json::Array* const parts = processor["single"].as_array();
  if (parts == nullptr)
    refuse("post_processor.single must be a list, found {}", processor["single"].describe());
  bool behind_text = false;
  for (const Json& part : *parts) {
    if (!part["Sequence"].is_null()) {
      behind_text = true;
      continue;
    }
    const std::string name = require_string(part["SpecialToken"], "id", "post_processor.single");
    const Json& ids = processor["special_tokens"][name]["ids"];
    const uint64_t* const id = ids[0].as_uint();
    if (id == nullptr || ids.size() != 1 || *id >= kMaxTokens)
      refuse("post_processor names '{}', whose ids are {}", printable(name), ids.describe());
    TokenId& special = behind_text ? vocabulary_.eos : vocabulary_.bos;
    bool& is_added = behind_text ? vocabulary_.add_eos : vocabulary_.add_bos;
    if (is_added)
      refuse("post_processor puts more than one token {} a text", behind_text ? "behind" : "before");
    special = static_cast<TokenId>(*id);
    is_added = true;
  }
}

void Reader::read_post_processor(const Json& processor) {
  if (processor.is_null()) return;
  const std::string type = type_of(processor);
  if (type == "Sequence") {
    const Json::Array* const parts = processor["processors"].as_array();
    if (parts == nullptr) refuse("post_processor.processors must be a list");
    for (const Json& part : *parts) read_post_processor(part);
  } else if (type == "TemplateProcessing") {
    read_template(processor);
  } else if (type != "ByteLevel") {  // that one only moves offsets
    refuse("the post-processor {} is not supported", processor.describe());
  }
}

Vocabulary Reader::read(std::string_view text) {
  vocabulary_.model = "gpt2";
  vocabulary_.add_bos = vocabulary_.add_space_prefix = false;
  // The small members wait for the model's, whatever their order in the document.
  Json added_tokens, normalizer, pre_tokenizer, post_processor;
  parse_json_members(text, where_, kLimits, [&](std::string_view key, const Json& value) {
    if (key == "model") read_model(value);
    if (key == "added_tokens") added_tokens = value;
    if (key == "normalizer") normalizer = value;
    if (key == "pre_tokenizer") pre_tokenizer = value;
    if (key == "post_processor") post_processor = value;
  });
  if (!has_model_) refuse("tokenizer.json without a model");
  read_normalizer(normalizer);
  read_added_tokens(added_tokens);
  if (pre_tokenizer_.empty()) read_steps(pre_tokenizer);
  read_post_processor(post_processor);
  parts_.pre_tokenizer = pre_tokenizer_.empty() ? row_of_steps() : pre_tokenizer_;
  if (const PreTokenizer* const row = find_pre_tokenizer(parts_.pre_tokenizer);
      row != nullptr && (row->whole_words == WholeWords::kAll) != ignore_merges_) {
    parts_.whole_words = ignore_merges_;
  }
  vocabulary_.add_space_prefix = steps_.add_space_prefix;
  if (find_pre_tokenizer(parts_.pre_tokenizer) == find_pre_tokenizer("gemma4")) vocabulary_.model = "gemma4";
  if (!unk_token_.empty()) {
    const auto unk = std::find(vocabulary_.pieces.begin(), vocabulary_.pieces.end(), unk_token_);
    if (unk != vocabulary_.pieces.end())
      vocabulary_.unk = static_cast<TokenId>(unk - vocabulary_.pieces.begin());
  }
  vocabulary_.parts = std::move(parts_);
  check_vocabulary(vocabulary_, where_, notice_);
  return std::move(vocabulary_);
}

}  // namespace

Vocabulary read_tokenizer_json(std::string_view text, const std::string& where,
                               const std::string& pre_tokenizer, const Notice& notice) {
  return Reader(where, pre_tokenizer, notice).read(text);
}

}  // namespace quern
