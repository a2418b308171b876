#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "cli/arguments.h"
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
  EXPECT_EQ(parse({"m", "-prompter"}).prompt, "rompter");
  EXPECT_EQ(parse({"m", "-p", "-seed"}).prompt, "-seed");
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
