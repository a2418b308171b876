// imatrix: what it writes, convert --imatrix takes; what is wrong is said before the work.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "tests/cli/quern_cli.h"

namespace quern::test {
namespace {

class Imatrix : public testing::Test {
 protected:
  ProcessResult imatrix(const std::string& output, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments = {"imatrix",  model_, "-f",    test_data("tiny-mistral/test.txt"),
                                          "-o",       output, "--ctx", "64",
                                          "--chunks", "2"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return quern(arguments);
  }

  TempFolder folder_;
  std::string model_ = converted(folder_, "tiny-mistral", "bf16");
};

TEST_F(Imatrix, OfATextWeighsWhatConvertWrites) {
  const std::string importance = folder_.file("importance.gguf");
  const ProcessResult result = imatrix(importance, {"--json"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  const Json report = Json::parse(result.out);
  EXPECT_EQ(report["chunks"], 2);
  EXPECT_EQ(report["n_ctx"], 64);
  const std::string weighted = folder_.file("weighted.gguf"), plain = folder_.file("plain.gguf");
  const ProcessResult with =
      quern({"convert", model_, "-o", weighted, "--type", "q4_k_m", "--imatrix", importance, "--json"});
  ASSERT_EQ(with.exit_code, 0) << describe(with);
  const Json converted_as = Json::parse(with.out);
  size_t n_weighted = 0;
  for (const Json& tensor : converted_as["tensors"]) n_weighted += tensor["weighted"] == true ? 1 : 0;
  EXPECT_GT(n_weighted, 0u);
  EXPECT_LE(n_weighted, report["tensors"].get<size_t>());
  ASSERT_EQ(quern({"convert", model_, "-o", plain, "--type", "q4_k_m"}).exit_code, 0);
  EXPECT_NE(read_file(weighted), read_file(plain));
}

TEST_F(Imatrix, SaysFirstThatItsFileCannotBeWritten) {
  const std::string taken = folder_.write("taken.gguf", "of mine");
  for (const auto& [output, code] : {std::pair(taken, 1), {folder_.file("none/x.gguf"), 5}}) {
    const ProcessResult result = imatrix(output);
    EXPECT_EQ(result.exit_code, code) << describe(result);
    EXPECT_EQ(result.err.find("kernels:"), std::string::npos) << "a model was loaded: " << describe(result);
  }
  EXPECT_EQ(read_file(taken), "of mine");
  EXPECT_EQ(imatrix(taken, {"--force"}).exit_code, 0);
  EXPECT_NE(read_file(taken), "of mine");
}

TEST_F(Imatrix, DoesNotOverwriteWhatItReads) {
  const auto refused = [](const std::string& model, const std::string& text, const std::string& output) {
    const std::string before = read_file(output);
    const ProcessResult result = quern({"imatrix", model, "-f", text, "-o", output, "--force"});
    EXPECT_EQ(result.exit_code, 1) << describe(result);
    EXPECT_NE(result.err.find("--output: '" + output + "' is an input"), std::string::npos)
        << describe(result);
    EXPECT_EQ(read_file(output), before);
  };
  const std::string text = folder_.write("text.txt", "To be, or not to be."),
                    link = folder_.file("link.gguf");
  refused(model_, text, model_);
  refused(model_, text, text);
  std::filesystem::create_hard_link(model_, link);
  refused(model_, text, link);
  for (const char* part : {"p-00001-of-00002.gguf", "p-00002-of-00002.gguf"}) folder_.write(part, "a part");
  refused(folder_.file("p-00001-of-00002.gguf"), text, folder_.file("p-00002-of-00002.gguf"));
  const std::string checkpoint = folder_.file("checkpoint");
  std::filesystem::create_directory(checkpoint);
  folder_.write("checkpoint/config.json", "{}");
  refused(checkpoint, text, checkpoint + "/config.json");
}

TEST_F(Imatrix, TextShorterThanTwoChunksIsRefused) {
  const std::string text = folder_.write("short.txt", "To be, or not to be."),
                    output = folder_.file("x.gguf");
  const ProcessResult result = quern({"imatrix", model_, "-f", text, "-o", output});
  EXPECT_EQ(result.exit_code, 1) << describe(result);
  EXPECT_NE(result.err.find("two chunks of --ctx 512 need 1024"), std::string::npos) << describe(result);
  EXPECT_FALSE(std::filesystem::exists(output));
}

}  // namespace
}  // namespace quern::test
