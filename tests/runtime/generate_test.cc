// Where generation ends, and what it never picks, with tiny-mistral's tokens renamed.
#include "runtime/generate.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/gguf_files.h"
#include "tests/support/models.h"
#include "tests/support/temp_folder.h"

namespace quern {
namespace {

class GenerateEnds : public testing::Test {
 private:
  const test::TempFolder folder_;
  int n_ = 0;

 protected:
  // Greedy, from "ROMEO:", on tiny-mistral with a changed vocabulary.
  GenerateResult generate_with(const std::function<void(Vocabulary*)>& change,
                               CompletionOptions options = {}) {
    const std::string path = folder_.file(fmt::format("{}.gguf", ++n_));
    test::rewrite_vocabulary(test::converted("tiny-mistral", "f32"), path, change);
    const auto model = test::open_model(path, {});
    Session session(*model);
    options.sampler.temperature = 0;
    options.max_tokens = 12;
    const std::vector<TokenId> prompt = model->tokenizer().encode_prompt("ROMEO:");
    return generate(session, prompt, options, [](std::string_view) {}, {}, {});
  }
  // What the model says left to itself, and the one of its tokens that the tests rename.
  const GenerateResult plain_ = generate_with([](Vocabulary*) {});
  const TokenId fifth_ = plain_.tokens.at(5);
  const std::vector<TokenId> before_{plain_.tokens.begin(),
                                     std::find(plain_.tokens.begin(), plain_.tokens.end(), fifth_)};
  void rename(Vocabulary* vocabulary, TokenType type) const {
    vocabulary->pieces[static_cast<size_t>(fifth_)] = "<|x|>";
    vocabulary->types[static_cast<size_t>(fifth_)] = type;
  }
};

TEST_F(GenerateEnds, RunsToTheLimitWhereNothingEndsIt) {
  EXPECT_EQ(plain_.reason, FinishReason::kMaxTokens);
  EXPECT_EQ(plain_.tokens.size(), 12u);
}

TEST_F(GenerateEnds, EndsAtTheEndOfATurnOrMessageAsAtTheEndOfText) {
  const std::function<void(Vocabulary*)> ends[] = {
      [&](Vocabulary* v) { v->eos = fifth_; }, [&](Vocabulary* v) { v->eot = fifth_; },
      [&](Vocabulary* v) { v->eom = fifth_; }, [&](Vocabulary* v) { v->more_ends = {fifth_}; }};
  for (const auto& end : ends) {
    const GenerateResult result = generate_with(end);
    EXPECT_EQ(result.reason, FinishReason::kEndOfText);
    EXPECT_EQ(result.tokens, before_);
  }
}

TEST_F(GenerateEnds, EndsAtAControlTokenSpelledLikeAnEnd) {
  const GenerateResult result = generate_with([&](Vocabulary* v) {
    rename(v, TokenType::kControl);
    v->pieces[static_cast<size_t>(fifth_)] = "<|im_end|>";
  });
  EXPECT_EQ(result.reason, FinishReason::kEndOfText);
  EXPECT_EQ(result.tokens, before_);
}

TEST_F(GenerateEnds, IgnoresEveryEndWhenAsked) {
  CompletionOptions options;
  options.ignore_eos = true;
  const GenerateResult result = generate_with([&](Vocabulary* v) { v->eot = fifth_; }, options);
  EXPECT_EQ(result.reason, FinishReason::kMaxTokens);
  EXPECT_EQ(std::count(result.tokens.begin(), result.tokens.end(), fifth_), 0);
}

TEST_F(GenerateEnds, StopsAtAControlTokenWhoseSpellingIsAStopText) {
  CompletionOptions options;
  options.stop = {"<|x|>"};
  const auto control = [&](Vocabulary* v) { rename(v, TokenType::kControl); };
  const GenerateResult result = generate_with(control, options);
  EXPECT_EQ(result.reason, FinishReason::kStopText);
  EXPECT_EQ(result.tokens, before_);
  EXPECT_TRUE(plain_.text.starts_with(result.text)) << result.text;
  options.stop = {"<|x|"};
  EXPECT_EQ(generate_with(control, options).reason, FinishReason::kMaxTokens);
}

TEST_F(GenerateEnds, StopsAtTheTextOfAnAddedToken) {
  CompletionOptions options;
  options.stop = {"<|x|>"};
  const GenerateResult result =
      generate_with([&](Vocabulary* v) { rename(v, TokenType::kUserDefined); }, options);
  EXPECT_EQ(result.reason, FinishReason::kStopText);
  EXPECT_EQ(result.text.find("<|x|>"), std::string::npos);
}

TEST_F(GenerateEnds, NeverPicksUnusedTokens) {
  const GenerateResult result = generate_with([&](Vocabulary* v) { rename(v, TokenType::kUnused); });
  EXPECT_EQ(std::count(result.tokens.begin(), result.tokens.end(), fifth_), 0);
  EXPECT_EQ(result.tokens.size(), 12u);
}

}  // namespace
}  // namespace quern
