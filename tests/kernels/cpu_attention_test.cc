// Attention's scheduling and cache: the same bits for any number of threads, wherever segments and blocks of
// tokens begin and end.
#include "kernels/cpu_attention.h"
#include "tests/kernels/kv_memory.h"
#include "tests/support/resident_memory.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace quern {
namespace {

using test::kKvTypes;
using test::kv_name;
using test::random_values;
using test::same_bits;
using test::Values;

struct Layout {
  size_t n_heads, n_kv_heads, head_dim;
  AttentionShape shape(size_t window) const { return {n_heads, n_kv_heads, head_dim, window}; }
};

// A cache of two layers whose second holds the keys [first_key, n_keys), the rest what is no number (before
// first_key: nothing, so that its memory stays untouched).
CpuKvCache filled_cache(const Layout& layout, KvType type, size_t capacity, size_t n_keys,
                        size_t first_key = 0) {
  CpuKvCache cache(test::same_layers(2, layout.n_kv_heads, layout.head_dim, capacity, type));
  for (size_t h = 0; h < layout.n_kv_heads; ++h)
    for (size_t position = first_key; position < capacity; ++position) {
      const auto seed = static_cast<uint32_t>(position * 31 + h);
      std::vector<float> k = random_values(layout.head_dim, Values::kNormal, seed);
      std::vector<float> v = random_values(layout.head_dim, Values::kNormal, seed + 1000000);
      if (position >= n_keys) k.assign(k.size(), std::numeric_limits<float>::quiet_NaN());
      test::reference_set().store_kv({k.data(), v.data(), layout.head_dim, position, type, cache.head(1, h)});
    }
  return cache;
}

std::vector<float> attend(const KernelSet& set, int n_threads, const Layout& layout, CpuKvCache& cache,
                          size_t window, size_t position, const std::vector<float>& q) {
  std::vector<float> out(q.size());
  ThreadPool pool(n_threads);
  const SequenceRows rows{&cache, position, 0, q.size() / (layout.n_heads * layout.head_dim)};
  CpuAttention(set, pool).attend(layout.shape(window), 1, {&rows, 1}, q.data(), out.data());
  return out;
}

TEST(CpuAttention, HasTheSameBitsForAnyThreadsSetAndCut) {
  constexpr Layout kLayouts[] = {{2, 2, 32}, {4, 1, 32}, {5, 1, 64}};
  for (const Layout& layout : kLayouts)
    for (const KvType type : kKvTypes) {
      CpuKvCache cache = filled_cache(layout, type, 1600, 1560);
      for (const size_t window : {0, 40, 700})
        for (const size_t n : {1, 3, 30}) {
          const size_t row = layout.n_heads * layout.head_dim;
          const std::vector<float> q = random_values(n * row, Values::kNormal, 3);
          for (const size_t position : {size_t{0}, 500 - n / 2, 1024 - n / 2, 1560 - n}) {
            // The reference on one thread, a token at a time where that is cheap.
            std::vector<float> expected;
            for (size_t t = 0; t < n; t += n < 20 ? 1 : n) {
              const size_t count = n < 20 ? 1 : n;
              const std::vector<float> part(q.begin() + t * row, q.begin() + (t + count) * row);
              const std::vector<float> out =
                  attend(test::reference_set(), 1, layout, cache, window, position + t, part);
              expected.insert(expected.end(), out.begin(), out.end());
            }
            for (const KernelSet* set : test::supported_sets()) {
              if (set == &test::reference_set() && n > 3) continue;
              for (int n_threads = QUERN_SANITIZED ? 3 : 1; n_threads <= 4; ++n_threads)
                ASSERT_TRUE(same_bits(attend(*set, n_threads, layout, cache, window, position, q), expected))
                    << set->name << " " << kv_name(type) << " threads " << n_threads << " tokens " << n
                    << " position " << position << " window " << window;
            }
          }
        }
    }
}

// Rows [begin, begin + n) of q.
std::vector<float> rows(const std::vector<float>& q, size_t row, size_t begin, size_t n) {
  return {q.begin() + begin * row, q.begin() + (begin + n) * row};
}

class DeepAttention : public testing::TestWithParam<KvType> {};
INSTANTIATE_TEST_SUITE_P(KvTypes, DeepAttention, testing::ValuesIn(kKvTypes),
                         [](const auto& type) { return kv_name(type.param); });

// Six tokens on both sides of an edge of tiles (64 keys) or of segments (512), at either end of what they
// see.
TEST_P(DeepAttention, HasTheSameBitsAcrossEdgesFarFromTheStart) {
  constexpr Layout kLayout{3, 1, 32};
  constexpr size_t kRow = 3 * 32, kTokens = 6;
  CpuKvCache cache = filled_cache(kLayout, GetParam(), 32896, 32837);
  const std::vector<float> q = random_values(kTokens * kRow, Values::kNormal, 21);
  for (const size_t position : {8189, 8253, 32765, 32829})
    for (const size_t window : {0, 130, 4097}) {
      std::vector<std::vector<float>> alone;
      std::vector<float> expected;
      for (size_t t = 0; t < kTokens; ++t) {
        alone.push_back(
            attend(test::reference_set(), 1, kLayout, cache, window, position + t, rows(q, kRow, t, 1)));
        expected.insert(expected.end(), alone[t].begin(), alone[t].end());
      }
      for (const KernelSet* set : test::supported_sets()) {
        const bool slow = set == &test::reference_set();
        for (const int n_threads : {1, 2, 3}) {
          if (slow && n_threads == 1) continue;
          const std::string where =
              fmt::format("{}, threads {}, position {}, window {}", set->name, n_threads, position, window);
          for (size_t t = 0; t < kTokens; t += slow ? kTokens - 1 : 1)
            ASSERT_TRUE(same_bits(
                attend(*set, n_threads, kLayout, cache, window, position + t, rows(q, kRow, t, 1)), alone[t]))
                << where << ", token " << t;
          if (slow && n_threads == 2) continue;
          ASSERT_TRUE(same_bits(attend(*set, n_threads, kLayout, cache, window, position, q), expected))
              << where;
        }
      }
    }
}

// More tokens than a block takes, on both sides of 8192 and 32768. The reference does some of them.
TEST_P(DeepAttention, HasTheSameBitsForMoreTokensThanABlockTakes) {
  constexpr Layout kLayout{4, 1, 32};
  constexpr size_t kRow = 4 * 32, kTokens = 130;
  CpuKvCache cache = filled_cache(kLayout, GetParam(), 32896, 32833);
  const std::vector<float> q = random_values(kTokens * kRow, Values::kNormal, 22);
  for (const size_t position : {8127, 32703})
    for (const size_t window : {0, 4097}) {
      std::vector<float> first;
      for (const KernelSet* set : test::supported_sets()) {
        if (set == &test::reference_set()) continue;
        for (const int n_threads : {1, 2, 3}) {
          const std::vector<float> out = attend(*set, n_threads, kLayout, cache, window, position, q);
          if (first.empty()) first = out;
          ASSERT_TRUE(same_bits(out, first))
              << set->name << " threads " << n_threads << " position " << position << " window " << window;
        }
      }
      if (first.empty()) GTEST_SKIP() << "nothing to compare the reference with";
      for (const size_t t : {size_t{0}, size_t{64}, size_t{65}, kTokens - 1})
        ASSERT_TRUE(same_bits(
            attend(test::reference_set(), 1, kLayout, cache, window, position + t, rows(q, kRow, t, 1)),
            rows(first, kRow, t, 1)))
            << "token " << t << " position " << position << " window " << window;
    }
}

// Whole segments become items of work of their own as long as the parts that they leave fit a limit. A job of
// many tokens that see few keys leaves many parts and costs the reference little.
TEST_P(DeepAttention, HasTheSameBitsOnBothSidesOfTheLimitOfParts) {
  constexpr Layout kLayout{2, 2, 256};
  constexpr size_t kRow = 2 * 256, kWindow = 20, kEnd = 32768 + 100;
  constexpr int kThreads = 3;
  constexpr struct {
    size_t n_tokens, n_segments;
    bool below;
  } kJobs[] = {{700, 3, true}, {2200, 6, false}};
  CpuKvCache cache = filled_cache(kLayout, GetParam(), kEnd + 30, kEnd, kEnd - 2400);
  for (const auto& job : kJobs) {
    const auto planned = [&](size_t n_segments) {
      return CpuAttention::scratch_bytes(kLayout.shape(kWindow), n_segments * kAttentionSegment, job.n_tokens,
                                         kThreads);
    };
    // The plan reckons with 48 groups of rows, the most that are cut; the larger job has 46.
    ASSERT_EQ(planned(job.n_segments - (job.below ? 0 : 1)) < planned(1000), job.below)
        << "the limit has moved: choose other jobs";
    const size_t position = kEnd - job.n_tokens;
    const std::vector<float> q = random_values(job.n_tokens * kRow, Values::kNormal, 23);
    const std::vector<float> expected =
        attend(test::reference_set(), 1, kLayout, cache, kWindow, position, q);
    for (const KernelSet* set : test::supported_sets())
      for (const int n_threads : {1, 2, kThreads})
        ASSERT_TRUE(same_bits(attend(*set, n_threads, kLayout, cache, kWindow, position, q), expected))
            << set->name << " threads " << n_threads << " tokens " << job.n_tokens;
  }
}

TEST(CpuAttention, PlansAtLeastTheScratchOfEverySingleCall) {
  const Layout layout{32, 8, 128};
  const uint64_t planned = CpuAttention::scratch_bytes(layout.shape(0), 32768, 512, 2);
  EXPECT_GE(planned, 2 * 96 * (4 * 128 + 64) * sizeof(float));
  EXPECT_LT(planned, uint64_t{20} << 20);
  EXPECT_LT(CpuAttention::scratch_bytes(layout.shape(0), 512, 512, 2), uint64_t{1} << 20);
}

TEST(CpuKvCache, KeepsHeadsAndLayersApart) {
  for (const KvType type : kKvTypes) {
    constexpr size_t kLayers = 3, kHeads = 2, kHeadDim = 32, kCapacity = 600;
    CpuKvCache cache(test::same_layers(kLayers, kHeads, kHeadDim, kCapacity, type));
    // Every position of every head gets a value of its own, and keeps it.
    const auto value = [](size_t layer, size_t head, size_t position) {
      return static_cast<float>(1 + layer + 3 * head + 6 * (position % 300));
    };
    for (size_t layer = 0; layer < kLayers; ++layer)
      for (size_t head = 0; head < kHeads; ++head)
        for (size_t position = 0; position < kCapacity; ++position) {
          const std::vector<float> x(kHeadDim, value(layer, head, position));
          test::reference_set().store_kv(
              {x.data(), x.data(), kHeadDim, position, type, cache.head(layer, head)});
        }
    const std::vector<float> q(kHeadDim, 1);
    for (size_t layer = 0; layer < kLayers; ++layer)
      for (size_t head = 0; head < kHeads; ++head)
        for (size_t position = 0; position < kCapacity; position += 7) {
          // Attention to one key gives its value.
          std::vector<float> out(kHeadDim), scratch(attention_scratch_floats(1, kHeadDim)),
              part(attention_part_floats(1, kHeadDim)), total(part.size());
          const AttentionArgs args{
              q.data(),       kHeadDim,   1,       1, kHeadDim, type, cache.head(layer, head), position, 1, 1,
              scratch.data(), out.data(), kHeadDim};
          test::reference_set().attend_segment(args, position / kAttentionSegment, part.data());
          test::reference_set().merge_segment(args, position / kAttentionSegment, part.data(), total.data());
          ASSERT_NEAR(out[0], value(layer, head, position), 0.001 * out[0])
              << kv_name(type) << " " << layer << " " << head << " " << position;
        }
  }
}

TEST(CpuKvCache, TakesMemoryForThePagesThatAreReached) {
  // 32k positions: 512 MiB, 8 MiB a segment.
  constexpr size_t kLayers = 4, kHeads = 8, kHeadDim = 128, kCapacity = 32768;
  const KvShape shape = test::same_layers(kLayers, kHeads, kHeadDim, kCapacity, KvType::kF16);
  const uint64_t segment_bytes = shape.bytes() / (kCapacity / kAttentionSegment);
  CpuKvCache cache(shape);
  const std::vector<float> x(kHeadDim, 1);
  const auto resident = [&] { return test::resident_bytes(cache.head(0, 0).base, shape.bytes()); };
  EXPECT_EQ(resident(), 0);
  for (const size_t position : {0, 300, 511})
    for (size_t layer = 0; layer < kLayers; ++layer)
      for (size_t head = 0; head < kHeads; ++head)
        test::reference_set().store_kv(
            {x.data(), x.data(), kHeadDim, position, KvType::kF16, cache.head(layer, head)});
  // A page of keys and one of values for each of them.
  EXPECT_GT(resident(), 0);
  EXPECT_LT(resident(), static_cast<int64_t>(segment_bytes / 4));
  // The last position works as well.
  test::reference_set().store_kv(
      {x.data(), x.data(), kHeadDim, kCapacity - 1, KvType::kF16, cache.head(kLayers - 1, kHeads - 1)});
}

TEST(KvShape, CountsWholeSegmentsOrOneOfWholeTiles) {
  EXPECT_EQ(test::same_layers(2, 3, 8, 1, KvType::kF16).bytes(), 2u * 3 * 8 * 64 * 2 * 2);
  EXPECT_EQ(test::same_layers(2, 3, 8, 64, KvType::kF32).bytes(), 2u * 3 * 8 * 64 * 2 * 4);
  EXPECT_EQ(test::same_layers(2, 3, 8, 65, KvType::kF16).bytes(), 2u * 3 * 8 * 128 * 2 * 2);
  EXPECT_EQ(test::same_layers(2, 3, 8, 512, KvType::kF16).bytes(), 2u * 3 * 8 * 512 * 2 * 2);
  EXPECT_EQ(test::same_layers(2, 3, 8, 513, KvType::kF16).bytes(), 2u * 3 * 8 * 1024 * 2 * 2);
  EXPECT_EQ(test::same_layers(2, 3, 32, 4096, KvType::kQ8_0).bytes(), 2u * 3 * 34 * 4096 * 2);
  EXPECT_EQ(test::same_layers(2, 3, 32, 0, KvType::kQ8_0).bytes(), 0u);
}

// Layers that keep less are rings: whatever position they have come to, what they must keep is there.
TEST(CpuKvCache, RingsKeepWhatTheyMust) {
  constexpr size_t kHeadDim = 32, kKept = 700, kEnd = 4000;
  for (const KvType type : kKvTypes) {
    CpuKvCache cache(
        {{{1, kHeadDim, 0}, {1, kHeadDim, kKept}, {2, kHeadDim, 0}, {2, kHeadDim, 3}}, 4096, type});
    EXPECT_EQ(cache.shape().segments_of({1, kHeadDim, kKept}), 3u);
    EXPECT_EQ(cache.shape().segments_of({1, kHeadDim, 3}), 2u);
    EXPECT_EQ(cache.shape().bytes(), (3 * 8 + 3 + 2 * 2) * 2 * 512 * kv_row_bytes(type, kHeadDim));
    for (size_t position = 0; position < kEnd; ++position)
      for (size_t layer = 0; layer < 4; ++layer)
        for (size_t head = 0; head < cache.shape().layers[layer].n_kv_heads; ++head) {
          const std::vector<float> value(kHeadDim,
                                         static_cast<float>(1 + position % 1000 + 100 * layer + head));
          test::reference_set().store_kv(
              {value.data(), value.data(), kHeadDim, position, type, cache.head(layer, head)});
        }
    const std::vector<float> q(kHeadDim, 1);
    ThreadPool pool(1);
    CpuAttention attention(test::reference_set(), pool);
    for (size_t layer = 0; layer < 2; ++layer)
      for (const size_t back : {1, 2, 100, 512, 699, 700}) {
        // Attention to one key gives its value.
        std::vector<float> out(kHeadDim);
        const SequenceRows rows{&cache, kEnd - back, 0, 1};
        attention.attend({1, 1, kHeadDim, 1}, layer, {&rows, 1}, q.data(), out.data());
        const float expected = static_cast<float>(1 + (kEnd - back) % 1000 + 100 * layer);
        EXPECT_NEAR(out[0], expected, 0.01 * expected) << kv_name(type) << " " << layer << " " << back;
      }
  }
}

// Rows of several sequences in one job give what each gives alone, in any order.
TEST(CpuAttention, HasTheSameBitsWhateverElseIsInTheBatch) {
  constexpr Layout kLayout{4, 2, 32};
  constexpr size_t kRow = 4 * 32, kKvRow = 2 * 32;
  struct Part {
    size_t position, n;
  };
  const std::vector<Part> parts = {{0, 1}, {1100, 1}, {500, 30}, {3, 100}, {0, 7}, {1023, 2}, {64, 1}};
  for (const KvType type : kKvTypes)
    for (const size_t window : {0, 40, 700})
      for (const KernelSet* set : test::supported_sets())
        for (const int n_threads : {1, 3}) {
          if (set == &test::reference_set() && n_threads != 1) continue;
          ThreadPool pool(n_threads);
          CpuAttention attention(*set, pool);
          std::vector<std::vector<float>> alone(parts.size());
          std::vector<CpuKvCache> caches;
          caches.reserve(parts.size());
          const auto input = [&](size_t i, size_t width, uint32_t seed) {
            return random_values(parts[i].n * width, Values::kNormal, static_cast<uint32_t>(seed + 10 * i));
          };
          for (size_t i = 0; i < parts.size(); ++i) {
            caches.push_back(filled_cache(kLayout, type, 1200, parts[i].position));
            const SequenceRows rows{&caches[i], parts[i].position, 0, parts[i].n};
            std::vector<float> q = input(i, kRow, 1), k = input(i, kKvRow, 2), v = input(i, kKvRow, 3);
            const std::vector<float> norm(32, 0.5f);
            alone[i].resize(q.size());
            const CpuHeadSteps steps{.q_norm = norm.data(), .k_norm = norm.data()};
            EXPECT_EQ(attention.store_heads(kLayout.shape(window), 1, {&rows, 1}, steps, q.data(), k.data(),
                                            v.data()),
                      parts[i].n);
            attention.attend(kLayout.shape(window), 1, {&rows, 1}, q.data(), alone[i].data());
          }
          for (const std::vector<size_t>& order :
               {std::vector<size_t>{0, 1, 2, 3, 4, 5, 6}, {6, 2, 0, 5, 3}, {1, 0, 6}}) {
            std::vector<SequenceRows> rows;
            std::vector<float> q, k, v, expected;
            const auto append = [](std::vector<float>& to, const std::vector<float>& x) {
              to.insert(to.end(), x.begin(), x.end());
            };
            for (const size_t i : order) {
              rows.push_back({&caches[i], parts[i].position, q.size() / kRow, parts[i].n});
              append(q, input(i, kRow, 1));
              append(k, input(i, kKvRow, 2));
              append(v, input(i, kKvRow, 3));
              append(expected, alone[i]);
            }
            const std::vector<float> norm(32, 0.5f);
            const CpuHeadSteps steps{.q_norm = norm.data(), .k_norm = norm.data()};
            std::vector<float> out(q.size());
            attention.store_heads(kLayout.shape(window), 1, rows, steps, q.data(), k.data(), v.data());
            attention.attend(kLayout.shape(window), 1, rows, q.data(), out.data());
            ASSERT_TRUE(same_bits(out, expected))
                << set->name << " " << kv_name(type) << " window " << window << " threads " << n_threads;
          }
        }
}

// A sink takes part in the softmax, and scores are capped, as in doubles; all sets alike.
TEST(CpuAttention, HasSinksAndCapsAndScales) {
  constexpr Layout kLayout{4, 2, 32};
  constexpr size_t kPosition = 700;
  CpuKvCache cache = filled_cache(kLayout, KvType::kF32, 1024, kPosition + 1);
  const std::vector<float> q = random_values(4 * 32, Values::kNormal, 31), sinks = {0.5f, -2, 3, 0};
  AttentionShape shape = kLayout.shape(100);
  shape.scale = 0.3;
  shape.softcap = 2;
  std::vector<float> first;
  for (const KernelSet* set : test::supported_sets())
    for (const int n_threads : {1, 3}) {
      ThreadPool team(n_threads);
      std::vector<float> out(q.size());
      const SequenceRows rows{&cache, kPosition, 0, 1};
      CpuAttention(*set, team).attend(shape, 1, {&rows, 1}, q.data(), out.data(), sinks.data());
      if (first.empty()) first = out;
      ASSERT_TRUE(same_bits(out, first)) << set->name << " " << n_threads;
    }
  for (size_t head = 0; head < 4; ++head) {
    std::vector<double> sum(32);
    double total = std::exp(double{sinks[head]});
    for (size_t key = kPosition - 99; key <= kPosition; ++key) {
      const auto seed = static_cast<uint32_t>(key * 31 + head / 2);
      const std::vector<float> k = random_values(32, Values::kNormal, seed),
                               v = random_values(32, Values::kNormal, seed + 1000000);
      double score = 0;
      for (size_t d = 0; d < 32; ++d) score += double{q[head * 32 + d]} * k[d];
      const double p = std::exp(2 * std::tanh(score * 0.3 / 2));
      total += p;
      for (size_t d = 0; d < 32; ++d) sum[d] += p * v[d];
    }
    for (size_t d = 0; d < 32; ++d) EXPECT_NEAR(first[head * 32 + d], sum[d] / total, 1e-5);
  }
}

}  // namespace
}  // namespace quern
