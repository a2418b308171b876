// Tokenizers on one thread: MB/s of text, and the time of one word that grows.
//   bench_tokenizer SOURCE[:PRE] TEXT...      (a GGUF file, tokenizer.json, a rank file with its
//   pre-tokenizer ...)
// Options of Google Benchmark may stand anywhere.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <fstream>
#include <random>
#include <sstream>
#include <string>

#include "convert/tokenizer_file.h"
#include "quant/error.h"
#include "quant/mapped_file.h"
#include "runtime/tokenizer/tokenizer.h"

namespace quern {
namespace {

std::string read_text(const char* path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail(ErrorCode::kIo, "cannot open '{}'", path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::unique_ptr<Tokenizer> load(const std::string& source) {
  const size_t colon = source.rfind(':');
  const std::string path = source.substr(0, colon);
  const MappedFile file(path);
  return make_tokenizer(read_tokenizer_file(file.bytes(), path,
                                            colon == std::string::npos ? "" : source.substr(colon + 1), {}));
}

void encode(benchmark::State& state, const Tokenizer& tokenizer, const std::string& text) {
  size_t n_ids = 0;
  for (auto _ : state) {
    n_ids = tokenizer.encode(text, TextRole::kRaw).size();
    benchmark::DoNotOptimize(n_ids);
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * text.size()));
  state.counters["ids"] = static_cast<double>(n_ids);
}

// Letters at random, as no space divides them.
std::string one_word(size_t n_bytes) {
  std::mt19937 random(1);
  std::string word;
  while (word.size() < n_bytes) word += static_cast<char>('a' + random() % 26);
  return word;
}

int run(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s SOURCE[:PRE] TEXT...\n", argv[0]);
    return 1;
  }
  const std::unique_ptr<Tokenizer> tokenizer = load(argv[1]);
  for (int i = 2; i < argc; ++i) {
    benchmark::RegisterBenchmark((std::string("text/") + argv[i]).c_str(),
                                 [&tokenizer, text = read_text(argv[i])](benchmark::State& state) {
                                   encode(state, *tokenizer, text);
                                 });
  }
  for (const size_t megabytes : {1, 2}) {
    benchmark::RegisterBenchmark(("one_word/" + std::to_string(megabytes) + "MB").c_str(),
                                 [&tokenizer, text = one_word(megabytes * 1'000'000)](
                                     benchmark::State& state) { encode(state, *tokenizer, text); });
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace quern

int main(int argc, char** argv) {
  try {
    return quern::run(argc, argv);
  } catch (const quern::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
