#include "runtime/session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

#include "kernels/cpu_device.h"
#include "runtime/generate.h"
#include "runtime/memory_plan.h"
#include "tests/support/models.h"
#include "tests/support/paths.h"

namespace quern {
namespace {

std::unique_ptr<Model> tiny(uint64_t context = 64, int n_threads = 2) {
  ModelOptions options;
  options.context = context;
  options.n_threads = n_threads;
  return test::open_model(test::converted("tiny-mistral", "q4_0"), options);
}

std::vector<float> logits_after(Session& session, const std::vector<int32_t>& ids) {
  const std::span<const float> z = session.eval(ids);
  return {z.begin(), z.end()};
}

template <class F>
Error error_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "nothing was thrown";
  return Error(ErrorCode::kIo, "nothing was thrown");
}

TEST(Session, ForgetsWhatIsTruncated) {
  const auto model = tiny();
  Session fresh(*model), used(*model);
  const std::vector<float> expected = logits_after(fresh, {1, 20, 30, 40});
  logits_after(used, {1, 20, 99, 98, 97});
  used.truncate(2);
  EXPECT_EQ(logits_after(used, {30, 40}), expected);
}

// With one thread a model, as TSan can follow, and with two.
TEST(Session, MayBeUsedWhileAnotherThreadUsesOneOfTheSameModel) {
  for (const int n_threads : {1, 2}) {
    ModelOptions options;
    options.context = 64;
    options.n_threads = n_threads;
    const auto model = test::open_model(test::converted("tiny-mistral", "q4_0"), options);
    const auto logits_of = [&](int32_t first) {
      Session session(*model, 8);
      std::vector<float> all;
      const auto keep = [&](size_t, std::span<const float> z) { all.insert(all.end(), z.begin(), z.end()); };
      for (int32_t round = 0; round < 4; ++round) {
        std::vector<int32_t> ids(12);
        for (size_t i = 0; i < ids.size(); ++i)
          ids[i] = (first + round * 31 + static_cast<int32_t>(i) * 7) % 1000;
        session.eval(ids, ids.size(), keep);
      }
      return all;
    };
    constexpr int32_t kFirst[] = {3, 500};
    std::vector<float> expected[2], found[2];
    for (size_t i = 0; i < 2; ++i) expected[i] = logits_of(kFirst[i]);
    EXPECT_NE(expected[0], expected[1]);
    for (int round = 0; round < 5; ++round) {
      std::thread other([&] { found[1] = logits_of(kFirst[1]); });
      found[0] = logits_of(kFirst[0]);
      other.join();
      EXPECT_TRUE(found[0] == expected[0] && found[1] == expected[1]) << n_threads << " threads";
    }
  }
}

// Each pass gives the other thread time to begin one beside it.
TEST(Session, PassesOfTwoThreadsFollowOneAnother) {
  const auto model = tiny(64, 1);
  std::atomic<bool> inside{false}, met{false};
  const auto in_the_pass = [&](const DeviceMatrix&, std::span<const float* const>) {
    if (inside.exchange(true)) met = true;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
    inside = false;
  };
  observe_products(model->device(), in_the_pass);
  const auto evaluate = [&] {
    Session session(*model);
    for (int32_t token = 1; token <= 20; ++token) logits_after(session, {token});
  };
  std::thread other(evaluate);
  evaluate();
  other.join();
  EXPECT_FALSE(met);
}

TEST(Session, ReusesTheLongestCommonPrefixButLeavesOneToken) {
  const auto model = tiny();
  Session session(*model);
  logits_after(session, {1, 20, 30, 40});
  EXPECT_EQ(session.reuse_prefix(std::vector<int32_t>{1, 20, 31, 41}), 2u);
  EXPECT_EQ(session.position(), 2u);
  logits_after(session, {31, 41});
  EXPECT_EQ(session.reuse_prefix(std::vector<int32_t>{1, 20, 31, 41}), 3u);
}

TEST(Session, RefusesMoreTokensThanTheContextHolds) {
  const auto model = tiny(8);
  Session session(*model);
  logits_after(session, {1, 2, 3, 4, 5});
  const Error e = error_of([&] { logits_after(session, {1, 2, 3, 4}); });
  EXPECT_EQ(e.code(), ErrorCode::kResource);
  EXPECT_EQ(session.position(), 5u);
  logits_after(session, {6, 7, 8});
  EXPECT_EQ(session.position(), 8u);
}

TEST(Session, RefusesIdsOutsideTheVocabulary) {
  const auto model = tiny();
  Session session(*model);
  EXPECT_EQ(error_of([&] { logits_after(session, {1, 1024}); }).code(), ErrorCode::kUsage);
  EXPECT_EQ(error_of([&] { logits_after(session, {-1}); }).code(), ErrorCode::kUsage);
}

TEST(Session, StopLeavesOnlyFinishedMicroBatches) {
  const auto model = tiny();
  Session session(*model, 4);
  std::atomic<bool> stop = false;
  std::vector<size_t> positions;
  size_t n_products = 0;  // of the second micro-batch, the first of which stops it
  observe_products(model->device(), [&](const DeviceMatrix&, std::span<const float* const>) {
    if (positions.size() < 2) return;
    stop = true;
    ++n_products;
  });
  const std::vector<int32_t> ids(12, 5);
  const bool finished =
      session.eval(ids, 1, [](size_t, std::span<const float>) { FAIL(); },
                   {.stop = stop, .on_micro_batch = [&] { positions.push_back(session.position()); }});
  EXPECT_FALSE(finished);
  EXPECT_EQ(session.position(), 4u);
  EXPECT_EQ(positions, (std::vector<size_t>{0, 4}));
  ASSERT_GT(model->hparams().n_layers, 1u);
  EXPECT_EQ(n_products, 7u) << "those of the first layer";
}

TEST(Generate, RefusesAPromptThatLeavesNoRoomNamingBothNumbers) {
  const auto model = tiny(8);
  Session session(*model);
  const std::vector<int32_t> prompt(8, 5);
  const Error e = error_of([&] { generate(session, prompt, {}, {}, {}, {}); });
  EXPECT_EQ(e.code(), ErrorCode::kResource);
  EXPECT_NE(std::string(e.what()).find("8 tokens"), std::string::npos);
}

TEST(Generate, StopsWhenTheContextIsFull) {
  const auto model = tiny(8);
  Session session(*model);
  CompletionOptions options;
  options.sampler.temperature = 0;
  options.ignore_eos = true;
  options.max_tokens = -1;
  const std::vector<int32_t> prompt(5, 5);
  const GenerateResult result = generate(session, prompt, options, {}, {}, {});
  EXPECT_EQ(result.reason, FinishReason::kContextFull);
  EXPECT_EQ(result.tokens.size(), 4u);  // three are evaluated, the last one only picked
}

TEST(Generate, StopTextIsNotEmittedNorWhatFollows) {
  const auto model = tiny(256);
  const std::vector<int32_t> prompt = model->tokenizer().encode_prompt("ROMEO:\nBut, soft! what light");
  CompletionOptions options;
  options.sampler.temperature = 0;
  options.max_tokens = 60;
  const auto run = [&] {
    Session session(*model);
    std::string text;
    GenerateResult result =
        generate(session, prompt, options, [&](std::string_view piece) { text += piece; }, {}, {});
    EXPECT_EQ(text, result.text);
    return result;
  };
  const std::string whole = run().text;
  ASSERT_GT(whole.size(), 20u);
  const std::string stop = whole.substr(10, 5);
  options.stop = {stop, "a text that never comes"};
  const GenerateResult cut = run();
  EXPECT_EQ(cut.reason, FinishReason::kStopText);
  EXPECT_EQ(cut.text, whole.substr(0, whole.find(stop)));
}

TEST(Generate, SameSeedGivesTheSameTokens) {
  const auto model = tiny(256);
  CompletionOptions options;
  options.sampler.seed = 5;
  const std::vector<int32_t> prompt{1, 30, 40};
  const auto run = [&] {
    Session session(*model);
    return generate(session, prompt, options, {}, {}, {}).tokens;
  };
  const std::vector<int32_t> first = run();
  EXPECT_EQ(run(), first);
  options.sampler.seed = 6;
  EXPECT_NE(run(), first);
}

TEST(MemoryPlan, NamesTheContextThatWouldFit) {
  const auto session_bytes = [](uint64_t context) { return context * 1000 + 5000; };
  const MemoryPlan plan{.weights = 100000, .kv = 4096000, .scratch = 5000};
  EXPECT_NO_THROW(require_memory(plan, plan.total(), 4096, "--ctx", session_bytes));
  const Error e = error_of([&] { require_memory(plan, 105000 + 700 * 1000, 4096, "--ctx", session_bytes); });
  EXPECT_EQ(e.code(), ErrorCode::kResource);
  EXPECT_NE(std::string(e.what()).find("--ctx 640 would fit"), std::string::npos) << e.what();
  const Error none = error_of([&] { require_memory(plan, 50000, 4096, "--ctx", session_bytes); });
  EXPECT_NE(std::string(none.what()).find("no context fits"), std::string::npos) << none.what();
}

TEST(MemoryPlan, SessionMemoryGrowsWithTheCache) {
  const auto model = tiny();
  const HParams& h = model->hparams();
  const auto bytes = [&](uint64_t context, KvType kv) {
    KvShape shape = model->kv_shape();
    shape.capacity = context;
    shape.type = kv;
    return model->device().kv_bytes(shape);
  };
  const uint64_t values = uint64_t{512} * h.n_layers * 2 * h.n_kv_heads * h.head_dim;
  EXPECT_EQ(bytes(1024, KvType::kF16) - bytes(512, KvType::kF16), values * 2);
  EXPECT_EQ(bytes(1024, KvType::kF32) - bytes(512, KvType::kF32), values * 4);
  EXPECT_EQ(bytes(1024, KvType::kQ8_0) - bytes(512, KvType::kQ8_0), values * 34 / 32);
}

TEST(MemoryPlan, ScratchHoldsTheActivationsOfAMicroBatch) {
  const auto model = tiny();
  const HParams& h = model->hparams();
  const auto more_threads = tiny(64, 3);
  const auto scratch = [&](uint64_t context, size_t micro_batch, int n_threads) {
    const Device& device = n_threads == 3 ? more_threads->device() : model->device();
    return Engine::scratch_bytes(device, model->network(), model->parts(), context, micro_batch);
  };
  // x, its norm, q, k, v, the attention's output, gate and up; 32 rows of logits.
  const uint64_t token = 2 * h.dim + 2 * 4 * 64 + 2 * 2 * 64 + 2 * h.hidden_dim;
  const uint64_t least = (512 * token + 32 * h.vocab_size) * sizeof(float);
  EXPECT_GT(scratch(512, 512, 2), least);
  EXPECT_LT(scratch(512, 512, 2), 2 * least);
  EXPECT_GE(scratch(512, 512, 2) - scratch(512, 256, 2), 256 * token * sizeof(float));
  EXPECT_GT(scratch(1024, 512, 2), scratch(512, 512, 2));  // parts of two segments, until they are merged
  EXPECT_GT(scratch(512, 512, 3), scratch(512, 512, 2));
  EXPECT_EQ(scratch(64, 512, 2), scratch(64, 64, 2));  // no more tokens than positions
}

TEST(KvTypes, Q8_0IsRefusedWhereHeadsAreNotMultiplesOf32) {
  ModelOptions options;
  options.kv = KvType::kQ8_0;
  const Error e = error_of([&] { test::open_model(test::converted("stories260k", "q8_0"), options); });
  EXPECT_EQ(e.code(), ErrorCode::kUsage);
  EXPECT_STREQ(
      e.what(),
      "--kv q8_0: needs heads whose dimension is a multiple of 32, this model's is 8; --kv f16 works");
}

// tiny-mistral: 3 layers of dim 256, 4 heads of 64 on 2 KV heads, hidden 512, 1024 tokens.
TEST(Model, CountsTheWorkOfATokenOnce) {
  const auto model = tiny();
  const uint64_t layer = 2 * 256 * 256 + 2 * 128 * 256 + 3 * 512 * 256;
  EXPECT_EQ(model->macs_per_token(), 3 * layer);
  EXPECT_EQ(model->macs_per_dropped_row(), 3u * 512 * 256);
  EXPECT_EQ(model->bytes_per_token(), 3 * layer / 32 * 18 + model->network().output_matrix().bytes());
}

// Of a stack of experts too, which can be gigabytes.
TEST(Model, TellsOfEachMatrixThatIsLoaded) {
  std::vector<uint64_t> told;
  uint64_t total = 0;
  ModelOptions options;
  options.context = 32;
  options.on_progress = [&](uint64_t done, uint64_t all) {
    told.push_back(done);
    total = all;
  };
  const auto model = test::open_model(
      test::converted_folder(test::unpacked_data("architectures/qwen3-moe"), "q8_0"), options);
  size_t n_matrices = 0, n_stacks = 0;
  for (const TensorDeclaration& tensor : model->parts().tensors()) {
    if (!tensor.is_matrix() || tensor.optional) continue;
    n_matrices += tensor.experts != nullptr ? tensor.shape[0] : tensor.parts.size();
    n_stacks += tensor.experts != nullptr ? 1 : 0;
  }
  ASSERT_GT(n_stacks, 0u);
  EXPECT_GE(told.size(), n_matrices);  // and the optional ones
  EXPECT_EQ(std::adjacent_find(told.begin(), told.end(), std::greater_equal<>()), told.end());
  EXPECT_EQ(told.front(), 0u);
  EXPECT_LT(told.back(), total);
}

TEST(Device, CountsAttentionOfEveryLayer) {
  const auto model = tiny();
  Session session(*model);
  const DeviceTimes before = model->device().times();
  logits_after(session, {1, 20, 30});
  const DeviceTimes after = model->device().times();
  EXPECT_GT(after.attention_seconds, before.attention_seconds);
  EXPECT_EQ(after.attention_kv_bytes - before.attention_kv_bytes, 3u * 3 * 2 * 2 * 64 * 2);
  EXPECT_EQ(after.attention_macs - before.attention_macs, 3u * (1 + 2 + 3) * 4 * 2 * 64);
}

}  // namespace
}  // namespace quern
