// Every input of the corpus through the command that robustness.md names ("Gate"): the exit code it deserves,
// one clear line, quickly, within bounded memory, never by a signal, and nothing left behind.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <ostream>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "tests/cli/quern_cli.h"
#include "tests/support/paths.h"

namespace quern::test {
namespace {

struct CorpusInput {
  std::string id, path, expect, error, change;
};

void PrintTo(const CorpusInput& input, std::ostream* out) {
  *out << input.path << " (" << input.change << "), expected: " << input.expect << " " << input.error;
}

// Scaled rotations, which the manifest was written before: Llama 3's factors and YaRN.
const std::set<std::string_view> kScaledRopes = {"M205", "H116"};
// Chat templates, which the manifest has a word of `run` for: it does not touch them any more.
const std::set<std::string_view> kChatTemplates = {"M443", "M444"};
// Well formed, but with numbers that are not finite.
const std::set<std::string_view> kNonFinite = {"M301", "M302", "M303", "M304", "H017", "H018", "H019"};

std::vector<CorpusInput> read_manifest() {
  std::vector<CorpusInput> inputs;
  std::ifstream manifest(unpacked_data("corpus/manifest.jsonl"));
  for (std::string line; std::getline(manifest, line);) {
    const Json entry = Json::parse(line);
    inputs.push_back({entry["id"], entry["path"], entry["expect"], entry["error"], entry["change"]});
    if (kScaledRopes.contains(inputs.back().id) || kChatTemplates.contains(inputs.back().id))
      inputs.back().expect = "accept";
  }
  return inputs;
}

int expected_exit_code(const CorpusInput& input) {
  if (input.expect != "reject") return 0;
  return kNonFinite.contains(input.id) ? 3 : 2;
}

// `alternatives`: literal texts between "|"; the manifest uses no other regular-expression syntax.
bool contains_one_of(std::string_view text, std::string_view alternatives) {
  while (true) {
    const size_t bar = alternatives.find('|');
    if (text.find(alternatives.substr(0, bar)) != std::string_view::npos) return true;
    if (bar == std::string_view::npos) return false;
    alternatives.remove_prefix(bar + 1);
  }
}

std::vector<std::string> command_for(const CorpusInput& input, const TempFolder& folder) {
  const std::string path = unpacked_data("corpus/") + input.path;
  switch (input.id[0]) {
    case 'M':
      return {"run", path, "-n", "1", "-p", "a"};
    case 'P':
      return {"tokenize", path, "-p", "hello"};
    case 'H':
      return {"convert", path, "-o", folder.file("out.gguf")};
    default:
      return {"inspect", path};
  }
}

// What a terminal might obey. Newlines end our own lines.
bool has_control_bytes(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return (byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7f;
  });
}

class Corpus : public testing::TestWithParam<CorpusInput> {};

TEST_P(Corpus, EndsAsTheManifestSays) {
  const CorpusInput& input = GetParam();
  const TempFolder folder;
  const ProcessResult result = quern(command_for(input, folder));
  const bool rejected = input.expect == "reject";

  EXPECT_EQ(result.signal, 0) << describe(result);
  EXPECT_EQ(result.exit_code, expected_exit_code(input)) << describe(result);
  EXPECT_LT(result.cpu_seconds, 2 * kSlowdown);
  if (!kSanitized) {
    EXPECT_LT(result.peak_rss_bytes, 512ull << 20);
  }
  EXPECT_EQ(count_lines_with_prefix(result.err, "error:"), rejected ? 1 : 0) << describe(result);
  if (input.expect != "accept") {
    EXPECT_TRUE(contains_one_of(result.err, input.error)) << describe(result);
  }
  EXPECT_FALSE(has_control_bytes(result.err)) << describe(result);
  if (rejected) {
    EXPECT_EQ(result.out, "");
    EXPECT_TRUE(folder.names().empty()) << "left behind: " << folder.names().front();
  } else if (input.id[0] == 'H') {
    EXPECT_EQ(folder.names(), std::vector<std::string>{"out.gguf"});
  }
}

INSTANTIATE_TEST_SUITE_P(Inputs, Corpus, testing::ValuesIn(read_manifest()), [](const auto& tested) {
  std::string name = tested.param.id;
  std::replace(name.begin(), name.end(), '.', '_');
  return name;
});

TEST(CorpusManifest, HasEveryInput) { EXPECT_EQ(read_manifest().size(), 258u); }

}  // namespace
}  // namespace quern::test
