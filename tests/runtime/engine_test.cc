// Many sequences in one pass: what each gets does not depend on the others.
#include "runtime/engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <thread>

#include "runtime/generate.h"
#include "tests/support/models.h"
#include "tests/support/paths.h"

namespace quern {
namespace {

std::unique_ptr<Model> open(const std::string& name, uint64_t context, int n_threads = 2,
                            const std::string& isa = "") {
  ModelOptions options;
  options.context = context;
  options.n_threads = n_threads;
  options.isa = isa;
  const std::vector<std::string>& bundled = test::bundled_models();
  const bool is_bundled = std::find(bundled.begin(), bundled.end(), name) != bundled.end();
  return test::open_model(
      is_bundled ? test::converted(name, "q4_0")
                 : test::converted_folder(test::unpacked_data("architectures") + "/" + name, "q8_0"),
      options);
}

// A sequence, and the logits of all that it was given.
struct Speaker {
  explicit Speaker(const Model& model) : sequence(model) {}
  Work say(std::span<const int32_t> ids) {
    return {&sequence, ids, ids.size(),
            [this](size_t, std::span<const float> z) { logits.insert(logits.end(), z.begin(), z.end()); }};
  }
  Sequence sequence;
  std::vector<float> logits;
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

class ManySequences : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Models, ManySequences,
                         testing::Values("random-window", "tiny-mistral", "stories260k", "qwen35", "gemma3",
                                         "deepseek2-lite", "gpt-oss"),
                         [](const auto& model) {
                           std::string name = model.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

// Behind the last attention only rows go on whose logits are wanted: the same bits.
TEST_P(ManySequences, RowsThatNobodyWantsEndEarly) {
  const auto model = open(GetParam(), 128);
  const std::vector<int32_t> ids = test::random_ids(*model, 40, 5), others = test::random_ids(*model, 23, 6);
  std::vector<float> logits[2];
  for (const bool all : {false, true}) {
    Engine engine(*model, 16);
    if (all) engine.finish_all_rows();
    Sequence a(*model), b(*model);
    const LogitsFn keep = [&](size_t, std::span<const float> z) {
      logits[all].insert(logits[all].end(), z.begin(), z.end());
    };
    const Work work[] = {{&a, ids, 3, keep}, {&b, others, 1, keep}};
    ASSERT_TRUE(engine.run(work));
    // Layers of these are not Decoder's, and take all rows through.
    const std::string name = GetParam();
    const bool takes_all = name == "qwen35" || name == "deepseek2-lite";
    EXPECT_EQ(engine.rows_dropped(), all || takes_all ? 0u : 59u);
  }
  EXPECT_EQ(logits[0].size(), 4 * model->hparams().vocab_size);
  EXPECT_TRUE(same_bits(logits[0], logits[1]));
}

// One to sixteen of unequal length, prompts and single steps mixed, in any order, in micro-batches that cut
// them anywhere.
TEST_P(ManySequences, GiveTheSameBitsAsEachAlone) {
  const auto model = open(GetParam(), 128);
  const size_t lengths[] = {70, 1, 33, 2, 90, 17, 5, 64, 3, 41, 8, 12, 1, 29, 65, 16};
  std::vector<std::vector<int32_t>> ids;
  std::vector<std::vector<float>> alone;
  for (size_t i = 0; i < std::size(lengths); ++i) {
    ids.push_back(test::random_ids(*model, lengths[i], static_cast<uint32_t>(i)));
    alone.push_back(test::all_logits(*model, ids[i], ids[i].size(), 512));
  }
  std::mt19937 random(3);
  for (const size_t micro_batch : {512, 50, 7})
    for (const size_t n : {1, 2, 3, 7, 16}) {
      Engine engine(*model, micro_batch);
      std::vector<size_t> order(std::size(lengths));
      for (size_t i = 0; i < order.size(); ++i) order[i] = i;
      std::shuffle(order.begin(), order.end(), random);
      order.resize(n);
      std::vector<std::unique_ptr<Speaker>> speakers(std::size(lengths));
      for (const size_t i : order) speakers[i] = std::make_unique<Speaker>(*model);
      // First some of each, then the rest, the other way round.
      std::vector<Work> work;
      for (const size_t i : order) work.push_back(speakers[i]->say(std::span(ids[i]).first(lengths[i] / 3)));
      ASSERT_TRUE(engine.run(work));
      std::reverse(order.begin(), order.end());
      work.clear();
      for (const size_t i : order)
        work.push_back(speakers[i]->say(std::span(ids[i]).subspan(lengths[i] / 3)));
      ASSERT_TRUE(engine.run(work));
      for (const size_t i : order) {
        EXPECT_TRUE(same_bits(speakers[i]->logits, alone[i])) << n << " sequences, number " << i;
        EXPECT_EQ(speakers[i]->sequence.tokens(), ids[i]);
      }
    }
}

TEST(Engine, GivesLogitsOfTheLastTokensOfEachOnly) {
  const auto model = open("tiny-mistral", 64);
  Engine engine(*model);
  Sequence a(*model), b(*model), c(*model);
  std::vector<std::pair<char, size_t>> seen;
  const auto note = [&](char name) {
    return [&seen, name](size_t index, std::span<const float>) { seen.emplace_back(name, index); };
  };
  const std::vector<int32_t> ids = test::random_ids(*model, 9, 1);
  const Work work[] = {
      {&a, ids, 2, note('a')}, {&b, ids, 0, {}}, {&c, std::span(ids).first(3), 7, note('c')}};
  engine.run(work);
  EXPECT_EQ(seen, (std::vector<std::pair<char, size_t>>{{'a', 7}, {'a', 8}, {'c', 0}, {'c', 1}, {'c', 2}}));
}

// A window's layers keep their last positions only: going back further evaluates again, to the same bits.
TEST(Engine, GoesBackToAnyPositionOfAWindow) {
  const auto model = open("random-window", 4096);
  const KvShape& shape = model->kv_shape();
  ASSERT_LT(shape.segments_of(shape.layers[0]) * kAttentionSegment, 4096u);
  const std::vector<int32_t> ids = test::random_ids(*model, 2300, 5), more = test::random_ids(*model, 20, 6);
  Engine engine(*model);
  Speaker used(*model);
  const Work first = used.say(ids);
  ASSERT_TRUE(engine.run({&first, 1}));
  for (const size_t position : {2290, 2200, 1540, 800, 3}) {
    used.sequence.truncate(position);
    EXPECT_EQ(used.sequence.position(), position);
    used.logits.clear();
    const Work again = used.say(more);
    ASSERT_TRUE(engine.run({&again, 1}));
    EXPECT_EQ(used.sequence.position(), position + more.size());

    Speaker fresh(*model);
    const Work prefix{&fresh.sequence, std::span(ids).first(position), 0, {}};
    ASSERT_TRUE(engine.run({&prefix, 1}));
    const Work rest = fresh.say(more);
    ASSERT_TRUE(engine.run({&rest, 1}));
    EXPECT_TRUE(same_bits(used.logits, fresh.logits)) << position;
  }
}

// Beside logits of another sequence in the same pass, and in micro-batches that cut both.
TEST(Engine, StatesAreWhatLogitsAreTheProductsOf) {
  ModelOptions options;
  options.context = 128;
  const auto model = test::open_model(test::converted("stories260k", "f32"), options);
  const TensorView& output = *model->gguf().find_tensor("output.weight");
  const size_t dim = model->hparams().dim;
  const std::vector<int32_t> ids = test::random_ids(*model, 70, 5), others = test::random_ids(*model, 41, 6);
  const std::vector<float> expected = test::all_logits(*model, ids, ids.size(), 512),
                           expected_of_others = test::all_logits(*model, others, others.size(), 512);
  for (const size_t micro_batch : {512, 33}) {
    Engine engine(*model, micro_batch);
    Sequence sequence(*model);
    Speaker other(*model);
    std::vector<float> logits;
    const Work work[] = {{&sequence, ids, ids.size(),
                          [&](size_t index, std::span<const float> state) {
                            ASSERT_EQ(state.size(), dim);
                            ASSERT_EQ(index, logits.size() / output.rows());
                            for (size_t r = 0; r < output.rows(); ++r) {
                              float acc = 0;  // arithmetic.md, "Dot product, float weights"
                              for (size_t k = 0; k < dim; ++k) {
                                float w;
                                std::memcpy(&w, output.data + (r * dim + k) * sizeof w, sizeof w);
                                acc = std::fma(w, state[k], acc);
                              }
                              logits.push_back(acc);
                            }
                          },
                          RowValues::kStates},
                         other.say(others)};
    ASSERT_TRUE(engine.run(work));
    EXPECT_TRUE(same_bits(logits, expected)) << micro_batch;
    EXPECT_TRUE(same_bits(other.logits, expected_of_others)) << micro_batch;
  }
}

TEST(Engine, ServesSeveralThreadsWithSessionsOfOneModel) {
  const auto model = open("tiny-mistral", 128);
  const std::vector<int32_t> ids = test::random_ids(*model, 100, 8);
  const std::vector<float> expected = test::all_logits(*model, ids, ids.size(), 512);
  std::vector<std::vector<float>> found(4);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < found.size(); ++i)
    threads.emplace_back([&, i] { found[i] = test::all_logits(*model, ids, 1 + 13 * i, 64); });
  for (std::thread& thread : threads) thread.join();
  for (const std::vector<float>& logits : found) EXPECT_TRUE(same_bits(logits, expected));
}

TEST(Engine, RefusesWorkThatDoesNotFitBeforeAnythingIsEvaluated) {
  const auto model = open("tiny-mistral", 16);
  Engine engine(*model);
  Sequence a(*model), b(*model);
  const std::vector<int32_t> few = test::random_ids(*model, 4, 1), many = test::random_ids(*model, 17, 1);
  const Work work[] = {{&a, few, 0, {}}, {&b, many, 0, {}}};
  EXPECT_THROW(engine.run(work), Error);
  EXPECT_EQ(a.position(), 0u);
}

// As a server drives them: whoever has a token to evaluate takes part in the next pass.
TEST(Completions, OfSeveralSequencesTogetherAreThoseOfEachAlone) {
  const auto model = open("tiny-mistral", 96);
  struct Talk {
    std::vector<int32_t> prompt;
    CompletionOptions options;
    GenerateResult alone;
    std::unique_ptr<Completion> completion;
    std::unique_ptr<Sequence> sequence;
    std::vector<int32_t> next;
    std::string text;
  };
  std::vector<Talk> talks(5);
  for (size_t i = 0; i < talks.size(); ++i) {
    Talk& talk = talks[i];
    talk.prompt = test::random_ids(*model, 1 + 17 * i, static_cast<uint32_t>(i));
    talk.options.sampler.seed = i;
    talk.options.max_tokens = static_cast<int64_t>(60 - 10 * i);
    talk.options.stop = {"the"};
    Session session(*model);
    talk.alone = generate(session, talk.prompt, talk.options, [](std::string_view) {}, {}, {});
    talk.completion =
        std::make_unique<Completion>(&model->tokenizer(), true, talk.prompt, model->context(), talk.options);
    talk.sequence = std::make_unique<Sequence>(*model);
  }
  Engine engine(*model, 20);
  while (true) {
    std::vector<Work> work;
    for (Talk& talk : talks) {
      if (talk.completion->finished()) continue;
      talk.next.assign(talk.completion->pending().begin(), talk.completion->pending().end());
      work.push_back({talk.sequence.get(), talk.next, 1, [&talk](size_t, std::span<const float> z) {
                        talk.text += talk.completion->feed(z).text;
                      }});
    }
    if (work.empty()) break;
    ASSERT_TRUE(engine.run(work));
  }
  for (const Talk& talk : talks) {
    EXPECT_TRUE(std::ranges::equal(talk.completion->tokens(), talk.alone.tokens));
    EXPECT_EQ(talk.completion->reason(), talk.alone.reason);
    EXPECT_EQ(talk.text, talk.alone.text);
  }
}

// A pass holds the device: another one inside of it would wait for ever.
TEST(Callbacks, FindTheDeviceFree) {
  const auto model = open("tiny-mistral", 128);
  const std::vector<int32_t> ids = test::random_ids(*model, 70, 1);
  const std::vector<float> expected = test::all_logits(*model, ids, ids.size(), 512);
  Session outer(*model, 32), inner(*model), other(*model);
  std::vector<float> logits, inner_logits;
  std::vector<size_t> positions;
  const auto on_micro_batch = [&] {
    positions.push_back(outer.position());
    other.eval({&ids[0], 1});
  };
  outer.eval(ids, ids.size(),
             [&](size_t index, std::span<const float> z) {
               logits.insert(logits.end(), z.begin(), z.end());
               inner.eval({&ids[index], 1}, 1, [&](size_t, std::span<const float> row) {
                 inner_logits.insert(inner_logits.end(), row.begin(), row.end());
               });
             },
             {.on_micro_batch = on_micro_batch});
  EXPECT_EQ(positions, (std::vector<size_t>{0, 32, 64, 70}));
  EXPECT_TRUE(same_bits(logits, expected));
  EXPECT_TRUE(same_bits(inner_logits, expected));
}

}  // namespace
}  // namespace quern
