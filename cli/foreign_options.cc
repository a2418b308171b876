#include "cli/foreign_options.h"

#include <algorithm>
#include <iterator>

#include "cli/report.h"
#include "quant/error.h"
#include "quant/utf8.h"

namespace quern {
namespace {

enum class Value { kNone, kOne, kMaybe };  // kMaybe: "-fa", "-fa on"

// What may follow such an option as its value; "0,1": llama-bench measures both.
constexpr std::string_view kSwitches = "on|off|auto|0|1|0,1|1,0";

struct ForeignOption {
  std::string_view names;     // "-c|--ctx-size"; one '*' in a name stands for any text
  std::string_view commands;  // "run|chat"; empty: all
  Value value;
  // What it becomes: an option of ours, "MODEL" for the positional, or nothing (it asks for what happens
  // anyway). Only when the value is among `harmless`, if there are any.
  std::string_view ours;
  std::string_view harmless;  // "0|off"
  std::string_view advice;    // the line where it is refused: "quern keeps K and V in one format: --kv"
};

constexpr std::string_view kAnyway = "";  // nothing has to be done

constexpr std::string_view kSamplers =
    "not a sampler of quern's; there are --temp, --top-k, --top-p, --min-p and --repeat-penalty";
constexpr std::string_view kOwnSplit =
    "quern places whole layers with their cache by itself: --gpu-layers says how many, --gpu on which GPUs";
constexpr std::string_view kNoGpu = "this command computes on the CPU alone; leave it out";
constexpr std::string_view kNoDownload =
    "quern downloads nothing: get the file or folder first and give its path";
constexpr std::string_view kNoGrammar =
    "a grammar or a schema that an answer is held to is a file's in quern run (--grammar, --json-schema), a "
    "request's in quern serve";
constexpr std::string_view kOneThreadCount = "--threads is for prompts and generation alike";
constexpr std::string_view kOneKvFormat = "keys and values have one format: --kv f16, f32 or q8_0 sets both";
constexpr std::string_view kOwnBatches =
    "quern chooses its batches itself, and no result depends on them; leave it out";
constexpr std::string_view kChatCommand = "a conversation is a command of its own: quern chat MODEL";
constexpr std::string_view kPlacement =
    "threads find their places by themselves; choose CPUs with taskset or numactl";
constexpr std::string_view kNothingGenerated =
    "this command generates nothing, and reads its text from -f; leave it out";
constexpr std::string_view kDraft =
    "how many guesses are tried follows from what they cost; --draft FILE names a model that guesses";
constexpr std::string_view kThoughts =
    "whether a model thinks its chat template says; quern serve takes the template's variables in a "
    "request's "
    "chat_template_kwargs";
constexpr std::string_view kEarlierStates = "--state-ram SIZE says how much memory earlier states may take";
constexpr std::string_view kPages = "--allow-origin ORIGIN lets the pages of an origin ask";
constexpr std::string_view kText = "chat formats say what stands around a message: --chat-format";

constexpr ForeignOption kForeign[] = {
    // The same under another name.
    {"-m|--model", "", Value::kOne, "MODEL", "", ""},
    {"--ctx-size|-ctx|--n-ctx|--num-ctx", "", Value::kOne, "--ctx", "", ""},
    {"--predict|--n-predict|--num-predict", "run|chat|serve", Value::kOne, "-n", "", ""},
    {"--temperature", "run|chat|serve", Value::kOne, "--temp", "", ""},
    {"-s", "run|chat|serve", Value::kOne, "--seed", "", ""},
    {"--usage", "", Value::kNone, "-h", "", ""},
    {"-md|--model-draft|--spec-draft-model", "run|chat|serve", Value::kOne, "--draft", "", ""},
    {"-sys|--system-prompt", "chat", Value::kOne, "--system", "", ""},
    {"--escape", "run|chat|tokenize", Value::kNone, "-e", "", ""},
    {"--silent|--log-disable", "", Value::kNone, "-q", "", ""},
    {"-pg", "bench", Value::kOne, "--pg", "", ""},
    {"--outfile|--out", "convert", Value::kOne, "-o", "", ""},
    {"--quantize", "convert", Value::kOne, "--type", "", ""},
    {"--output-file", "imatrix", Value::kOne, "-o", "", ""},
    {"--in-file", "imatrix", Value::kOne, "-f", "", ""},
    {"--output-tensor-type", "convert", Value::kOne, "--output-type", "", ""},
    {"--token-embedding-type", "convert", Value::kOne, "--embedding-type", "", ""},
    {"--split-max-size", "convert", Value::kOne, "--split-size", "", ""},
    {"--chat-template-file", "chat|tokenize|serve", Value::kOne, "--template", "", ""},
    {"-st|--single-turn", "chat", Value::kNone, "--once", "", ""},
    {"--grammar-file", "run", Value::kOne, "--grammar", "", ""},
    {"-jf|--json-schema-file", "run", Value::kOne, "--json-schema", "", ""},
    {"--ids-only|--ids", "tokenize", Value::kNone, "--json", "", ""},
    {"-a", "serve", Value::kOne, "--alias", "", ""},
    {"--sleep-idle-seconds", "serve", Value::kOne, "--idle-unload", "", ""},
    // llama-bench's flags have values.
    {"-nkvo|--no-kv-offload", "bench", Value::kMaybe, kAnyway, "0", kOwnSplit},
    {"-nopo|--no-op-offload|--no-host|--repack", "bench", Value::kMaybe, kAnyway, "", ""},
    {"-embd|--embeddings", "bench", Value::kMaybe, kAnyway, "0", "text is generated; leave it out"},
    {"--progress", "bench", Value::kNone, kAnyway, "", ""},
    // What happens anyway.
    {"-no-cnv|--no-conversation|--no-display-prompt|--no-warmup|--simple-io|--no-escape|--no-context-shift|--"
     "log-prefix|--no-log-prefix|--log-timestamps|--no-log-timestamps|--no-log-jsonl|--no-show-timings|--"
     "warmup|"
     "--perf|--no-perf|--show-timings|--repack|-nr|--no-repack|--op-offload|"
     "--no-op-offload|--no-host|-bs|--backend-sampling|--swa-full|--no-mmproj|--no-mmproj-auto|--mmproj-auto|"
     "--mmproj-offload|--no-mmproj-offload|--no-skip-chat-parsing|--spec-default|--nowordwrap|-mli|"
     "--multiline-input|-kvu|--kv-unified|-no-kvu|--no-kv-unified|-nocb|--no-cont-batching|--offline|-kvo|--"
     "kv-offload|-"
     "cb|--cont-"
     "batching",
     "", Value::kNone, kAnyway, "", ""},
    {"-v|--verbose", "run|chat|imatrix|perplexity|bench|tokenize|inspect|doctor", Value::kNone, kAnyway, "",
     ""},
    {"-cnv|--conversation|--interactive|-i|--interactive-first|-if|--jinja", "chat", Value::kNone, kAnyway,
     "", ""},
    {"--log-colors", "", Value::kMaybe, kAnyway, "", ""},
    {"-lzm|--lazy-mode", "", Value::kMaybe, kAnyway, "", ""},
    {"-lm|--load-mode", "", Value::kOne, kAnyway, "auto|mmap",
     "--no-mmap reads the file into memory, --mlock keeps it there"},
    {"--color|-co", "run|chat", Value::kMaybe, kAnyway, "|on|off|auto", ""},
    {"-fit|--fit", "", Value::kOne, kAnyway, "on|off", kOwnSplit},
    {"--jinja|--embedding|--embeddings|--metrics|--props|--ui|--webui|--verbose|-v|--log-verbose|"
     "--cache-prompt|--cache-idle-slots|--no-cache-idle-slots",
     "serve", Value::kNone, kAnyway, "", ""},
    {"--no-parse-special", "tokenize", Value::kNone, kAnyway, "", ""},
    {"--ppl|--no-ppl", "imatrix", Value::kNone, kAnyway, "", ""},
    {"--output-format", "imatrix", Value::kOne, kAnyway, "gguf", "the file is a GGUF"},
    {"--ppl-output-type", "perplexity", Value::kOne, kAnyway, "0",
     "--per-token FILE writes what each token costs"},
    {"--embd-normalize", "serve", Value::kOne, kAnyway, "2", "vectors have length 1"},
    {"--use-temp-file|--no-lazy", "convert", Value::kNone, kAnyway, "", ""},
    {"--mmap", "", Value::kNone, kAnyway, "", ""},
    {"--allow-requantize", "convert", Value::kNone, kAnyway, "", ""},
    {"-fa|--flash-attn", "", Value::kMaybe, kAnyway, "|on|1|auto",
     "attention is always fused, and gives the same bits; leave it out"},
    {"-mmp", "bench", Value::kOne, kAnyway, "1", "--no-mmap reads the file into memory"},
    {"--outtype", "convert", Value::kOne, "--type", "f32|f16|bf16|q8_0", "name the format: --type"},
    {"-ngl|--n-gpu-layers|--num-gpu", "run|chat|perplexity|bench|serve|doctor", Value::kOne, "--gpu-layers",
     "", ""},
    {"-dev|--device", "run|chat|perplexity|bench|serve|doctor", Value::kOne, "--gpu", "", ""},
    {"-ngl|--gpu-layers|--n-gpu-layers|--num-gpu|-dev|--device", "", Value::kOne, kAnyway, "0|none", kNoGpu},
    {"--presence-penalty|--frequency-penalty|--mirostat|--dry-multiplier|--xtc-probability|--dynatemp-range",
     "run|chat", Value::kOne, kAnyway, "0|0.0", kSamplers},
    {"--typical|--typical-p", "run|chat", Value::kOne, kAnyway, "1|1.0", kSamplers},
    {"--numa", "", Value::kOne, kAnyway, "disabled", kPlacement},
    // What quern does otherwise, or does not.
    {"-ctk|--cache-type-k|-ctv|--cache-type-v", "", Value::kOne, kAnyway, "none of them", kOneKvFormat},
    {"-tb|--threads-batch", "", Value::kOne, kAnyway, "none of them", kOneThreadCount},
    {"-Cb|--cpu-mask-batch|-Crb|--cpu-range-batch|--cpu-strict-batch|--prio-batch|--poll-batch", "",
     Value::kOne, kAnyway, "none of them", kPlacement},
    {"-b|--batch-size|-ub|--ubatch-size", "", Value::kOne, kAnyway, "none of them", kOwnBatches},
    {"-sm|--split-mode|-ts|--tensor-split|-mg|--main-gpu|-ot|--override-tensor|-ncmoe|--n-cpu-moe|"
     "-ncffn|--n-cpu-ffn|-fitt|--fit-target|-fitc|--fit-ctx|--rpc",
     "", Value::kOne, kAnyway, "none of them", kOwnSplit},
    {"-nkvo|--no-kv-offload|-cmoe|--cpu-moe|--list-devices", "", Value::kNone, kAnyway, "none of them",
     kOwnSplit},
    {"--mirostat-lr|--mirostat-ent|--dry-base|--dry-allowed-length|--dry-penalty-last-n|--xtc-threshold|--"
     "dynatemp-exp|"
     "--top-nsigma|--top-n-sigma|--samplers|--sampling-seq|--sampler-seq|--dry-sequence-breaker|"
     "--adaptive-target|--adaptive-decay|--logit-bias|-l",
     "run|chat", Value::kOne, kAnyway, "none of them", kSamplers},
    {"--presence-penalty|--frequency-penalty|--logit-bias|-l", "serve", Value::kOne, kAnyway, "none of them",
     "a request says so: presence_penalty, frequency_penalty, logit_bias"},
    {"--mirostat*|--dry-*|--xtc-*|--typical*|--dynatemp-*|--top-nsigma|--top-n-sigma|--samplers|"
     "--sampling-seq|--sampler-seq|--adaptive-*",
     "serve", Value::kOne, kAnyway, "none of them", kSamplers},
    {"-n|--predict|--n-predict|-s|--seed|--temp|--temperature|--top-k|--top-p|--min-p|--repeat-last-n|"
     "--repeat-penalty|--presence-penalty|--frequency-penalty|--mirostat*|--dry-*|--xtc-*|--typical*|"
     "--dynatemp-*|--top-nsigma|--top-n-sigma|--samplers|--sampling-seq|--sampler-seq|--adaptive-*|"
     "--logit-bias|-l|-p|--prompt",
     "perplexity|imatrix", Value::kOne, kAnyway, "none of them", kNothingGenerated},
    {"--ignore-eos|-e|--escape", "perplexity|imatrix", Value::kNone, kAnyway, "none of them",
     kNothingGenerated},
    {"-p|--prompt|-f|--file", "serve", Value::kOne, kAnyway, "none of them",
     "requests bring their texts; quern run completes one"},
    {"-e|--escape", "serve", Value::kNone, kAnyway, "none of them", "requests bring their texts"},
    {"--grammar|--grammar-file|-j|--json-schema|-jf|--json-schema-file", "", Value::kOne, kAnyway,
     "none of them", kNoGrammar},
    {"-hfd|-hfrd|--hf-repo-draft|--spec-draft-hf|-hf|-hft|--hf-token|-hfr|--hf-repo|-hff|--hf-file|-mu|--"
     "model-url|-dr|--docker-repo",
     "", Value::kOne, kAnyway, "none of them", kNoDownload},
    {"-cl|--cache-list|--insecure|--fim-*-default|--fim-*-spec|--gpt-oss-*-default|--vision-*-default|"
     "--embd-gemma-default",
     "", Value::kNone, kAnyway, "none of them", kNoDownload},
    {"--lora|--lora-scaled|--control-vector*|--lora-init-without-apply", "", Value::kOne, kAnyway,
     "none of them", "adapters are not supported: merge one into its model before converting that"},
    {"-mm|--mmproj|-mmu|--mmproj-url|--image*|--audio|--video*|--mtmd-*", "", Value::kOne, kAnyway,
     "none of them", "only text goes in"},
    {"-md|--model-draft|--draft", "", Value::kOne, kAnyway, "none of them",
     "a second model guesses in quern run, chat and serve: --draft FILE"},
    {"--draft-max|--draft-n|--draft-min|--draft-n-min|--draft-p-*|--spec-*|--*-"
     "draft|"
     "-td|-tbd|-Cd|-Crd|-Cbd|-Crbd|-ctkd|-ctvd|-otd|-ncmoed|-devd|-ngld",
     "", Value::kOne, kAnyway, "none of them", kDraft},
    {"-cmoed|--no-spec-*", "", Value::kNone, kAnyway, "none of them", kDraft},
    {"-cnv|--conversation|--interactive|-i|--interactive-first|-if|--instruct|-ins|-st|--single-turn|--jinja",
     "run", Value::kNone, kAnyway, "none of them", kChatCommand},
    {"-sys|--system-prompt|--system|-sysf|--system-prompt-file|--chat-template-file", "run", Value::kOne,
     kAnyway, "none of them", kChatCommand},
    {"-sysf|--system-prompt-file", "chat", Value::kOne, kAnyway, "none of them",
     "--system TEXT takes the text itself: --system \"$(cat FILE)\""},
    {"--parse-special", "chat|serve", Value::kNone, kAnyway, "none of them",
     "what is said in a conversation spells no token; quern run takes raw text"},
    {"--no-jinja", "", Value::kNone, kAnyway, "none of them",
     "a file's own chat template is executed; --chat-format NAME takes a format that quern knows"},
    {"-gan|--grp-attn-n|-gaw|--grp-attn-w|--rope-scaling|--rope-scale|--rope-freq-base|--rope-freq-scale|--"
     "yarn-orig-ctx|--yarn-ext-factor|--"
     "yarn-"
     "attn-factor|--yarn-beta-slow|--yarn-beta-fast",
     "", Value::kOne, kAnyway, "none of them", "how positions are turned is what the file says"},
    {"--prompt-cache", "", Value::kOne, kAnyway, "none of them",
     "--cache-dir FOLDER keeps what prompts came to"},
    {"--prompt-cache-all|--prompt-cache-ro", "", Value::kNone, kAnyway, "none of them",
     "--cache-dir FOLDER keeps what prompts came to"},
    {"-cram|--cache-ram", "chat", Value::kOne, kAnyway, "none of them",
     "--cache-dir FOLDER keeps what prompts came to"},
    {"-cram", "serve", Value::kOne, kAnyway, "none of them",
     "--cache-ram SIZE takes bytes, 500M or 2GiB; a number alone is no MiB"},
    {"--no-cache-prompt", "serve", Value::kNone, kAnyway, "none of them",
     "--cache-ram 0 keeps no prompt in memory"},
    {"-ctxcp|--ctx-checkpoints|--swa-checkpoints|-cms|--checkpoint-min-step", "", Value::kOne, kAnyway,
     "none of them", kEarlierStates},
    {"--display-prompt", "run|chat", Value::kNone, kAnyway, "none of them",
     "the completion alone goes to stdout"},
    {"-ptc|--print-token-count", "run|chat", Value::kOne, kAnyway, "none of them",
     "--json has every id, and the timings count them"},
    {"-sp|--special", "run|chat|serve", Value::kNone, kAnyway, "none of them",
     "control tokens are not printed; --json has every id"},
    {"-o|--output|--output-file", "run|chat", Value::kOne, kAnyway, "none of them",
     "the text alone goes to stdout: > FILE keeps it"},
    {"-r|--reverse-prompt", "run|chat|serve", Value::kOne, kAnyway, "none of them",
     "--stop TEXT ends before a text"},
    {"--in-prefix|--in-suffix", "run|chat", Value::kOne, kAnyway, "none of them", kText},
    {"--in-prefix-bos|--skip-chat-parsing", "run|chat|serve", Value::kNone, kAnyway, "none of them", kText},
    {"--chat-template", "", Value::kOne, kAnyway, "none of them",
     "--chat-format NAME takes a format that quern knows, --template FILE a template"},
    {"--chat-template-kwargs|--reasoning-format|--reasoning-budget|--reasoning-budget-message|"
     "--reasoning-effort|-rea|--reasoning",
     "", Value::kOne, kAnyway, "none of them", kThoughts},
    {"--think|--hidethinking|--reasoning-preserve|--no-reasoning-preserve", "", Value::kMaybe, kAnyway,
     "none of them", kThoughts},
    {"-bf|--binary-file", "", Value::kOne, kAnyway, "none of them",
     "-f FILE reads any bytes, less one newline at the end"},
    {"-dt|--defrag-thold", "", Value::kOne, kAnyway, "none of them",
     "the cache of keys and values has no holes; leave it out"},
    {"--keep", "", Value::kOne, kAnyway, "none of them",
     "quern never shifts a context: it ends, or whole turns go"},
    {"--context-shift", "", Value::kNone, kAnyway, "none of them",
     "quern never shifts a context: it ends, or whole turns go"},
    {"-C|--cpu-mask|-Cr|--cpu-range|--cpu-strict|--prio|--poll", "", Value::kOne, kAnyway, "none of them",
     kPlacement},
    {"-np|--parallel", "serve", Value::kOne, "--slots", "", ""},
    {"-np|--parallel", "", Value::kOne, kAnyway, "none of them",
     "one text at a time; quern serve has --slots"},
    {"--api-key", "serve", Value::kOne, kAnyway, "none of them",
     "--api-key-file FILE: a key on a command line is seen by everybody on the machine"},
    {"--verbose-prompt|--log-verbose", "run|chat|imatrix|perplexity|bench|tokenize|inspect|doctor",
     Value::kNone, kAnyway, "none of them", "everything is said already; -q says less"},
    {"--kl-divergence-base|--save-all-logits", "perplexity", Value::kOne, "--save-logits", "", ""},
    {"--kl-divergence", "perplexity", Value::kNone, kAnyway, "none of them",
     "--against BASE compares with another model in one pass, without a file between"},
    {"--ppl-stride", "perplexity", Value::kOne, kAnyway, "none of them", "not supported"},
    {"--hellaswag*|--winogrande*|--multiple-choice*", "perplexity", Value::kNone, kAnyway, "none of them",
     "not supported"},
    {"-ofreq|--output-frequency|--save-frequency|--chunk|--from-chunk", "imatrix", Value::kOne, kAnyway,
     "none of them",
     "a text is measured from its start, and the file written at the end; --chunks N ends sooner"},
    {"--process-output|--show-statistics", "imatrix", Value::kNone, kAnyway, "none of them", "not supported"},
    {"--stdin", "tokenize", Value::kNone, kAnyway, "none of them", "-f - reads stdin"},
    {"--show-count", "tokenize", Value::kNone, kAnyway, "none of them",
     "a line is a token: | wc -l counts them"},
    {"-oe|--output-err", "bench", Value::kOne, kAnyway, "none of them",
     "run it a second time with another -o"},
    {"--delay", "bench", Value::kOne, kAnyway, "0", "not supported"},
    {"--leave-output-tensor", "convert", Value::kNone, kAnyway, "none of them",
     "--output-type FORMAT says what the output matrix becomes (bf16, f16)"},
    {"--split|--merge|--keep-split|--no-tensor-first-split", "convert", Value::kNone, kAnyway, "none of them",
     "parts become one file by themselves, and --split-size SIZE cuts it"},
    {"--tensor-type-file", "convert", Value::kOne, kAnyway, "none of them",
     "--tensor-type PATTERN=FORMAT may be repeated"},
    {"--include-weights|--exclude-weights", "convert", Value::kOne, kAnyway, "none of them",
     "--imatrix weighs all matrices that it knows"},
    {"--prune-layers", "convert", Value::kOne, kAnyway, "none of them", "not supported"},
    {"--print-supported-models", "convert", Value::kNone, kAnyway, "none of them",
     "models.md lists the architectures"},
    {"-y|--overwrite", "convert|imatrix", Value::kNone, kAnyway, "none of them",
     "--force replaces an existing file"},
    {"--vocab-only|--bigendian|--mistral-format|--remote|--mtp|--no-mtp|--fuse-gate-up-exps|"
     "--disable-mistral-community-chat-template|--sentence-transformers-dense-modules",
     "convert", Value::kNone, kAnyway, "none of them", "not supported"},
    {"-lv|--verbosity|--log-verbosity|--log-file|--log-prompts-dir", "", Value::kOne, kAnyway, "none of them",
     "everything is said on stderr: 2> FILE keeps it, -q says less"},
    {"--log-jsonl", "", Value::kNone, kAnyway, "none of them",
     "everything is said on stderr: 2> FILE keeps it, -q says less"},
    {"--version", "", Value::kNone, kAnyway, "none of them", "quern --version prints it"},
    {"--completion-bash", "", Value::kNone, kAnyway, "none of them", "quern completions bash prints it"},
    {"--server-base", "chat", Value::kOne, kAnyway, "none of them",
     "quern chat runs the model by itself, and asks no server"},
    {"--override-kv", "", Value::kOne, kAnyway, "none of them", "not supported"},
    {"--model-name|--metadata|--split-max-tensors", "convert", Value::kOne, kAnyway, "none of them",
     "not supported"},
    {"--experimental*|--truncate", "", Value::kNone, kAnyway, "none of them", "not supported"},
    {"--dimensions", "", Value::kOne, kAnyway, "none of them",
     "a request for embeddings says so: dimensions"},
    {"--format", "run|chat", Value::kOne, kAnyway, "none of them",
     "quern run --json-schema FILE holds an answer to JSON; --json prints text and ids as JSON"},
    {"--format", "", Value::kOne, kAnyway, "none of them", "not supported; --json prints JSON"},
    {"--keepalive", "", Value::kOne, kAnyway, "none of them",
     "a command's model goes when it ends; quern serve has --idle-unload"},
    {"--ssl-key-file|--ssl-cert-file", "serve", Value::kOne, kAnyway, "none of them",
     "a proxy in front speaks TLS: cli/serve/deploy has a site of nginx"},
    {"--slot-save-path", "serve", Value::kOne, kAnyway, "none of them",
     "--cache-dir FOLDER keeps what prompts came to"},
    {"--cors-*", "serve", Value::kOne, kAnyway, "none of them", kPages},
    {"--no-cors-credentials", "serve", Value::kNone, kAnyway, "none of them", kPages},
    {"--lookup-cache-*|-lcs|-lcd|--kv-unified-per-slot|--tags|--ui-config*|--webui-config*|--tools-runtime|"
     "--mcp-*|--sse-ping-interval|--media-path|--models-preset|--models-max|-sps|--slot-prompt-similarity|"
     "--cache-reuse|--threads-http|-to|--timeout|--path|--api-prefix|--"
     "tools|"
     "--models-dir",
     "serve", Value::kOne, kAnyway, "none of them", "not supported"},
    {"--no-ui|--no-webui|--no-slots|--rerank|--reranking|--spm-infill|--reuse-port|--ui-mcp-proxy|"
     "--webui-mcp-proxy|--no-ui-mcp-proxy|--no-webui-mcp-proxy|-ag|--agent|-no-ag|--no-agent|"
     "--models-autoload|--no-models-autoload|--prefill-assistant|--no-prefill-assistant",
     "serve", Value::kNone, kAnyway, "none of them", "not supported"},
};

bool is_among(std::string_view word, std::string_view words) {
  while (true) {
    const size_t bar = words.find('|');
    const std::string_view name = words.substr(0, bar);
    const size_t star = name.find('*');
    if (star == name.npos ? name == word
                          : word.size() + 1 >= name.size() && word.starts_with(name.substr(0, star)) &&
                                word.ends_with(name.substr(star + 1)))
      return true;
    if (bar == words.npos) return false;
    words.remove_prefix(bar + 1);
  }
}

// command: of its rows and those of all.
const ForeignOption* find_foreign(std::string_view name, std::string_view command) {
  const auto found = std::find_if(std::begin(kForeign), std::end(kForeign), [&](const ForeignOption& row) {
    return is_among(name, row.names) && (row.commands.empty() || is_among(command, row.commands));
  });
  return found == std::end(kForeign) ? nullptr : found;
}

const OptionRow* find_own(const CommandTable& table, std::string_view name) {
  for (const OptionRow& row : table.options)
    if (std::find(row.names.begin(), row.names.end(), name) != row.names.end()) return &row;
  return nullptr;
}

// "--top_k" as "--top-k".
std::string with_dashes(std::string_view name) {
  std::string out(name);
  if (out.starts_with("--")) std::replace(out.begin() + 2, out.end(), '_', '-');
  return out;
}

// "-temp" as "--temp": a name of that form would be read as the one letter and its value.
std::string with_second_dash(std::string_view name) {
  return name.starts_with("--") || name.size() < 3 ? std::string() : with_dashes(fmt::format("-{}", name));
}

// An argument that begins with a dash and is not a number.
bool looks_like_option(std::string_view text) {
  return text.size() > 1 && text[0] == '-' && !(text[1] >= '0' && text[1] <= '9') && text[1] != '.';
}

}  // namespace

bool is_foreign(std::string_view name, std::string_view command) {
  return find_foreign(name, command) != nullptr;
}

std::vector<std::string> translate_foreign(const CommandTable& table,
                                           std::span<const std::string> arguments) {
  std::vector<std::string> out, models;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "--") {
      out.insert(out.end(), arguments.begin() + static_cast<std::ptrdiff_t>(i), arguments.end());
      break;
    }
    const size_t equals = argument.starts_with('-') ? argument.find('=') : argument.npos;
    const std::string given = argument.substr(0, equals);
    const std::string name = with_dashes(given);
    if (const OptionRow* own = find_own(table, name)) {
      if (own->takes_value() && equals != argument.npos && !name.starts_with("--")) {
        out.insert(out.end(), {name, argument.substr(equals + 1)});  // CLI11 would take "-n=5" for "=5"
        continue;
      }
      out.push_back(name + argument.substr(given.size()));
      if (own->takes_value() && equals == argument.npos && i + 1 < arguments.size())
        out.push_back(arguments[++i]);
      continue;
    }
    const ForeignOption* foreign = looks_like_option(argument) ? find_foreign(name, table.name) : nullptr;
    if (foreign == nullptr) {
      const std::string longer = with_second_dash(given);
      if (looks_like_option(argument) && !longer.empty() &&
          (find_own(table, longer) != nullptr || find_foreign(longer, table.name) != nullptr))
        fail(ErrorCode::kUsage, "unknown option '{}' (did you mean '{}'?); see quern {} --help", given,
             longer, table.name);
      out.push_back(argument);
      continue;
    }
    std::string value;
    if (equals != argument.npos) {
      value = argument.substr(equals + 1);
    } else if (foreign->value != Value::kNone && i + 1 < arguments.size() &&
               (foreign->value == Value::kOne || is_among(lower_ascii(arguments[i + 1]), kSwitches))) {
      value = arguments[++i];
    }
    if (!foreign->harmless.empty() && !is_among(lower_ascii(value), foreign->harmless))
      fail(ErrorCode::kUsage, "{}{}{}: {} (see quern {} --help)", given, value.empty() ? "" : " ",
           printable(value), foreign->advice, table.name);
    if (foreign->ours == "MODEL") {
      models.push_back(value);
    } else if (!foreign->ours.empty() && find_own(table, foreign->ours) == nullptr) {
      fail(ErrorCode::kUsage, "{}: not an option of quern {} (see quern {} --help)", given, table.name,
           table.name);
    } else if (!foreign->ours.empty()) {
      out.emplace_back(foreign->ours);
      if (foreign->value != Value::kNone) out.push_back(value);
    }
  }
  if (models.empty()) return out;
  if (models.size() > 1)
    print_notice("-m/--model is given {} times: the last counts ('{}')", models.size(),
                 printable(models.back(), kPathBytes));
  out.insert(out.begin(), models.back());
  return out;
}

// ollama run MODEL TEXT; llama-quantize IN OUT TYPE.
std::string_view advice_for_argument(std::string_view command) {
  if (command == "run" || command == "tokenize")
    return ": the model is given already, and a text goes behind -p";
  if (command == "convert") return ": the output goes behind -o, its type behind --type";
  if (command == "perplexity") return ": a text's file goes behind -f";
  return {};
}

std::string_view advice_for_command(std::string_view name) {
  struct Row {
    std::string_view names, advice;
  };
  constexpr Row kRows[] = {
      {"server|llama-server", "quern serve MODEL answers over HTTP"},
      {"ps|stop", "quern serve MODEL runs until a signal ends it"},
      {"pull|push|list|ls|rm|cp|download",
       "quern downloads and keeps nothing: models are the files that you have"},
      {"create|quantize|llama-quantize|import|convert_hf_to_gguf.py",
       "quern convert SOURCE -o OUT.gguf makes a model file"},
      {"split|merge|gguf-split|llama-gguf-split",
       "quern convert SOURCE -o OUT.gguf joins parts, and cuts with --split-size"},
      {"llama-imatrix", "quern imatrix MODEL -f FILE -o OUT.gguf measures which columns count"},
      {"embed|embedding|llama-embedding", "quern serve MODEL answers /v1/embeddings"},
      {"show|info", "quern inspect PATH shows what a file holds"},
      {"generate|complete|main|cli|llama-cli|completion|llama-completion|simple|llama-simple|llama-run",
       "quern run MODEL -p TEXT completes a text"},
      {"llama-bench|benchmark", "quern bench MODEL measures speed"},
      {"ppl|llama-perplexity", "quern perplexity MODEL -f FILE measures how well a model predicts a text"},
      {"tokenise|llama-tokenize", "quern tokenize MODEL -p TEXT shows token ids"},
  };
  for (const Row& row : kRows)
    if (is_among(name, row.names)) return row.advice;
  return {};
}

}  // namespace quern
