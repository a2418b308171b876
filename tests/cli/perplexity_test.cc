// perplexity: the reference's running values, and every scored token on request.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
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
  EXPECT_EQ(perplexity({"--chunks", "2", "-t", "1"}).out, expected);
  EXPECT_EQ(perplexity({"--chunks", "2", "-t", "3"}).out, expected);
  if (!kSanitized) {
    EXPECT_EQ(perplexity({"--chunks", "2", "--isa", "scalar"}).out, expected);
  }
}

TEST_F(Perplexity, JsonIsTheOnlyOutput) {
  const ProcessResult result = perplexity({"--chunks", "2", "--json"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  const nlohmann::json report = nlohmann::json::parse(result.out);
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

}  // namespace
}  // namespace quern::test
