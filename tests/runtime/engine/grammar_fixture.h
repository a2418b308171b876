// A vocabulary to hold to grammars: bytes, letters, and tokens as models have them around JSON.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "quant/error.h"
#include "runtime/engine/constraint.h"
#include "runtime/engine/grammar_gbnf.h"
#include "runtime/engine/grammar_regex.h"
#include "runtime/engine/grammar_schema.h"
#include "tests/support/byte_vocabulary.h"

namespace quern::test {

inline Vocabulary json_vocabulary() {
  std::vector<std::string> words;
  for (char c = ' ' + 1; c < 0x7F; ++c) words.emplace_back(1, c);
  words.insert(words.end(),
               {"\u2581",        "\u2581\u2581", "\u2581{",   "\u2581a",     "\u2581end", "\u2581\"",
                "{\"",           "\":",          "\":\u2581", "\":\u2581\"", "\",",       "\",\u2581\"",
                "\"}",           "},",           "],",        "[]",          "{}",        "name",
                "age",           "true",         "tru",       "false",       "null",      "12",
                "345",           "0.5",          "e1",        "abc",         "hello",     "\u00E9",
                "\u00E9t\u00E9", "\u4E2D\u6587", "a\"b",      "\\n",         "\\\"",      "\\u00",
                "\u2581world",   "2024",         "-0",        "\n",          "tool_call", "\u2581of\u2581the",
                "\"name\"",      "\U0001F600"});
  return byte_vocabulary(words, {{"<|turn|>", TokenType::kControl},
                                 {"<think>", TokenType::kUserDefined},
                                 {"<|free|>", TokenType::kUnused}});
}

class AConstraint : public testing::Test {
 protected:
  // Of more rows than the vocabulary has tokens, as padded models have.
  AConstraint() : trie_(std::make_shared<TokenTrie>(*tokenizer_, tokenizer_->size() + 70)) {}

  std::shared_ptr<const Constraint> constraint(Grammar grammar) const {
    return std::make_shared<const Constraint>(std::move(grammar), trie_);
  }
  static Grammar schema(std::string_view json) {
    return compile_json_schema(parse_json(json, "a schema", kSchemaLimits), "a schema");
  }
  // Whether a text is in the language, byte by byte.
  bool takes(const std::shared_ptr<const Constraint>& constraint, std::string_view text) const {
    ConstraintState state(constraint, false);
    return state.push(text) && state.may_end();
  }
  // A text of the language that was made of tokens drawn from the masks; empty: none within `max_tokens`.
  std::string walk(const std::shared_ptr<const Constraint>& constraint, std::mt19937& random,
                   size_t max_tokens = 400) const {
    ConstraintState state(constraint, false);
    std::string text;
    TokenMask mask;
    for (size_t i = 0; i < max_tokens; ++i) {
      if (state.must_end() || (state.may_end() && random() % 4 == 0)) return text;
      state.next_tokens(&mask);
      std::vector<TokenId> ids;
      for (size_t id = 0; id < trie_->vocab_size(); ++id)
        if (has_bit(mask, static_cast<TokenId>(id))) ids.push_back(static_cast<TokenId>(id));
      if (ids.empty()) {
        ADD_FAILURE() << "nothing may follow '" << text << "'";
        return text;
      }
      TokenId id = ids[random() % ids.size()];
      // What closes something is taken more often, so that texts end.
      for (const TokenId closing : ids)
        if (random() % 8 == 0 && trie_->text(closing).find_first_of("\"}]") == 0) id = closing;
      EXPECT_TRUE(state.push(id)) << "a token of the mask: " << trie_->text(id) << " after '" << text << "'";
      text += trie_->text(id);
    }
    return {};
  }

  const std::unique_ptr<Tokenizer> tokenizer_ = make_tokenizer(json_vocabulary());
  const std::shared_ptr<const TokenTrie> trie_;
};

// What an attempt throws; empty: nothing.
template <class Attempt>
std::string error_of(const Attempt& attempt) {
  try {
    attempt();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kMalformed) << error.what();
    return error.what();
  }
  return {};
}

}  // namespace quern::test
