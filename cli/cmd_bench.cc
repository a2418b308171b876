// quern bench: prompt and generation speed by llama-bench's protocol (conventions.md 4.1), and how much of
// what the machine can give that is.
#include <algorithm>

#include "cli/arguments.h"
#include "cli/bench_measure.h"
#include "cli/bench_report.h"
#include "cli/command.h"
#include "cli/model_progress.h"
#include "cli/parse.h"
#include "cli/report.h"
#include "cli/session_options.h"
#include "cli/text_input.h"
#include "convert/tokenizer_file.h"
#include "quant/checked_math.h"
#include "quant/machine/cpu_features.h"
#include "quant/machine/stop_signal.h"
#include "quant/mapped_file.h"
#include "runtime/tokenizer/tokenizer.h"

namespace quern {
namespace {

constexpr int64_t kMaxTokens = 1 << 23;

struct Options {
  std::string model, format = "md";
  std::vector<int64_t> n_prompt = {512}, n_gen = {128}, n_depth = {0}, n_threads = {0};
  std::vector<int64_t> n_sequences = {1};
  std::vector<std::string> prompt_and_gen;  // "512,128"
  std::optional<std::string> text_file;
  bool parse_special = false;
  int64_t repetitions = 5;
  bool no_probe = false;
  SessionArguments session;
};

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
      "  quern bench model.gguf -p 0 -n 0 -pg 512,128\n"
      "  quern bench model.gguf -p 0 -n 64 --batch 1,2,4,8,16\n"
      "  quern bench model.gguf -p 0 -f code.txt -n 256");
  std::vector<std::string> formats;
  for (const BenchFormat& format : bench_formats()) formats.emplace_back(format.name);
  parser.positional("MODEL", "A GGUF file", &options->model);
  parser.integers("-p,--n-prompt", "Prompt tokens; 0: no such test (default 512)", 0, kMaxTokens,
                  &options->n_prompt);
  parser.integers("-n,--n-gen", "Generated tokens; 0: no such test (default 128)", 0, kMaxTokens,
                  &options->n_gen);
  parser.texts("--pg", "P,G", "(also -pg) P prompt tokens and then G generated ones, timed together",
               &options->prompt_and_gen);
  parser.integers("-d,--n-depth", "Tokens in the context before the test (default 0)", 0, kMaxTokens,
                  &options->n_depth);
  parser.integers("--batch", "Sequences that generate at a time, a token of each in a pass (default 1)", 1,
                  static_cast<int64_t>(Engine::kMicroBatch), &options->n_sequences);
  parser.text(
      "-f,--file", "FILE",
      "Generate behind this text instead, greedily, by turns with guesses at what repeats and without: "
      "how much faster, and how many tokens a pass",
      &options->text_file);
  add_parse_special(parser, &options->parse_special);
  parser.integer<int64_t>("-r,--repetitions", "Repetitions of each test (default 5)", 1, 10000,
                          &options->repetitions);
  parser.integers("-t,--threads", "Threads (default: physical cores within affinity and cgroup quota)", 1,
                  kMaxThreads, &options->n_threads);
  options->session.declare_device(parser);
  parser.choice("-o,--output", "Form of the table (default md)", formats, &options->format);
  bool json = false;
  parser.flag("--json", "The same as -o json", &json);
  parser.flag("--no-probe", "Do not measure the machine's limits (the read takes up to 1 GiB)",
              &options->no_probe);
  if (!parser.parse(arguments)) return false;
  if (json) options->format = "json";
  return true;
}

// In llama-bench's order: all prompt tests before the generation tests.
// n_text: tokens of the text; 0: there is none.
std::vector<BenchResult> planned_tests(const Options& options, int n_threads, size_t n_text) {
  std::vector<BenchResult> tests;
  for (const int64_t depth : options.n_depth) {
    const auto add = [&](int64_t n_prompt, int64_t n_gen, int64_t n_sequences) {
      if (n_prompt + n_gen == 0) return;
      BenchResult test;
      test.n_threads = n_threads;
      test.n_prompt = static_cast<uint64_t>(n_prompt);
      test.n_gen = static_cast<uint64_t>(n_gen);
      test.n_depth = static_cast<uint64_t>(depth);
      test.n_sequences = static_cast<uint64_t>(n_sequences);
      tests.push_back(test);
    };
    for (const int64_t n : options.n_prompt) add(n, 0, 1);
    for (const int64_t n : options.n_gen) {
      if (n_text > 0) break;
      for (const int64_t n_sequences : options.n_sequences) add(0, n, n_sequences);
    }
    for (const std::string& pair : options.prompt_and_gen) {
      const std::vector<int64_t> counts = parse_integers("-pg", pair, 0, kMaxTokens);
      if (counts.size() != 2)
        fail(ErrorCode::kUsage, "-pg: expected two numbers, found '{}'", printable(pair));
      add(counts[0], counts[1], 1);
    }
  }
  for (const int64_t n : options.n_gen) {
    if (n_text == 0 || n == 0) continue;
    BenchResult test;
    test.n_threads = n_threads;
    test.n_gen = static_cast<uint64_t>(n);
    test.n_depth = n_text;
    test.of_text = true;
    tests.push_back(test);
  }
  return tests;
}

// Before the model is loaded: its context is as long as the tests need.
std::vector<TokenId> read_text_ids(const Options& options) {
  if (!options.text_file) return {};
  TextInput input;
  input.file = options.text_file;
  const std::string text = read_text(input, TextRule::kPrompt);
  const MappedFile file(options.model);
  const auto tokenizer = make_tokenizer(read_tokenizer_file(
      file.bytes(), options.model, options.session.model.pre_tokenizer, [](std::string_view) {}));
  std::vector<TokenId> ids = tokenizer->encode_prompt(text, role_of(options.parse_special));
  if (ids.empty()) fail(ErrorCode::kUsage, "--file: the text has no tokens");
  return ids;
}

// Bytes of the caches of all sequences but one.
uint64_t more_caches(const std::string& path, const ModelOptions& options,
                     const std::vector<BenchResult>& tests) {
  uint64_t n_sequences = 1, bytes = 0;
  for (const BenchResult& test : tests) n_sequences = std::max(n_sequences, test.n_sequences);
  if (n_sequences == 1) return 0;
  const uint64_t each = Model::survey(path, options, [](std::string_view) {}).memory.kv;
  return checked_mul(n_sequences - 1, each, &bytes) ? bytes : UINT64_MAX;
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
  out.description = describe_model(model.hparams(), model.n_params());
  out.size = model.weight_bytes();
  out.n_params = model.n_params();
  out.kv_type = options.session.kv;
  out.use_mmap = !options.session.no_mmap;
  const GpuShare& gpu = model.gpu();
  out.n_gpu_layers = gpu.placement.n_moved;
  for (size_t g = 0; g < gpu.names.size(); ++g)
    if (gpu.placement.taken[g].n_layers > 0)
      out.gpu_info += (out.gpu_info.empty() ? "" : ", ") + gpu.names[g];
  // The CPU's limits say nothing about layers that are elsewhere.
  out.probed = !options.no_probe && out.n_gpu_layers == 0;
  out.speculates = options.text_file.has_value();
  out.reads_mapping = BenchProbes::reads_mapping(model);
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
  const std::vector<TokenId> text = read_text_ids(options);
  if (planned_tests(options, 1, text.size()).empty())
    fail(ErrorCode::kUsage, "nothing to measure: --n-prompt and --n-gen are both 0, and there is no -pg");
  const BenchFormat& format = find_format(options.format);
  BenchProbes probes(!options.no_probe);
  MemoryPeak& memory = probes.memory();
  bool peaks_are_own = true;
  BenchModel description;
  std::vector<BenchResult> results;

  const auto measure_all = [&](int64_t n_threads) {
    ModelOptions model_options = options.session.options();
    std::vector<BenchResult> tests = planned_tests(options, static_cast<int>(n_threads), text.size());
    model_options.n_threads = static_cast<int>(n_threads);
    model_options.context = needed_context(tests);
    model_options.context_option = "the longest test (-p, -n or -pg, plus -d) of";
    model_options.promised_bytes = more_caches(options.model, model_options, tests);
    peaks_are_own = memory.begin() && peaks_are_own;
    const auto load_start = BenchClock::now();
    const auto model = load_model(options.model, model_options);
    const uint64_t load_ns = nanoseconds_since(load_start);
    const uint64_t load_bytes = memory.bytes();
    description = describe(options, *model);
    const StopScope stop;
    for (BenchResult& result : tests) {
      const BenchTask task{options.repetitions, text, load_ns, load_bytes, stop};
      measure_bench(*model, task, &probes, &peaks_are_own, &result);
      write_out(results.empty() ? format.header(description) : std::string(format.separator));
      write_out(format.result(description, result));
      flush_out();
      results.push_back(std::move(result));
    }
    probes.let_go_of_model();
  };
  try {
    for (const int64_t n_threads : options.n_threads) measure_all(n_threads);
  } catch (const Interrupted&) {  // what was measured until then is a document, too
    if (!results.empty()) write_out(format.footer(description, results));
    throw;
  }
  write_out(format.footer(description, results));
  if (!peaks_are_own && results.size() > 1) {
    print_notice(
        "peak memory: of all tests up to each, as /proc/self/clear_refs cannot be written to begin anew");
  }
  return 0;
}

}  // namespace quern
