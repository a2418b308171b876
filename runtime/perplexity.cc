#include "runtime/perplexity.h"

#include <algorithm>
#include <cmath>

#include "kernels/math_f64.h"

namespace quern {
namespace {

PerplexityChunk summarise(uint64_t count, double sum, double sum_of_squares) {
  const double n = static_cast<double>(count);
  const double mean = sum / n;
  const double variance = std::max(0.0, sum_of_squares / n - mean * mean);
  const double perplexity = exp2d(mean * 0x1.71547652b82fep0);  // log2(e)
  const double error = count > 1 ? perplexity * std::sqrt(variance / (n - 1)) : 0.0;
  PerplexityChunk chunk{};
  chunk.perplexity = perplexity;
  chunk.mean_nll = mean;
  chunk.standard_error = error;
  chunk.count = count;
  return chunk;
}

// The sums over all chunks so far.
class Running {
 public:
  void add(double nll) {
    sum_ += nll;
    sum_of_squares_ += nll * nll;
    ++count_;
  }
  PerplexityChunk summary() const { return summarise(count_, sum_, sum_of_squares_); }

 private:
  uint64_t count_ = 0;
  double sum_ = 0, sum_of_squares_ = 0;
};

// What is evaluated: chunk i's tokens, of which the last predicts nothing that is scored and is no input.
// The first that is scored has `first` + 1 tokens before it.
struct Chunks {
  std::vector<std::vector<int32_t>> ids;
  uint64_t n_ctx = 0, first = 0;
  uint64_t n_inputs() const { return n_ctx - 1; }
};

Chunks cut_text(const Model& model, std::span<const int32_t> tokens, const PerplexityOptions& options) {
  const uint64_t n_ctx = options.n_ctx;
  require_perplexity_text(tokens.size(), n_ctx);
  if (n_ctx > model.context())
    fail(ErrorCode::kUsage, "--ctx {}: the session's context is {}", n_ctx, model.context());
  const Vocabulary& vocabulary = model.tokenizer().vocabulary();
  // The second half is scored: every token has at least this much before it.
  const uint64_t first = n_ctx / 2;
  Chunks chunks{{}, n_ctx, first};
  for (uint64_t i = 0; i < count_chunks(tokens.size(), options); ++i) {
    const auto chunk = tokens.subspan(i * n_ctx, n_ctx);
    chunks.ids.emplace_back(chunk.begin(), chunk.end());
    if (vocabulary.add_bos) chunks.ids.back()[0] = vocabulary.bos;
  }
  return chunks;
}

Chunks one_chunk(std::span<const int32_t> ids) {
  return {{std::vector<int32_t>(ids.begin(), ids.end())}, ids.size(), 0};
}

// Caches of short chunks cost little, but not nothing.
constexpr uint64_t kMostTogether = 64;

// A model's sequences for chunks that are evaluated together.
class Group {
 public:
  Group(const Model& model, const Chunks& chunks, uint64_t micro_batch)
      : chunks_(chunks), engine_(model, micro_batch) {
    const uint64_t n = std::clamp<uint64_t>(micro_batch / chunks.n_inputs(), 1,
                                            std::min<uint64_t>(chunks.ids.size(), kMostTogether));
    for (uint64_t i = 0; i < n; ++i) sequences_.emplace_back(model);
  }

  uint64_t size() const { return sequences_.size(); }
  Engine& engine() { return engine_; }
  // Chunks begin, begin + 1 ..., each in an empty sequence; the last group may be smaller. Valid until the
  // next call.
  std::vector<Work> work_of(uint64_t begin) {
    std::vector<Work> work;
    for (uint64_t i = 0; i < std::min(size(), chunks_.ids.size() - begin); ++i) {
      sequences_[i].truncate(0);
      const std::span<const int32_t> ids = chunks_.ids[begin + i];
      work.push_back({&sequences_[i], ids.first(chunks_.n_inputs()), chunks_.n_inputs() - chunks_.first, {}});
    }
    return work;
  }

 private:
  const Chunks& chunks_;
  Engine engine_;
  std::vector<Sequence> sequences_;
};

void require_finite(double value, size_t position, uint64_t chunk) {
  if (!std::isfinite(value))
    fail(ErrorCode::kIntegrity, "non-finite logits at position {} of chunk {}", position, chunk);
}

PerplexityChunk measure(const Model& model, const Chunks& chunks, const PerplexityOptions& options,
                        const std::function<void(const PerplexityChunk&)>& on_chunk,
                        const ScoredTokenFn& on_token, StopFlag stop) {
  Group group(model, chunks, options.micro_batch);
  Running running;
  PerplexityChunk last{};
  for (uint64_t begin = 0; begin < chunks.ids.size(); begin += group.size()) {
    std::vector<Work> work = group.work_of(begin);
    std::vector<std::vector<double>> nlls(work.size());
    for (uint64_t i = 0; i < work.size(); ++i)
      work[i].on_logits = [&, i](size_t position, std::span<const float> logits) {
        const double nll =
            negative_log_likelihood(model.kernels(), logits, chunks.ids[begin + i][position + 1]);
        require_finite(nll, position, begin + i);
        nlls[i].push_back(nll);
        if (options.on_row) options.on_row(logits);
      };
    if (!group.engine().run(work, {.stop = stop})) break;
    for (uint64_t i = 0; i < work.size(); ++i) {
      for (size_t t = 0; t < nlls[i].size(); ++t) {
        const uint64_t position = chunks.first + t + 1;
        running.add(nlls[i][t]);
        if (on_token) on_token(begin + i, position, chunks.ids[begin + i][position], nlls[i][t]);
      }
      last = running.summary();
      last.chunk = begin + i;
      last.n_chunks = chunks.ids.size();
      last.n_evaluated = begin + work.size();
      if (on_chunk) on_chunk(last);
    }
  }
  return last;
}

// Takes two models through the same tokens, some rows of logits at a time.
class SideBySide {
 public:
  SideBySide(const Comparison& models, const Chunks& chunks, const PerplexityOptions& options, StopFlag stop)
      : models_(models),
        model_(models.model, chunks, options.micro_batch),
        base_(models.base, chunks, options.micro_batch),
        on_row_(options.on_row),
        stop_(stop) {
    require_same_vocabulary(models);
    if (models.peer_storage) stored_.resize(stored_row_words(models.base.hparams().vocab_size));
  }

  uint64_t group_size() const { return model_.size(); }

  // Calls body(chunk of the group, index of the input, comparison with the token that came after it) in
  // order. False: stopped.
  template <class Body>
  bool run(const Chunks& chunks, uint64_t begin, const Body& body) {
    const std::vector<Work> work = model_.work_of(begin), base_work = base_.work_of(begin);
    EngineRun model(model_.engine(), work), base(base_.engine(), base_work);
    while (!model.finished()) {
      bool stopped = false;
      models_.base.device().run_pass([&] { stopped = !base.step(stop_); });
      if (!stopped) models_.model.device().run_pass([&] { stopped = !model.step(stop_); });
      if (stopped) return false;
      QUERN_CHECK(model.n_logits() == base.n_logits());
      for (size_t first = 0; first < model.n_logits(); first += Network::kLogitRows) {
        const size_t n = std::min(Network::kLogitRows, model.n_logits() - first);
        models_.base.device().run_pass([&] { base.compute_logits(first, n); });
        models_.model.device().run_pass([&] { model.compute_logits(first, n); });
        for (size_t row = first; row < first + n; ++row) {
          const auto i = static_cast<uint64_t>(&model.work_of(row) - work.data());
          const size_t index = model.index_of(row);
          body(i, index, compare(base.logits(row), model.logits(row), chunks.ids[begin + i][index + 1]));
        }
      }
    }
    return true;
  }

 private:
  TokenComparison compare(std::span<const float> base, std::span<const float> logits, int32_t target) {
    if (on_row_) on_row_(base);
    if (stored_.empty()) return compare_logits(base, logits, target);
    store_row(base, stored_);
    return compare_stored(stored_, logits, target);
  }

  const Comparison& models_;
  Group model_, base_;
  const LogitRowFn& on_row_;
  const StopFlag stop_;
  std::vector<uint16_t> stored_;
};

KlStatistics compare(const Comparison& models, const Chunks& chunks, const PerplexityOptions& options,
                     const ComparisonChunkFn& on_chunk, const ComparedTokenFn& on_token, StopFlag stop) {
  SideBySide both(models, chunks, options, stop);
  KlStatistics statistics;
  const uint64_t n_scored = chunks.n_inputs() - chunks.first;
  for (uint64_t begin = 0; begin < chunks.ids.size(); begin += both.group_size()) {
    const uint64_t end = std::min<uint64_t>(begin + both.group_size(), chunks.ids.size());
    const bool finished =
        both.run(chunks, begin, [&](uint64_t i, size_t index, const TokenComparison& token) {
          require_finite(token.nll, index, begin + i);
          require_finite(token.nll_base, index, begin + i);
          require_finite(token.kl, index, begin + i);
          statistics.add(token);
          if (on_token) on_token(begin + i, index + 1, chunks.ids[begin + i][index + 1], token);
          if (on_chunk && statistics.count() % n_scored == 0)
            on_chunk({begin + i, chunks.ids.size(), end, statistics});
        });
    if (!finished) break;
  }
  return statistics;
}

}  // namespace

double negative_log_likelihood(const KernelSet& kernels, std::span<const float> logits, int32_t target) {
  const float z_max = *std::max_element(logits.begin(), logits.end());
  const double sum = kernels.sum_exp(logits.data(), logits.size(), z_max);
  return ln(sum) - static_cast<double>(logits[static_cast<size_t>(target)] - z_max);
}

void require_perplexity_text(uint64_t n_tokens, uint64_t n_ctx) {
  if (n_ctx < 4) fail(ErrorCode::kUsage, "--ctx {}: chunks of at least 4 tokens are needed", n_ctx);
  if (n_tokens < 2 * n_ctx)
    fail(ErrorCode::kUsage,
         "the text has {} tokens; two chunks of --ctx {} need {}: use a longer text or a smaller --ctx",
         n_tokens, n_ctx, 2 * n_ctx);
}

void require_same_vocabulary(const Comparison& models) {
  const uint32_t n = models.model.hparams().vocab_size, n_base = models.base.hparams().vocab_size;
  if (n != n_base)
    fail(ErrorCode::kUsage,
         "the base's vocabulary has {} tokens, the model's {}: only models of the same vocabulary can be "
         "compared",
         n_base, n);
}

uint64_t count_chunks(uint64_t n_tokens, const PerplexityOptions& options) {
  const uint64_t n = n_tokens / options.n_ctx;
  return options.max_chunks == 0 ? n : std::min(n, options.max_chunks);
}

PerplexityChunk measure_perplexity(const Model& model, std::span<const int32_t> tokens,
                                   const PerplexityOptions& options,
                                   const std::function<void(const PerplexityChunk&)>& on_chunk,
                                   const ScoredTokenFn& on_token, StopFlag stop) {
  return measure(model, cut_text(model, tokens, options), options, on_chunk, on_token, stop);
}

PerplexityChunk measure_ids(const Model& model, std::span<const int32_t> ids, const ScoredTokenFn& on_token,
                            StopFlag stop) {
  return measure(model, one_chunk(ids), {}, {}, on_token, stop);
}

KlStatistics compare_perplexity(const Comparison& models, std::span<const int32_t> tokens,
                                const PerplexityOptions& options, const ComparisonChunkFn& on_chunk,
                                const ComparedTokenFn& on_token, StopFlag stop) {
  const Chunks chunks = cut_text(models.model, tokens, options);
  return compare(models, chunks, options, on_chunk, on_token, stop);
}

KlStatistics compare_ids(const Comparison& models, std::span<const int32_t> ids,
                         const ComparedTokenFn& on_token, StopFlag stop) {
  return compare(models, one_chunk(ids), {}, {}, on_token, stop);
}

}  // namespace quern
