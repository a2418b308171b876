#include "cli/bench_measure.h"

#include <fmt/chrono.h>

#include <algorithm>
#include <ctime>
#include <memory>
#include <random>

#include "cli/report.h"
#include "quant/format_size.h"
#include "quant/machine/memory.h"
#include "runtime/generate.h"
#include "runtime/session.h"

namespace quern {
namespace {

// Tokens in a row for one session; random ones, as their values make no difference to the time.
class TokenSource {
 public:
  explicit TokenSource(const Model& model)
      : model_(model), any_id_(0, static_cast<int32_t>(model.hparams().vocab_size) - 1) {}

  // The first token of a sequence is the begin-of-text token where the vocabulary adds one.
  std::vector<int32_t> take(size_t n, bool at_start) {
    std::vector<int32_t> ids(n);
    for (int32_t& id : ids) id = any_id_(random_);
    if (at_start && n > 0 && model_.has_tokenizer() && model_.tokenizer().vocabulary().add_bos)
      ids[0] = model_.tokenizer().vocabulary().bos;
    return ids;
  }

 private:
  const Model& model_;
  std::mt19937 random_{1};  // any fixed seed: runs are alike
  std::uniform_int_distribution<int32_t> any_id_;
};

// One test: a session of its own, its depth filled once and kept.
class Test {
 public:
  Test(const Model& model, BenchResult* result, const StopScope& stop)
      : session_(model, kBenchMicroBatch), tokens_(model), result_(*result), stop_(stop) {}

  void warm_up() {
    evaluate_prompt(result_.n_depth);
    if (result_.n_prompt > 0) {
      const uint64_t dropped = session_.rows_dropped();
      evaluate_prompt(result_.n_prompt);
      prompt_rows_dropped_ = session_.rows_dropped() - dropped;
    } else {
      generate(1);
    }
  }

  void run(int64_t repetitions, BenchProbes* probes) {
    const Model& model = session_.model();
    if (result_.is_prompt())
      result_.limit.work =
          model.macs_per_token() * result_.n_prompt - model.macs_per_dropped_row() * prompt_rows_dropped_;
    if (result_.is_generation()) result_.limit.work = model.bytes_per_token() * result_.n_gen;
    double before = probes->peak(model, result_, kProbeSeconds);
    for (int64_t i = 0; i < repetitions; ++i) {
      session_.truncate(result_.n_depth);
      const DeviceTimes earlier = model.device().times();
      const auto start = BenchClock::now();
      evaluate_prompt(result_.n_prompt);
      generate(result_.n_gen);
      result_.samples_ns.push_back(nanoseconds_since(start));
      count_attention(earlier, model.device().times());
      // Longer beside a longer repetition: what else runs on the machine comes and goes.
      const double seconds = 0.02e-9 * static_cast<double>(result_.samples_ns.back());
      const double after = probes->peak(model, result_, std::clamp(seconds, kProbeSeconds, kMaxProbeSeconds));
      if (before > 0 && after > 0) result_.limit.peaks.push_back((before + after) / 2);
      before = after;
    }
  }

 private:
  static constexpr double kProbeSeconds = 0.03, kMaxProbeSeconds = 0.3;

  void count_attention(const DeviceTimes& begin, const DeviceTimes& end) {
    result_.attention.attention_seconds += end.attention_seconds - begin.attention_seconds;
    result_.attention.attention_kv_bytes += end.attention_kv_bytes - begin.attention_kv_bytes;
    result_.attention.attention_macs += end.attention_macs - begin.attention_macs;
  }

  // Logits are wanted of the last token of each batch alone.
  void evaluate(const std::vector<int32_t>& ids) {
    for (size_t begin = 0; begin < ids.size(); begin += kBenchBatch) {
      const auto batch = std::span(ids).subspan(begin, std::min(kBenchBatch, ids.size() - begin));
      const bool finished =
          session_.eval(batch, 1, [](size_t, std::span<const float>) {}, {.stop = stop_.flag()});
      if (!finished || stop_.requested()) throw Interrupted();
    }
  }
  void evaluate_prompt(uint64_t n) { evaluate(tokens_.take(n, session_.position() == 0)); }
  void generate(uint64_t n) {
    for (uint64_t i = 0; i < n; ++i) evaluate(tokens_.take(1, session_.position() == 0));
  }

  Session session_;
  TokenSource tokens_;
  BenchResult& result_;
  const StopScope& stop_;
  uint64_t prompt_rows_dropped_ = 0;
};

// Passes of several rows read their weights once, but do more with them.
bool has_limit(const BenchResult& result) { return result.n_sequences == 1 && !result.of_text; }

// Several sequences, each with a token in every pass.
class BatchTest {
 public:
  BatchTest(const Model& model, BenchResult* result, const StopScope& stop)
      : engine_(model, kBenchMicroBatch), tokens_(model), result_(*result), stop_(stop) {
    for (uint64_t i = 0; i < result->n_sequences; ++i)
      sequences_.push_back(std::make_unique<Sequence>(model));
  }

  void warm_up() {
    if (result_.n_depth > 0) evaluate(result_.n_depth);
    evaluate(1);
  }

  void run(int64_t repetitions, BenchProbes*) {
    for (int64_t i = 0; i < repetitions; ++i) {
      for (const auto& sequence : sequences_) sequence->truncate(result_.n_depth);
      const auto start = BenchClock::now();
      for (uint64_t t = 0; t < result_.n_gen; ++t) evaluate(1);
      result_.samples_ns.push_back(nanoseconds_since(start));
    }
  }

 private:
  void evaluate(size_t n) {
    std::vector<std::vector<int32_t>> ids;
    for (const auto& sequence : sequences_) ids.push_back(tokens_.take(n, sequence->position() == 0));
    std::vector<Work> work;
    for (size_t i = 0; i < ids.size(); ++i)
      work.push_back({sequences_[i].get(), ids[i], 1, [](size_t, std::span<const float>) {}});
    if (!engine_.run(work, {.stop = stop_.flag()}) || stop_.requested()) throw Interrupted();
  }

  Engine engine_;
  std::vector<std::unique_ptr<Sequence>> sequences_;
  TokenSource tokens_;
  BenchResult& result_;
  const StopScope& stop_;
};

// What a greedy continuation of a text takes with guesses and without, by turns.
class TextTest {
 public:
  TextTest(const Model& model, BenchResult* result, const BenchTask& task)
      : session_(model, kBenchMicroBatch), result_(*result), task_(task) {
    options_.sampler.temperature = 0;
    options_.ignore_eos = true;
    options_.max_tokens = static_cast<int64_t>(result->n_gen);
  }

  void warm_up() {
    CompletionOptions one = options_;
    one.max_tokens = 1;
    generate(one, nullptr);
  }

  void run(int64_t repetitions, BenchProbes*) {
    size_t n_tokens = 0, n_passes = 0;
    for (int64_t i = 0; i < repetitions; ++i) {
      Speculation speculation;  // each learns for itself
      GenerateResult with, without;
      if (i % 2 == 0) without = generate(options_, nullptr);
      with = generate(options_, &speculation);
      if (i % 2 == 1) without = generate(options_, nullptr);
      QUERN_CHECK(with.tokens == without.tokens);
      const double ns = ns_per_token(with);
      result_.samples_ns.push_back(static_cast<uint64_t>(ns * static_cast<double>(result_.n_gen)));
      result_.gains.push_back(ns_per_token(without) / ns);
      n_tokens += with.decode_tokens;
      n_passes += with.decode_passes;
    }
    result_.tokens_per_pass =
        static_cast<double>(n_tokens) / static_cast<double>(std::max<size_t>(n_passes, 1));
  }

 private:
  // The first token comes from the prompt's logits.
  static double ns_per_token(const GenerateResult& result) {
    return 1e9 * result.decode_seconds / static_cast<double>(std::max<size_t>(result.decode_tokens, 1));
  }

  GenerateResult generate(const CompletionOptions& options, Speculation* speculation) {
    GenerateResult result = quern::generate(session_, task_.text, options, {}, {},
                                            {.stop = task_.stop.flag()}, {.speculation = speculation});
    if (task_.stop.requested()) throw Interrupted();
    return result;
  }

  Session session_;
  CompletionOptions options_;
  BenchResult& result_;
  const BenchTask& task_;
};

}  // namespace

uint64_t nanoseconds_since(BenchClock::time_point start) {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(BenchClock::now() - start).count());
}

bool MemoryPeak::begin() {
  if (!restart_peak_memory()) return false;
  before_probe_ = 0;
  return true;
}

void MemoryPeak::probe_taken(uint64_t before, uint64_t n_bytes) {
  before_probe_ = before;
  probe_bytes_ = n_bytes;
}

uint64_t MemoryPeak::bytes() const {
  const uint64_t all = peak_memory();
  return std::max(before_probe_, all - std::min(all, probe_bytes_));
}

void BenchProbes::prepare(const Model& model, const BenchResult& result) {
  if (!wanted_ || !has_limit(result) || !result.is_generation()) return;
  if (reads_mapping(model)) {
    read_mapping_.emplace(model.mapped_weights());
    return;
  }
  read_mapping_.reset();
  if (read_ || refused_) return;
  const uint64_t before = peak_memory();
  constexpr uint64_t kSpare = uint64_t{256} << 20;
  if (available_memory() < ReadProbe::kBytes + kSpare) {
    refused_ = true;
    print_notice("no read bandwidth: its measurement needs {} (hide this line: --no-probe)",
                 format_size(ReadProbe::kBytes + kSpare));
    return;
  }
  read_.emplace(result.n_threads);
  memory_.probe_taken(before, read_->bytes());
}

double BenchProbes::peak(const Model& model, const BenchResult& result, double seconds) {
  if (!wanted_ || !has_limit(result)) return 0;
  if (result.is_prompt()) return multiply_rate(model.kernels(), model.n_threads(), seconds);
  std::optional<ReadProbe>& read = read_mapping_ ? read_mapping_ : read_;
  return result.is_generation() && read ? read->rate(model.kernels(), model.n_threads(), seconds) : 0;
}

bool BenchProbes::reads_mapping(const Model& model) {
  return model.mapped_weights().size() >= uint64_t{256} << 20;
}

void measure_bench(const Model& model, const BenchTask& task, BenchProbes* probes, bool* peaks_are_own,
                   BenchResult* result) {
  result->n_threads = model.n_threads();
  result->load_ns = task.load_ns;
  *peaks_are_own = probes->memory().begin() && *peaks_are_own;
  const auto start = BenchClock::now();
  const auto measure = [&](auto&& test) {
    result->test_time = fmt::format("{:%FT%TZ}", fmt::gmtime(std::time(nullptr)));
    test.warm_up();
    result->first_token_ns = task.load_ns + nanoseconds_since(start);
    probes->prepare(model, *result);
    test.run(task.repetitions, probes);
  };
  if (result->of_text)
    measure(TextTest(model, result, task));
  else if (result->n_sequences > 1)
    measure(BatchTest(model, result, task.stop));
  else
    measure(Test(model, result, task.stop));
  result->peak_memory_bytes = std::max(task.load_bytes, probes->memory().bytes());
}

}  // namespace quern
