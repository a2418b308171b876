#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "cli/arguments.h"
#include "cli/foreign_options.h"
#include "cli/suggest.h"
#include "quant/error.h"

namespace quern {
namespace {

struct Values {
  std::string model, prompt, kv = "f16";
  std::vector<std::string> stop;
  std::vector<int64_t> sizes;
  int64_t n = 128;
  float temperature = 0.8f;
  std::optional<uint64_t> seed;
  std::optional<bool> check;
  bool json = false;
};

Values parse(const std::vector<std::string>& arguments) {
  Values values;
  Arguments parser("run", "Does something.", "  quern run x");
  parser.positional("MODEL", "A file", &values.model);
  parser.text("-p,--prompt", "TEXT", "The text", &values.prompt);
  parser.texts("--stop", "TEXT", "Stops", &values.stop);
  parser.choice("--kv", "Format", {"f16", "f32"}, &values.kv, {{"half", "f16"}});
  parser.integers("--sizes", "Sizes", 0, 100, &values.sizes);
  parser.integer<int64_t>("-n,--max-tokens", "Tokens", -1, 1000, &values.n);
  parser.number("--temp", "Temperature", 0, 100, &values.temperature);
  parser.integer<uint64_t>("--seed", "Seed", 0, UINT64_MAX, &values.seed);
  parser.yes_no("--check-tensors", "--no-check-tensors", "Check", &values.check);
  parser.flag("--json", "JSON", &values.json);
  EXPECT_TRUE(parser.parse(arguments));
  return values;
}

std::string usage_error(const std::vector<std::string>& arguments) {
  try {
    parse(arguments);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    return error.what();
  }
  return "(no error)";
}

TEST(ArgumentParser, FillsWhatIsGivenAndLeavesTheRest) {
  const Values values = parse({"-n", "-1", "model.gguf", "--temp=0", "--seed", "7", "--no-check-tensors"});
  EXPECT_EQ(values.model, "model.gguf");
  EXPECT_EQ(values.n, -1);
  EXPECT_EQ(values.temperature, 0.0f);
  EXPECT_EQ(values.seed, 7u);
  EXPECT_EQ(values.check, false);
  EXPECT_EQ(values.kv, "f16");
  EXPECT_FALSE(values.json);
  EXPECT_EQ(parse({"m", "--check-tensors"}).check, true);
  EXPECT_EQ(parse({"m"}).check, std::nullopt);
}

TEST(ArgumentParser, TextsAreTakenAsTheyAre) {
  for (const char* text : {"", "-n", "--json", "[INST] a,b [/INST]", "[a,b]", "{x}", "a b", "%d", "--"})
    EXPECT_EQ(parse({"m", "-p", text}).prompt, text);
  const std::vector<std::string> stops = {"[a,b]", "--json", "x"};
  EXPECT_EQ(parse({"m", "--stop", stops[0], "--stop", stops[1], "--stop", stops[2]}).stop, stops);
}

TEST(ArgumentParser, TextsDoNotSwallowThePositional) {
  const Values values = parse({"--stop", "x", "m"});
  EXPECT_EQ(values.model, "m");
  EXPECT_EQ(values.stop, std::vector<std::string>{"x"});
}

TEST(ArgumentParser, RefusesUnknownOptionsWithASuggestion) {
  EXPECT_EQ(usage_error({"m", "--tmp", "1"}),
            "unknown option '--tmp' (did you mean '--temp'?); see quern run --help");
  EXPECT_EQ(usage_error({"m", "--max-token=3"}),
            "unknown option '--max-token' (did you mean '--max-tokens'?); see quern run --help");
  EXPECT_EQ(usage_error({"m", "--max", "3"}),
            "unknown option '--max' (did you mean '--max-tokens'?); see quern run --help");
  EXPECT_EQ(usage_error({"m", "--nope"}), "unknown option '--nope'; see quern run --help") << "none is near";
  // Better than "MODEL is required".
  EXPECT_EQ(usage_error({"--frobnicate"}), "unknown option '--frobnicate'; see quern run --help");
}

TEST(ArgumentParser, RefusesWhatIsTooMuchOrTooLittle) {
  EXPECT_EQ(usage_error({"m", "n"}),
            "unexpected argument 'n': the model is given already, and a text goes behind -p (see quern run "
            "--help)");
  EXPECT_NE(usage_error({}).find("MODEL"), std::string::npos);
  EXPECT_NE(usage_error({"m", "-n"}).find("--max-tokens"), std::string::npos);
  EXPECT_EQ(usage_error({"m", "--json=1"}), "--json takes no value, found '--json=1'");
}

TEST(ArgumentParser, LastOfSeveralValuesCountsUnlessAllDo) {
  EXPECT_EQ(parse({"m", "-n", "1", "--max-tokens", "2"}).n, 2);
  EXPECT_EQ(parse({"m", "--stop", "a", "--stop", "b"}).stop.size(), 2u);
}

TEST(ArgumentParser, NothingBehindTwoDashesIsAnOption) {
  EXPECT_EQ(parse({"-n", "1", "--", "-n"}).model, "-n");
  EXPECT_EQ(parse({"--", "--json"}).model, "--json");
  EXPECT_EQ(usage_error({"--", "m", "--json"}),
            "unexpected argument '--json': the model is given already, and a text goes behind -p (see quern "
            "run --help)");
}

TEST(ArgumentParser, NamesOfChoicesMayBeInAnyCase) {
  EXPECT_EQ(parse({"m", "--kv", "F32"}).kv, "f32");
  EXPECT_EQ(parse({"m", "--kv", "F32", "--kv", "Half"}).kv, "f16");
  EXPECT_EQ(usage_error({"m", "--kv", "F23"}), "--kv: 'F23' is none of f16, f32 (did you mean 'f16'?)");
}

TEST(ArgumentParser, SpellingsOfOtherProgramsMeanTheSame) {
  EXPECT_EQ(parse({"-m", "x.gguf", "--predict", "5"}).model, "x.gguf");
  EXPECT_EQ(parse({"-m", "x.gguf", "--predict", "5"}).n, 5);
  EXPECT_EQ(parse({"x", "--n-predict=6", "--temperature", "0"}).n, 6);
  EXPECT_EQ(parse({"x", "--max_tokens", "7"}).n, 7);
  EXPECT_EQ(parse({"x", "-s", "9"}).seed, 9u);
  EXPECT_EQ(parse({"-m", "x.gguf", "-m", "y.gguf"}).model, "y.gguf");
  EXPECT_EQ(parse({"x", "--color", "ON"}).model, "x");
  for (const std::vector<std::string>& idle : {std::vector<std::string>{"-no-cnv"},
                                               {"-fa"},
                                               {"-fa", "on"},
                                               {"--mirostat", "0"},
                                               {"--verbose"},
                                               {"--no-perf"},
                                               {"--color"},
                                               {"--no-warmup"}}) {
    std::vector<std::string> arguments = {"x"};
    arguments.insert(arguments.end(), idle.begin(), idle.end());
    EXPECT_EQ(parse(arguments).model, "x") << idle.front();
  }
}

TEST(ArgumentParser, SpellingsThatMeanSomethingElseGetALine) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"-sm", "layer"}, "-sm layer: quern places whole layers"},
      {{"-ctk", "q8_0"}, "--kv f16, f32 or q8_0 sets both"},
      {{"--grammar", "root ::= x"}, "a grammar"},
      {{"-fa", "off"}, "attention is always fused"},
      {{"-hf", "a/b"}, "quern downloads nothing"},
      {{"--mirostat", "2"}, "--top-k"},
      {{"-cnv"}, "quern chat MODEL"},
      {{"-r", "User:"}, "--stop TEXT"},
      {{"-tb", "4"}, "--threads is for"},
      {{"--rope-scale", "2"}, "what the file says"},
      {{"--jinja"}, "quern chat MODEL"},
      {{"-st"}, "quern chat MODEL"},
      {{"-o", "x.txt"}, "> FILE keeps it"},
      {{"-ncmoe", "4"}, "--gpu-layers says how many"},
      {{"-fitt", "1024"}, "--gpu-layers says how many"},
      {{"-hfd", "a/b"}, "quern downloads nothing"},
      {{"--spec-draft-n-max", "16"}, "--draft FILE"},
      {{"--gpu-layers-draft", "9"}, "--draft FILE"},
      {{"--version"}, "quern --version"},
      {{"--think=false"}, "chat_template_kwargs"},
      {{"--format", "json"}, "--json-schema FILE"},
  };
  for (const auto& [more, expected] : cases) {
    std::vector<std::string> arguments = {"x"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    EXPECT_NE(usage_error(arguments).find(expected), std::string::npos) << usage_error(arguments);
  }
}

// "-p" with the value "rompt" is what nobody means.
TEST(ArgumentParser, OneDashBeforeALongNameIsPointedOut) {
  for (const auto& [name, meant] : {std::pair("-prompt", "--prompt"),
                                    {"-seed", "--seed"},
                                    {"-kv", "--kv"},
                                    {"-json", "--json"},
                                    {"-max_tokens", "--max-tokens"},
                                    {"-temperature", "--temperature"},
                                    {"-no-warmup", "--no-warmup"}})
    EXPECT_EQ(usage_error({"m", name, "1"}),
              fmt::format("unknown option '{}' (did you mean '{}'?); see quern run --help", name, meant));
  EXPECT_EQ(parse({"m", "-p", "-seed"}).prompt, "-seed");
}

// Every option of llama.cpp's programs (build 0.3.36's common/arg.cpp, autumn 2026) that the command of ours
// in its place does not have itself: each is taken or answered with a line of its own.
TEST(ArgumentParser, EveryOptionOfLlamaCppIsKnown) {
  const std::vector<std::pair<std::string, std::string>> programs = {
      {"all",
       "--adaptive-decay|--adaptive-target|--backend-sampling|--batch-size|--binary-file|--cache-list|"
       "--cache-type-k|--cache-type-k-draft|--cache-type-v|--cache-type-v-draft|--completion-bash|"
       "--context-shift|--control-vector|--control-vector-layer-range|--control-vector-scaled|--cpu-mask|"
       "--cpu-mask-batch|--cpu-moe|--cpu-range|--cpu-range-batch|--cpu-strict|--cpu-strict-batch|"
       "--ctx-size|--defrag-thold|--device|--docker-repo|--dry-allowed-length|--dry-base|--dry-multiplier|"
       "--dry-penalty-last-n|--dry-sequence-breaker|--dynatemp-exp|--dynatemp-range|--escape|--fit|"
       "--fit-ctx|--fit-target|--flash-attn|--frequency-penalty|--grammar-file|--hf-file|--hf-repo|"
       "--hf-token|--image-max-tokens|--image-min-tokens|--json-schema-file|--keep|--kv-offload|"
       "--lazy-mode|--list-devices|--load-mode|--log-colors|--log-disable|--log-file|--log-jsonl|"
       "--log-prefix|--log-timestamps|--log-verbose|--log-verbosity|--logit-bias|--lora|--lora-scaled|"
       "--main-gpu|--mirostat|--mirostat-ent|--mirostat-lr|--mmproj|--mmproj-offload|--mmproj-url|--model|"
       "--model-url|--n-cpu-ffn|--n-cpu-moe|--n-gpu-layers|--n-predict|--no-context-shift|--no-escape|"
       "--no-host|--no-kv-offload|--no-log-jsonl|--no-log-prefix|--no-log-timestamps|--no-mmproj-offload|"
       "--no-op-offload|--no-perf|--no-repack|--numa|--offline|--op-offload|--override-kv|"
       "--override-tensor|--parallel|--perf|--poll|--poll-batch|--predict|--presence-penalty|--prio|"
       "--prio-batch|--repack|--rope-freq-base|--rope-freq-scale|--rope-scale|--rope-scaling|--rpc|"
       "--sampler-seq|--samplers|--sampling-seq|--spec-draft-type-k|--spec-draft-type-v|--split-mode|"
       "--swa-full|--temperature|--tensor-split|--threads-batch|--top-n-sigma|--top-nsigma|--typical|"
       "--typical-p|--ubatch-size|--usage|--verbose|--verbosity|--version|--video-ffmpeg-dir|--video-fps|"
       "--video-timestamp-interval|--xtc-probability|--xtc-threshold|--yarn-attn-factor|--yarn-beta-fast|"
       "--yarn-beta-slow|--yarn-ext-factor|--yarn-orig-ctx|-C|-Cb|-Cr|-Crb|-b|-bf|-bs|-cl|-cmoe|-ctk|"
       "-ctkd|-ctv|-ctvd|-dev|-dr|-dt|-fa|-fit|-fitc|-fitt|-hf|-hff|-hfr|-hft|-j|-jf|-kvo|-l|-lm|-lv|-lzm|"
       "-m|-mg|-mm|-mmu|-mu|-ncffn|-ncmoe|-ngl|-nkvo|-np|-nr|-ot|-s|-sm|-tb|-ts|-ub|-v"},
      {"run",
       "--chat-template|--chat-template-file|--color|--conversation|--display-prompt|--grp-attn-n|"
       "--grp-attn-w|--in-prefix|--in-prefix-bos|--in-suffix|--interactive|--interactive-first|--jinja|"
       "--multiline-input|--no-conversation|--no-display-prompt|--no-jinja|--no-reasoning-preserve|"
       "--no-skip-chat-parsing|--no-warmup|--print-token-count|--prompt-cache|--prompt-cache-all|"
       "--prompt-cache-ro|--reasoning|--reasoning-budget|--reasoning-budget-message|--reasoning-effort|"
       "--reasoning-format|--reasoning-preserve|--reverse-prompt|--simple-io|--single-turn|"
       "--skip-chat-parsing|--special|--system-prompt|--system-prompt-file|--verbose-prompt|--warmup|-cnv|"
       "-co|-gan|-gaw|-i|-if|-mli|-no-cnv|-ptc|-r|-rea|-sp|-st|-sys|-sysf"},
      {"chat",
       "--audio|--cache-ram|--chat-template|--chat-template-file|--chat-template-kwargs|--color|"
       "--cpu-mask-batch-draft|--cpu-mask-draft|--cpu-moe-draft|--cpu-range-draft|"
       "--cpu-strict-batch-draft|--cpu-strict-draft|--ctx-checkpoints|--device-draft|--display-prompt|"
       "--draft-max|--draft-min|--draft-n|--draft-n-min|--draft-p-min|--draft-p-split|"
       "--gpt-oss-120b-default|--gpt-oss-20b-default|--gpu-layers-draft|--grammar|--hf-repo-draft|--image|"
       "--jinja|--json-schema|--log-prompts-dir|--mmproj-auto|--model-draft|--multiline-input|"
       "--n-cpu-moe-draft|--n-gpu-layers-draft|--no-display-prompt|--no-jinja|--no-mmproj|"
       "--no-mmproj-auto|--no-reasoning-preserve|--no-show-timings|--no-skip-chat-parsing|"
       "--no-spec-draft-backend-sampling|--no-warmup|--output|--output-file|--override-tensor-draft|"
       "--poll-batch-draft|--poll-draft|--prio-batch-draft|--prio-draft|--reasoning|--reasoning-budget|"
       "--reasoning-budget-message|--reasoning-effort|--reasoning-format|--reasoning-preserve|"
       "--reverse-prompt|--server-base|--show-timings|--simple-io|--single-turn|--skip-chat-parsing|"
       "--spec-default|--spec-draft-backend-sampling|--spec-draft-cpu-mask|--spec-draft-cpu-mask-batch|"
       "--spec-draft-cpu-moe|--spec-draft-cpu-range|--spec-draft-cpu-strict|--spec-draft-cpu-strict-batch|"
       "--spec-draft-device|--spec-draft-hf|--spec-draft-model|--spec-draft-n-cpu-moe|--spec-draft-n-max|"
       "--spec-draft-n-min|--spec-draft-ncmoe|--spec-draft-ngl|--spec-draft-override-tensor|"
       "--spec-draft-p-min|--spec-draft-p-split|--spec-draft-poll|--spec-draft-poll-batch|"
       "--spec-draft-prio|--spec-draft-prio-batch|--spec-draft-threads|--spec-draft-threads-batch|"
       "--spec-ngram-map-k-min-hits|--spec-ngram-map-k-size-m|--spec-ngram-map-k-size-n|"
       "--spec-ngram-map-k4v-min-hits|--spec-ngram-map-k4v-size-m|--spec-ngram-map-k4v-size-n|"
       "--spec-ngram-mod-n-match|--spec-ngram-mod-n-max|--spec-ngram-mod-n-min|"
       "--spec-ngram-simple-min-hits|--spec-ngram-simple-size-m|--spec-ngram-simple-size-n|"
       "--spec-synth-len|--spec-synth-rates|--spec-type|--special|--swa-checkpoints|--system-prompt|"
       "--system-prompt-file|--threads-batch-draft|--threads-draft|--verbose-prompt|--video|"
       "--vision-gemma-12b-default|--vision-gemma-4b-default|--warmup|-Cbd|-Cd|-Crd|-cmoed|-co|-cram|"
       "-ctxcp|-devd|-hfd|-hfrd|-md|-mli|-ncmoed|-ngld|-o|-otd|-r|-rea|-sp|-st|-sys|-sysf|-tbd|-td"},
      {"serve",
       "--agent|--api-key|--api-prefix|--cache-idle-slots|--cache-prompt|--cache-reuse|--chat-template|"
       "--chat-template-file|--chat-template-kwargs|--checkpoint-min-step|--cont-batching|"
       "--cors-credentials|--cors-headers|--cors-methods|--cors-origins|--cpu-mask-batch-draft|"
       "--cpu-mask-draft|--cpu-moe-draft|--cpu-range-draft|--cpu-strict-batch-draft|--cpu-strict-draft|"
       "--ctx-checkpoints|--device-draft|--draft-max|--draft-min|--draft-n|--draft-n-min|--draft-p-min|"
       "--draft-p-split|--embd-gemma-default|--embd-normalize|--embedding|--embeddings|--file|"
       "--fim-qwen-1.5b-default|--fim-qwen-14b-spec|--fim-qwen-30b-default|--fim-qwen-3b-default|"
       "--fim-qwen-7b-default|--fim-qwen-7b-spec|--gpt-oss-120b-default|--gpt-oss-20b-default|"
       "--gpu-layers-draft|--grammar|--hf-repo-draft|--jinja|--json-schema|--kv-unified|"
       "--kv-unified-per-slot|--log-prompts-dir|--lookup-cache-dynamic|--lookup-cache-static|"
       "--lora-init-without-apply|--mcp-servers-config|--mcp-servers-json|--media-path|--metrics|"
       "--mmproj-auto|--model-draft|--models-autoload|--models-dir|--models-max|--models-preset|"
       "--mtmd-batch-max-tokens|--n-cpu-moe-draft|--n-gpu-layers-draft|--no-agent|--no-cache-idle-slots|"
       "--no-cache-prompt|--no-cont-batching|--no-cors-credentials|--no-jinja|--no-kv-unified|--no-mmproj|"
       "--no-mmproj-auto|--no-models-autoload|--no-prefill-assistant|--no-reasoning-preserve|"
       "--no-skip-chat-parsing|--no-slots|--no-spec-draft-backend-sampling|--no-ui|--no-ui-mcp-proxy|"
       "--no-warmup|--no-webui|--no-webui-mcp-proxy|--override-tensor-draft|--path|--poll-batch-draft|"
       "--poll-draft|--prefill-assistant|--prio-batch-draft|--prio-draft|--prompt|--props|--reasoning|"
       "--reasoning-budget|--reasoning-budget-message|--reasoning-effort|--reasoning-format|"
       "--reasoning-preserve|--rerank|--reranking|--reuse-port|--reverse-prompt|--skip-chat-parsing|"
       "--sleep-idle-seconds|--slot-prompt-similarity|--slot-save-path|--spec-default|"
       "--spec-draft-backend-sampling|--spec-draft-cpu-mask|--spec-draft-cpu-mask-batch|"
       "--spec-draft-cpu-moe|--spec-draft-cpu-range|--spec-draft-cpu-strict|--spec-draft-cpu-strict-batch|"
       "--spec-draft-device|--spec-draft-hf|--spec-draft-model|--spec-draft-n-cpu-moe|--spec-draft-n-max|"
       "--spec-draft-n-min|--spec-draft-ncmoe|--spec-draft-ngl|--spec-draft-override-tensor|"
       "--spec-draft-p-min|--spec-draft-p-split|--spec-draft-poll|--spec-draft-poll-batch|"
       "--spec-draft-prio|--spec-draft-prio-batch|--spec-draft-threads|--spec-draft-threads-batch|"
       "--spec-ngram-map-k-min-hits|--spec-ngram-map-k-size-m|--spec-ngram-map-k-size-n|"
       "--spec-ngram-map-k4v-min-hits|--spec-ngram-map-k4v-size-m|--spec-ngram-map-k4v-size-n|"
       "--spec-ngram-min-hits|--spec-ngram-mod-n-match|--spec-ngram-mod-n-max|--spec-ngram-mod-n-min|"
       "--spec-ngram-simple-min-hits|--spec-ngram-simple-size-m|--spec-ngram-simple-size-n|"
       "--spec-ngram-size-m|--spec-ngram-size-n|--spec-synth-len|--spec-synth-rates|--spec-type|--special|"
       "--spm-infill|--sse-ping-interval|--ssl-cert-file|--ssl-key-file|--swa-checkpoints|--tags|"
       "--threads-batch-draft|--threads-draft|--threads-http|--timeout|--tools|--tools-runtime|--ui|"
       "--ui-config|--ui-config-file|--ui-mcp-proxy|--vision-gemma-12b-default|--vision-gemma-4b-default|"
       "--warmup|--webui|--webui-config|--webui-config-file|--webui-mcp-proxy|-Cbd|-Cd|-Crd|-a|-ag|-cb|"
       "-cmoed|-cms|-cram|-ctxcp|-devd|-e|-f|-hfd|-hfrd|-kvu|-lcd|-lcs|-md|-ncmoed|-ngld|-no-ag|-no-kvu|"
       "-nocb|-otd|-p|-r|-rea|-sp|-sps|-tbd|-td|-to"},
      {"perplexity",
       "--grammar|--hellaswag|--hellaswag-tasks|--ignore-eos|--json-schema|--kl-divergence-base|"
       "--kv-unified|--min-p|--multiple-choice|--multiple-choice-tasks|--no-kv-unified|--no-warmup|"
       "--ppl-output-type|--ppl-stride|--prompt|--repeat-last-n|--repeat-penalty|--save-all-logits|--seed|"
       "--temp|--top-k|--top-p|--warmup|--winogrande|--winogrande-tasks|-e|-kvu|-n|-no-kvu|-p"},
      {"imatrix",
       "--chunk|--from-chunk|--gpu-layers|--grammar|--ignore-eos|--in-file|--json-schema|--min-p|--no-ppl|"
       "--output-file|--output-format|--output-frequency|--ppl|--process-output|--prompt|--repeat-last-n|"
       "--repeat-penalty|--save-frequency|--seed|--show-statistics|--temp|--top-k|--top-p|-e|-n|-ofreq|-p"},
      {"tokenize",
       "--docker-repo|--hf-file|--hf-repo|--hf-token|--ids|--model|--model-url|--no-parse-special|"
       "--offline|--show-count|--stdin|-dr|-hf|-hff|-hfr|-hft|-m|-mu"},
  };
  for (const auto& [program, names] : programs) {
    for (size_t begin = 0; begin < names.size();) {
      const size_t end = std::min(names.find('|', begin), names.size());
      const std::string name = names.substr(begin, end - begin);
      begin = end + 1;
      for (const std::string command : {"run", "chat", "serve", "perplexity", "imatrix", "tokenize"}) {
        const bool asked = program == command || (program == "all" && command != "tokenize");
        EXPECT_TRUE(!asked || is_foreign(name, command)) << command << " " << name;
      }
    }
  }
}

// What began like an option of one letter was cut there: "-hfd x" printed the help, "-fitt 1" read a file
// "itt".
TEST(ArgumentParser, LettersBehindADashAreNoValue) {
  EXPECT_EQ(parse({"m", "-n5"}).n, 5);
  EXPECT_EQ(parse({"m", "-n-1"}).n, -1);
  EXPECT_EQ(parse({"m", "-n=5"}).n, 5);
  EXPECT_EQ(parse({"m", "-p=x"}).prompt, "x");
  EXPECT_EQ(parse({"m", "-qn", "7"}).n, 7);
  EXPECT_EQ(parse({"m", "-p", "-nice"}).prompt, "-nice");
  EXPECT_EQ(usage_error({"m", "-pHello"}),
            "unknown option '-pHello' (a value of -p stands apart: -p Hello); see quern run --help");
  EXPECT_EQ(usage_error({"m", "-nq"}),
            "unknown option '-nq' (a value of -n stands apart: -n q); see quern run --help");
  EXPECT_EQ(usage_error({"m", "-hxy", "1"}), "unknown option '-hxy'; see quern run --help");
  EXPECT_EQ(usage_error({"m", "-q4_0"}), "unknown option '-q4_0'; see quern run --help");
  EXPECT_EQ(usage_error({"m", "--n", "5"}),
            "unknown option '--n' (did you mean '-n'?); see quern run --help");
  EXPECT_EQ(usage_error({"m", "--ngl=5"}),
            "unknown option '--ngl' (did you mean '-ngl'?); see quern run --help");
}

TEST(ArgumentParser, ValuesOfOwnOptionsAreNoForeignOptions) {
  EXPECT_EQ(parse({"m", "-p", "-ngl"}).prompt, "-ngl");
  EXPECT_EQ(parse({"m", "--stop", "-hf"}).stop, std::vector<std::string>{"-hf"});
}

TEST(ArgumentParser, OwnSpellingIsNotShadowedByAForeignOne) {
  for (const char* name : {"-p", "-n", "--kv", "--seed"})
    EXPECT_EQ(usage_error({"m", name}).find("needs a value") == std::string::npos, false) << name;
}

TEST(ArgumentParser, RefusesBadValuesNamingTheOption) {
  EXPECT_EQ(usage_error({"m", "-n", ""}), "-n/--max-tokens: '' is not a whole number between -1 and 1000");
  EXPECT_EQ(usage_error({"m", "--kv", "f23"}), "--kv: 'f23' is none of f16, f32 (did you mean 'f16'?)");
  EXPECT_EQ(usage_error({"m", "--sizes", "1,101"}), "--sizes: '101' is not a whole number between 0 and 100");
}

TEST(Suggest, FindsMisspellingsAndNothingElse) {
  const std::vector<std::string> commands = {"convert", "inspect", "run", "chat", "perplexity"};
  EXPECT_EQ(closest("perplexty", commands), "perplexity");
  EXPECT_EQ(closest("conver", commands), "convert");
  EXPECT_EQ(closest("rnu", commands), "run");
  EXPECT_EQ(closest("serve", commands), "");
  EXPECT_EQ(closest("", commands), "");
  EXPECT_EQ(closest(std::string(100000, 'x'), commands), "");
}

}  // namespace
}  // namespace quern
