// What it costs to hold an answer to a schema: microseconds of all of a text's masks, how many tokens it has,
// and the dearest mask.
//   bench_grammar SOURCE[:PRE]      (a GGUF file, tokenizer.json, a rank file with its pre-tokenizer ...)
// "first" has an automaton of its own each time, as a request has; "again" one that has seen the text.
// Options of Google Benchmark may stand anywhere.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>

#include "convert/tokenizer_file.h"
#include "quant/error.h"
#include "quant/mapped_file.h"
#include "runtime/engine/constraint.h"
#include "runtime/engine/grammar_schema.h"

namespace quern {
namespace {

using Clock = std::chrono::steady_clock;

struct Language {
  const char *name, *schema, *text;
};
constexpr Language kLanguages[] = {
    {"person",
     R"({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0},
         "email": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}}},
         "required": ["name", "age", "email", "tags"]})",
     R"({"name": "Ann Smith of the old town", "age": 34, "email": "ann.smith@example.org", "tags": ["first of all", "second"]})"},
    {"any_object", R"({"type": "object"})",
     R"({"a": [1, 2.5, {"b": null, "c": "some text that is longer"}], "d": {"e": {"f": [true, false, "x"]}}})"},
    {"lengths",
     R"({"type": "object", "properties": {"text": {"type": "string", "maxLength": 400}}, "required": ["text"]})",
     R"({"text": "Four score and seven years ago our fathers brought forth on this continent, a new nation, conceived in Liberty"})"},
    {"pattern",
     R"({"type": "object", "properties": {"id": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4,8}$"},
         "when": {"type": "string", "format": "date-time"}}, "required": ["id", "when"]})",
     R"({"id": "AB-123456", "when": "2024-05-17T08:30:00Z"})"},
};

// Masks of all tokens of a text, and the end's.
struct Walk {
  std::vector<TokenId> ids;
  double worst_us = 0;  // of one mask

  void run(const std::shared_ptr<const Constraint>& constraint) {
    ConstraintState state(constraint, false);
    TokenMask mask;
    for (const TokenId id : ids) {
      const auto begin = Clock::now();
      state.next_tokens(&mask);
      worst_us = std::max(worst_us, std::chrono::duration<double, std::micro>(Clock::now() - begin).count());
      if (!state.push(id)) fail(ErrorCode::kUsage, "the text does not keep to its schema at token {}", id);
    }
  }
};

int run(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s SOURCE[:PRE]\n", argv[0]);
    return 1;
  }
  const std::string source = argv[1];
  const size_t colon = source.rfind(':');
  const std::string path = source.substr(0, colon);
  const MappedFile file(path);
  const auto tokenizer = make_tokenizer(read_tokenizer_file(
      file.bytes(), path, colon == std::string::npos ? "" : source.substr(colon + 1), {}));
  const auto trie = std::make_shared<const TokenTrie>(*tokenizer, tokenizer->size());
  benchmark::RegisterBenchmark("trie", [&](benchmark::State& state) {
    for (auto _ : state) benchmark::DoNotOptimize(TokenTrie(*tokenizer, tokenizer->size()));
    state.counters["tokens"] = static_cast<double>(tokenizer->size());
  })->Unit(benchmark::kMillisecond);
  for (const Language& language : kLanguages) {
    const auto make = [&language, &trie] {
      const Json schema = parse_json(language.schema, language.name, kSchemaLimits);
      return std::make_shared<const Constraint>(compile_json_schema(schema, language.name), trie);
    };
    const std::string name = language.name;
    benchmark::RegisterBenchmark((name + "/compile").c_str(), [make](benchmark::State& state) {
      for (auto _ : state) benchmark::DoNotOptimize(make());
    })->Unit(benchmark::kMicrosecond);
    for (const bool again : {false, true})
      benchmark::RegisterBenchmark((name + (again ? "/again" : "/first")).c_str(),
                                   [make, again, &language, &tokenizer](benchmark::State& state) {
                                     Walk walk{tokenizer->encode(language.text, TextRole::kMessage)};
                                     auto constraint = make();
                                     if (again) walk.run(constraint);
                                     walk.worst_us = 0;
                                     for (auto _ : state) {
                                       if (!again) {
                                         state.PauseTiming();
                                         constraint = make();
                                         state.ResumeTiming();
                                       }
                                       walk.run(constraint);
                                     }
                                     state.counters["tokens"] = static_cast<double>(walk.ids.size());
                                     state.counters["worst_us"] = walk.worst_us;
                                   })
          ->Unit(benchmark::kMicrosecond);
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
    return static_cast<int>(error.code());
  }
}
