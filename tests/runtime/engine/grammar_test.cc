// Grammars: what they take, and which tokens may come next.
#include <gtest/gtest.h>
#include <malloc.h>

#include <chrono>

#include "quant/utf8.h"
#include "runtime/completion.h"
#include "tests/runtime/engine/grammar_fixture.h"

namespace quern::test {
namespace {

// By malloc, and not given back.
size_t allocated_bytes() {
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

using Gbnf = AConstraint;

TEST_F(Gbnf, TakesTheTextsOfItsLanguageAndNoOthers) {
  struct Case {
    const char* grammar;
    std::vector<std::string> in, out;
  };
  const Case cases[] = {
      {"root ::= \"yes\" | \"no\"", {"yes", "no"}, {"", "y", "yesno", "Yes"}},
      {"root ::= [a-c]+ \"!\"?", {"a", "abc!", "cc"}, {"", "d", "!", "a!!"}},
      {"root ::= [^a-c\\n]", {"d", "\u00E9", "\U0001F600", " "}, {"a", "\n", "\xC3", "dd"}},
      {"root ::= .", {"a", "\n", "\u4E2D"}, {"", "ab", "\xFF", "\xED\xA0\x80", "\xC0\x80"}},
      {"root ::= \"a\"{3}", {"aaa"}, {"aa", "aaaa"}},
      {"root ::= \"ab\"{1,3} # a comment", {"ab", "abab", "ababab"}, {"", "aba", "abababab"}},
      {"root ::= [0-9]{2,}", {"12", "123456"}, {"1", "a"}},
      {"root ::= \"x\"{0,2}", {"", "x", "xx"}, {"xxx"}},
      {"root ::= ( \"a\" | \"b\" \n \"c\" )* tail\ntail ::= \"\\x41\" |\n  \"\\u00e9\"",
       {"A", "aA", "bcabc\u00E9"},
       {"bA", "a", "AA"}},
      {"root ::= \"(\" root \")\" | \"x\"", {"x", "((x))"}, {"((x)", "(x))", "()"}},
      {"root ::= item (\",\" item)*\nitem ::= [0-9]+ | \"[\" root \"]\"",
       {"1", "1,[2,[3]],4"},
       {"1,", "[1", "[]"}},
      {"root ::= \"\\\"\" [^\"\\\\]* \"\\\"\"", {"\"\"", "\"a\u00E9\""}, {"\"", "\"a\\\"", "a"}},
      {"root ::= a-b\na-b ::= [\\-\\]a]", {"-", "]", "a"}, {"b", "\\"}},
      {"root ::= nothing \"a\" nothing\nnothing ::= \"\" | nothing2*\nnothing2 ::= \" \"?",
       {"a", " a  "},
       {"", "aa"}},
      {"root ::= end\nend ::= end2 | \"x\"\nend2 ::= end", {"x"}, {"", "xx"}},
  };
  for (const Case& c : cases) {
    const auto held = constraint(parse_gbnf(c.grammar, "a grammar"));
    for (const std::string& text : c.in) EXPECT_TRUE(takes(held, text)) << c.grammar << " takes " << text;
    for (const std::string& text : c.out) EXPECT_FALSE(takes(held, text)) << c.grammar << " takes " << text;
  }
}

TEST_F(Gbnf, RefusesWhatIsNoGrammarWithItsLine) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "there is no rule 'root'"},
      {"x ::= \"a\"", "there is no rule 'root'"},
      {"root ::= other", "line 1: there is no rule 'other'"},
      {"root ::= \"a\"\n\nroot ::= \"b\"", "line 3: the rule 'root' is there twice"},
      {"root ::= \"a", "line 1: a text is not closed"},
      {"root ::= [a", "a class is not closed"},
      {"root ::= [b-a]", "ends before it begins"},
      {"root ::= (\"a\"", "a parenthesis is not closed"},
      {"root ::= \"a\")", "expected the end of the rule"},
      {"root : \"a\"", "expected ::="},
      {"root ::= <think>", "tokens (<...>) are not taken"},
      {"root ::= *", "expected a text, a class, a name or a parenthesis"},
      {"root ::= \"\\q\"", "\\q is not known"},
      {"root ::= \"\\ud800\"", "U+D800 is no character"},
      {"root ::= \"a\"{3,2}", "a maximum below its minimum"},
      {"root ::= \"a\"{99999}", "a count of more than"},
      {"root ::= \"a\"{,}{", "expected a text"},
      {"root ::= root \"a\" | \"b\"", "the rule 'root' may begin with itself"},
      {"root ::= x\nx ::= y? z\ny ::= \"a\"\nz ::= x \"b\" | \"c\"", "may begin with itself"},
      {"root ::= \"a\" root", "no text matches it"},
      {"root ::= \xFF", "not valid UTF-8"},
  };
  for (const auto& c : cases) {
    const std::string found = error_of([&] { parse_gbnf(c.first, "g.gbnf"); });
    EXPECT_TRUE(found.starts_with("g.gbnf: ")) << c.first << ": " << found;
    EXPECT_NE(found.find(c.second), found.npos) << c.first << ": " << found;
  }
}

// Every token of the vocabulary, one by one, beside the mask.
TEST_F(AConstraint, MasksHoldExactlyTheTokensThatMayCome) {
  const Grammar grammars[] = {
      parse_gbnf("root ::= \"{\\\"\" [^\"\\\\]* \"\\\"}\" [a-z]*", "g"),
      parse_gbnf("root ::= (.* \"end\" | [0-9]{1,3} \" \"?)", "g"),
      parse_gbnf("root ::= \"\\\"\" [^\"\\\\\\x00-\\x1F]{0,5} \"\\\" : \" root?", "g"),
      schema(R"({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
                 "additionalProperties": {"type": "array"}})"),
      schema(R"({"type": "array", "items": {"type": "string", "maxLength": 40}})"),
      schema("true"),
      schema(R"({"type": "string", "pattern": "^[a-z\u00e9]+$"})")};
  std::mt19937 random(1);
  for (const Grammar& grammar : grammars) {
    const auto held = constraint(grammar);
    for (int round = 0; round < 20; ++round) {
      ConstraintState state(held, round % 2 == 0);
      TokenMask mask;
      for (int i = 0; i < 12 && !state.must_end(); ++i) {
        state.next_tokens(&mask);
        std::vector<TokenId> ids;
        for (size_t k = 0; k < trie_->vocab_size(); ++k) {
          const auto id = static_cast<TokenId>(k);
          ConstraintState copy = state;
          ASSERT_EQ(has_bit(mask, id), copy.push(id)) << trie_->text(id);
          if (has_bit(mask, id)) ids.push_back(id);
        }
        if (ids.empty()) break;
        ASSERT_TRUE(state.push(ids[random() % ids.size()]));
      }
    }
  }
}

TEST_F(AConstraint, KnowsNeitherControlNorUnusedTokensNorEnds) {
  ConstraintState state(constraint(parse_gbnf("root ::= .*", "g")), false);
  TokenMask mask;
  state.next_tokens(&mask);
  for (const char* piece : {"<unk>", "<s>", "</s>", "<|turn|>", "<|free|>"})
    EXPECT_FALSE(has_bit(mask, tokenizer_->find(piece).value())) << piece;
  EXPECT_TRUE(has_bit(mask, tokenizer_->find("<think>").value()));
  EXPECT_TRUE(has_bit(mask, tokenizer_->find("abc").value()));
}

TEST_F(AConstraint, FirstPieceLosesItsSpaceWhereTheTextDoes) {
  const auto held = constraint(parse_gbnf("root ::= \"a\" \" a\"?", "g"));
  const TokenId spaced = tokenizer_->find("\u2581a").value();
  EXPECT_FALSE(ConstraintState(held, false).push(spaced));
  ConstraintState state(held, true);
  EXPECT_TRUE(state.push(spaced));
  EXPECT_TRUE(state.push(spaced));
  EXPECT_TRUE(state.must_end());
}

TEST_F(AConstraint, OutgrowsWhatIsSharedAndGoesOnAlike) {
  // Each character leads to a set of stacks of its own.
  const auto held = constraint(parse_gbnf("root ::= line{12}\nline ::= [a-z]{16000} \".\"", "g"));
  ConstraintState state(held, false);
  TokenMask mask;
  for (int line = 0; line < 12; ++line) {
    for (int i = 0; i < 16000; ++i) {
      if (i % 100 == 0) state.next_tokens(&mask);
      ASSERT_TRUE(state.push("a")) << i;
    }
    ASSERT_FALSE(state.may_end());
    ASSERT_FALSE(state.push("a"));
    ASSERT_TRUE(state.push("."));
  }
  EXPECT_TRUE(state.must_end());
}

TEST_F(AConstraint, NestsToABoundAndNoDeeper) {
  ConstraintState state(constraint(parse_gbnf("root ::= \"(\" root \")\" | \"x\"", "g")), false);
  size_t depth = 0;
  while (depth < 5000 && state.push("(")) ++depth;
  EXPECT_GE(depth, 500u);
  EXPECT_LT(depth, 5000u);
  EXPECT_TRUE(state.push("x" + std::string(depth, ')')));
  EXPECT_TRUE(state.must_end());
}

TEST_F(AConstraint, HostileGrammarsAreAnsweredSoon) {
  std::string doubling = "root ::= r0 \"x\"\n", chain = doubling,
              alternatives = "root ::= ", wide = "root ::= [";
  for (int i = 0; i < 40; ++i) doubling += fmt::format("r{0} ::= r{1} \"a\" | r{1} \"b\"\n", i, i + 1);
  doubling += "r40 ::= \"c\"\n";
  for (int i = 0; i < 9000; ++i) chain += fmt::format("r{} ::= r{}\n", i, i + 1);
  chain += "r9000 ::= \"c\"\n";
  for (int i = 0; i < 20000; ++i) alternatives += fmt::format("{}\"{}\"", i == 0 ? "" : " | ", i);
  for (int i = 0; i < 20000; ++i) append_utf8(static_cast<char32_t>(0x4000 + 2 * i % 0x8000), &wide);
  wide += "]";
  const std::string grammars[] = {
      doubling,
      chain,
      alternatives,
      wide,
      "root ::= (((\"a\"{9999}){9999}){9999}){9999}",
      "root ::= (\"a\"* \"b\"* \"a\"*)* (\"a\" | \"aa\" | \"aaa\"){0,9000}",
      "root ::= (.* .* .* .* .* .* .* .* \"a\"){1,200}",
      "root ::= " + std::string(200'000, '('),
      "root ::= x{16384}\nx ::= y{16384}\ny ::= [a-z] | z\nz ::= \"(\" root \")\"",
      std::string(1u << 20, 'a'),
  };
  for (const std::string& grammar : grammars) {
    const auto begin = std::chrono::steady_clock::now();
    const std::string error = error_of([&] {
      ConstraintState state(constraint(parse_gbnf(grammar, "g")), false);
      TokenMask mask;
      for (int i = 0; i < 3; ++i) {
        state.next_tokens(&mask);
        state.push("a");
      }
    });
    EXPECT_LT(std::chrono::steady_clock::now() - begin,
              std::chrono::milliseconds(QUERN_SANITIZED ? 20000 : 1500))
        << grammar.substr(0, 60) << ": " << error;
  }
}

// Each of the last letters may have been one of the first half or not, so that almost every text leads to a
// set of its own, and a mask to thousands.
TEST_F(AConstraint, MemoryOfAnAutomatonIsBoundedWhateverTheGrammar) {
  if (QUERN_SANITIZED) GTEST_SKIP() << "a sanitizer's allocator does not say what it has handed out";
  std::vector<std::string> words;
  std::mt19937 random(3);
  for (char c = 'a'; c <= 'z'; ++c) words.emplace_back(1, c);
  for (int i = 0; i < 4000; ++i) {
    std::string& word = words.emplace_back(3 + random() % 12, 'a');
    for (char& c : word) c = static_cast<char>('a' + random() % 26);
  }
  std::sort(words.begin(), words.end());
  words.erase(std::unique(words.begin(), words.end()), words.end());
  const std::unique_ptr<Tokenizer> tokenizer = make_tokenizer(byte_vocabulary(words));
  const auto trie = std::make_shared<const TokenTrie>(*tokenizer, tokenizer->size());
  size_t most = 0, n_masks = 0;
  {
    const auto constraint =
        std::make_shared<const Constraint>(compile_regex("[a-z]*[a-m][a-z]{24}", "where"), trie);
    const size_t before = allocated_bytes();
    ConstraintState state(constraint, false);
    TokenMask mask;
    for (; n_masks < 150; ++n_masks) {
      state.next_tokens(&mask);
      ASSERT_TRUE(has_bit(mask, *tokenizer->find("a")));
      for (int i = 0; i < 4; ++i)
        ASSERT_TRUE(state.push(std::string(1, static_cast<char>('a' + random() % 26))));
      most = std::max(most, allocated_bytes() - before);
    }
  }
  EXPECT_GT(most, 4u << 20) << "the grammar is none that grows";
  // What the shared automaton and the answer's own may grow to, and what one mask may add to each: 61 MiB
  // here, and 381 after 300 masks where sets are not counted.
  EXPECT_LT(most, 96u << 20);
}

using Regex = AConstraint;

TEST_F(Regex, MatchesWhole) {
  struct Case {
    const char* pattern;
    std::vector<std::string> in, out;
  };
  const Case cases[] = {
      {"[a-z]+", {"a", "zz"}, {"", "A", "a1"}},
      {"^a|b$", {"a", "b"}, {"ab", ""}},
      {"(ab|c)*d?", {"", "abc", "abd"}, {"dd", "a"}},
      {"\\d{3}-\\d{2,4}", {"123-45", "123-4567"}, {"12-45", "123-45678"}},
      {"(?:x|y){2}", {"xy", "yy"}, {"x", "xyz"}},
      {"[^0-9\\s]", {"a", "!"}, {"1", " ", "\u00E9", "\n"}},
      {"[^a]", {"b", "\u4E2D", "\n"}, {"a", ""}},
      {".", {"a", "\u00E9"}, {"\n", "\r"}},
      {"a\\.b\\\\c\\/", {"a.b\\c/"}, {"axb\\c/"}},
      {"\\w+?\\W", {"ab ", "_!"}, {"ab", "\u00E9 "}},
      {"\\x41\\u00e9", {"A\u00E9"}, {"A"}},
      {"[\\]\\-a]", {"]", "-", "a"}, {"\\"}},
      {"[a-]", {"a", "-"}, {"b"}},
  };
  for (const Case& c : cases) {
    const auto held = constraint(compile_regex(c.pattern, "r"));
    for (const std::string& text : c.in) EXPECT_TRUE(takes(held, text)) << c.pattern << " takes " << text;
    for (const std::string& text : c.out) EXPECT_FALSE(takes(held, text)) << c.pattern << " takes " << text;
  }
}

TEST_F(Regex, RefusesWhatItDoesNotKnow) {
  for (const char* pattern :
       {"(?=a)b", "(?!a)b", "(a)\\1", "\\bword",  "\\p{L}",  "a**",      "*a",   "(a",          "a)",
        "[a",     "[b-a]",  "a{2,1}", "a{99999}", "a^b",     "a$b",      "(^a)", "[[:alpha:]]", "\\",
        "a{",     "}",      "[]",     "\\u12",    "\\ud800", "(?P<n>a)", "\\01"}) {
    const std::string error = error_of([&] { compile_regex(pattern, "where"); });
    EXPECT_TRUE(error.starts_with("where: the expression '")) << pattern << ": " << error;
  }
}

class AConstrainedCompletion : public AConstraint {
 protected:
  AConstrainedCompletion() { options_.sampler.temperature = 0; }
  void hold_to(const std::string& grammar) {
    options_.constraint = std::make_shared<const Constraint>(
        parse_gbnf(grammar, "g"), std::make_shared<const TokenTrie>(*tokenizer_, tokenizer_->size()));
  }
  TokenId id(const std::string& piece) const { return tokenizer_->find(piece).value(); }
  std::vector<float> logits(std::initializer_list<TokenId> wanted) const {
    std::vector<float> z(tokenizer_->size(), 0);
    float best = 9;
    for (const TokenId t : wanted) z[static_cast<size_t>(t)] = best--;
    return z;
  }
  Completion make() const { return Completion(tokenizer_.get(), true, prompt_, 64, options_); }

  const std::vector<TokenId> prompt_{1, 100};
  CompletionOptions options_;
};

TEST_F(AConstrainedCompletion, PicksTheBestOfWhatMayCome) {
  hold_to("root ::= \"abc\" [0-9]+");
  Completion completion = make();
  EXPECT_EQ(completion.feed(logits({2, id("hello"), id("abc")})).token, id("abc"));
  EXPECT_FALSE(completion.meets_constraint());
  EXPECT_EQ(completion.feed(logits({2, id("abc"), id("12"), id("345")})).token, id("12"))
      << "it may not end yet";
  EXPECT_TRUE(completion.meets_constraint());
  EXPECT_EQ(completion.feed(logits({id("abc"), 2, id("345")})).token, std::nullopt) << "now it may";
  EXPECT_EQ(completion.reason(), FinishReason::kEndOfText);
  EXPECT_EQ(completion.text(), "abc12");
}

TEST_F(AConstrainedCompletion, EndsWhereNothingMayFollow) {
  hold_to("root ::= \"hello\" \" world\"");
  options_.ignore_eos = true;
  Completion completion = make();
  EXPECT_EQ(completion.feed(logits({id("h"), id("hello")})).token, id("h"));
  while (!completion.finished()) completion.feed(logits({2, id("abc")}));
  EXPECT_EQ(completion.text(), "hello world");
  EXPECT_EQ(completion.reason(), FinishReason::kEndOfText);
}

TEST_F(AConstrainedCompletion, NeverPicksWhatMayNotComeWhateverIsDrawn) {
  hold_to("root ::= [ab]{20}");
  options_.sampler = {.temperature = 2, .top_k = 0, .top_p = 1, .min_p = 0};
  options_.presence_penalty = 2;
  options_.logit_bias = {{id("hello"), 100.0f}, {id("a"), -100.0f}};
  for (uint64_t seed = 0; seed < 50; ++seed) {
    options_.sampler.seed = seed;
    Completion completion = make();
    while (!completion.finished()) completion.feed(logits({2, id("abc"), id("hello")}));
    EXPECT_EQ(completion.text().size(), 20u);
    EXPECT_EQ(completion.text().find_first_not_of("ab"), std::string::npos) << completion.text();
  }
}

TEST_F(AConstrainedCompletion, IsTheSameWhoeverSharesTheGrammar) {
  hold_to("root ::= (\"a\" | \"b\" root \"b\" | [0-9]{1,5} \",\")+");
  options_.sampler.temperature = 1;
  options_.max_tokens = 30;
  const auto draw = [&](Completion& completion, std::mt19937& random) {
    std::vector<float> z(tokenizer_->size());
    for (float& x : z) x = static_cast<float>(random() % 100) / 20;
    completion.feed(z);
  };
  std::vector<std::string> alone;
  for (uint64_t seed = 0; seed < 4; ++seed) {
    options_.sampler.seed = seed;
    hold_to("root ::= (\"a\" | \"b\" root \"b\" | [0-9]{1,5} \",\")+");
    Completion completion = make();
    std::mt19937 random(static_cast<unsigned>(seed));
    while (!completion.finished()) draw(completion, random);
    alone.push_back(completion.text());
  }
  std::vector<Completion> together;
  std::vector<std::mt19937> random;
  for (uint64_t seed = 0; seed < 4; ++seed) {
    options_.sampler.seed = seed;
    together.push_back(make());
    random.emplace_back(static_cast<unsigned>(seed));
  }
  for (int i = 0; i < 40; ++i)
    for (size_t k = 0; k < 4; ++k)
      if (!together[k].finished()) draw(together[k], random[k]);
  for (size_t k = 0; k < 4; ++k) EXPECT_EQ(together[k].text(), alone[k]) << k;
}

}  // namespace
}  // namespace quern::test
