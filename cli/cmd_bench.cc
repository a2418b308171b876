// quern bench: prompt and generation speed by llama-bench's protocol (conventions.md 4.1), and how much of
// what the machine can give that is.
#include <fmt/chrono.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <optional>
#include <random>

#include "cli/arguments.h"
#include "cli/bench_report.h"
#include "cli/command.h"
#include "cli/parse.h"
#include "cli/report.h"
#include "cli/session_options.h"
#include "cli/stop_signal.h"
#include "convert/convert.h"
#include "kernels/cpu_features.h"
#include "kernels/machine_probe.h"
#include "runtime/memory_plan.h"
#include "runtime/session.h"

namespace quern {
namespace {

constexpr int64_t kMaxTokens = 1 << 23;

struct Options {
  std::string model, format = "md";
  std::vector<int64_t> n_prompt = {512}, n_gen = {128}, n_depth = {0}, n_threads = {0};
  std::vector<std::string> prompt_and_gen;  // "512,128"
  int64_t repetitions = 5;
  bool no_probe = false;
  SessionArguments session;
};

// llama-bench's -pg has two letters behind one dash, which the parser takes for -p with the value "g".
std::vector<std::string> with_long_options(std::span<const std::string> arguments) {
  std::vector<std::string> out(arguments.begin(), arguments.end());
  for (std::string& argument : out)
    if (argument == "-pg") argument = "--pg";
  return out;
}

bool parse(std::span<const std::string> arguments, Options* options) {
  Arguments parser(
      "bench",
      "Measures tokens per second of prompts (pp) and of generation (tg), as llama-bench does: random "
      "tokens, a warm-up, then -r repetitions. Beside them: the bytes of weights (tg) or the multiply-adds "
      "of the layers (pp) per second, their share of what plain loops reach on this machine right before and "
      "after each repetition (median, lowest and highest), and attention's share of the time.",
      "  quern bench model.gguf\n"
      "  quern bench model.gguf -p 128,512 -n 32 -r 3 -t 1,2\n"
      "  quern bench model.gguf -p 0 -n 64 -d 1024 -o json\n"
      "  quern bench model.gguf -p 0 -n 0 -pg 512,128");
  std::vector<std::string> formats;
  for (const BenchFormat& format : bench_formats()) formats.emplace_back(format.name);
  parser.positional("MODEL", "A GGUF file", &options->model);
  parser.integers("-p,--n-prompt", "Prompt tokens; 0: no such test (default 512)", 0, kMaxTokens,
                  &options->n_prompt);
  parser.integers("-n,--n-gen", "Generated tokens; 0: no such test (default 128)", 0, kMaxTokens,
                  &options->n_gen);
  parser.texts("--pg", "P,G",
               "(also -pg) P prompt tokens and then G generated ones, timed together; may be repeated",
               &options->prompt_and_gen);
  parser.integers("-d,--n-depth", "Tokens in the context before the test (default 0)", 0, kMaxTokens,
                  &options->n_depth);
  parser.integer<int64_t>("-r,--repetitions", "Repetitions of each test (default 5)", 1, 10000,
                          &options->repetitions);
  parser.integers("-t,--threads", "Threads (default: physical cores within affinity and cgroup quota)", 1,
                  kMaxThreads, &options->n_threads);
  options->session.declare_device(parser);
  parser.choice("-o,--output", "Form of the table (default md)", formats, &options->format);
  parser.flag("--no-probe", "Do not measure the machine's limits (the read takes up to 1 GiB)",
              &options->no_probe);
  return parser.parse(with_long_options(arguments));
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

using Clock = std::chrono::steady_clock;

uint64_t nanoseconds_since(Clock::time_point start) {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count());
}

// The most memory that the process has taken in a stretch of its life, without the read probe's.
class MemoryPeak {
 public:
  // False where a stretch cannot begin anew: it then goes on.
  bool begin() {
    if (!restart_peak_memory()) return false;
    before_probe_ = 0;
    return true;
  }
  // The probe has taken n_bytes for the rest of the process's life; before: peak_memory() until then.
  void probe_taken(uint64_t before, uint64_t n_bytes) {
    before_probe_ = before;
    probe_bytes_ = n_bytes;
  }
  uint64_t bytes() const {
    const uint64_t all = peak_memory();
    return std::max(before_probe_, all - std::min(all, probe_bytes_));
  }

 private:
  uint64_t before_probe_ = 0, probe_bytes_ = 0;
};

// What the machine gives at most, measured in short runs between the repetitions.
class Probes {
 public:
  explicit Probes(bool wanted) : wanted_(wanted) {}

  // Weights that are read where a file is mapped are compared with a plain read of that mapping, others with
  // one of memory of the probe's own; that is taken where the test needs it and there is room. Call when the
  // test has run once: what that took is then known.
  void prepare(const Model& model, const BenchResult& result) {
    if (!wanted_ || !result.is_generation()) return;
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

  // The peak that limits a test; 0: not measured.
  double peak(const Model& model, const BenchResult& result, double seconds) {
    if (!wanted_) return 0;
    if (result.is_prompt()) return multiply_rate(model.kernels(), model.n_threads(), seconds);
    std::optional<ReadProbe>& read = read_mapping_ ? read_mapping_ : read_;
    return result.is_generation() && read ? read->rate(model.kernels(), model.n_threads(), seconds) : 0;
  }

  // A smaller one would stay in caches.
  static bool reads_mapping(const Model& model) {
    return model.mapped_weights().size() >= uint64_t{256} << 20;
  }

  // Before a model goes.
  void let_go_of_model() { read_mapping_.reset(); }

  MemoryPeak& memory() { return memory_; }

 private:
  bool wanted_, refused_ = false;
  std::optional<ReadProbe> read_, read_mapping_;
  MemoryPeak memory_;
};

// One test: a session of its own, its depth filled once and kept.
class Test {
 public:
  Test(const Model& model, BenchResult* result, const StopScope& stop)
      : session_(model, kBenchMicroBatch), tokens_(model), result_(*result), stop_(stop) {}

  void warm_up() {
    result_.test_time = fmt::format("{:%FT%TZ}", fmt::gmtime(std::time(nullptr)));
    evaluate_prompt(result_.n_depth);
    if (result_.n_prompt > 0) {
      evaluate_prompt(result_.n_prompt);
    } else {
      generate(1);
    }
  }

  void run(int64_t repetitions, Probes* probes) {
    const Model& model = session_.model();
    if (result_.is_prompt()) result_.limit.work = model.macs_per_token() * result_.n_prompt;
    if (result_.is_generation()) result_.limit.work = model.bytes_per_token() * result_.n_gen;
    double before = probes->peak(model, result_, kProbeSeconds);
    for (int64_t i = 0; i < repetitions; ++i) {
      session_.truncate(result_.n_depth);
      const DeviceTimes earlier = model.device().times();
      const auto start = Clock::now();
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
    for (const std::string& pair : options.prompt_and_gen) {
      const std::vector<int64_t> counts = parse_integers("-pg", pair, 0, kMaxTokens);
      if (counts.size() != 2)
        fail(ErrorCode::kUsage, "-pg: expected two numbers, found '{}'", printable(pair));
      add(counts[0], counts[1]);
    }
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
  out.probed = !options.no_probe;
  out.reads_mapping = Probes::reads_mapping(model);
  out.multiply_instruction = model.kernels().probe->multiply_name;
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
    fail(ErrorCode::kUsage, "nothing to measure: --n-prompt and --n-gen are both 0, and there is no -pg");
  const BenchFormat& format = find_format(options.format);
  Probes probes(!options.no_probe);
  MemoryPeak& memory = probes.memory();
  bool peaks_are_own = true;
  BenchModel description;
  std::vector<BenchResult> results;

  for (const int64_t n_threads : options.n_threads) {
    ModelOptions model_options = options.session.options();
    std::vector<BenchResult> tests = planned_tests(options, static_cast<int>(n_threads));
    model_options.n_threads = static_cast<int>(n_threads);
    model_options.context = needed_context(tests);
    model_options.context_option = "the longest test (-p, -n or -pg, plus -d) of";
    peaks_are_own = memory.begin() && peaks_are_own;
    const auto load_start = Clock::now();
    const auto model = Model::load(options.model, model_options, notice);
    const uint64_t load_ns = nanoseconds_since(load_start);
    const uint64_t load_bytes = memory.bytes();
    description = describe(options, *model);
    const StopScope stop;
    for (BenchResult& result : tests) {
      result.n_threads = model->n_threads();
      result.load_ns = load_ns;
      peaks_are_own = memory.begin() && peaks_are_own;
      const auto start = Clock::now();
      Test test(*model, &result, stop);
      test.warm_up();
      result.first_token_ns = load_ns + nanoseconds_since(start);
      probes.prepare(*model, result);
      test.run(options.repetitions, &probes);
      result.peak_memory_bytes = std::max(load_bytes, memory.bytes());
      write_out(results.empty() ? format.header(description) : std::string(format.separator));
      write_out(format.result(description, result));
      flush_out();
      results.push_back(std::move(result));
    }
    probes.let_go_of_model();
  }
  write_out(format.footer(description, results));
  if (!peaks_are_own && results.size() > 1) {
    print_notice(
        "peak memory: of all tests up to each, as /proc/self/clear_refs cannot be written to begin anew");
  }
  return 0;
}

}  // namespace quern
