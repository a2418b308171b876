// The state machine of a completion, on logits made by hand: no model runs.
#include "runtime/completion.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "quant/error.h"
#include "tests/support/byte_vocabulary.h"

namespace quern {
namespace {

using State = Completion::State;

// <unk> <s> </s>, the bytes, and some words.
class ACompletion : public testing::Test {
 protected:
  static Vocabulary vocabulary() {
    return test::byte_vocabulary({"\u2581a", "b", "c", "STO", "P!", "\u2581end"},
                                 {{"<|turn|>", TokenType::kControl}, {"<|free|>", TokenType::kUnused}});
  }

  ACompletion() { options_.sampler.temperature = 0; }

  TokenId id(const std::string& piece) const { return tokenizer_->find(piece).value(); }
  TokenId byte(uint8_t value) const { return tokenizer_->vocabulary().sentencepiece().byte_ids[value]; }

  Completion make(bool with_text = true, uint64_t context = 64) const {
    return Completion(tokenizer_.get(), with_text, prompt_, context, options_);
  }
  // Logits of which `wanted` are the best, best first.
  std::vector<float> logits(std::initializer_list<TokenId> wanted) const {
    std::vector<float> z(tokenizer_->size(), 0);
    float best = 9;
    for (const TokenId t : wanted) z[static_cast<size_t>(t)] = best--;
    return z;
  }
  CompletionStep pick(Completion& completion, TokenId token) const {
    return completion.feed(logits({token}));
  }

  const std::unique_ptr<Tokenizer> tokenizer_ = make_tokenizer(vocabulary());
  const std::vector<TokenId> prompt_{1, id("b"), id("c")};
  CompletionOptions options_;
};

TEST_F(ACompletion, BiasesAndPenaltiesMoveLogitsBeforeAnythingIsPicked) {
  options_.logit_bias = {{id("c"), 5.0f}, {id("b"), -5.0f}};
  options_.frequency_penalty = 1.5f;
  options_.presence_penalty = 1;
  Completion completion = make();
  // Of the list 9, 8, 7, 6: with biases b 4, c 13, STO 7, P! 6.
  const auto pick_of_all = [&] {
    return *completion.feed(logits({id("b"), id("c"), id("STO"), id("P!")})).token;
  };
  EXPECT_EQ(pick_of_all(), id("c")) << "c and b of the prompt cost nothing";
  EXPECT_EQ(pick_of_all(), id("c")) << "13 - 1.5 - 1";
  EXPECT_EQ(pick_of_all(), id("c")) << "13 - 3 - 1";
  EXPECT_EQ(pick_of_all(), id("c")) << "13 - 4.5 - 1";
  EXPECT_EQ(pick_of_all(), id("STO")) << "13 - 6 - 1 is 6, and STO has 7";
}

TEST_F(ACompletion, WantsThePromptFirstAndThenOneTokenAfterTheOther) {
  Completion completion = make();
  EXPECT_EQ(completion.state(), State::kPrompt);
  EXPECT_TRUE(std::ranges::equal(completion.pending(), prompt_));
  const CompletionStep step = pick(completion, id("\u2581a"));
  EXPECT_EQ(step.token, id("\u2581a"));
  EXPECT_EQ(step.text, " a");
  EXPECT_EQ(completion.state(), State::kToken);
  EXPECT_TRUE(std::ranges::equal(completion.pending(), std::vector{id("\u2581a")}));
  EXPECT_EQ(pick(completion, id("b")).text, "b");
  EXPECT_TRUE(std::ranges::equal(completion.tokens(), std::vector{id("\u2581a"), id("b")}));
  EXPECT_EQ(completion.text(), " ab");
  EXPECT_FALSE(completion.finished());
}

TEST_F(ACompletion, EndsBeforeAnEndToken) {
  Completion completion = make();
  pick(completion, id("b"));
  const CompletionStep step = pick(completion, 2);
  EXPECT_EQ(step.token, std::nullopt);
  EXPECT_TRUE(completion.finished());
  EXPECT_EQ(completion.reason(), FinishReason::kEndOfText);
  EXPECT_TRUE(completion.pending().empty());
  EXPECT_EQ(completion.tokens().size(), 1u);
}

TEST_F(ACompletion, PicksNeitherUnusedTokensNorIgnoredEnds) {
  options_.ignore_eos = true;
  Completion completion = make();
  EXPECT_EQ(completion.feed(logits({2, id("<|free|>"), id("c")})).token, id("c"));
  options_.ignore_eos = false;
  Completion other = make();
  EXPECT_EQ(other.feed(logits({id("<|free|>"), 2, id("c")})).token, std::nullopt);
  EXPECT_EQ(other.reason(), FinishReason::kEndOfText);
}

TEST_F(ACompletion, HoldsBackTheBytesOfACharacterUntilItIsWhole) {
  Completion completion = make();
  EXPECT_EQ(pick(completion, byte(0xF0)).text, "");
  EXPECT_EQ(pick(completion, byte(0x9F)).text, "");
  EXPECT_EQ(pick(completion, byte(0xA6)).text, "");
  EXPECT_EQ(pick(completion, byte(0x99)).text, "\U0001F999");
  pick(completion, byte(0xC3));
  EXPECT_EQ(completion.interrupt(), "\uFFFD");  // it never became one
  EXPECT_EQ(completion.text(), "\U0001F999\uFFFD");
}

TEST_F(ACompletion, HoldsBackWhatMayBecomeAStopTextAndShowsItWhenItDoesNot) {
  options_.stop = {"STOP!"};
  Completion completion = make();
  EXPECT_EQ(pick(completion, id("b")).text, "b");
  EXPECT_EQ(pick(completion, id("STO")).text, "");
  EXPECT_EQ(pick(completion, id("c")).text, "STOc");
  EXPECT_EQ(pick(completion, id("STO")).text, "");
  const CompletionStep last = pick(completion, id("P!"));
  EXPECT_EQ(last.text, "");
  EXPECT_EQ(last.token, id("P!"));
  EXPECT_EQ(completion.reason(), FinishReason::kStopText);
  EXPECT_EQ(completion.text(), "bSTOc");
}

TEST_F(ACompletion, ShowsTheBeginningOfAStopTextWhenItEndsOtherwise) {
  options_.stop = {"STOP!"};
  options_.max_tokens = 1;
  Completion completion = make();
  EXPECT_EQ(pick(completion, id("STO")).text, "STO");
  EXPECT_EQ(completion.reason(), FinishReason::kMaxTokens);
}

TEST_F(ACompletion, EndsAtAControlTokenThatAStopTextSpells) {
  options_.stop = {"<|turn|>"};
  Completion completion = make();
  EXPECT_EQ(pick(completion, id("<|turn|>")).token, std::nullopt);
  EXPECT_EQ(completion.reason(), FinishReason::kStopText);
}

TEST_F(ACompletion, EndsWithItsLastTokenAndNotAfterAnotherEvaluation) {
  options_.max_tokens = 2;
  Completion completion = make();
  pick(completion, id("b"));
  EXPECT_FALSE(completion.finished());
  pick(completion, id("c"));
  EXPECT_EQ(completion.reason(), FinishReason::kMaxTokens);
  EXPECT_TRUE(completion.pending().empty());
  options_.max_tokens = 0;
  Completion none = make();
  EXPECT_EQ(none.state(), State::kPrompt);  // a prompt is evaluated all the same
  EXPECT_EQ(pick(none, id("b")).token, std::nullopt);
  EXPECT_EQ(none.reason(), FinishReason::kMaxTokens);
}

TEST_F(ACompletion, EndsWithATokenThatTheContextHasNoPlaceFor) {
  options_.max_tokens = -1;
  Completion completion = make(true, 5);
  pick(completion, id("b"));
  pick(completion, id("b"));
  EXPECT_FALSE(completion.finished());
  pick(completion, id("b"));
  EXPECT_EQ(completion.reason(), FinishReason::kContextFull);
  EXPECT_EQ(completion.tokens().size(), 3u);
}

TEST_F(ACompletion, StaysAsItEndedWhenItIsInterruptedLater) {
  Completion completion = make();
  pick(completion, 2);
  EXPECT_EQ(completion.interrupt(), "");
  EXPECT_EQ(completion.reason(), FinishReason::kEndOfText);
  Completion early = make();
  early.interrupt();
  EXPECT_EQ(early.reason(), FinishReason::kInterrupted);
}

TEST_F(ACompletion, LosesTheSpaceBeforeATextOfItsOwn) {
  options_.new_text = true;
  Completion completion = make();
  EXPECT_EQ(pick(completion, id("\u2581a")).text, "a");
  EXPECT_EQ(pick(completion, id("\u2581a")).text, " a");
}

TEST_F(ACompletion, GivesIdsAloneWhereNoTextIsWanted) {
  options_.stop = {"b"};
  Completion completion = make(false);
  const CompletionStep step = pick(completion, id("b"));
  EXPECT_EQ(step.token, id("b"));
  EXPECT_EQ(step.text, "");
  EXPECT_FALSE(completion.finished());
  Completion bare(nullptr, false, prompt_, 64, options_);
  EXPECT_EQ(bare.feed(logits({2})).token, 2);  // without a vocabulary nothing is an end
}

TEST_F(ACompletion, RefusesAPromptThatIsEmptyOrFillsTheContext) {
  const auto code = [&](std::span<const TokenId> prompt, uint64_t context) {
    try {
      Completion(tokenizer_.get(), true, prompt, context, options_);
    } catch (const Error& e) {
      return std::optional(e.code());
    }
    return std::optional<ErrorCode>();
  };
  EXPECT_EQ(code({}, 64), ErrorCode::kUsage);
  EXPECT_EQ(code(prompt_, 3), ErrorCode::kResource);
  EXPECT_EQ(code(prompt_, 4), std::nullopt);
}

TEST_F(ACompletion, RefusesLogitsThatAreNotFiniteAndStaysWhereItWas) {
  Completion completion = make();
  std::vector<float> z = logits({id("b")});
  z[7] = NAN;
  EXPECT_THROW(completion.feed(z), Error);
  EXPECT_EQ(completion.state(), State::kPrompt);
}

}  // namespace
}  // namespace quern
