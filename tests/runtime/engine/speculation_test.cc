// Guesses change the time that a text takes, and nothing of the text.
#include "runtime/engine/speculation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <future>
#include <limits>
#include <mutex>
#include <numeric>
#include <random>

#include "runtime/engine/scheduler.h"
#include "runtime/generate.h"
#include "tests/support/models.h"
#include "tests/support/paths.h"
#include "tests/support/random_model.h"
#include "tests/support/temp_folder.h"

namespace quern {
namespace {

// --- the automaton ---

// The longest end of the text that ends further to the front too, by comparing everything.
size_t longest_match(std::span<const TokenId> text) {
  size_t longest = 0;
  for (size_t end = 1; end < text.size(); ++end) {
    size_t n = 0;
    while (n < end && text[end - 1 - n] == text[text.size() - 1 - n]) ++n;
    longest = std::max(longest, n);
  }
  return longest;
}

TEST(SuffixAutomaton, FindsTheLongestEndThatWasThereBefore) {
  std::mt19937 random(3);
  for (const int32_t n_tokens : {1, 2, 3, 10, 1000}) {
    SuffixAutomaton automaton;
    std::vector<TokenId> text;
    for (size_t i = 0; i < 300; ++i) {
      // Now and then a piece comes again.
      if (i % 50 == 49 && i < 250) {
        const size_t begin = random() % (text.size() - 20);
        for (size_t j = 0; j < 20; ++j) {
          text.push_back(text[begin + j]);
          automaton.push(text.back());
        }
      }
      text.push_back(static_cast<TokenId>(random() % static_cast<uint32_t>(n_tokens)));
      automaton.push(text.back());
      ASSERT_TRUE(std::ranges::equal(automaton.text(), text));
      const size_t length = automaton.match_length();
      ASSERT_EQ(length, longest_match(text));
      if (length == 0) continue;
      // What it says follows a place where that end stood.
      bool stood = false;
      for (size_t end = length; end < text.size() && !stood; ++end)
        stood = text[end] == automaton.following(0) &&
                std::equal(text.end() - static_cast<ptrdiff_t>(length), text.end(),
                           text.begin() + static_cast<ptrdiff_t>(end - length));
      ASSERT_TRUE(stood);
    }
  }
}

TEST(SuffixAutomaton, GoesOnWithWhatWentOnAndRepeatsAPeriod) {
  SuffixAutomaton automaton;
  for (const TokenId token : {1, 2, 3, 4, 5, 9, 2, 3}) automaton.push(token);
  EXPECT_EQ(automaton.match_length(), 2u);
  const auto following = [&](size_t n) {
    std::vector<TokenId> tokens;
    for (size_t i = 0; i < n; ++i) tokens.push_back(automaton.following(i));
    return tokens;
  };
  EXPECT_EQ(following(4), (std::vector<TokenId>{4, 5, 9, 2}));
  SuffixAutomaton periodic;
  for (const TokenId token : {7, 8, 7, 8, 7}) periodic.push(token);
  EXPECT_EQ(periodic.match_length(), 3u);
  for (size_t i = 0; i < 9; ++i) EXPECT_EQ(periodic.following(i), i % 2 == 0 ? 8 : 7);
}

TEST(SuffixAutomaton, GoesOnAsTheLatestTimeDid) {
  SuffixAutomaton automaton;
  for (const TokenId token : {1, 5, 1, 6, 1}) automaton.push(token);
  EXPECT_EQ(automaton.following(0), 6);
}

// --- costs, chances, choices ---

TEST(PassCosts, AreMeasuredOrLieBetweenWhatWas) {
  PassCosts costs;
  EXPECT_EQ(costs.of(1), 0);
  costs.add(1, 1.0);
  EXPECT_DOUBLE_EQ(costs.of(1), 1.0);
  EXPECT_DOUBLE_EQ(costs.of(5), 2.0) << "assumed: a quarter each";
  costs.add(5, 1.4);
  EXPECT_DOUBLE_EQ(costs.of(5), 1.4);
  EXPECT_DOUBLE_EQ(costs.of(3), 1.2);
  EXPECT_NEAR(costs.of(9), 1.8, 1e-12) << "as the rows before it";
  costs.add(PassCosts::kMaxRows + 1, 0.1);
  for (const size_t rows : {PassCosts::kMaxRows, PassCosts::kMaxRows + 1, size_t{1000}})
    EXPECT_NEAR(costs.of(rows), 1 + 0.1 * static_cast<double>(rows - 1), 1e-12);
}

TEST(PassCosts, FollowTheMachineAndForgetWhatWasMeasuredOnce) {
  PassCosts costs;
  for (size_t i = 0; i < 100; ++i) costs.add(1, i < 50 ? 1.0 : 2.0);
  EXPECT_NEAR(costs.of(1), 2.0, 0.01);
  costs.add(4, 50.0);  // something else ran
  EXPECT_EQ(costs.of(4), 50.0);
  for (size_t i = 0; i < 130; ++i) costs.add(1, 2.0);
  EXPECT_NEAR(costs.of(4), 3.5, 0.02);
  for (size_t i = 0; i < 130; ++i) costs.add(4, 2.5);
  EXPECT_NEAR(costs.of(1), 2.0, 0.01) << "the least is kept";
}

TEST(GuessRates, FollowWhatCameTrue) {
  GuessRates rates;
  EXPECT_LT(rates.of(1), rates.of(2));
  EXPECT_LT(rates.of(2), rates.of(8));
  EXPECT_LT(rates.of(8), rates.of(1000));
  const double before = rates.of(3);
  for (size_t i = 0; i < 200; ++i) rates.add(4, true);
  EXPECT_GT(rates.of(3), 0.98) << "of one class";
  EXPECT_LT(rates.of(2), before);
  for (size_t i = 0; i < 200; ++i) rates.add(3, false);
  EXPECT_LT(rates.of(4), 0.02);
}

PassCosts linear_costs(double each) {
  std::vector<double> seconds(PassCosts::kMaxRows);
  for (size_t i = 0; i < seconds.size(); ++i) seconds[i] = 1 + each * static_cast<double>(i);
  return PassCosts(seconds);
}

constexpr double kAnyTime = std::numeric_limits<double>::infinity();

size_t chosen(std::vector<double> chances, size_t rows, size_t most_rows, double slowest,
              const PassCosts& costs) {
  Draft draft{chances};
  choose_drafts({&draft, 1}, rows, most_rows, slowest, costs);
  return draft.n;
}

TEST(Drafts, AreAsLongAsTheirTimePays) {
  const std::vector<double> sure(15, 1.0), unlikely(15, 0.1);
  EXPECT_EQ(chosen(sure, 1, 64, kAnyTime, linear_costs(0.1)), 15u);
  EXPECT_EQ(chosen(sure, 1, 64, kAnyTime, linear_costs(1.0)), 0u) << "a row costs as much as a pass";
  EXPECT_EQ(chosen(sure, 1, 64, kAnyTime, linear_costs(0.97)), 0u) << "a gain that might be noise";
  EXPECT_EQ(chosen(unlikely, 1, 64, kAnyTime, linear_costs(0.2)), 0u);
  EXPECT_EQ(chosen(unlikely, 1, 64, kAnyTime, linear_costs(0.01)), 15u);
  EXPECT_EQ(chosen({0.9, 0.8, 0.05, 0.04}, 1, 64, kAnyTime, linear_costs(0.2)), 2u);
  EXPECT_EQ(chosen(sure, 1, 5, kAnyTime, linear_costs(0.1)), 4u) << "no room for more";
  EXPECT_EQ(chosen(sure, 1, 64, 1.35, linear_costs(0.1)), 3u) << "others wait";
  EXPECT_EQ(chosen(sure, 64, 64, kAnyTime, linear_costs(0.1)), 0u);
  EXPECT_EQ(chosen(sure, 1, 64, kAnyTime, PassCosts()), 0u) << "nothing is known yet";
  EXPECT_EQ(chosen({}, 1, 64, kAnyTime, linear_costs(0.1)), 0u);
}

TEST(Drafts, OfSeveralSequencesTakeTheLikeliestGuesses) {
  const std::vector<double> good = {0.99, 0.98, 0.97}, poor = {0.7, 0.2, 0.05};
  std::vector<Draft> drafts = {{poor}, {good}, {}};
  choose_drafts(drafts, 3, 64, kAnyTime, linear_costs(0.4));
  EXPECT_EQ(drafts[0].n, 0u);
  EXPECT_EQ(drafts[1].n, 3u);
  EXPECT_EQ(drafts[2].n, 0u);
  choose_drafts(drafts, 3, 64, kAnyTime, linear_costs(0.2));
  EXPECT_EQ(drafts[0].n, 1u);
  EXPECT_EQ(drafts[1].n, 3u);
}

TEST(Guesser, LearnsFromPickedTokensAlone) {
  Guesser guesser;
  std::vector<TokenId> prompt;
  for (TokenId i = 0; i < 40; ++i) prompt.push_back(i % 20);
  const double before = guesser.rates().of(30);
  guesser.read(prompt);
  EXPECT_EQ(guesser.rates().of(30), before);
  EXPECT_TRUE(guesser.chances(0).empty());
  EXPECT_EQ(guesser.chances(100).size(), Guesser::kMostGuesses);
  EXPECT_EQ(guesser.guess(0), 0);
  EXPECT_EQ(guesser.guess(19), 19);
  guesser.push(0);
  EXPECT_GT(guesser.rates().of(20), before - 1e-9);
  for (int i = 0; i < 100; ++i) guesser.push(i % 2 == 0 ? 1 + i : 0);  // quotes nothing
  EXPECT_LT(guesser.rates().of(1), 0.1);
}

// --- whole texts ---

struct Case {
  const char* model;
  const char* type;
};

const Case kCases[] = {{"tiny-mistral", "q4_0"}, {"stories260k", "q8_0"},  {"random-window", "q8_0"},
                       {"lfm2", "q8_0"},         {"qwen35", "q8_0"},       {"qwen35-moe", "q8_0"},
                       {"gemma3", "q8_0"},       {"gemma4", "q8_0"},       {"qwen3-moe", "q8_0"},
                       {"gpt-oss", "q8_0"},      {"deepseek2-lite", "f16"}};

std::string path_of(const Case& c) {
  const auto& bundled = test::bundled_models();
  if (std::find(bundled.begin(), bundled.end(), c.model) != bundled.end())
    return test::converted(c.model, c.type);
  return test::converted_folder(test::unpacked_data("architectures") + "/" + c.model, c.type);
}

std::unique_ptr<Model> open(const std::string& path, uint64_t context) {
  ModelOptions options;
  options.context = context;
  options.n_threads = 2;
  options.check_tensors = false;
  return test::open_model(path, options);
}

// A piece of text three times, so that there is something to guess from.
std::vector<TokenId> repeating_prompt(const Model& model, size_t n, uint32_t seed) {
  const std::vector<TokenId> piece = test::random_ids(model, n, seed);
  std::vector<TokenId> prompt = piece;
  for (int i = 0; i < 2; ++i) prompt.insert(prompt.end(), piece.begin(), piece.end());
  prompt.resize(prompt.size() - n / 2);
  return prompt;
}

struct Setting {
  const char* name;
  void (*apply)(CompletionOptions* options, const Model& model);
};

const Setting kSettings[] = {
    {"greedy", [](CompletionOptions* o, const Model&) { o->sampler.temperature = 0; }},
    {"drawn", [](CompletionOptions* o, const Model&) { o->sampler.temperature = 1; }},
    {"cool", [](CompletionOptions* o, const Model&) { o->sampler.temperature = 0.3f; }},
    {"repeat_penalty",
     [](CompletionOptions* o, const Model&) {
       o->sampler.temperature = 0;
       o->sampler.repeat_penalty = 1.1f;
     }},
    {"penalties",
     [](CompletionOptions* o, const Model&) {
       o->sampler.temperature = 1;
       o->presence_penalty = 0.3f;
       o->frequency_penalty = 0.2f;
     }},
    // Texts that match in many places and go on otherwise: many guesses, right ones and wrong ones.
    {"two_tokens",
     [](CompletionOptions* o, const Model&) {
       o->sampler.temperature = 1;
       o->logit_bias = {{5, 900.0f}, {9, 900.0f}};
     }},
    {"one_token",
     [](CompletionOptions* o, const Model&) {
       o->logit_bias = {{5, 1000.0f}};
     }},
    {"stop_texts",
     [](CompletionOptions* o, const Model& model) {
       o->sampler.temperature = 0.5f;
       if (model.has_tokenizer()) o->stop = {"the", "\n\n"};
     }},
};

class Speculates : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Models, Speculates, testing::ValuesIn(kCases), [](const auto& model) {
  std::string name = model.param.model;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST_P(Speculates, WithoutChangingAToken) {
  const auto model = open(path_of(GetParam()), 240);
  size_t guesses = 0, taken = 0;
  uint32_t seed = 0;
  for (const Setting& setting : kSettings) {
    ++seed;
    CompletionOptions options;
    options.max_tokens = seed % 2 == 0 ? 60 : -1;  // to the end of the context
    options.ignore_eos = true;
    options.sampler.seed = seed;
    setting.apply(&options, *model);
    const std::vector<TokenId> prompt = repeating_prompt(*model, 40, seed);
    const auto complete = [&](Speculation* speculation, std::vector<int32_t>* told, Session& session) {
      const auto text = [](std::string_view) {};
      return generate(session, prompt, options,
                      model->has_tokenizer() ? text : std::function<void(std::string_view)>(),
                      [told](int32_t id) { told->push_back(id); }, {}, {.speculation = speculation});
    };
    Session plain(*model), guessing(*model);
    std::vector<int32_t> told, told_guessing;
    const GenerateResult expected = complete(nullptr, &told, plain);
    Speculation speculation{linear_costs(0.02), {}};
    const GenerateResult found = complete(&speculation, &told_guessing, guessing);
    EXPECT_EQ(found.tokens, expected.tokens) << setting.name << seed;
    EXPECT_EQ(found.text, expected.text);
    EXPECT_EQ(found.reason, expected.reason);
    EXPECT_EQ(told_guessing, told);
    EXPECT_EQ(found.decode_tokens, expected.decode_tokens);
    EXPECT_EQ(expected.guesses, 0u);
    EXPECT_EQ(found.decode_passes + found.guesses_taken, found.decode_tokens);
    // Nothing of a guess that was wrong is left, and what comes next has the same logits.
    EXPECT_EQ(guessing.tokens(), plain.tokens());
    plain.truncate(std::min<size_t>(plain.position(), 230));
    guessing.truncate(plain.position());
    const std::vector<int32_t> more = test::random_ids(*model, 5, 77);
    const auto logits = plain.eval(more), others = guessing.eval(more);
    EXPECT_TRUE(std::ranges::equal(logits, others)) << setting.name;
    guesses += found.guesses;
    taken += found.guesses_taken;
  }
  EXPECT_GT(taken, 0u);
  EXPECT_GT(guesses, taken);
}

// Long enough for rings of windows to come round and for snapshots of states.
TEST_P(Speculates, BeyondSegments) {
  const auto model = open(path_of(GetParam()), 1570);
  CompletionOptions options;
  options.max_tokens = -1;
  options.ignore_eos = true;
  options.sampler.temperature = 0.7f;
  options.sampler.top_k = 3;
  const std::vector<TokenId> prompt = repeating_prompt(*model, 600, 4);
  Session plain(*model), guessing(*model);
  Speculation speculation{linear_costs(0.02), {}};
  const GenerateResult expected = generate(plain, prompt, options, {}, {}, {});
  const GenerateResult found = generate(guessing, prompt, options, {}, {}, {}, {.speculation = &speculation});
  EXPECT_EQ(found.tokens, expected.tokens);
  EXPECT_GT(found.guesses, 0u);
  // Passes that are measured themselves.
  Session learning(*model);
  Speculation learnt;
  EXPECT_EQ(generate(learning, prompt, options, {}, {}, {}, {.speculation = &learnt}).tokens,
            expected.tokens);
  EXPECT_GT(learnt.costs.of(1), 0);
}

TEST_P(Speculates, ForSeveralSequencesAtOnce) {
  const auto model = open(path_of(GetParam()), 256);
  std::vector<AnswerRequest> requests;
  for (uint32_t i = 0; i < 12; ++i) {
    AnswerRequest request;
    request.prompt = repeating_prompt(*model, 10 + 3 * i, i);
    request.options.max_tokens = 30 + 3 * i;
    request.options.ignore_eos = true;
    request.options.sampler.seed = i;
    kSettings[i % std::size(kSettings)].apply(&request.options, *model);
    request.log_probs = i % 3 == 0;
    request.n_top = i % 3 == 0 ? 2 : 0;
    request.prompt_log_probs = i % 6 == 0;
    requests.push_back(request);
  }
  struct Answer {
    std::vector<TokenId> tokens;
    std::vector<double> log_probs;
    std::string text;
    bool operator==(const Answer&) const = default;
  };
  const auto answers = [&](const SchedulerOptions& options, SchedulerStats* stats) {
    std::vector<Answer> all(requests.size());
    std::mutex mutex;
    std::condition_variable ended;
    size_t n_ended = 0;
    Scheduler scheduler(*model, options);
    const auto tickets = scheduler.submit(requests, [&](size_t index, const AnswerEvent& event) {
      const std::lock_guard lock(mutex);
      Answer& answer = all[index];
      answer.text += event.text;
      if (event.kind == AnswerEvent::Kind::kToken || event.kind == AnswerEvent::Kind::kPromptToken) {
        answer.tokens.push_back(event.token);
        answer.log_probs.push_back(event.log_prob);
        for (const TokenChance& chance : event.top) answer.log_probs.push_back(chance.log_prob);
      }
      if (event.kind == AnswerEvent::Kind::kFailed) ADD_FAILURE() << event.text;
      n_ended += event.kind == AnswerEvent::Kind::kFinished || event.kind == AnswerEvent::Kind::kFailed;
      ended.notify_all();
    });
    EXPECT_EQ(tickets.size(), requests.size());
    std::unique_lock lock(mutex);
    EXPECT_TRUE(ended.wait_for(lock, std::chrono::seconds(120), [&] { return n_ended == all.size(); }));
    lock.unlock();
    while (!scheduler.idle()) std::this_thread::yield();
    *stats = scheduler.stats();
    return all;
  };
  SchedulerStats plain, guessing, learning;
  const auto expected = answers({.slots = 1, .speculation = false}, &plain);
  EXPECT_EQ(answers({.slots = 5, .prompt_budget = 5, .costs = linear_costs(0.005)}, &guessing), expected);
  EXPECT_EQ(answers({.slots = 3}, &learning), expected);
  EXPECT_EQ(plain.guesses, 0u);
  EXPECT_GT(guessing.guesses_taken, 0u);
  EXPECT_GT(guessing.guesses, guessing.guesses_taken);
  EXPECT_EQ(guessing.answer_tokens, plain.answer_tokens);
}

// An embedding is damaged in the file after the prompt was evaluated: a guess at that token fails, and the
// answer, which cannot have it, goes on.
class AGuessThatFails : public testing::Test {
 protected:
  static constexpr TokenId kDamaged = 17, kPicked = 5;

  AGuessThatFails() : path_(folder_.file("model.gguf")) {
    test::write_random_model({}, path_);
    model_ = open(path_, 256);
    prompt_ = test::random_ids(*model_, 30, 1);
    for (const TokenId id : {kPicked, kDamaged, kPicked, kDamaged, 40}) prompt_.push_back(id);
    options_.max_tokens = 20;
    options_.sampler.temperature = 0;
    options_.logit_bias = {{kDamaged, -1000.0f}, {kPicked, 1000.0f}};
  }
  void damage() {
    const TensorView* const embedding = model_->gguf().find_tensor("token_embd.weight");
    ASSERT_NE(embedding, nullptr);
    const uint64_t row_bytes = embedding->n_bytes / model_->hparams().vocab_size;
    std::FILE* const file = std::fopen(path_.c_str(), "r+b");
    ASSERT_NE(file, nullptr);
    const uint64_t begin = model_->gguf().data_offset() + kDamaged * row_bytes;
    ASSERT_EQ(std::fseek(file, static_cast<long>(begin), SEEK_SET), 0);
    ASSERT_EQ(std::fwrite("\x00\x7e", 1, 2, file), 2u);  // the scale of its first block: NaN
    std::fclose(file);
    Session session(*model_);
    const std::vector<int32_t> bad = {kDamaged};
    ASSERT_THROW(session.eval(bad), Error);
  }

  const test::TempFolder folder_;
  const std::string path_;
  std::unique_ptr<Model> model_;
  std::vector<TokenId> prompt_;
  CompletionOptions options_;
  const std::vector<TokenId> expected_ = std::vector<TokenId>(20, kPicked);
};

TEST_F(AGuessThatFails, CostsACompletionNothing) {
  Session session(*model_);
  session.eval(prompt_);
  damage();
  Speculation speculation{linear_costs(0.001), {}};
  const GenerateResult found =
      generate(session, prompt_, options_, {}, {}, {}, {.speculation = &speculation});
  EXPECT_EQ(found.tokens, expected_);
  EXPECT_GT(found.guesses, found.guesses_taken);
}

TEST_F(AGuessThatFails, CostsARequestNothing) {
  Scheduler scheduler(*model_, {.slots = 1, .costs = linear_costs(0.001)});
  const auto answer = [&] {
    AnswerRequest request{.prompt = prompt_, .options = options_, .owner = ""};
    std::vector<TokenId> tokens;
    std::promise<bool> finished;
    scheduler.submit({request}, [&](size_t, const AnswerEvent& event) {
      if (event.kind == AnswerEvent::Kind::kToken) tokens.push_back(event.token);
      if (event.kind == AnswerEvent::Kind::kFinished) finished.set_value(true);
      if (event.kind == AnswerEvent::Kind::kFailed) finished.set_value(false);
    });
    EXPECT_TRUE(finished.get_future().get());
    return tokens;
  };
  options_.max_tokens = 1;
  EXPECT_EQ(answer().size(), 1u);
  damage();
  options_.max_tokens = 20;
  EXPECT_EQ(answer(), expected_);
  EXPECT_GT(scheduler.stats().reused_tokens, 30u);
}

}  // namespace
}  // namespace quern
