// perplexity: the reference's running values, and every scored token on request.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string>
#include <vector>

#include "tests/cli/quern_cli.h"

namespace quern::test {
namespace {

// The values of "[1]19.7968,[2]25.1267,": one for each chunk.
std::vector<double> running_values(const std::string& out) {
  std::vector<double> values;
  for (size_t at = 0;; ++at) {
    std::string label(1, '[');
    label.append(std::to_string(values.size() + 1)).push_back(']');
    at = out.find(label, at);
    if (at == std::string::npos) return values;
    values.push_back(std::strtod(out.c_str() + at + label.size(), nullptr));
  }
}

struct Estimate {
  double perplexity = 0, error = 0;
};

Estimate final_estimate(const std::string& out) {
  Estimate estimate;
  const size_t at = out.find("PPL = ");
  if (at == std::string::npos) return estimate;
  std::istringstream in(out.substr(at + 6));
  std::string plus_minus;
  in >> estimate.perplexity >> plus_minus >> estimate.error;
  return estimate;
}

class Perplexity : public testing::Test {
 protected:
  ProcessResult perplexity(std::vector<std::string> more) {
    more.insert(more.begin(), {"perplexity", model_, "-f", test_data("tiny-mistral/test.txt")});
    return quern(more);
  }

  TempFolder folder_;
  std::string model_ = converted(folder_, "tiny-mistral", "bf16");
};

TEST_F(Perplexity, RunningValuesAreTheReference) {
  // A sanitizer build takes minutes for all of them.
  const size_t n_chunks = kSanitized ? 2 : 20;
  const std::vector<double> expected = golden_model("tiny-mistral")["perplexity"]["running"];
  const ProcessResult result = perplexity({"--chunks", std::to_string(n_chunks)});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  const std::vector<double> values = running_values(result.out);
  ASSERT_EQ(values.size(), n_chunks) << describe(result);
  for (size_t i = 0; i < n_chunks; ++i) {
    EXPECT_NEAR(values[i], expected[i], 1e-3 * expected[i]) << "chunk " << i;
  }
  const Estimate estimate = final_estimate(result.out);
  EXPECT_NEAR(estimate.perplexity, values.back(), 1e-3) << describe(result);
  EXPECT_GT(estimate.error, 0) << describe(result);
}

TEST_F(Perplexity, PerTokenFileIsNeverAnInput) {
  const std::string before = read_file(model_);
  const ProcessResult onto_model = perplexity({"--per-token", model_});
  EXPECT_EQ(onto_model.exit_code, 1) << describe(onto_model);
  EXPECT_EQ(read_file(model_), before);
  const std::string text = folder_.write("text.txt", "too short");
  const std::string csv = folder_.write("old.csv", "kept");
  const ProcessResult too_short = quern({"perplexity", model_, "-f", text, "--per-token", csv});
  EXPECT_EQ(too_short.exit_code, 1) << describe(too_short);
  EXPECT_EQ(read_file(csv), "kept");
}

TEST_F(Perplexity, PerTokenFileHoldsWhatTheMeanIsMadeOf) {
  const std::string csv = folder_.file("tokens.csv");
  const ProcessResult result = perplexity({"--chunks", "2", "--per-token", csv});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  std::istringstream in(read_file(csv));
  std::string line;
  std::getline(in, line);
  EXPECT_EQ(line, "chunk,position,id,nll");
  double sum = 0, sum_of_squares = 0;
  size_t count = 0;
  for (; std::getline(in, line); ++count) {
    unsigned chunk, position, id;
    double nll;
    ASSERT_EQ(std::sscanf(line.c_str(), "%u,%u,%u,%lf", &chunk, &position, &id, &nll), 4) << line;
    // Of 512 positions the second half predicts: 256 .. 510 predict 257 .. 511.
    EXPECT_EQ(chunk, count / 255) << line;
    EXPECT_EQ(position, 257 + count % 255) << line;
    EXPECT_LT(id, 1024u) << line;
    sum += nll;
    sum_of_squares += nll * nll;
  }
  ASSERT_EQ(count, 2u * 255);
  const double mean = sum / count;
  const double expected = std::exp(mean);
  const Estimate estimate = final_estimate(result.out);
  EXPECT_NEAR(estimate.perplexity, expected, 1e-4);
  EXPECT_NEAR(estimate.error, expected * std::sqrt((sum_of_squares / count - mean * mean) / (count - 1)),
              1e-4);
}

TEST_F(Perplexity, DoesNotDependOnThreadsOrInstructionSet) {
  const std::string expected = perplexity({"--chunks", "2"}).out;
  ASSERT_GT(final_estimate(expected).perplexity, 1) << expected;
  EXPECT_EQ(perplexity({"--chunks", "2", "-t", "1"}).out, expected);
  EXPECT_EQ(perplexity({"--chunks", "2", "-t", "3"}).out, expected);
  if (!kSanitized) {
    EXPECT_EQ(perplexity({"--chunks", "2", "--isa", "scalar"}).out, expected);
  }
}

TEST_F(Perplexity, JsonIsTheOnlyOutput) {
  const ProcessResult result = perplexity({"--chunks", "2", "--json"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  const Json report = Json::parse(result.out);
  const double expected = golden_model("tiny-mistral")["perplexity"]["running"][1];
  EXPECT_NEAR(report["perplexity"].get<double>(), expected, 1e-3 * expected);
}

TEST_F(Perplexity, TextShorterThanTwoWindowsIsRefused) {
  const std::string text = folder_.write("short.txt", "To be, or not to be.\n");
  const ProcessResult result = quern({"perplexity", model_, "-f", text});
  EXPECT_EQ(result.exit_code, 1) << describe(result);
  EXPECT_NE(result.err.find("1024"), std::string::npos) << describe(result);
  EXPECT_EQ(result.out, "");
}

TEST_F(Perplexity, FullOutputDeviceIsAnError) {
  ProcessOptions options;
  options.stdout_path = "/dev/full";
  const ProcessResult result =
      quern({"perplexity", model_, "-f", test_data("tiny-mistral/test.txt"), "--chunks", "1"}, options);
  EXPECT_EQ(result.exit_code, 5) << describe(result);
}

// --- --against ---

TEST_F(Perplexity, AgainstAnotherModelPrintsItsFiguresAndAnObject) {
  const std::string q4_0 = converted(folder_, "tiny-mistral", "q4_0");
  const auto run = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"perplexity", q4_0, "--against", model_, "-f",
                               test_data("tiny-mistral/test.txt"), "--chunks", "2"});
    return quern(more);
  };
  const std::string csv = folder_.file("tokens.csv");
  const ProcessResult text = run({"--per-token", csv});
  ASSERT_EQ(text.exit_code, 0) << describe(text);
  for (const char* part : {"chunk  ", "\n   2   ", "Mean PPL(Q)/PPL(base)         :   1.0",
                           "Mean    KLD:   0.0", "99.9%   Δp: ", "RMS Δp    : ", "Same top p: "})
    EXPECT_NE(text.out.find(part), std::string::npos) << part << "\n" << describe(text);
  EXPECT_NE(text.err.find("memory: "), std::string::npos) << describe(text);
  for (const char* choice : {"kernels: ", "threads: "})
    EXPECT_EQ(count_lines_with_prefix(text.err, choice), 1u) << "true of both, said once\n" << describe(text);

  const ProcessResult exact = run({"--json"}), stored = run({"--json", "--peer-storage"});
  ASSERT_EQ(exact.exit_code, 0) << describe(exact);
  ASSERT_EQ(stored.exit_code, 0) << describe(stored);
  const Json a = Json::parse(exact.out), b = Json::parse(stored.out);
  EXPECT_EQ(a["scored_tokens"], 510);
  EXPECT_EQ(a["storage"], "exact");
  EXPECT_EQ(b["storage"], "peer");
  const double mean = a["kl_divergence"]["mean"];
  EXPECT_GT(mean, 0.005);
  EXPECT_LT(mean, 0.03);
  EXPECT_NEAR(b["kl_divergence"]["mean"].get<double>(), mean, 1e-3);
  EXPECT_NE(b["kl_divergence"]["mean"], a["kl_divergence"]["mean"]);

  // The file of tokens holds what the means are made of.
  std::istringstream lines(read_file(csv));
  std::string line;
  std::getline(lines, line);
  EXPECT_EQ(line, "chunk,position,id,nll,nll_base,kl,p_diff,same_top");
  double kl = 0;
  size_t count = 0, n_same = 0;
  for (; std::getline(lines, line); ++count) {
    unsigned chunk, position, id, same;
    double nll, nll_base, token_kl, p_diff;
    ASSERT_EQ(std::sscanf(line.c_str(), "%u,%u,%u,%lf,%lf,%lf,%lf,%u", &chunk, &position, &id, &nll,
                          &nll_base, &token_kl, &p_diff, &same),
              8)
        << line;
    EXPECT_NEAR(p_diff, std::exp(-nll) - std::exp(-nll_base), 1e-7);
    kl += token_kl;
    n_same += same;
  }
  ASSERT_EQ(count, 510u);
  EXPECT_NEAR(kl / 510, mean, 1e-8);
  EXPECT_NEAR(static_cast<double>(n_same) / 510, a["same_top"]["value"].get<double>(), 1e-12);
}

TEST_F(Perplexity, AgainstAModelOfAnotherVocabularyIsRefused) {
  const std::string other = converted(folder_, "stories260k", "f32");
  const ProcessResult result = perplexity({"--against", other});
  EXPECT_EQ(result.exit_code, 1) << describe(result);
  EXPECT_NE(result.err.find("512 tokens"), std::string::npos) << describe(result);
  EXPECT_NE(result.err.find("1024"), std::string::npos) << describe(result);
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(perplexity({"--peer-storage"}).exit_code, 1);
}

// The folder is the base that the file was made of, or the file itself: the same bits.
TEST_F(Perplexity, TakesACheckpointFolderForItsBf16File) {
  const std::string folder = test_data("tiny-mistral");
  const ProcessResult of_file = perplexity({"--chunks", "1"}),
                      of_folder = quern(
                          {"perplexity", folder, "-f", test_data("tiny-mistral/test.txt"), "--chunks", "1"});
  ASSERT_EQ(of_folder.exit_code, 0) << describe(of_folder);
  EXPECT_EQ(of_folder.out, of_file.out);
  EXPECT_NE(of_folder.err.find("memory: "), std::string::npos) << describe(of_folder);
  const ProcessResult against = perplexity({"--against", folder, "--chunks", "1", "--json"});
  ASSERT_EQ(against.exit_code, 0) << describe(against);
  EXPECT_EQ(against.err.find("chat template"), std::string::npos) << "nobody talks\n" << describe(against);
  const Json report = Json::parse(against.out);
  EXPECT_EQ(report["kl_divergence"]["max"], 0);
  EXPECT_EQ(report["ratio"]["value"], 1);
  EXPECT_EQ(report["same_top"]["value"], 1);
  const ProcessResult neither = perplexity({"--against", folder_.path().string()});
  EXPECT_EQ(neither.exit_code, 2) << describe(neither);
}

// "_logits_", n_ctx, n_vocab, n_chunk, tokens, rows of a scale, a minimum and codes (conventions.md 4.3).
TEST_F(Perplexity, SavedLogitsAreTheReferencesFile) {
  constexpr size_t kCtx = 64, kVocab = 1024, kChunks = 3, kRows = 31, kWords = kVocab + 4;
  const std::string path = folder_.file("base.logits"), csv = folder_.file("tokens.csv");
  const ProcessResult result =
      perplexity({"--ctx", "64", "--chunks", "3", "--save-logits", path, "--per-token", csv});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  const std::string bytes = read_file(path);
  ASSERT_EQ(bytes.size(), 20 + 4 * kCtx * kChunks + 2 * kWords * kRows * kChunks);
  EXPECT_EQ(bytes.substr(0, 8), "_logits_");
  int32_t header[3], tokens[kCtx * kChunks];
  std::memcpy(header, bytes.data() + 8, sizeof(header));
  EXPECT_EQ(header[0], static_cast<int>(kCtx));
  EXPECT_EQ(header[1], static_cast<int>(kVocab));
  EXPECT_EQ(header[2], static_cast<int>(kChunks));
  std::memcpy(tokens, bytes.data() + 20, sizeof(tokens));
  // Every scored token's likelihood, to half a step of the scale.
  std::istringstream lines(read_file(csv));
  std::string line;
  std::getline(lines, line);
  for (size_t i = 0; std::getline(lines, line); ++i) {
    unsigned chunk, position, id;
    double nll;
    ASSERT_EQ(std::sscanf(line.c_str(), "%u,%u,%u,%lf", &chunk, &position, &id, &nll), 4) << line;
    EXPECT_EQ(tokens[chunk * kCtx + position], static_cast<int>(id));
    float head[2];
    uint16_t code;
    const char* const row = bytes.data() + 20 + sizeof(tokens) + 2 * kWords * i;
    std::memcpy(head, row, sizeof(head));
    std::memcpy(&code, row + sizeof(head) + 2 * id, sizeof(code));
    EXPECT_NEAR(-nll, head[0] * static_cast<float>(code) + head[1], 1.5e-4) << line;
  }
  // BOS is what is evaluated, not what stands in the text.
  EXPECT_NE(tokens[kCtx], 1);

  const std::string before = read_file(model_);
  EXPECT_EQ(perplexity({"--save-logits", model_}).exit_code, 1);
  EXPECT_EQ(read_file(model_), before);
}

}  // namespace
}  // namespace quern::test
