// Many requests at a time: each gets what it would have got alone.
#include "runtime/engine/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <future>
#include <limits>
#include <map>
#include <random>

#include "kernels/cpu_device.h"
#include "runtime/generate.h"
#include "tests/quant/gguf_bytes.h"
#include "tests/support/models.h"
#include "tests/support/random_model.h"
#include "tests/support/temp_folder.h"

namespace quern {
namespace {

using Kind = AnswerEvent::Kind;

std::unique_ptr<Model> open(const std::string& name, uint64_t context) {
  ModelOptions options;
  options.context = context;
  options.n_threads = 2;
  return test::open_model(test::converted(name, "q4_0"), options);
}

// All that a listener has heard of one request, and what it waits for.
class Heard {
 public:
  void operator()(const AnswerEvent& event) {
    const std::lock_guard lock(mutex_);
    events_.push_back(event);
    changed_.notify_all();
  }
  // False after 60 seconds without it.
  bool wait_for(const std::function<bool(const AnswerEvent&)>& wanted) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(60),
                             [&] { return std::any_of(events_.begin(), events_.end(), wanted); });
  }
  bool wait_for_end() {
    return wait_for(
        [](const AnswerEvent& e) { return e.kind == Kind::kFinished || e.kind == Kind::kFailed; });
  }
  bool wait_for_tokens() {
    return wait_for([](const AnswerEvent& e) { return e.kind == Kind::kToken; });
  }
  std::vector<AnswerEvent> events() const {
    const std::lock_guard lock(mutex_);
    return events_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<AnswerEvent> events_;
};

// What must not depend on anything else.
struct Answer {
  std::vector<TokenId> tokens;
  std::vector<double> log_probs;
  std::vector<float> embedding;
  std::string text;
  bool operator==(const Answer&) const = default;
};

Answer answer_of(const Heard& heard) {
  Answer answer;
  for (const AnswerEvent& event : heard.events()) {
    if (event.kind == Kind::kToken || event.kind == Kind::kPromptToken) {
      answer.tokens.push_back(event.token);
      answer.log_probs.push_back(event.log_prob);
      for (const TokenChance& chance : event.top) answer.log_probs.push_back(chance.log_prob);
    }
    answer.text += event.text;
    answer.embedding = event.embedding;
  }
  return answer;
}

const AnswerEvent& last(const std::vector<AnswerEvent>& events) {
  EXPECT_FALSE(events.empty());
  return events.back();
}

struct Sent {
  std::shared_ptr<Heard> heard = std::make_shared<Heard>();
  std::shared_ptr<Scheduler::Ticket> ticket;  // null: refused
};

Sent send(Scheduler& scheduler, AnswerRequest request) {
  Sent sent;
  std::vector<AnswerRequest> requests(1);
  requests[0] = std::move(request);
  const auto tickets = scheduler.submit(std::move(requests),
                                        [heard = sent.heard](size_t, const auto& event) { (*heard)(event); });
  if (!tickets.empty()) sent.ticket = tickets[0];
  return sent;
}

AnswerRequest request_of(const Model& model, size_t n_prompt, int64_t max_tokens, uint32_t seed) {
  AnswerRequest request;
  request.prompt = test::random_ids(model, n_prompt, seed);
  request.options.max_tokens = max_tokens;
  request.options.ignore_eos = true;
  request.options.sampler.seed = seed;
  request.options.sampler.temperature = seed % 3 == 0 ? 0.0f : 0.8f;
  return request;
}

// Of every kind that there is: greedy and drawn, biased and penalised, with probabilities and without, some
// for a vector; many share the beginning of their prompts.
std::vector<AnswerRequest> mixed_requests(const Model& model, size_t n) {
  std::vector<AnswerRequest> requests;
  std::mt19937 random(5);
  const std::vector<TokenId> shared = test::random_ids(model, 40, 999);
  for (size_t i = 0; i < n; ++i) {
    AnswerRequest request = request_of(model, 1 + random() % 90, 1 + static_cast<int64_t>(random() % 24),
                                       static_cast<uint32_t>(i));
    if (i % 2 == 0)
      std::copy_n(shared.begin(), std::min(shared.size(), request.prompt.size()), request.prompt.begin());
    if (i % 4 == 1) request.options.frequency_penalty = 0.7f;
    if (i % 5 == 1) request.options.logit_bias = {{static_cast<TokenId>(i), 4.5f}};
    request.log_probs = i % 3 == 1;
    request.n_top = request.log_probs ? 3 : 0;
    request.prompt_log_probs = i % 6 == 1;
    if (i % 8 >= 6) request.embedding = {{.pooling = i % 8 == 6 ? Pooling::kMean : Pooling::kLast}};
    request.owner = i % 7 == 0 ? "another" : "";
    requests.push_back(std::move(request));
  }
  return requests;
}

class ManyRequests : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Models, ManyRequests,
                         testing::Values("random-window", "tiny-mistral", "stories260k"),
                         [](const auto& model) {
                           std::string name = model.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_P(ManyRequests, GetTheAnswersThatEachGetsAlone) {
  const auto model = open(GetParam(), 128);
  const std::vector<AnswerRequest> requests = mixed_requests(*model, 64);
  std::vector<Answer> alone;
  for (const AnswerRequest& request : requests) {
    Scheduler scheduler(*model, {.slots = 1});
    const Sent sent = send(scheduler, request);
    ASSERT_TRUE(sent.heard->wait_for_end());
    ASSERT_EQ(last(sent.heard->events()).kind, Kind::kFinished);
    alone.push_back(answer_of(*sent.heard));
  }
  std::mt19937 random(7);
  for (const SchedulerOptions& options : {SchedulerOptions{.slots = 7, .prompt_budget = 5, .queue = 200},
                                          SchedulerOptions{.slots = 16, .prompt_budget = 64, .queue = 200}}) {
    Scheduler scheduler(*model, options);
    std::vector<size_t> order(requests.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::shuffle(order.begin(), order.end(), random);
    std::vector<Sent> sent(requests.size());
    std::vector<Sent> cancelled;
    for (const size_t i : order) {
      sent[i] = send(scheduler, requests[i]);
      ASSERT_NE(sent[i].ticket, nullptr);
      // Every third has a neighbour that goes again, now or in the middle of its answer.
      if (random() % 3 != 0) continue;
      cancelled.push_back(send(scheduler, requests[random() % requests.size()]));
      if (random() % 2 == 0) scheduler.cancel(cancelled.back().ticket);
      if (random() % 2 == 0) scheduler.cancel(cancelled[random() % cancelled.size()].ticket);
    }
    for (const size_t i : order) {
      ASSERT_TRUE(sent[i].heard->wait_for_end());
      EXPECT_EQ(answer_of(*sent[i].heard), alone[i]) << "request " << i << ", " << options.slots << " slots";
    }
    for (const Sent& gone : cancelled) EXPECT_TRUE(gone.heard->wait_for_end());
    EXPECT_TRUE(scheduler.idle());
    EXPECT_LT(scheduler.stats().passes, scheduler.stats().rows) << "nothing was evaluated together";
    EXPECT_GT(scheduler.stats().reused_tokens, 0u);
  }
}

// Of length 1, from the states that the engine gives.
TEST(Scheduler, EmbeddingsPoolTheStatesOfAllTokensOrTheLast) {
  const auto model = open("tiny-mistral", 64);
  const std::vector<TokenId> ids = test::random_ids(*model, 64, 3);  // as many as there is context
  const size_t dim = model->hparams().dim;
  std::vector<double> sum(dim), state(dim);
  Engine engine(*model);
  Sequence sequence(*model);
  const Work work{&sequence, ids, ids.size(),
                  [&](size_t, std::span<const float> values) {
                    state.assign(values.begin(), values.end());
                    for (size_t i = 0; i < dim; ++i) sum[i] += static_cast<double>(values[i]);
                  },
                  RowValues::kStates};
  ASSERT_TRUE(engine.run({&work, 1}));
  Scheduler scheduler(*model, {.slots = 2});
  // The second of a kind finds its prompt in a slot.
  for (const Pooling pooling : {Pooling::kMean, Pooling::kLast, Pooling::kLast, Pooling::kMean})
    for (const size_t dimensions : {size_t{0}, size_t{5}}) {
      AnswerRequest request;
      request.prompt = ids;
      request.embedding = {{.pooling = pooling, .dimensions = dimensions}};
      const Sent sent = send(scheduler, request);
      ASSERT_TRUE(sent.heard->wait_for_end());
      const std::vector<float> embedding = last(sent.heard->events()).embedding;
      const std::vector<double>& expected = pooling == Pooling::kMean ? sum : state;
      ASSERT_EQ(embedding.size(), dimensions != 0 ? dimensions : dim);
      double squares = 0;
      for (size_t i = 0; i < embedding.size(); ++i) squares += expected[i] * expected[i];
      for (size_t i = 0; i < embedding.size(); ++i)
        EXPECT_FLOAT_EQ(embedding[i], static_cast<float>(expected[i] / std::sqrt(squares))) << i;
    }
  EXPECT_GT(scheduler.stats().reused_tokens, 0u) << "of the last token's";
  EXPECT_EQ(scheduler.stats().answer_tokens, 0u);

  Pooler zeros({});
  zeros.add(std::vector<float>{0, 0});
  EXPECT_EQ(zeros.finish(), (std::vector<float>{0, 0}));
  Pooler infinite({});
  infinite.add(std::vector<float>{1, std::numeric_limits<float>::infinity()});
  EXPECT_THROW(infinite.finish(), Error);
}

TEST(Pooling, IsWhatTheFileSays) {
  for (const auto& [type, expected] : {std::pair<uint32_t, std::optional<Pooling>>{0, std::nullopt},
                                       {1, Pooling::kMean},
                                       {2, std::nullopt},
                                       {3, Pooling::kLast}}) {
    test::FileBytes file;
    file.header(0, 2).text("general.architecture").u32(8).text("qwen3");
    file.text("qwen3.pooling_type").u32(4).u32(type);
    EXPECT_EQ(pooling_of(GgufReader(file.bytes(), "a file")), expected) << type;
  }
  for (const Pooling pooling : {Pooling::kMean, Pooling::kLast})
    EXPECT_EQ(parse_pooling(pooling_name(pooling)), pooling);
  EXPECT_EQ(parse_pooling("cls"), std::nullopt);
}

TEST(Scheduler, GivesWhatGenerateGives) {
  const auto model = open("tiny-mistral", 128);
  for (uint32_t seed = 0; seed < 6; ++seed) {
    const AnswerRequest request = request_of(*model, 20, 24, seed);
    Session session(*model);
    const GenerateResult expected =
        generate(session, request.prompt, request.options, [](std::string_view) {}, {}, {});
    Scheduler scheduler(*model, {.slots = 2});
    const Sent sent = send(scheduler, request);
    ASSERT_TRUE(sent.heard->wait_for_end());
    EXPECT_EQ(answer_of(*sent.heard).tokens, expected.tokens);
    EXPECT_EQ(answer_of(*sent.heard).text, expected.text);
    EXPECT_EQ(last(sent.heard->events()).reason, expected.reason);
  }
}

TEST(Scheduler, ReadsNothingAgainThatASlotStillHolds) {
  const auto model = open("tiny-mistral", 256);
  Scheduler scheduler(*model, {.slots = 2});
  AnswerRequest request = request_of(*model, 100, 10, 1);
  const Sent first = send(scheduler, request);
  ASSERT_TRUE(first.heard->wait_for_end());
  EXPECT_EQ(first.heard->events().front().n_reused, 0u);
  // The conversation goes on: all but the last token of the answer, which was never evaluated.
  const std::vector<TokenId> tokens = answer_of(*first.heard).tokens;
  request.prompt.insert(request.prompt.end(), tokens.begin(), tokens.end());
  request.prompt.push_back(3);
  const Sent second = send(scheduler, request);
  ASSERT_TRUE(second.heard->wait_for_end());
  EXPECT_EQ(second.heard->events().front().n_reused, 109u);
  EXPECT_EQ(scheduler.stats().prompt_tokens, 100u + 2u);
  // Another owner gets nothing of it.
  request.owner = "another";
  const Sent third = send(scheduler, request);
  ASSERT_TRUE(third.heard->wait_for_end());
  EXPECT_EQ(third.heard->events().front().n_reused, 0u);
  EXPECT_EQ(answer_of(*third.heard), answer_of(*second.heard));
}

TEST(Scheduler, LongPromptIsReadInPiecesBetweenTheTokensOfAnAnswer) {
  const auto model = open("tiny-mistral", 1024);
  Scheduler scheduler(*model, {.slots = 2, .prompt_budget = 16});
  const Sent answer = send(scheduler, request_of(*model, 4, 1000, 1));
  ASSERT_TRUE(answer.heard->wait_for_tokens());
  const Sent prompt = send(scheduler, request_of(*model, 600, 1, 2));
  ASSERT_TRUE(prompt.heard->wait_for_end());
  scheduler.cancel(answer.ticket);
  ASSERT_TRUE(answer.heard->wait_for_end());
  size_t before = 0;
  for (const AnswerEvent& event : prompt.heard->events()) {
    if (event.kind != Kind::kPrompt) continue;
    EXPECT_LE(event.n_prompt - before, 16u);
    before = event.n_prompt;
  }
  // 600 tokens in pieces of 16 are 38 passes, each of which gave the answer a token.
  EXPECT_GE(answer_of(*answer.heard).tokens.size(), 38u);
}

TEST(Scheduler, CancelledAnswerLeavesItsSlotAtOnce) {
  const auto model = open("tiny-mistral", 1024);
  Scheduler scheduler(*model, {.slots = 1});
  const Sent running = send(scheduler, request_of(*model, 4, 1000, 1));
  ASSERT_TRUE(running.heard->wait_for_tokens());
  const Sent waiting = send(scheduler, request_of(*model, 4, 1000, 2));
  const Sent next = send(scheduler, request_of(*model, 4, 3, 3));
  EXPECT_EQ(waiting.ticket->position(), 0u);
  EXPECT_EQ(next.ticket->position(), 1u);
  scheduler.cancel(waiting.ticket);
  ASSERT_TRUE(waiting.heard->wait_for_end());
  EXPECT_EQ(waiting.heard->events().size(), 1u) << "it never had a slot";
  scheduler.cancel(running.ticket);
  ASSERT_TRUE(running.heard->wait_for_end());
  EXPECT_EQ(last(running.heard->events()).reason, FinishReason::kInterrupted);
  EXPECT_LT(answer_of(*running.heard).tokens.size(), 1000u);
  ASSERT_TRUE(next.heard->wait_for_end());
  EXPECT_EQ(last(next.heard->events()).reason, FinishReason::kMaxTokens);
  EXPECT_EQ(scheduler.stats().interrupted, 2u);
  EXPECT_EQ(scheduler.stats().finished, 1u);
  scheduler.cancel(next.ticket);  // has ended: nothing happens
  EXPECT_TRUE(scheduler.idle());
}

// Of two answers in a pass; for the sake of one the pass goes on.
TEST(Scheduler, APassEndsBeforeItsNextLayerOnceAllItsAnswersAreCancelled) {
  const auto model = open("tiny-mistral", 1024);
  const size_t n_layers = model->hparams().n_layers;
  ASSERT_GT(n_layers, 1u);
  constexpr size_t kOfLayer = 7;  // products
  for (const size_t n_cancelled : {2, 1}) {
    std::promise<Scheduler::Tickets> submitted;
    Scheduler* cancelling = nullptr;
    size_t n_products = 0;
    observe_products(model->device(), [&](const DeviceMatrix&, std::span<const float* const>) {
      if (n_products++ > 0) return;
      const Scheduler::Tickets tickets = submitted.get_future().get();
      for (size_t i = 0; i < n_cancelled; ++i) cancelling->cancel(tickets[i]);
    });
    Heard heard[2];
    {
      Scheduler scheduler(*model, {.slots = 2, .speculation = false});
      cancelling = &scheduler;
      submitted.set_value(scheduler.submit({request_of(*model, 100, 5, 1), request_of(*model, 100, 5, 2)},
                                           [&](size_t i, const AnswerEvent& event) { heard[i](event); }));
      for (Heard& each : heard) ASSERT_TRUE(each.wait_for_end());
    }
    observe_products(model->device(), {});
    EXPECT_EQ(last(heard[0].events()).reason, FinishReason::kInterrupted);
    EXPECT_EQ(last(heard[1].events()).reason,
              n_cancelled == 2 ? FinishReason::kInterrupted : FinishReason::kMaxTokens);
    EXPECT_EQ(n_products, n_cancelled == 2 ? kOfLayer : 5 * (n_layers * kOfLayer + 1));
  }
}

TEST(Scheduler, RefusesWhatTheQueueHasNoRoomFor) {
  const auto model = open("tiny-mistral", 1024);
  Scheduler scheduler(*model, {.slots = 1, .queue = 2});
  const Sent running = send(scheduler, request_of(*model, 4, 1000, 1));
  ASSERT_TRUE(running.heard->wait_for_tokens());
  const Sent a = send(scheduler, request_of(*model, 4, 2, 2)),
             b = send(scheduler, request_of(*model, 4, 2, 3));
  EXPECT_NE(b.ticket, nullptr);
  EXPECT_EQ(send(scheduler, request_of(*model, 4, 2, 4)).ticket, nullptr);
  scheduler.cancel(a.ticket);
  // Two together find room for one, and neither is taken.
  EXPECT_TRUE(
      scheduler.submit({request_of(*model, 4, 2, 5), request_of(*model, 4, 2, 6)}, [](size_t, const auto&) {})
          .empty());
  EXPECT_EQ(scheduler.stats().refused, 3u);
  scheduler.cancel(running.ticket);
  EXPECT_TRUE(b.heard->wait_for_end());
}

TEST(Scheduler, OwnersTakeTurns) {
  const auto model = open("tiny-mistral", 1024);
  Scheduler scheduler(*model, {.slots = 1});
  const Sent running = send(scheduler, request_of(*model, 4, 1000, 1));
  ASSERT_TRUE(running.heard->wait_for_tokens());
  std::mutex mutex;
  std::string ends;
  std::vector<std::shared_ptr<Scheduler::Ticket>> tickets;
  const auto queue = [&](char owner) {
    AnswerRequest request = request_of(*model, 4, 2, 2);
    request.owner = owner;
    tickets.push_back(scheduler.submit({request}, [&, owner](size_t, const AnswerEvent& event) {
      const std::lock_guard lock(mutex);
      if (event.kind == Kind::kFinished) ends += owner;
    })[0]);
  };
  for (const char owner : std::string("aaaabcc")) queue(owner);
  EXPECT_EQ(tickets[0]->position(), 0u);
  EXPECT_EQ(tickets[4]->position(), 1u) << "one of a's goes before b's";
  EXPECT_EQ(tickets[6]->position(), 4u) << "its own, two of a's, b's";
  const Sent end = send(scheduler, request_of(*model, 4, 2, 3));
  scheduler.cancel(running.ticket);
  ASSERT_TRUE(end.heard->wait_for_end());
  while (!scheduler.idle()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(ends, "abcacaa");
}

TEST(Scheduler, SaysWhatIsWrongWithARequestBeforeItWaits) {
  const auto model = open("tiny-mistral", 64);
  Scheduler scheduler(*model, {.slots = 1});
  const auto code_of = [&](const AnswerRequest& request) {
    try {
      send(scheduler, request);
    } catch (const Error& error) {
      return std::optional(error.code());
    }
    return std::optional<ErrorCode>();
  };
  AnswerRequest request = request_of(*model, 64, 1, 1);
  EXPECT_EQ(code_of(request), ErrorCode::kResource);
  request.prompt = {static_cast<TokenId>(model->hparams().vocab_size)};
  EXPECT_EQ(code_of(request), ErrorCode::kUsage);
  request.prompt = {-1};
  EXPECT_EQ(code_of(request), ErrorCode::kUsage);
  request.prompt = {};
  EXPECT_EQ(code_of(request), ErrorCode::kUsage);
  request.prompt = {1};
  request.options.logit_bias = {{-1, 1.0f}};
  EXPECT_EQ(code_of(request), ErrorCode::kUsage);
  request.options.logit_bias = {{1, 1e30f}};
  EXPECT_EQ(code_of(request), ErrorCode::kUsage);
  request.options.logit_bias = {{1, 1.0f}};
  EXPECT_EQ(code_of(request), std::nullopt);
}

// A file in which one token's embedding is damaged: whoever has it fails, whoever is evaluated with it does
// not.
TEST(Scheduler, OneThatFailsDoesNoHarmToItsNeighbours) {
  constexpr TokenId kDamaged = 17;
  const test::TempFolder folder;
  const std::string path = folder.file("model.gguf");
  test::write_random_model({}, path);
  std::string bytes = test::read_file(path);
  {
    const auto model = test::open_model(path, {});
    const TensorView* embedding = model->gguf().find_tensor("token_embd.weight");
    ASSERT_NE(embedding, nullptr);
    const uint64_t row_bytes = embedding->n_bytes / model->hparams().vocab_size,
                   begin = model->gguf().data_offset();
    ASSERT_EQ(bytes.compare(begin, row_bytes, reinterpret_cast<const char*>(embedding->data), row_bytes), 0)
        << "the embedding is not the file's first tensor";
    bytes.replace(begin + kDamaged * row_bytes, 2, "\x00\x7e", 2);  // the scale of its first block: NaN
  }
  ModelOptions options;
  options.context = 128;
  options.check_tensors = false;
  const auto model = test::open_model(folder.write("damaged.gguf", bytes), options);
  const auto request_without = [&](uint32_t seed) {
    AnswerRequest request = request_of(*model, 20 + seed, 12, seed);
    for (TokenId& id : request.prompt) id = id == kDamaged ? 0 : id;
    request.options.logit_bias = {{kDamaged, -100.0f}};
    return request;
  };
  std::vector<Answer> alone;
  for (uint32_t i = 0; i < 4; ++i) {
    Scheduler scheduler(*model, {.slots = 1});
    const Sent sent = send(scheduler, request_without(i));
    ASSERT_TRUE(sent.heard->wait_for_end());
    ASSERT_EQ(last(sent.heard->events()).kind, Kind::kFinished);
    alone.push_back(answer_of(*sent.heard));
  }
  Scheduler scheduler(*model, {.slots = 8});
  std::vector<Sent> good, bad;
  for (uint32_t i = 0; i < 4; ++i) {
    good.push_back(send(scheduler, request_without(i)));
    AnswerRequest damaged = request_of(*model, 10, 12, 50 + i);
    damaged.prompt[i + 2] = kDamaged;
    bad.push_back(send(scheduler, damaged));
  }
  for (const Sent& sent : bad) {
    ASSERT_TRUE(sent.heard->wait_for_end());
    EXPECT_EQ(last(sent.heard->events()).kind, Kind::kFailed);
    EXPECT_EQ(last(sent.heard->events()).code, ErrorCode::kIntegrity) << last(sent.heard->events()).text;
  }
  for (size_t i = 0; i < good.size(); ++i) {
    ASSERT_TRUE(good[i].heard->wait_for_end());
    EXPECT_EQ(last(good[i].heard->events()).kind, Kind::kFinished) << last(good[i].heard->events()).text;
    EXPECT_EQ(answer_of(*good[i].heard), alone[i]);
  }
  EXPECT_EQ(scheduler.stats().failed, 4u);
}

TEST(Scheduler, ItsEndInterruptsWhatIsLeft) {
  const auto model = open("tiny-mistral", 1024);
  std::vector<Sent> sent;
  {
    Scheduler scheduler(*model, {.slots = 2});
    for (uint32_t i = 0; i < 5; ++i) sent.push_back(send(scheduler, request_of(*model, 4, 1000, i)));
    ASSERT_TRUE(sent[0].heard->wait_for_tokens());
  }
  for (const Sent& one : sent) {
    EXPECT_EQ(last(one.heard->events()).kind, Kind::kFinished);
    EXPECT_EQ(last(one.heard->events()).reason, FinishReason::kInterrupted);
  }
}

// The log probabilities of a prompt and its answer are those of the logits.
TEST(Scheduler, TellsTheProbabilitiesOfTheModelItself) {
  const auto model = open("stories260k", 64);
  AnswerRequest request = request_of(*model, 12, 6, 3);
  request.log_probs = request.prompt_log_probs = true;
  request.n_top = 4;
  request.options.logit_bias = {{7, 30.0f}};  // picks it always, and changes no probability
  Scheduler scheduler(*model, {.slots = 1, .prompt_budget = 5});
  const Sent sent = send(scheduler, request);
  ASSERT_TRUE(sent.heard->wait_for_end());
  std::vector<TokenId> ids = request.prompt;
  std::vector<AnswerEvent> told;
  for (const AnswerEvent& event : sent.heard->events()) {
    if (event.kind == Kind::kToken) ids.push_back(event.token);
    if (event.kind == Kind::kToken || event.kind == Kind::kPromptToken) told.push_back(event);
  }
  ASSERT_EQ(told.size(), ids.size() - 1);
  EXPECT_EQ(ids.back(), 7);
  const std::vector<float> logits = test::all_logits(*model, ids, ids.size(), 512);
  const size_t n = model->hparams().vocab_size;
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    const auto row = std::span(logits).subspan(i * n, n);
    double sum = 0;
    for (const float z : row) sum += std::exp(static_cast<double>(z));
    const auto log_prob = [&](TokenId id) {
      return static_cast<double>(row[static_cast<size_t>(id)]) - std::log(sum);
    };
    EXPECT_EQ(told[i].token, ids[i + 1]);
    EXPECT_NEAR(told[i].log_prob, log_prob(ids[i + 1]), 1e-6);
    ASSERT_EQ(told[i].top.size(), 4u);
    EXPECT_EQ(told[i].top[0].id, std::max_element(row.begin(), row.end()) - row.begin());
    for (size_t j = 0; j < 4; ++j) EXPECT_NEAR(told[i].top[j].log_prob, log_prob(told[i].top[j].id), 1e-6);
    for (size_t j = 1; j < 4; ++j) EXPECT_GE(told[i].top[j - 1].log_prob, told[i].top[j].log_prob);
  }
}

}  // namespace
}  // namespace quern
