// quern run: complete a text.
#include "cli/command.h"
#include "cli/draft_model.h"
#include "cli/generation_report.h"
#include "cli/grammar_options.h"
#include "cli/model_progress.h"
#include "cli/parse.h"
#include "cli/report.h"
#include "cli/session_options.h"
#include "cli/text_input.h"
#include "quant/machine/stop_signal.h"
#include "quant/shell_word.h"
#include "runtime/generate.h"

namespace quern {
namespace {

struct Options {
  std::string model;
  TextInput input;
  std::optional<std::string> ids, ids_file;
  SessionArguments session;
  GenerationArguments generation;
  GrammarArguments grammar;
  CacheArguments cache;
  bool json = false, parse_special = false;
};

bool parse(std::span<const std::string> arguments, Options* options) {
  Arguments parser("run", "Completes a text and prints the completion.",
                   "  quern run model.gguf -p \"Once upon a time\" -n 64\n"
                   "  quern run model.gguf -f prompt.txt --temp 0 --stop \"###\"\n"
                   "  echo -n \"The sky is\" | quern run model.gguf --seed 7\n"
                   "  quern run model.gguf -e -p \"Summary of the following:\\n\" -f article.txt\n"
                   "  quern run model.gguf -p \"A person as JSON: \" --json-schema person.json -n -1\n"
                   "  quern run model.gguf --ids 1,15043 -n 8 --temp 0");
  parser.positional("MODEL", "A GGUF file", &options->model);
  add_text_input(parser, &options->input, "-p and --stop");
  add_parse_special(parser, &options->parse_special);
  parser.text("--ids", "N,N,...", "The prompt as token ids; the completion is printed as ids too",
              &options->ids);
  parser.text("--ids-file", "FILE", "The same from a file: a JSON list of ids, or an object with ids",
              &options->ids_file);
  options->generation.declare(parser, "Tokens to generate at most; -1: until the end (default 128)");
  options->grammar.declare(parser);
  options->session.declare(parser);
  options->cache.declare(parser);
  parser.flag("--json", "Print one object at the end: text, ids, timings", &options->json);
  return parser.parse(arguments);
}

// Prints a completion as it comes, as text or as ids.
class CompletionPrinter {
 public:
  void text(std::string_view text) {
    write_out(text);
    flush_out();
    last_ = text.back();
  }
  void id(int32_t id) {
    print_out("{}{}", last_ == '\0' ? "" : ",", id);
    flush_out();
    last_ = '0';
  }
  // A line of ids ends with a newline; text only where a shell's prompt would stick to it.
  void finish(bool ids) {
    if (ids || (stdout_is_terminal() && last_ != '\n')) write_out("\n");
    flush_out();
  }

 private:
  char last_ = '\0';  // of what was printed
};

// The ids of --ids or --ids-file; none where the prompt is a text.
std::vector<TokenId> given_ids(const Options& options) {
  if (options.ids && options.ids_file) fail(ErrorCode::kUsage, "--ids excludes --ids-file");
  if (options.ids) return parse_ids("--ids", *options.ids);
  if (options.ids_file) return read_ids(*options.ids_file, 1);
  return {};
}

void require_given_ids(const Model& model, std::span<const TokenId> ids) {
  const uint32_t vocab_size = model.hparams().vocab_size;
  for (const TokenId id : ids)
    if (static_cast<uint32_t>(id) >= vocab_size)
      fail(ErrorCode::kUsage, "--ids: token id {}: expected 0 to {}", id, vocab_size - 1);
}

std::vector<TokenId> encode(const std::string& text, TextRole role, const Model& model) {
  refuse_hopeless_text(text, model);
  return model.tokenizer().encode_prompt(text, role);
}

}  // namespace

int run_run(std::span<const std::string> arguments) {
  Options options;
  if (!parse(arguments, &options)) return 0;
  const bool ids = options.ids || options.ids_file;
  if (ids && options.input.given()) fail(ErrorCode::kUsage, "--ids excludes --prompt and --file");
  if (ids && !options.generation.generate.stop.empty())
    fail(ErrorCode::kUsage, "--stop needs text; it excludes --ids");
  if (ids && options.grammar.given())
    fail(ErrorCode::kUsage, "a grammar is of text; --grammar and --json-schema exclude --ids");
  const std::vector<TokenId> given = given_ids(options);  // refused before the model is loaded
  if (!ids && !options.input.given() && stdin_is_terminal())
    fail(ErrorCode::kUsage, "no text: give -p TEXT or -f FILE; `quern chat {}` opens a conversation",
         shell_word(options.model));
  const std::string text = ids ? std::string() : read_text(options.input, TextRule::kPrompt);
  if (options.input.escapes)
    for (std::string& stop : options.generation.generate.stop) stop = unescape("--stop", stop);

  // Refused before the model is loaded.
  static_cast<void>(options.generation.unseeded());
  std::optional<Grammar> grammar = options.grammar.read();
  ModelOptions model_options = options.session.options();
  const std::optional<std::string>& draft_path = options.generation.draft;
  if (draft_path) model_options.promised_bytes = DraftModel::memory(*draft_path, model_options).total();
  const auto model = load_model(options.model, model_options);
  if (options.ids_file) require_ids_of(*model, *options.ids_file, given);
  if (options.ids) require_given_ids(*model, given);
  const std::vector<TokenId> prompt = ids ? given : encode(text, role_of(options.parse_special), *model);
  CompletionOptions generate_options = options.generation.options();
  if (grammar) generate_options.constraint = constrain(*model, std::move(*grammar));
  const auto draft = load_draft(draft_path, model_options, *model);
  Session session(*model);

  const StopScope stop;
  CompletionPrinter printer;
  std::function<void(std::string_view)> on_text;
  std::function<void(int32_t)> on_token;
  if (options.json && model->has_tokenizer()) on_text = [](std::string_view) {};
  if (!options.json && !ids) on_text = [&](std::string_view piece) { printer.text(piece); };
  if (!options.json && ids) on_token = [&](int32_t id) { printer.id(id); };
  PromptProgress progress(session, prompt.size());
  Speculation speculation;
  if (draft) draft->join(&speculation);
  const auto cache = options.cache.open(*model);
  const GenerateResult result = generate(
      session, prompt, generate_options, on_text, on_token,
      {.stop = stop.flag(), .on_micro_batch = [&] { progress.update(); }},
      {.speculation = options.generation.no_speculation ? nullptr : &speculation, .cache = cache.get()});
  progress.clear();

  if (options.json)
    write_out(generation_json(*model, result));
  else
    printer.finish(ids);
  flush_out();
  report_full_context(*model, result);
  if (!result.meets_constraint)
    print_notice(
        "warning: the text was cut short: it is only the beginning of what the grammar takes (override: -n)");
  report_timings(*model, result);
  return stop.requested() ? stop_exit_code() : 0;
}

}  // namespace quern
