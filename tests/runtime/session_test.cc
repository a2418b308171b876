#include "runtime/session.h"

#include <gtest/gtest.h>

#include "runtime/generate.h"
#include "runtime/memory_plan.h"
#include "tests/support/models.h"

namespace quern {
namespace {

std::unique_ptr<Model> tiny(uint64_t context = 64) {
  ModelOptions options;
  options.context = context;
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
  return Error(ErrorCode::kUsage, "nothing was thrown");
}

TEST(Session, ForgetsWhatIsTruncated) {
  const auto model = tiny();
  Session fresh(*model), used(*model);
  const std::vector<float> expected = logits_after(fresh, {1, 20, 30, 40});
  logits_after(used, {1, 20, 99, 98, 97});
  used.truncate(2);
  EXPECT_EQ(logits_after(used, {30, 40}), expected);
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
  const size_t layers = model->hparams().n_layers;
  size_t polls = 0;
  const std::vector<int32_t> ids(12, 5);
  const bool finished = session.eval(
      ids, 1, [](size_t, std::span<const float>) {}, [&] { return ++polls > layers + 1; });
  EXPECT_FALSE(finished);
  EXPECT_EQ(session.position(), 4u);
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
  GenerateOptions options;
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
  GenerateOptions options;
  options.sampler.temperature = 0;
  options.max_tokens = 60;
  const auto run = [&] {
    Session session(*model);
    std::string text;
    const GenerateResult result =
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
  GenerateOptions options;
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
  const auto bytes = [&h](uint64_t context, KvType kv) { return Session::kv_shape(h, context, kv).bytes(); };
  const uint64_t values = uint64_t{512} * h.n_layers * 2 * h.n_kv_heads * h.head_dim;
  EXPECT_EQ(bytes(1024, KvType::kF16) - bytes(512, KvType::kF16), values * 2);
  EXPECT_EQ(bytes(1024, KvType::kF32) - bytes(512, KvType::kF32), values * 4);
  EXPECT_EQ(bytes(1024, KvType::kQ8_0) - bytes(512, KvType::kQ8_0), values * 34 / 32);
  EXPECT_GE(Session::scratch_memory(h, 1024, 512, 2), Session::scratch_memory(h, 512, 512, 2));
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
  EXPECT_EQ(model->bytes_per_token(), 3 * layer / 32 * 18 + model->output_matrix().bytes());
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
