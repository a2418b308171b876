// quern perplexity: how well a model predicts a text (conventions.md 4.2).
#include <cstdio>
#include <cstring>
#include <memory>

#include "cli/command.h"
#include "cli/json_writer.h"
#include "cli/report.h"
#include "cli/session_options.h"
#include "cli/stop_signal.h"
#include "cli/text_input.h"
#include "runtime/perplexity.h"

namespace quern {
namespace {

struct Options {
  std::string model;
  std::optional<std::string> file, per_token;
  SessionArguments session;
  uint64_t max_chunks = 0;
  bool json = false;
};

bool parse(std::span<const std::string> arguments, Options* options) {
  Arguments parser("perplexity", "Measures how well a model predicts a text; lower is better.",
                   "  quern perplexity model.gguf -f wiki.test.raw\n"
                   "  quern perplexity model.gguf -f text.txt --ctx 128 --chunks 10 --json\n"
                   "  quern perplexity model.gguf -f text.txt --per-token nll.csv");
  parser.positional("MODEL", "A GGUF file", &options->model);
  parser.text("-f,--file", "FILE", "The text, less one trailing newline; '-' is stdin (required)",
              &options->file);
  parser.integer<uint64_t>("--chunks", "Chunks to measure at most (default: all)", 1, UINT32_MAX,
                           &options->max_chunks);
  parser.text("--per-token", "FILE", "Write chunk,position,id,nll of every scored token as CSV",
              &options->per_token);
  parser.flag("--json", "Print one object at the end", &options->json);
  options->session.model.context = 512;
  options->session.declare(parser, "512: the size of a chunk");
  return parser.parse(arguments);
}

// The file of --per-token; does nothing when none was asked for. A CSV is no result that must appear whole:
// what was measured before a stop is worth keeping.
class TokenLog {
 public:
  // inputs: files that must not be overwritten.
  TokenLog(const std::optional<std::string>& path, std::initializer_list<std::string> inputs) {
    if (!path) return;
    path_ = *path;
    for (const std::string& input : inputs)
      if (is_same_file(path_, input))
        fail(ErrorCode::kUsage, "--per-token: '{}' is an input; it would be overwritten",
             printable(path_, kPathBytes));
    file_.reset(std::fopen(path_.c_str(), "w"));
    if (file_ == nullptr) fail_errno(errno, fmt::format("cannot write '{}'", printable(path_, kPathBytes)));
    write("chunk,position,id,nll\n");
  }

  void add(uint64_t chunk, uint64_t position, int32_t id, double nll) {
    if (file_ != nullptr) write(fmt::format("{},{},{},{:.9g}\n", chunk, position, id, nll));
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

void report_eta(const PerplexityChunk& chunk, double seconds_per_chunk) {
  const double left = seconds_per_chunk * static_cast<double>(chunk.n_chunks - chunk.chunk - 1);
  print_notice("perplexity: {:.2f} seconds per chunk - ETA {}", seconds_per_chunk, format_duration(left));
}

}  // namespace

int run_perplexity(std::span<const std::string> arguments) {
  Options options;
  if (!parse(arguments, &options)) return 0;
  if (!options.file) fail(ErrorCode::kUsage, "--file is required (see quern perplexity --help)");
  const std::string text = read_text({std::nullopt, options.file});

  const auto model = Model::load(options.model, options.session.options(), notice);
  const std::vector<TokenId> tokens = model->tokenizer().encode_prompt(text);
  print_notice("perplexity: {} tokens, chunks of {} (override: --ctx)", tokens.size(), model->context());
  Session session(*model);
  require_perplexity_text(tokens.size(), model->context());
  TokenLog log(options.per_token, {options.model, *options.file});

  const StopScope stop;
  const double start = now_seconds();
  std::vector<double> running;
  const auto on_chunk = [&](const PerplexityChunk& chunk) {
    running.push_back(chunk.perplexity);
    if (chunk.chunk == 0) report_eta(chunk, now_seconds() - start);
    if (options.json) return;
    print_out("[{}]{:.4f},", chunk.chunk + 1, chunk.perplexity);
    flush_out();
  };
  const PerplexityChunk last = measure_perplexity(
      session, tokens, {model->context(), options.max_chunks}, on_chunk,
      [&](uint64_t chunk, uint64_t position, int32_t id, double nll) { log.add(chunk, position, id, nll); },
      [&] { return stop.requested(); });
  log.finish();
  const double seconds = now_seconds() - start;
  if (!options.json) write_out("\n");
  if (stop.requested()) return stop_exit_code();
  if (options.json)
    write_out(result_json(last, model->context(), running, seconds));
  else
    print_out("Final estimate: PPL = {:.4f} +/- {:.5f}\n", last.perplexity, last.standard_error);
  return 0;
}

}  // namespace quern
