// What was restored or copied equals what is computed anew, bit for bit.
#include "runtime/engine/prefix_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <mutex>

#include "runtime/engine/scheduler.h"
#include "tests/support/models.h"
#include "tests/support/paths.h"

namespace quern {
namespace {

constexpr size_t kBlock = Sequence::kBlock;

struct Case {
  const char* model;
  KvType kv = KvType::kF16;
};

const Case kCases[] = {{"tiny-mistral"},
                       {"tiny-mistral", KvType::kQ8_0},
                       {"stories260k", KvType::kF32},
                       {"random-window"},
                       {"lfm2"},
                       {"qwen35"},
                       {"gemma3"},
                       {"gemma4"},
                       {"qwen3-moe"},
                       {"deepseek2-lite"}};

std::unique_ptr<Model> open(const Case& c, uint64_t context) {
  const auto& bundled = test::bundled_models();
  const bool is_bundled = std::find(bundled.begin(), bundled.end(), c.model) != bundled.end();
  const std::string path =
      is_bundled ? test::converted(c.model, "q8_0")
                 : test::converted_folder(test::unpacked_data("architectures") + "/" + c.model, "q8_0");
  ModelOptions options;
  options.context = context;
  options.n_threads = 2;
  options.kv = c.kv;
  options.state_bytes = 64 << 20;
  return test::open_model(path, options);
}

// Logits of all of `ids`, which follow what the sequence has.
std::vector<float> logits_of(Engine& engine, Sequence& sequence, std::span<const int32_t> ids) {
  std::vector<float> all;
  const Work work{&sequence, ids, ids.size(),
                  [&](size_t, std::span<const float> z) { all.insert(all.end(), z.begin(), z.end()); }};
  EXPECT_TRUE(engine.run({&work, 1}));
  return all;
}

void evaluate(Engine& engine, Sequence& sequence, std::span<const int32_t> ids) {
  for (size_t begin = 0; begin < ids.size(); begin += 100) {
    const Work work{&sequence, ids.subspan(begin, std::min<size_t>(100, ids.size() - begin)), 0, {}};
    ASSERT_TRUE(engine.run({&work, 1}));
  }
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

class RestoredCaches : public testing::TestWithParam<Case> {
 protected:
  const std::unique_ptr<Model> model_ = open(GetParam(), 2048);
  Engine engine_{*model_};
  const std::vector<int32_t> ids_ = test::random_ids(*model_, 1700, 1),
                             more_ = test::random_ids(*model_, 70, 2);
};
INSTANTIATE_TEST_SUITE_P(Models, RestoredCaches, testing::ValuesIn(kCases), [](const auto& model) {
  std::string name = model.param.model;
  std::replace(name.begin(), name.end(), '-', '_');
  return fmt::format("{}_{}", name, static_cast<int>(model.param.kv));
});

TEST_P(RestoredCaches, EqualWhatIsComputed) {
  PrefixCache cache(*model_, {.ram_bytes = 1 << 30});
  {
    Sequence sequence(*model_);
    PrefixCache::Chain chain;
    for (const size_t end : {600, 1100, 1700}) {  // as a server does, while a prompt is read
      evaluate(engine_, sequence, std::span(ids_).subspan(sequence.position(), end - sequence.position()));
      cache.keep(sequence, "", &chain);
    }
    EXPECT_EQ(chain.size(), 3u);
  }
  EXPECT_EQ(cache.stats().blocks, 3u);
  EXPECT_GT(cache.stats().bytes, 3 * Sequence(*model_).block_bytes());
  for (const size_t n : {1537, 1100, 513, 3}) {
    const auto tokens = std::span(ids_).first(n);
    const size_t n_restored = (n - 1) / kBlock * kBlock;
    Sequence restored(*model_), fresh(*model_);
    cache.restore(restored, "", tokens);
    ASSERT_EQ(restored.position(), n_restored);
    ASSERT_EQ(restored.n_cached(), n_restored);
    ASSERT_TRUE(std::ranges::equal(restored.tokens(), tokens.first(n_restored)));
    evaluate(engine_, fresh, tokens.first(n_restored));
    std::vector<int32_t> rest(tokens.begin() + static_cast<ptrdiff_t>(n_restored), tokens.end());
    rest.insert(rest.end(), more_.begin(), more_.end());
    ASSERT_TRUE(same_bits(logits_of(engine_, restored, rest), logits_of(engine_, fresh, rest))) << n;
    // And going back from there.
    for (const size_t back : {n_restored + 1, n_restored / 2}) {
      restored.truncate(back);
      fresh.truncate(back);
      ASSERT_TRUE(same_bits(logits_of(engine_, restored, more_), logits_of(engine_, fresh, more_)))
          << n << " back to " << back;
    }
  }
}

TEST_P(RestoredCaches, GoOnFromWhatASequenceHas) {
  PrefixCache cache(*model_, {.ram_bytes = 1 << 30});
  Sequence sequence(*model_);
  evaluate(engine_, sequence, ids_);
  PrefixCache::Chain chain;
  cache.keep(sequence, "", &chain);
  // Another one has the first 700 tokens, then others.
  Sequence other(*model_), fresh(*model_);
  evaluate(engine_, other, std::span(ids_).first(700));
  evaluate(engine_, other, more_);
  cache.restore(other, "", ids_);
  // Where a ring has gone on before the first block was looked at, or a state has, there is nothing to
  // restore.
  ASSERT_TRUE(other.position() == 1536 || other.position() == 770) << other.position();
  if (other.position() == 770) other.reuse_prefix(ids_);
  const size_t n = other.position();
  evaluate(engine_, fresh, std::span(ids_).first(n));
  EXPECT_TRUE(same_bits(logits_of(engine_, other, std::span(ids_).subspan(n)),
                        logits_of(engine_, fresh, std::span(ids_).subspan(n))));
}

TEST_P(RestoredCaches, CopiesEqualWhatIsComputed) {
  Sequence source(*model_);
  evaluate(engine_, source, std::span(ids_).first(1300));
  for (const size_t n : {1300, 1024, 700}) {
    Sequence copy(*model_), fresh(*model_);
    evaluate(engine_, copy, std::span(more_).first(9));  // which are replaced
    const bool has_states = model_->kv_shape().state_bytes() != 0;
    const bool copied = copy.copy(source, n);
    if (n == 1300) {
      EXPECT_TRUE(copied);
    }
    if (has_states) {
      EXPECT_EQ(copied, n == 1300 || n == 1024) << n;
    }
    if (!copied) {
      EXPECT_EQ(copy.position(), 9u) << "nothing is changed";
      continue;
    }
    EXPECT_EQ(copy.n_cached(), n);
    evaluate(engine_, fresh, std::span(ids_).first(n));
    ASSERT_TRUE(same_bits(logits_of(engine_, copy, more_), logits_of(engine_, fresh, more_))) << n;
    for (const size_t back : {n, n / 2}) {
      copy.truncate(back);
      fresh.truncate(back);
      ASSERT_TRUE(same_bits(logits_of(engine_, copy, more_), logits_of(engine_, fresh, more_))) << n;
    }
  }
}

class APrefixCache : public testing::Test {
 protected:
  const std::unique_ptr<Model> model_ = open({"tiny-mistral"}, 2048);
  Engine engine_{*model_};
  const uint64_t block_bytes_ = model_->kv_shape().block_bytes() + kBlock * sizeof(TokenId);

  std::vector<int32_t> ids(size_t n_blocks, uint32_t seed) const {
    return test::random_ids(*model_, n_blocks * kBlock + 1, seed);
  }
  void keep(PrefixCache& cache, std::span<const int32_t> tokens, std::string_view owner = "") {
    Sequence sequence(*model_);
    evaluate(engine_, sequence, tokens);
    PrefixCache::Chain chain;
    cache.keep(sequence, owner, &chain);
  }
  // How many blocks it has of these.
  size_t found(PrefixCache& cache, std::span<const int32_t> tokens, std::string_view owner = "") {
    Sequence sequence(*model_);
    cache.restore(sequence, owner, tokens);
    return sequence.position() / kBlock;
  }
};

TEST_F(APrefixCache, ServesOwnersFromTheirOwn) {
  PrefixCache cache(*model_, {.ram_bytes = 1 << 30});
  keep(cache, ids(2, 1), "a");
  EXPECT_EQ(found(cache, ids(2, 1), "a"), 2u);
  EXPECT_EQ(found(cache, ids(2, 1), "b"), 0u);
  EXPECT_EQ(found(cache, ids(2, 1), ""), 0u);
}

TEST_F(APrefixCache, FindsABlockOnlyBehindWhatItStoodBehind) {
  PrefixCache cache(*model_, {.ram_bytes = 1 << 30});
  const std::vector<int32_t> first = ids(2, 1);
  keep(cache, first);
  std::vector<int32_t> other = first;
  ++other[3];
  other[3] %= static_cast<int32_t>(model_->hparams().vocab_size);
  EXPECT_EQ(found(cache, other), 0u) << "the second block is the same";
  other = first;
  other[600] = other[600] == 0 ? 1 : 0;
  EXPECT_EQ(found(cache, other), 1u);
}

TEST_F(APrefixCache, DropsWhatWasUsedLongestAgoAndTheLastOfATextFirst) {
  PrefixCache cache(*model_, {.ram_bytes = 3 * block_bytes_});
  keep(cache, ids(2, 1));
  keep(cache, ids(1, 2));
  EXPECT_EQ(cache.stats().blocks, 3u);
  EXPECT_EQ(found(cache, ids(2, 1)), 2u);  // used again
  keep(cache, ids(1, 3));
  EXPECT_EQ(found(cache, ids(1, 2)), 0u);
  EXPECT_EQ(found(cache, ids(1, 3)), 1u);
  keep(cache, ids(1, 4));
  EXPECT_EQ(found(cache, ids(2, 1)), 1u);
  EXPECT_EQ(cache.stats().blocks, 3u);
  EXPECT_EQ(cache.stats().bytes, 3 * block_bytes_);
  EXPECT_EQ(cache.stats().dropped, 2u);
}

TEST_F(APrefixCache, KeepsTheBeginningOfATextThatHasNoRoom) {
  PrefixCache cache(*model_, {.ram_bytes = 2 * block_bytes_ + 1});
  keep(cache, ids(3, 1));
  EXPECT_EQ(found(cache, ids(3, 1)), 2u);
  PrefixCache none(*model_, {.ram_bytes = block_bytes_ - 1});
  keep(none, ids(3, 1));
  EXPECT_EQ(none.stats().blocks, 0u);
}

// --- in a scheduler ---

struct Answer {
  std::vector<TokenId> tokens;
  std::vector<double> log_probs;
  size_t n_reused = 0;
};

std::vector<Answer> answer_all(Scheduler& scheduler, const std::vector<AnswerRequest>& requests) {
  std::vector<Answer> all(requests.size());
  std::mutex mutex;
  std::condition_variable ended;
  size_t n_ended = 0;
  const auto tickets = scheduler.submit(requests, [&](size_t index, const AnswerEvent& event) {
    const std::lock_guard lock(mutex);
    if (event.kind == AnswerEvent::Kind::kPrompt) all[index].n_reused = event.n_reused;
    if (event.kind == AnswerEvent::Kind::kToken) {
      all[index].tokens.push_back(event.token);
      all[index].log_probs.push_back(event.log_prob);
    }
    if (event.kind == AnswerEvent::Kind::kFailed) ADD_FAILURE() << event.text;
    n_ended += event.kind == AnswerEvent::Kind::kFinished || event.kind == AnswerEvent::Kind::kFailed;
    ended.notify_all();
  });
  std::unique_lock lock(mutex);
  EXPECT_TRUE(ended.wait_for(lock, std::chrono::seconds(120), [&] { return n_ended == all.size(); }));
  lock.unlock();
  while (!scheduler.idle()) std::this_thread::yield();
  return all;
}

AnswerRequest request_of(std::vector<TokenId> prompt, uint64_t seed) {
  AnswerRequest request;
  request.prompt = std::move(prompt);
  request.options.max_tokens = 12;
  request.options.ignore_eos = true;
  request.options.sampler.seed = seed;
  request.log_probs = true;
  return request;
}

class ServedFromBlocks : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Models, ServedFromBlocks,
                         testing::Values("tiny-mistral", "random-window", "lfm2", "qwen35", "gemma3"),
                         [](const auto& model) {
                           std::string name = model.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_P(ServedFromBlocks, AnswersAreTheSame) {
  const auto model = open({GetParam()}, 1536);
  // Two texts by turns in one slot, so that only blocks know what was there before.
  const std::vector<TokenId> a = test::random_ids(*model, 1100, 1), b = test::random_ids(*model, 700, 2);
  std::vector<AnswerRequest> requests;
  for (uint32_t i = 0; i < 4; ++i) {
    std::vector<TokenId> prompt = i % 2 == 0 ? a : b;
    const std::vector<TokenId> own = test::random_ids(*model, 30, 10 + i);
    if (i >= 2) prompt.insert(prompt.end(), own.begin(), own.end());
    requests.push_back(request_of(prompt, i));
  }
  Scheduler plain(*model, {.slots = 1}), cached(*model, {.slots = 1, .cache = {.ram_bytes = 1 << 30}});
  for (size_t i = 0; i < requests.size(); ++i) {
    const Answer expected = answer_all(plain, {requests[i]})[0], found = answer_all(cached, {requests[i]})[0];
    EXPECT_EQ(found.tokens, expected.tokens) << i;
    EXPECT_EQ(found.log_probs, expected.log_probs) << i;
    EXPECT_EQ(found.n_reused, i < 2 ? 0u : i == 2 ? 1024u : 512u);
  }
  EXPECT_EQ(cached.stats().cache.restored, 3u);
  // What is to tell of its prompt reads all of it.
  requests[2].prompt_log_probs = true;
  EXPECT_EQ(answer_all(cached, {requests[2]})[0].n_reused, 0u);
}

// Each has its own seed; the prompt is read once, whatever its length.
TEST_P(ServedFromBlocks, SeveralAnswersToAPromptReadItOnce) {
  const auto model = open({GetParam()}, 1536);
  for (const size_t n_prompt : {40, 800}) {
    std::vector<AnswerRequest> requests;
    const std::vector<TokenId> prompt = test::random_ids(*model, n_prompt, 3);
    for (uint32_t i = 0; i < 5; ++i) requests.push_back(request_of(prompt, i));
    Scheduler together(*model, {.slots = 5}), one(*model, {.slots = 1});
    const std::vector<Answer> found = answer_all(together, requests);
    for (size_t i = 0; i < requests.size(); ++i) {
      const Answer expected = answer_all(one, {requests[i]})[0];
      EXPECT_EQ(found[i].tokens, expected.tokens) << i;
      EXPECT_EQ(found[i].log_probs, expected.log_probs) << i;
    }
    EXPECT_EQ(together.stats().prompt_tokens, n_prompt + 4) << "but for the last token of each";
    EXPECT_EQ(together.stats().reused_tokens, 4 * (n_prompt - 1));
  }
}

TEST(SharedPrompts, AreReadByWhoWaitedWhenTheFirstGoes) {
  const auto model = open({"tiny-mistral"}, 2048);
  const std::vector<TokenId> prompt = test::random_ids(*model, 1900, 3);
  Scheduler scheduler(*model, {.slots = 2, .prompt_budget = 4}), one(*model, {.slots = 1});
  const Answer expected = answer_all(one, {request_of(prompt, 7)})[0];
  std::mutex mutex;
  std::condition_variable changed;
  bool reading = false, waiting = false, finished = false;
  const auto wait_for = [&](const bool& what) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(60), [&] { return what; });
  };
  const auto first = scheduler.submit({request_of(prompt, 1)}, [&](size_t, const AnswerEvent& event) {
    const std::lock_guard lock(mutex);
    reading = reading || (event.kind == AnswerEvent::Kind::kPrompt && event.n_prompt > 0);
    changed.notify_all();
  });
  ASSERT_TRUE(wait_for(reading));
  Answer found;
  const auto second = scheduler.submit({request_of(prompt, 7)}, [&](size_t, const AnswerEvent& event) {
    const std::lock_guard lock(mutex);
    waiting = true;
    if (event.kind == AnswerEvent::Kind::kToken) {
      found.tokens.push_back(event.token);
      found.log_probs.push_back(event.log_prob);
    }
    finished = event.kind == AnswerEvent::Kind::kFinished;
    changed.notify_all();
  });
  ASSERT_TRUE(wait_for(waiting));
  scheduler.cancel(first[0]);
  ASSERT_TRUE(wait_for(finished));
  EXPECT_EQ(found.tokens, expected.tokens);
  EXPECT_EQ(found.log_probs, expected.log_probs);
}

TEST(SharedPrompts, OfOtherOwnersAreNotUsedUnlessAllIsShared) {
  const auto model = open({"tiny-mistral"}, 1024);
  std::vector<AnswerRequest> requests = {request_of(test::random_ids(*model, 600, 3), 1)};
  requests.push_back(requests[0]);
  requests[0].owner = "a";
  requests[1].owner = "b";
  for (const bool shared : {false, true}) {
    Scheduler scheduler(*model, {.slots = 2, .cache = {.ram_bytes = 1 << 30}, .cache_shared = shared});
    const std::vector<Answer> found = answer_all(scheduler, requests);
    EXPECT_EQ(found[0].tokens, found[1].tokens);
    EXPECT_EQ(scheduler.stats().reused_tokens, shared ? 599u : 0u);
    const std::vector<Answer> again = answer_all(scheduler, requests);
    EXPECT_EQ(again[1].tokens, found[0].tokens);
    EXPECT_GT(again[1].n_reused, 512u);
  }
}

// One after the other: the second owner gets the very slot, and looks for the very blocks.
TEST(SharedPrompts, OfAnotherOwnerAreTakenNeitherFromASlotNorFromTheCache) {
  const auto model = open({"tiny-mistral"}, 1024);
  std::vector<AnswerRequest> request = {request_of(test::random_ids(*model, 600, 3), 1)};
  for (const uint64_t ram_bytes : {uint64_t{0}, uint64_t{1} << 30}) {
    Scheduler scheduler(*model, {.slots = 1, .cache = {.ram_bytes = ram_bytes}});
    request[0].owner = "a";
    const Answer first = answer_all(scheduler, request)[0];
    request[0].owner = "b";
    const Answer second = answer_all(scheduler, request)[0];
    EXPECT_EQ(second.tokens, first.tokens);
    EXPECT_EQ(second.n_reused, 0u) << ram_bytes;
    EXPECT_EQ(scheduler.stats().reused_tokens, 0u) << ram_bytes;
    request[0].owner = "a";  // whose blocks are still there, unlike the slot's sequence
    EXPECT_EQ(answer_all(scheduler, request)[0].n_reused, ram_bytes == 0 ? 0u : 512u);
  }
}

}  // namespace
}  // namespace quern
