// Two models side by side: the same numbers as one after the other, however the chunks are put together.
#include <gtest/gtest.h>

#include <atomic>
#include <random>

#include "runtime/perplexity.h"
#include "tests/support/models.h"

namespace quern {
namespace {

std::unique_ptr<Model> open(const std::string& type, uint64_t context) {
  ModelOptions options;
  options.context = context;
  options.n_threads = 2;
  return test::open_model(test::converted("tiny-mistral", type), options);
}

std::vector<int32_t> some_ids(size_t n) {
  std::mt19937 random(4);
  std::vector<int32_t> ids(n);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % 1000);
  return ids;
}

std::vector<double> flat(const KlStatistics& statistics) {
  const KlSummary s = statistics.summary(true);
  std::vector<double> all = statistics.kl();
  for (const double x : {s.perplexity.value, s.perplexity_base.value, s.p_diff_rms.value, s.same_top.value})
    all.push_back(x);
  return all;
}

TEST(Comparison, IsTheSameForAnyNumberOfChunksInAPass) {
  const auto model = open("q4_0", 40), base = open("bf16", 40);
  const std::vector<int32_t> ids = some_ids(5 * 40 + 7);
  std::vector<std::vector<double>> found;
  for (const uint64_t micro_batch : {512, 100, 39, 16}) {
    PerplexityOptions options;
    options.n_ctx = 40;
    options.micro_batch = micro_batch;
    std::vector<uint64_t> chunks;
    found.push_back(flat(compare_perplexity({*model, *base}, ids, options,
                                            [&](const ComparisonChunk& chunk) {
                                              chunks.push_back(chunk.chunk);
                                              EXPECT_EQ(chunk.n_chunks, 5u);
                                              EXPECT_GT(chunk.n_evaluated, chunk.chunk);
                                              EXPECT_EQ(chunk.statistics.count(), (chunk.chunk + 1) * 19);
                                            },
                                            {}, {})));
    EXPECT_EQ(chunks, (std::vector<uint64_t>{0, 1, 2, 3, 4}));
    EXPECT_EQ(found.back(), found.front()) << micro_batch;
  }
}

TEST(Comparison, HasThePerplexityOfEachAlone) {
  const auto model = open("q4_0", 64), base = open("bf16", 64);
  const std::vector<int32_t> ids = some_ids(4 * 64);
  PerplexityOptions options;
  options.n_ctx = 64;
  const KlSummary s = compare_perplexity({*model, *base}, ids, options, {}, {}, {}).summary(true);
  const PerplexityChunk alone = measure_perplexity(*model, ids, options, {}, {}, {}),
                        base_alone = measure_perplexity(*base, ids, options, {}, {}, {});
  EXPECT_EQ(s.count, alone.count);
  EXPECT_NEAR(s.perplexity.value / alone.perplexity, 1, 1e-6);
  EXPECT_NEAR(s.perplexity.error / alone.standard_error, 1, 1e-5);
  EXPECT_NEAR(s.perplexity_base.value / base_alone.perplexity, 1, 1e-6);
  EXPECT_GT(s.kl.value, 1e-4);
}

// The rows that go by are the base's, in the order of the text.
TEST(Comparison, ShowsTheBasesRows) {
  const auto model = open("q4_0", 32), base = open("bf16", 32);
  const std::vector<int32_t> ids = some_ids(4 * 32);
  PerplexityOptions options;
  options.n_ctx = 32;
  std::vector<float> compared, alone;
  options.on_row = [&](std::span<const float> z) { compared.insert(compared.end(), z.begin(), z.end()); };
  compare_perplexity({*model, *base}, ids, options, {}, {}, {});
  options.on_row = [&](std::span<const float> z) { alone.insert(alone.end(), z.begin(), z.end()); };
  measure_perplexity(*base, ids, options, {}, {}, {});
  EXPECT_EQ(compared, alone);
  EXPECT_EQ(alone.size(), 4u * 15 * base->hparams().vocab_size);
}

TEST(Comparison, WithItselfIsNothing) {
  const auto base = open("bf16", 128);
  const KlSummary s = compare_ids({*base, *base}, some_ids(100), {}, {}).summary(true);
  EXPECT_EQ(s.count, 99u);
  EXPECT_EQ(s.kl_max, 0);
  EXPECT_EQ(s.ratio.value, 1);
  EXPECT_EQ(s.same_top.value, 1);
}

TEST(Comparison, StopsWhereItIsAskedTo) {
  const auto model = open("q4_0", 32), base = open("bf16", 32);
  PerplexityOptions options;
  options.n_ctx = 32;
  options.micro_batch = 31;  // a chunk in a pass
  uint64_t chunks = 0;
  std::atomic<bool> stop = false;
  const auto on_chunk = [&](const ComparisonChunk&) { stop = ++chunks == 2; };
  const KlStatistics statistics =
      compare_perplexity({*model, *base}, some_ids(4 * 32), options, on_chunk, {}, stop);
  EXPECT_EQ(chunks, 2u);
  EXPECT_EQ(statistics.count(), 2u * 15);
}

}  // namespace
}  // namespace quern
