// quern perplexity: how well a model predicts a text (conventions.md 4.2), and how far its predictions are
// from those of another model (4.3).
#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/comparison_report.h"
#include "cli/model_source.h"
#include "cli/plot.h"
#include "cli/report.h"
#include "cli/session_options.h"
#include "cli/text_input.h"
#include "quant/json/json_writer.h"
#include "quant/machine/stop_signal.h"
#include "runtime/logit_file.h"
#include "runtime/perplexity.h"

namespace quern {
namespace {

struct Options {
  std::string model;
  std::optional<std::string> file, ids, per_token, against, save_logits, plot;
  bool parse_special = false, peer_storage = false;
  SessionArguments session;
  uint64_t max_chunks = 0;
  bool json = false;
};

bool parse(std::span<const std::string> arguments, Options* options) {
  Arguments parser("perplexity", "Measures how well a model predicts a text; lower is better.",
                   "  quern perplexity model.gguf -f wiki.test.raw\n"
                   "  quern perplexity model.gguf -f text.txt --ctx 128 --chunks 10 --json\n"
                   "  quern perplexity model-q4_0.gguf --against model-bf16.gguf -f text.txt\n"
                   "  quern perplexity mistral.gguf --against Mistral-7B-Instruct-v0.2 -f text.txt\n"
                   "  quern perplexity model.gguf -f text.txt --per-token nll.csv");
  parser.positional("MODEL", "A GGUF file, or a checkpoint folder, which is read as BF16", &options->model);
  parser.text("-f,--file", "FILE", "The text, less one trailing newline; '-' is stdin (this or --ids)",
              &options->file);
  parser.text("--ids", "FILE",
              "Token ids in place of a text, as one chunk: a JSON list, or an object with ids",
              &options->ids);
  add_parse_special(parser, &options->parse_special);
  parser.text("--against", "BASE",
              "Compare with this model, a file or folder like MODEL, token by token: KL divergence, "
              "differences of probabilities, ratio "
              "of the perplexities",
              &options->against);
  parser.flag("--peer-storage",
              "With --against: store the base's probabilities in 16 bits, as llama-perplexity does, for "
              "numbers like the published ones",
              &options->peer_storage);
  parser.text("--save-logits", "FILE",
              "Write the probabilities of MODEL, or with --against of BASE, as a file that "
              "llama-perplexity --kl-divergence reads",
              &options->save_logits);
  parser.integer<uint64_t>("--chunks", "Chunks to measure at most (default: all)", 1, UINT32_MAX,
                           &options->max_chunks);
  parser.text("--per-token", "FILE",
              "Write chunk,position,id,nll of every scored token as CSV; with --against also "
              "nll_base,kl,p_diff,same_top",
              &options->per_token);
  parser.text("--plot", "FILE.svg",
              "Draw the running perplexity with its standard error, or with --against how many tokens have "
              "which KL divergence",
              &options->plot);
  parser.flag("--json", "Print one object at the end", &options->json);
  options->session.model.context = 512;
  options->session.declare(parser, "512: the size of a chunk");
  return parser.parse(arguments);
}

void check(const Options& options) {
  if (options.file && options.ids) fail(ErrorCode::kUsage, "--ids excludes --file");
  if (!options.file && !options.ids)
    fail(ErrorCode::kUsage, "--file or --ids is required (see quern perplexity --help)");
  if (options.peer_storage && !options.against)
    fail(ErrorCode::kUsage, "--peer-storage is about --against BASE, which is not there");
  if (options.save_logits && options.ids)
    fail(ErrorCode::kUsage,
         "--save-logits: the file holds the second half of each chunk of a text, so it takes -f FILE, "
         "not --ids");
  if (options.plot) require_picture_path(*options.plot);
}

// What is written to must not be among these.
std::vector<std::string> inputs_of(const Options& options) {
  std::vector<std::string> inputs = {options.model};
  for (const auto& input : {options.against, options.ids, options.file})
    if (input) inputs.push_back(*input);
  return inputs;
}

// The file of --per-token; does nothing when none was asked for. A CSV is no result that must appear whole:
// what was measured before a stop is worth keeping.
class TokenLog {
 public:
  TokenLog(const std::optional<std::string>& path, bool compared) {
    if (!path) return;
    path_ = *path;
    file_.reset(std::fopen(path_.c_str(), "w"));
    if (file_ == nullptr) fail_errno(errno, fmt::format("cannot write '{}'", printable(path_, kPathBytes)));
    write(compared ? "chunk,position,id,nll,nll_base,kl,p_diff,same_top\n" : "chunk,position,id,nll\n");
  }

  void add(uint64_t chunk, uint64_t position, int32_t id, double nll) {
    if (file_ != nullptr) write(fmt::format("{},{},{},{:.9g}\n", chunk, position, id, nll));
  }
  void add(uint64_t chunk, uint64_t position, int32_t id, const TokenComparison& t) {
    if (file_ != nullptr)
      write(fmt::format("{},{},{},{:.9g},{:.9g},{:.9g},{:.9g},{}\n", chunk, position, id, t.nll, t.nll_base,
                        t.kl, t.p_diff, t.same_top ? 1 : 0));
  }
  void finish() {
    if (file_ != nullptr && std::fflush(file_.get()) != 0) fail_write();
  }

 private:
  void write(const std::string& line) {
    if (std::fwrite(line.data(), 1, line.size(), file_.get()) != line.size()) fail_write();
  }
  [[noreturn]] void fail_write() const {
    fail_errno(errno, fmt::format("cannot write '{}'", printable(path_, kPathBytes)));
  }

  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;
};

std::string result_json(const PerplexityChunk& last, uint64_t n_ctx, const std::vector<double>& running,
                        double seconds) {
  JsonWriter json;
  json.begin_object()
      .field("perplexity", last.perplexity)
      .field("standard_error", last.standard_error)
      .field("mean_nll", last.mean_nll)
      .field("scored_tokens", last.count)
      .field("chunks", running.size())
      .field("n_ctx", n_ctx)
      .field("seconds", seconds)
      .field("running", running);
  return json.end_object().text() + "\n";
}

void report_eta(uint64_t n_chunks, uint64_t n_evaluated, double seconds) {
  const double each = seconds / static_cast<double>(n_evaluated);
  timing(fmt::format("perplexity: {:.2f} seconds per chunk - ETA {}", each,
                     format_duration(each * static_cast<double>(n_chunks - n_evaluated))));
}

// One run of the command, the models loaded.
class Measurement {
 public:
  Measurement(const Options& options, const Model& model, const Model* base, std::vector<TokenId> tokens)
      : options_(options), model_(model), base_(base), tokens_(std::move(tokens)) {
    perplexity_.n_ctx = model.context();
    perplexity_.max_chunks = options.max_chunks;
    if (!options.ids) require_perplexity_text(tokens_.size(), perplexity_.n_ctx);
    if (options.per_token) refuse_input("--per-token", *options.per_token, inputs_of(options));
    if (options.plot) refuse_input("--plot", *options.plot, inputs_of(options));
    if (options.save_logits) save_logits();
    log_.emplace(options.per_token, base != nullptr);
  }

  int run() {
    start_ = now_seconds();
    const std::string result = base_ != nullptr ? compare() : measure();
    log_->finish();
    if (stop_.requested()) return stop_exit_code();
    write_out(result);
    if (logits_) logits_->commit();
    if (options_.plot) write_picture(*options_.plot, picture_);
    return 0;
  }

 private:
  void save_logits() {
    refuse_input("--save-logits", *options_.save_logits, inputs_of(options_));
    const uint64_t n = count_chunks(tokens_.size(), perplexity_) * perplexity_.n_ctx;
    const Model& model = base_ != nullptr ? *base_ : model_;
    logits_.emplace(*options_.save_logits, perplexity_.n_ctx, model.hparams().vocab_size,
                    std::span<const TokenId>(tokens_).first(n));
    perplexity_.on_row = [this](std::span<const float> logits) { logits_->add(logits); };
  }

  // Returns what is printed at the end.
  std::string measure() {
    std::vector<double> running, errors;
    const auto on_chunk = [&](const PerplexityChunk& chunk) {
      running.push_back(chunk.perplexity);
      errors.push_back(chunk.standard_error);
      if (chunk.chunk == 0 && !options_.ids)
        report_eta(chunk.n_chunks, chunk.n_evaluated, now_seconds() - start_);
      if (options_.json) return;
      print_out("[{}]{:.4f},", chunk.chunk + 1, chunk.perplexity);
      flush_out();
    };
    const auto on_token = [&](uint64_t chunk, uint64_t position, int32_t id, double nll) {
      log_->add(chunk, position, id, nll);
    };
    const PerplexityChunk last =
        options_.ids ? measure_ids(model_, tokens_, on_token, stop_.flag())
                     : measure_perplexity(model_, tokens_, perplexity_, on_chunk, on_token, stop_.flag());
    if (options_.ids && !stop_.requested()) on_chunk(last);
    if (options_.plot && !running.empty())
      picture_ = plot_running_perplexity(options_.model, running, errors);
    if (options_.json) return result_json(last, model_.context(), running, now_seconds() - start_);
    write_out("\n");
    return fmt::format("Final estimate: PPL = {:.4f} +/- {:.5f}\n", last.perplexity, last.standard_error);
  }

  std::string compare() {
    uint64_t n_chunks = 1;
    const auto on_chunk = [&](const ComparisonChunk& chunk) {
      n_chunks = chunk.chunk + 1;
      if (chunk.chunk == 0) report_eta(chunk.n_chunks, chunk.n_evaluated, now_seconds() - start_);
      if (options_.json) return;
      if (chunk.chunk == 0) print_out("\n{}", comparison_header(stdout_width(SIZE_MAX)));
      write_out(comparison_row(chunk.chunk + 1, chunk.statistics.summary(/*with_percentiles=*/false),
                               stdout_width(SIZE_MAX)));
      flush_out();
    };
    const auto on_token = [&](uint64_t chunk, uint64_t position, int32_t id, const TokenComparison& token) {
      log_->add(chunk, position, id, token);
    };
    const Comparison models{model_, *base_, options_.peer_storage};
    const KlStatistics statistics =
        options_.ids ? compare_ids(models, tokens_, on_token, stop_.flag())
                     : compare_perplexity(models, tokens_, perplexity_, on_chunk, on_token, stop_.flag());
    const KlSummary summary = statistics.summary(/*with_percentiles=*/true);
    if (options_.plot && statistics.count() > 0)
      picture_ = plot_kl_distribution(options_.model, *options_.against, statistics.kl());
    if (!options_.json) return fmt::format("\n{}", comparison_text(summary));
    JsonWriter json;
    json.begin_object().field("model", options_.model).field("base", *options_.against);
    json.field("storage", options_.peer_storage ? "peer" : "exact");
    comparison_json(summary, json);
    json.field("chunks", n_chunks).field("n_ctx", perplexity_.n_ctx).field("seconds", now_seconds() - start_);
    return json.end_object().text() + "\n";
  }

  const Options& options_;
  const Model& model_;
  const Model* base_;
  std::vector<TokenId> tokens_;
  PerplexityOptions perplexity_;
  std::optional<LogitFile> logits_;
  std::optional<TokenLog> log_;
  std::string picture_;
  const StopScope stop_;
  double start_ = 0;
};

// What is true of both models is said once.
class SaidOnce {
 public:
  void operator()(std::string_view line) {
    if (said_.emplace(line).second) notice(line);
  }

 private:
  std::set<std::string> said_;
};

// The base first: what it takes is known when the model is loaded.
std::unique_ptr<Model> load_base(const std::string& path, ModelOptions* options, FolderTokenizer tokenizer,
                                 const Notice& tell) {
  options->state_memory = true;
  std::unique_ptr<Model> base = load_model_or_checkpoint(path, *options, tokenizer, tell);
  const MemoryPlan& plan = base->memory_plan();
  options->promised_bytes = plan.in_place + plan.kv + plan.scratch;
  return base;
}

// A base whose vocabulary is another one of the same size would be given tokens that mean something else.
void warn_of_other_tokens(const Model& base, std::string_view text, TextRole role,
                          std::span<const TokenId> tokens) {
  if (!base.has_tokenizer()) return;
  const std::vector<TokenId> own = base.tokenizer().encode_prompt(text, role);
  const auto [differs, ignored] = std::mismatch(tokens.begin(), tokens.end(), own.begin(), own.end());
  if (differs == tokens.end() && own.size() == tokens.size()) return;
  print_notice(
      "warning: the base's own vocabulary makes other tokens of the text, from token {} on; both "
      "models get MODEL's",
      differs - tokens.begin());
}

}  // namespace

int run_perplexity(std::span<const std::string> arguments) {
  Options options;
  if (!parse(arguments, &options)) return 0;
  check(options);
  std::vector<TokenId> tokens;
  ModelOptions model_options = options.session.options();
  std::string text;
  if (options.ids) {
    tokens = read_ids(*options.ids, 2);
    model_options.context = tokens.size();
    model_options.context_option = "--ids: a chunk of";
  } else {
    TextInput input;
    input.file = options.file;
    text = read_text(input, TextRule::kExact);
  }

  const FolderTokenizer tokenizer = options.ids ? FolderTokenizer::kLeftOut : FolderTokenizer::kRead;
  std::unique_ptr<Model> base;
  SaidOnce said;
  if (options.against) base = load_base(*options.against, &model_options, tokenizer, std::ref(said));
  const std::unique_ptr<Model> model =
      load_model_or_checkpoint(options.model, model_options, tokenizer, std::ref(said));
  if (base != nullptr) require_same_vocabulary({*model, *base});
  if (options.ids) {
    require_ids_of(*model, *options.ids, tokens);
    print_notice("perplexity: {} ids as one chunk", tokens.size());
  } else {
    const TextRole role = role_of(options.parse_special);
    tokens = model->tokenizer().encode_prompt(text, role);
    print_notice("perplexity: {} tokens, chunks of {} (override: --ctx)", tokens.size(), model->context());
    if (base != nullptr) warn_of_other_tokens(*base, text, role, tokens);
  }
  return Measurement(options, *model, base.get(), std::move(tokens)).run();
}

}  // namespace quern
