// A small model's guesses change the time that a text takes, and nothing of the text.
#include "runtime/engine/drafter.h"

#include <gtest/gtest.h>

#include <future>
#include <vector>

#include "runtime/engine/scheduler.h"
#include "runtime/generate.h"
#include "tests/support/models.h"
#include "tests/support/paths.h"

namespace quern {
namespace {

std::unique_ptr<Model> tiny(const std::string& type, uint64_t context = 256) {
  ModelOptions options;
  options.context = context;
  options.n_threads = 1;
  return test::open_model(test::converted("tiny-mistral", type), options);
}

// Passes of any number of rows take as long, which the small model's do not come near: its guesses pay.
PassCosts flat_costs() { return PassCosts(std::vector<double>(PassCosts::kMaxRows, 1e6)); }

CompletionOptions options_of(float temperature, uint64_t seed) {
  CompletionOptions options;
  options.max_tokens = 48;
  options.ignore_eos = true;
  options.sampler.temperature = temperature;
  options.sampler.seed = seed;
  return options;
}

TEST(Drafter, GenerateGivesTheSameTextInFewerPasses) {
  const auto target = tiny("q8_0"), draft = tiny("q4_0");
  Drafter drafter(*draft, *target);
  Drafter::Text text(drafter);
  for (const float temperature : {0.0f, 0.8f}) {
    Session alone(*target), helped(*target);
    for (uint64_t seed = 1; seed <= 2; ++seed) {  // the later ones begin where the caches have something
      const std::vector<TokenId> prompt = test::random_ids(*target, 20 * seed, 7);
      const CompletionOptions options = options_of(temperature, seed);
      const GenerateResult expected = generate(alone, prompt, options, [](std::string_view) {}, {}, {});
      Speculation speculation{flat_costs(), {}, &text};
      const GenerateResult found =
          generate(helped, prompt, options, [](std::string_view) {}, {}, {}, {.speculation = &speculation});
      EXPECT_EQ(found.tokens, expected.tokens) << temperature;
      EXPECT_EQ(found.text, expected.text) << temperature;
      EXPECT_GT(found.guesses_taken, 10u) << temperature;
      EXPECT_LT(found.decode_passes, expected.decode_passes - 10) << temperature;
    }
  }
}

TEST(Drafter, TheSchedulerGivesTheSameAnswers) {
  const auto target = tiny("q8_0"), draft = tiny("q4_0");
  std::vector<AnswerRequest> requests;
  std::vector<std::vector<TokenId>> expected;
  for (uint64_t i = 0; i < 4; ++i) {
    AnswerRequest& request = requests.emplace_back();
    request.prompt = test::random_ids(*target, 30 + 20 * i, static_cast<uint32_t>(i % 3));
    request.options = options_of(i % 2 == 0 ? 0.0f : 0.8f, i);
    request.owner = i % 3 == 0 ? "a" : "b";
    Session session(*target);
    expected.push_back(generate(session, request.prompt, request.options, {}, {}, {}).tokens);
  }
  SchedulerOptions options{.slots = 3, .costs = flat_costs(), .draft = draft.get()};
  Scheduler scheduler(*target, options);
  std::vector<std::vector<TokenId>> found(requests.size());
  std::vector<std::promise<void>> ends(requests.size());
  ASSERT_FALSE(scheduler
                   .submit(requests,
                           [&](size_t i, const AnswerEvent& event) {
                             if (event.kind == AnswerEvent::Kind::kToken) found[i].push_back(event.token);
                             if (event.kind == AnswerEvent::Kind::kFinished) ends[i].set_value();
                           })
                   .empty());
  for (std::promise<void>& end : ends)
    ASSERT_EQ(end.get_future().wait_for(std::chrono::seconds(60)), std::future_status::ready);
  EXPECT_EQ(found, expected);
  EXPECT_GT(scheduler.stats().guesses_taken, 30u);
}

TEST(Drafter, TextsMayBeLongerThanTheSmallModelsContext) {
  const auto target = tiny("q8_0"), draft = tiny("q4_0", 64);
  Drafter drafter(*draft, *target);
  Drafter::Text text(drafter);
  Session alone(*target), helped(*target);
  const std::vector<TokenId> prompt = test::random_ids(*target, 30, 1);
  Speculation speculation{flat_costs(), {}, &text};
  EXPECT_EQ(generate(helped, prompt, options_of(0, 1), {}, {}, {}, {.speculation = &speculation}).tokens,
            generate(alone, prompt, options_of(0, 1), {}, {}, {}).tokens);
}

// What the pass of a guess added to a state, the next pass cannot take back.
TEST(Drafter, WithStatesGuessesOneTokenAtATime) {
  ModelOptions options;
  options.context = 64;
  options.n_threads = 1;
  const auto model =
      test::open_model(test::converted_folder(test::unpacked_data("architectures/qwen35"), "q8_0"), options);
  ASSERT_NE(model->kv_shape().state_bytes(), 0u);
  Drafter drafter(*model, *model);
  Drafter::Text text(drafter);
  text.begin(options_of(0, 1).sampler);
  text.read(test::random_ids(*model, 10, 1));
  const Drafter::Job job{&text, 8};
  drafter.guess({&job, 1}, 1, 1e9, flat_costs());
  EXPECT_EQ(text.chances().size(), 1u);
}

// Two texts in one call: the small model reads 64 tokens of one, and the other's guesses do not wait for it.
TEST(Drafter, ReadsAPieceOfOnePromptAtATimeWhereOthersWait) {
  const auto target = tiny("q8_0"), draft = tiny("q4_0");
  Drafter drafter(*draft, *target);
  Drafter::Text known(drafter), long_one(drafter), other(drafter);
  for (Drafter::Text* text : {&known, &long_one, &other}) text->begin(options_of(0, 1).sampler);
  known.read(test::random_ids(*target, 20, 1));
  long_one.read(test::random_ids(*target, 150, 2));
  other.read(test::random_ids(*target, 150, 3));
  const Drafter::Job jobs[] = {{&known, 4}, {&long_one, 4}, {&other, 4}};
  size_t n_calls[3] = {};  // until there are guesses
  for (size_t call = 1; call <= 8; ++call) {
    drafter.guess(jobs, 3, 1e9, flat_costs());
    for (size_t i = 0; i < 3; ++i)
      if (n_calls[i] == 0 && !jobs[i].text->chances().empty()) n_calls[i] = call;
  }
  EXPECT_EQ(n_calls[0], 1u);
  EXPECT_EQ(n_calls[1], 3u) << "64 and 64 tokens, then the rest";
  EXPECT_EQ(n_calls[2], 5u);
}

TEST(Drafter, TakesNoLongerThanOthersMayWait) {
  const auto target = tiny("q8_0"), draft = tiny("q4_0");
  Drafter drafter(*draft, *target);
  Drafter::Text text(drafter);
  text.begin(options_of(0, 1).sampler);
  text.read(test::random_ids(*target, 20, 1));
  const Drafter::Job job{&text, 8};
  for (int i = 0; i < 3; ++i) drafter.guess({&job, 1}, 4, 1e9, flat_costs());
  EXPECT_GT(text.chances().size(), 1u);
  drafter.guess({&job, 1}, 4, 1, flat_costs());
  EXPECT_TRUE(text.chances().empty());
}

TEST(Drafter, GuessesNothingForAPassThatTakesNoGuesses) {
  const auto target = tiny("q8_0"), draft = tiny("q4_0");
  Drafter drafter(*draft, *target);
  Drafter::Text text(drafter);
  text.begin(options_of(0, 1).sampler);
  text.read(test::random_ids(*target, 20, 1));
  const Drafter::Job job{&text, 8};
  for (const size_t rows : {PassCosts::kMaxRows, size_t{1000}}) {
    drafter.guess({&job, 1}, rows, 1e9, flat_costs());
    EXPECT_TRUE(text.chances().empty()) << rows;
  }
  drafter.guess({&job, 1}, PassCosts::kMaxRows - 1, 1e9, flat_costs());
  EXPECT_FALSE(text.chances().empty());
}

TEST(Drafter, AnotherVocabularyIsRefusedByItsFirstDifference) {
  const auto target = tiny("q8_0");
  const auto other = test::open_model(test::converted("stories260k", "q8_0"), {});
  try {
    Drafter drafter(*other, *target);
    FAIL() << "it was taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    EXPECT_NE(std::string(error.what()).find("its vocabulary is another: "), std::string::npos)
        << error.what();
  }
}

TEST(DraftRates, GoFromWhatTheSmallModelSaysToWhatCameTrue) {
  DraftRates rates;
  EXPECT_NEAR(rates.of(0.9), 0.9, 1e-9);
  for (int i = 0; i < 200; ++i) rates.add(0.9, i % 2 == 0);
  EXPECT_NEAR(rates.of(0.9), 0.5, 0.05);
  EXPECT_NEAR(rates.of(0.1), 0.1, 1e-9) << "of another class";
  EXPECT_NEAR(rates.mean(), 0.5, 0.05);
}

}  // namespace
}  // namespace quern
