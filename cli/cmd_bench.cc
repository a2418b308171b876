// quern bench: prompt and generation speed by llama-bench's protocol (conventions.md 4.1).
#include <fmt/chrono.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <random>

#include "cli/arguments.h"
#include "cli/bench_report.h"
#include "cli/command.h"
#include "cli/report.h"
#include "cli/session_options.h"
#include "cli/stop_signal.h"
#include "convert/convert.h"
#include "kernels/cpu_features.h"
#include "runtime/session.h"

namespace quern {
namespace {

struct Options {
  std::string model, format = "md";
  std::vector<int64_t> n_prompt = {512}, n_gen = {128}, n_depth = {0}, n_threads = {0};
  int64_t repetitions = 5;
  SessionArguments session;
};

bool parse(std::span<const std::string> arguments, Options* options) {
  constexpr int64_t kMaxTokens = 1 << 23;
  Arguments parser(
      "bench",
      "Measures tokens per second of prompts (pp) and of generation (tg), as llama-bench does: random "
      "tokens, a warm-up, then -r repetitions.",
      "  quern bench model.gguf\n"
      "  quern bench model.gguf -p 128,512 -n 32 -r 3 -t 1,2\n"
      "  quern bench model.gguf -p 0 -n 64 -d 1024 -o json");
  std::vector<std::string> formats;
  for (const BenchFormat& format : bench_formats()) formats.emplace_back(format.name);
  parser.positional("MODEL", "A GGUF file", &options->model);
  parser.integers("-p,--n-prompt", "Prompt tokens; 0: no such test (default 512)", 0, kMaxTokens,
                  &options->n_prompt);
  parser.integers("-n,--n-gen", "Generated tokens; 0: no such test (default 128)", 0, kMaxTokens,
                  &options->n_gen);
  parser.integers("-d,--n-depth", "Tokens in the context before the test (default 0)", 0, kMaxTokens,
                  &options->n_depth);
  parser.integer<int64_t>("-r,--repetitions", "Repetitions of each test (default 5)", 1, 10000,
                          &options->repetitions);
  parser.integers("-t,--threads", "Threads (default: physical cores within affinity and cgroup quota)", 1,
                  1024, &options->n_threads);
  options->session.declare_device(parser);
  parser.choice("-o,--output", "Form of the table (default md)", formats, &options->format);
  return parser.parse(arguments);
}

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

  void run(int64_t repetitions) {
    result_.test_time = fmt::format("{:%FT%TZ}", fmt::gmtime(std::time(nullptr)));
    evaluate_prompt(result_.n_depth);
    if (result_.n_prompt > 0) {
      evaluate_prompt(result_.n_prompt);
    } else {
      generate(1);
    }
    for (int64_t i = 0; i < repetitions; ++i) {
      session_.truncate(result_.n_depth);
      const auto start = std::chrono::steady_clock::now();
      evaluate_prompt(result_.n_prompt);
      generate(result_.n_gen);
      const auto elapsed = std::chrono::steady_clock::now() - start;
      result_.samples_ns.push_back(
          static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(elapsed).count()));
    }
  }

 private:
  // Logits are wanted of the last token of each batch alone.
  void evaluate(const std::vector<int32_t>& ids) {
    for (size_t begin = 0; begin < ids.size(); begin += kBenchBatch) {
      const auto batch = std::span(ids).subspan(begin, std::min(kBenchBatch, ids.size() - begin));
      const bool finished = session_.eval(
          batch, 1, [](size_t, std::span<const float>) {}, [&] { return stop_.requested(); });
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
};

// In llama-bench's order: all prompt tests before the generation tests.
std::vector<BenchResult> planned_tests(const Options& options, int n_threads) {
  std::vector<BenchResult> tests;
  for (const int64_t depth : options.n_depth) {
    const auto add = [&](int64_t n_prompt, int64_t n_gen) {
      if (n_prompt + n_gen == 0) return;
      BenchResult test;
      test.n_threads = n_threads;
      test.n_prompt = static_cast<uint64_t>(n_prompt);
      test.n_gen = static_cast<uint64_t>(n_gen);
      test.n_depth = static_cast<uint64_t>(depth);
      tests.push_back(test);
    };
    for (const int64_t n : options.n_prompt) add(n, 0);
    for (const int64_t n : options.n_gen) add(0, n);
  }
  return tests;
}

uint64_t needed_context(const std::vector<BenchResult>& tests) {
  uint64_t context = 1;
  for (const BenchResult& test : tests)
    context = std::max(context, test.n_prompt + test.n_gen + test.n_depth);
  return context;
}

BenchModel describe(const Options& options, const Model& model) {
  BenchModel out;
  out.filename = options.model;
  out.cpu_info = cpu_features().model_name;
  out.description = describe_model(model.hparams());
  out.size = model.weight_bytes();
  out.n_params = model.n_params();
  out.kv_type = options.session.kv;
  out.use_mmap = !options.session.no_mmap;
  return out;
}

const BenchFormat& find_format(std::string_view name) {
  const auto formats = bench_formats();
  const auto found =
      std::find_if(formats.begin(), formats.end(), [&](const BenchFormat& row) { return row.name == name; });
  QUERN_CHECK(found != formats.end());  // the parser let nothing else through
  return *found;
}

}  // namespace

int run_bench(std::span<const std::string> arguments) {
  Options options;
  if (!parse(arguments, &options)) return 0;
  if (planned_tests(options, 1).empty())
    fail(ErrorCode::kUsage, "nothing to measure: --n-prompt and --n-gen are both 0");
  const BenchFormat& format = find_format(options.format);
  bool first = true;

  for (const int64_t n_threads : options.n_threads) {
    ModelOptions model_options = options.session.options();
    std::vector<BenchResult> tests = planned_tests(options, static_cast<int>(n_threads));
    model_options.n_threads = static_cast<int>(n_threads);
    model_options.context = needed_context(tests);
    const auto model = Model::load(options.model, model_options, notice);
    const BenchModel description = describe(options, *model);
    const StopScope stop;
    for (BenchResult& test : tests) {
      test.n_threads = model->n_threads();
      Test(*model, &test, stop).run(options.repetitions);
      if (first)
        write_out(format.header(description));
      else
        write_out(format.separator);
      first = false;
      write_out(format.result(description, test));
      flush_out();
    }
  }
  write_out(format.footer());
  return 0;
}

}  // namespace quern
