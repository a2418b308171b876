// Whole models against an independent float64 forward pass (tests/data/golden/logits.json).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "runtime/generate.h"
#include "runtime/perplexity.h"
#include "tests/support/json.h"
#include "tests/support/models.h"
#include "tests/support/paths.h"

namespace quern {
namespace {

using test::converted;
using test::Json;

Json golden(const std::string& model) {
  for (const Json& entry : Json::read(test::test_data("golden/logits.json")))
    if (entry["model"] == model) return entry;
  throw std::runtime_error("no golden entry for " + model);
}

struct GoldenCase {
  std::string model, type;
  KvType kv;
  double tolerance;  // of max(logits) - min(logits)
};

class GoldenLogits : public testing::TestWithParam<GoldenCase> {};

TEST_P(GoldenLogits, EqualTheFloat64Reference) {
  const GoldenCase& c = GetParam();
  const Json expected = golden(c.model);
  const auto ids = expected["ids"].get<std::vector<int32_t>>();
  const auto last = expected["last_logits"].get<std::vector<double>>();
  const auto nll = expected["nll"].get<std::vector<double>>();

  ModelOptions options;
  options.kv = c.kv;
  const auto model = test::open_model(converted(c.model, c.type), options);
  const size_t vocab = model->hparams().vocab_size;
  ASSERT_EQ(vocab, last.size());
  const std::vector<float> logits = test::all_logits(*model, ids, ids.size(), 512);

  const auto [low, high] = std::minmax_element(last.begin(), last.end());
  const double range = *high - *low;
  const double allowed = c.tolerance * range + 5e-7;  // the golden values have six decimals
  const float* row = logits.data() + (ids.size() - 1) * vocab;
  for (size_t i = 0; i < vocab; ++i) ASSERT_NEAR(row[i], last[i], allowed) << "logit " << i;
  for (size_t t = 0; t + 1 < ids.size(); ++t) {
    const std::span<const float> z(logits.data() + t * vocab, vocab);
    // A negative log-likelihood moves by at most twice what the logits move.
    const auto [z_low, z_high] = std::minmax_element(z.begin(), z.end());
    ASSERT_NEAR(negative_log_likelihood(model->kernels(), z, ids[t + 1]), nll[t],
                2 * c.tolerance * std::max<double>(range, *z_high - *z_low) + 5e-7)
        << "token " << t;
  }
}

std::vector<GoldenCase> golden_cases() {
  std::vector<GoldenCase> cases;
  for (const std::string& model : test::bundled_models())
    for (const char* type : {"f32", "bf16"}) {
      cases.push_back({model, type, KvType::kF32, 1e-5});
      cases.push_back({model, type, KvType::kF16, 5e-4});
    }
  return cases;
}

std::string case_name(const testing::TestParamInfo<GoldenCase>& info) {
  std::string name =
      info.param.model + "_" + info.param.type + (info.param.kv == KvType::kF32 ? "_kv_f32" : "_kv_f16");
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenLogits, testing::ValuesIn(golden_cases()), case_name);

class GoldenText : public testing::TestWithParam<std::string> {};

TEST_P(GoldenText, GreedyIdsAndTextAreTheReferences) {
  const Json expected = golden(GetParam());
  for (const char* type : {"f32", "bf16"}) {
    const auto model = test::open_model(converted(GetParam(), type), {});
    const std::vector<TokenId> prompt = model->tokenizer().encode_prompt(expected["text"].get<std::string>());
    ASSERT_EQ(prompt, expected["ids"].get<std::vector<int32_t>>());
    Session session(*model);
    CompletionOptions options;
    options.sampler.temperature = 0;
    options.max_tokens = 32;
    std::string text;
    const GenerateResult result =
        generate(session, prompt, options, [&](std::string_view piece) { text += piece; }, {}, {});
    EXPECT_EQ(result.tokens, expected["greedy_32"].get<std::vector<int32_t>>()) << type;
    // The reference decoded the completion alone, which costs the first piece its leading space.
    const std::string reference = expected["greedy_text"].get<std::string>();
    EXPECT_TRUE(text == reference || text == " " + reference) << text;
    EXPECT_EQ(result.reason, FinishReason::kMaxTokens);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenText, testing::Values("stories260k", "tiny-mistral"));

TEST(GoldenPerplexity, RunningValuesOfTinyMistral) {
  const Json expected = golden("tiny-mistral")["perplexity"];
  ModelOptions options;
  options.context = expected["n_ctx"].get<uint64_t>();
  const auto model = test::open_model(converted("tiny-mistral", "bf16"), options);
  std::ifstream file(test::test_data("tiny-mistral/test.txt"), std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), {});
  if (!text.empty() && text.back() == '\n') text.pop_back();
  const std::vector<TokenId> ids = model->tokenizer().encode_prompt(text);
  EXPECT_EQ(ids.size(), expected["tokens"].get<size_t>());

  PerplexityOptions perplexity;
  perplexity.n_ctx = options.context;
  perplexity.max_chunks = expected["chunks"].get<uint64_t>();
  const auto reference = expected["running"].get<std::vector<double>>();
  std::vector<double> running;
  uint64_t scored = 0;
  measure_perplexity(
      *model, ids, perplexity, [&](const PerplexityChunk& chunk) { running.push_back(chunk.perplexity); },
      [&](uint64_t, uint64_t position, int32_t, double) {
        EXPECT_GT(position, perplexity.n_ctx / 2);
        ++scored;
      },
      {});
  ASSERT_EQ(running.size(), reference.size());
  for (size_t i = 0; i < running.size(); ++i)
    EXPECT_NEAR(running[i], reference[i], 1e-3 * reference[i]) << "chunk " << i;
  EXPECT_EQ(scored, running.size() * (perplexity.n_ctx - 1 - perplexity.n_ctx / 2));
}

}  // namespace
}  // namespace quern
