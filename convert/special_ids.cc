#include "convert/special_ids.h"

#include <algorithm>
#include <optional>
#include <unordered_map>
#include <utility>

#include "convert/checkpoint.h"
#include "convert/folder_files.h"
#include "quant/json/json.h"

namespace quern {
namespace {

// What a file says of one special token, in its own words.
struct Statement {
  std::string where;  // "config.json: eos_token_id"
  std::string said;   // "[2, 980]"
  TokenId id = kNoToken;
  std::string problem;        // why it does not count; empty: it does
  bool is_bos = false;        // of an eos: its only problem is that the bos is the same token
  bool ends_answers = false;  // from where generation takes its ends
};

// "<s>", or {"content": "<s>", ...}.
const std::string* text_of(const Json* json) {
  if (json == nullptr) return nullptr;
  if (json->as_string() != nullptr) return json->as_string();
  const Json* content = json->find("content");
  return content == nullptr ? nullptr : content->as_string();
}

class SpecialIds {
 public:
  SpecialIds(Vocabulary* vocabulary, const std::string& folder, const std::string& vocabulary_path,
             const Notice& notice)
      : vocabulary_(*vocabulary), vocabulary_path_(vocabulary_path), notice_(notice) {
    tokenizer_config_ = read(folder, "tokenizer_config.json");
    generation_config_ = read(folder, "generation_config.json");
    config_ = read(folder, "config.json");
    special_tokens_map_ = read(folder, "special_tokens_map.json");
    for (size_t id = 0; id < vocabulary_.size(); ++id) {
      // A control token of that name before an ordinary one.
      const auto [found, is_new] = ids_.try_emplace(vocabulary_.pieces[id], static_cast<TokenId>(id));
      if (!is_new && !is_control(found->second) && is_control(static_cast<TokenId>(id)))
        found->second = static_cast<TokenId>(id);
    }
  }

  void resolve() {
    const std::vector<Statement> bos = statements("bos", vocabulary_.bos, kNoToken);
    vocabulary_.bos = first_that_counts(bos);
    tell("bos", bos, vocabulary_.bos);
    std::vector<Statement> eos = statements("eos", vocabulary_.eos, vocabulary_.bos);
    if (first_that_counts(eos) == kNoToken) take_bos_for_eos(&eos);
    vocabulary_.eos = first_that_counts(eos);
    set_further_ends(eos);
    tell("eos", eos, vocabulary_.eos);
    if (vocabulary_.pad != kNoToken) return;
    if (const std::string* text = text_of(tokenizer_config_.find("pad_token"))) {
      const auto found = ids_.find(*text);
      if (found != ids_.end()) vocabulary_.pad = found->second;
    }
  }

 private:
  static Json read(const std::string& folder, const char* name) {
    const auto path = find_file(folder, name);
    return path ? parse_json(read_text_file(*path), *path) : Json();
  }
  bool is_control(TokenId id) const {
    return vocabulary_.types[static_cast<size_t>(id)] == TokenType::kControl;
  }

  std::vector<Statement> statements(const std::string& token, TokenId of_vocabulary, TokenId forbidden) const;
  void judge(Statement* statement, TokenId forbidden) const;
  void take_bos_for_eos(std::vector<Statement>* statements) const;
  static TokenId first_that_counts(const std::vector<Statement>& statements);
  void set_further_ends(const std::vector<Statement>& statements);
  void tell(std::string_view token, const std::vector<Statement>& statements, TokenId chosen) const;

  Vocabulary& vocabulary_;
  const std::string& vocabulary_path_;
  const Notice& notice_;
  Json tokenizer_config_, generation_config_, config_, special_tokens_map_;
  std::unordered_map<std::string_view, TokenId> ids_;
};

void SpecialIds::judge(Statement* statement, TokenId forbidden) const {
  if (!statement->problem.empty()) return;
  const std::string& piece = vocabulary_.pieces[static_cast<size_t>(statement->id)];
  if (!is_control(statement->id)) {
    statement->problem = fmt::format("'{}' is no control token", printable(piece));
  } else if (statement->id == forbidden) {
    statement->problem = fmt::format("'{}' is the bos token", printable(piece));
    statement->is_bos = true;
  }
}

std::vector<Statement> SpecialIds::statements(const std::string& token, TokenId of_vocabulary,
                                              TokenId forbidden) const {
  std::vector<Statement> all;
  const std::string text_key = token + "_token", id_key = token + "_token_id";
  const auto state_text = [&](const Json& json, const std::string& file) {
    const Json* value = json.find(text_key);
    if (value == nullptr || value->is_null()) return;
    const std::string* text = text_of(value);
    Statement statement{file + ": " + text_key,
                        text == nullptr ? value->describe() : fmt::format("'{}'", printable(*text)),
                        kNoToken,
                        "",
                        false,
                        false};
    const auto found = text == nullptr ? ids_.end() : ids_.find(*text);
    if (found != ids_.end())
      statement.id = found->second;
    else
      statement.problem = text == nullptr ? "expected a token's text" : "no token is spelled so";
    all.push_back(std::move(statement));
  };
  const auto state_ids = [&](const Json& json, const std::string& file) {
    const Json* value = json.find(id_key);
    if (value == nullptr || value->is_null()) return;
    const Json::Array single = {*value};
    for (const Json& element : value->as_array() != nullptr ? *value->as_array() : single) {
      Statement statement{file + ": " + id_key, element.describe(), kNoToken, "", false, true};
      const std::optional<uint64_t> id = element.as_whole();  // some writers give 2.0
      if (id && *id < vocabulary_.size())
        statement.id = static_cast<TokenId>(*id);
      else
        statement.problem = fmt::format("no id of a vocabulary of {} tokens", vocabulary_.size());
      all.push_back(std::move(statement));
    }
  };
  state_text(tokenizer_config_, "tokenizer_config.json");
  state_ids(generation_config_, "generation_config.json");
  state_ids(config_, "config.json");
  if (of_vocabulary != kNoToken)
    all.push_back({fmt::format("{}: {}", vocabulary_path_, token), fmt::to_string(of_vocabulary),
                   of_vocabulary, "", false, false});
  state_text(special_tokens_map_, "special_tokens_map.json");
  for (Statement& statement : all) judge(&statement, forbidden);
  return all;
}

// GPT-2, Qwen's base models and others have one token for both, and state no other end: without it their
// texts would never end.
void SpecialIds::take_bos_for_eos(std::vector<Statement>* statements) const {
  bool told = false;
  for (Statement& statement : *statements) {
    if (!statement.is_bos) continue;
    if (notice_ && !std::exchange(told, true))
      notice_(fmt::format("{} is {}: '{}' is the bos token too, and no file names another end: it counts",
                          statement.where, statement.said,
                          printable(vocabulary_.pieces[static_cast<size_t>(statement.id)])));
    statement.problem.clear();
  }
}

TokenId SpecialIds::first_that_counts(const std::vector<Statement>& statements) {
  for (const Statement& statement : statements)
    if (statement.problem.empty()) return statement.id;
  return kNoToken;
}

void SpecialIds::set_further_ends(const std::vector<Statement>& statements) {
  std::vector<TokenId> further;
  for (const Statement& statement : statements) {
    if (!statement.problem.empty() || !statement.ends_answers || statement.id == vocabulary_.eos) continue;
    if (std::find(further.begin(), further.end(), statement.id) == further.end())
      further.push_back(statement.id);
  }
  if (further.empty()) return;
  vocabulary_.eot = further[0];
  if (further.size() > 1) vocabulary_.eom = further[1];
  if (further.size() > 2) {
    vocabulary_.more_ends.assign(further.begin() + 2, further.end());
    std::sort(vocabulary_.more_ends.begin(), vocabulary_.more_ends.end());
  }
}

void SpecialIds::tell(std::string_view token, const std::vector<Statement>& statements,
                      TokenId chosen) const {
  if (!notice_) return;
  const auto name = [this](TokenId id) {
    return fmt::format("{} ('{}')", id, printable(vocabulary_.pieces[static_cast<size_t>(id)]));
  };
  for (const Statement& statement : statements) {
    if (!statement.problem.empty())
      notice_(fmt::format("{} is {}: ignored, {}", statement.where, statement.said, statement.problem));
  }
  for (const Statement& statement : statements) {
    if (!statement.problem.empty() || statement.id == chosen) continue;
    const bool ends = token == "eos" && statement.ends_answers;
    notice_(fmt::format("{} is {}, {} is {}{}", statement.where, name(statement.id), token, name(chosen),
                        ends ? ": both end an answer" : ": the latter counts"));
  }
}

}  // namespace

std::vector<std::string> read_special_texts(const std::string& folder) {
  std::vector<std::string> texts;
  const auto add = [&](const Json& json) {
    if (json.as_object() == nullptr) return;
    for (const JsonMember& member : *json.as_object()) {
      if (member.key.ends_with("_token")) {
        if (const std::string* text = text_of(&member.value)) texts.push_back(*text);
      } else if (member.key == "additional_special_tokens" && member.value.as_array() != nullptr) {
        for (const Json& entry : *member.value.as_array())
          if (const std::string* text = text_of(&entry)) texts.push_back(*text);
      }
    }
  };
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"})
    if (const auto path = find_file(folder, name)) add(parse_json(read_text_file(*path), *path));
  return texts;
}

void resolve_special_ids(Vocabulary* vocabulary, const std::string& folder,
                         const std::string& vocabulary_path, const Notice& notice) {
  SpecialIds(vocabulary, folder, vocabulary_path, notice).resolve();
}

}  // namespace quern
