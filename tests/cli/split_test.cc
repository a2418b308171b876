// Split GGUF files as their user sees them: made, run, shown and joined.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/cli/quern_cli.h"

namespace quern::test {
namespace {

namespace fs = std::filesystem;

const std::vector<std::string> kRun = {"-p", "Once upon a time", "-n", "12", "--temp", "0", "-q"};

ProcessResult run_model(const std::string& model, std::vector<std::string> more = {}) {
  std::vector<std::string> arguments = {"run", model};
  arguments.insert(arguments.end(), kRun.begin(), kRun.end());
  arguments.insert(arguments.end(), more.begin(), more.end());
  return quern(arguments);
}

class Split : public testing::Test {
 protected:
  void SetUp() override {
    parts_ = split(whole_, "parts/m", {"--split-size", "100KiB"});
    ASSERT_GE(parts_.size(), 4u);
  }

  // The parts that `convert SOURCE -o FOLDER/STEM.gguf ...` writes, in order.
  std::vector<std::string> split(const std::string& source, const std::string& stem,
                                 const std::vector<std::string>& options) const {
    std::vector<std::string> command = {"convert", source, "-o", folder_.file(stem + ".gguf"), "--json"};
    command.insert(command.end(), options.begin(), options.end());
    const ProcessResult result = quern(command);
    EXPECT_EQ(result.exit_code, 0) << describe(result);
    std::vector<std::string> files;
    const fs::path prefix = folder_.file(stem + "-0");
    for (const auto& entry : fs::directory_iterator(prefix.parent_path()))
      if (entry.path().string().starts_with(prefix.string())) files.push_back(entry.path().string());
    std::sort(files.begin(), files.end());
    EXPECT_NE(result.out.find("\"files\":[\"" + files.front() + "\",\""), std::string::npos)
        << describe(result);
    return files;
  }

  TempFolder folder_;
  std::string whole_ = converted(folder_, "stories260k", "q8_0");
  bool made_ = fs::create_directory(folder_.file("parts"));
  std::vector<std::string> parts_;
};

TEST_F(Split, PartsRunLikeTheWholeWhicheverIsNamed) {
  for (const std::string& part : parts_) EXPECT_LE(fs::file_size(part), 100u << 10);
  const std::string expected = run_model(whole_).out;
  ASSERT_NE(expected, "");
  EXPECT_EQ(run_model(parts_.front()).out, expected);
  EXPECT_EQ(run_model(parts_.front(), {"--no-mmap"}).out, expected);
  const ProcessResult last = run_model(parts_.back());
  EXPECT_EQ(last.out, expected);
  EXPECT_EQ(last.exit_code, 0) << describe(last);
}

TEST_F(Split, PanelsRunInPartsToo) {
  const std::vector<std::string> panels =
      split(parts_[1], "p16", {"--layout", "p16", "--split-size", "130000B"});
  EXPECT_GE(panels.size(), 3u);
  const ProcessResult of_panels = run_model(panels.front());
  EXPECT_EQ(of_panels.exit_code, 0) << describe(of_panels);
  EXPECT_EQ(of_panels.out, run_model(whole_).out);
}

TEST_F(Split, JoiningGivesTheWholeBack) {
  for (const std::string& source : {parts_.front(), parts_.back(), folder_.file("parts")}) {
    const std::string joined = folder_.file("joined.gguf");
    const ProcessResult result = quern({"convert", source, "-o", joined, "--force"});
    ASSERT_EQ(result.exit_code, 0) << describe(result);
    EXPECT_TRUE(read_file(joined) == read_file(whole_)) << source;
  }
}

TEST_F(Split, InspectShowsThePartsAndOneAloneWithAWarning) {
  const ProcessResult all = quern({"inspect", parts_.front(), "--json"});
  ASSERT_EQ(all.exit_code, 0) << describe(all);
  for (const std::string& part :
       {fmt::format("\"n_files\":{}", parts_.size()), std::string("\"n_tensors\":48"),
        fmt::format("\"file\":\"{}\"", fs::path(parts_.front()).filename().string()),
        fmt::format("\"file\":\"{}\"", fs::path(parts_.back()).filename().string())})
    EXPECT_NE(all.out.find(part), std::string::npos) << part;
  fs::remove(parts_[2]);
  const ProcessResult one = quern({"inspect", parts_[1], "--json"});
  EXPECT_EQ(one.exit_code, 0) << describe(one);
  EXPECT_NE(one.err.find(" parts lacks 1 of them: " + parts_[2] +
                         "; all parts must lie in one folder; this part is shown alone"),
            std::string::npos)
      << describe(one);
  EXPECT_EQ(one.out.find("\"n_tensors\":48"), std::string::npos);
}

TEST_F(Split, WhatIsWrongWithPartsIsOneLine) {
  const auto expect_refused = [&](int exit_code, const std::string& message) {
    for (const ProcessResult& result : {run_model(parts_.front()), quern({"convert", parts_.front(), "-o",
                                                                          folder_.file("x.gguf"), "-q"})}) {
      EXPECT_EQ(result.exit_code, exit_code) << describe(result);
      EXPECT_EQ(result.out, "");
      EXPECT_NE(result.err.find(message), std::string::npos) << describe(result);
      EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << describe(result);
    }
  };
  fs::rename(parts_[3], folder_.file("kept"));
  expect_refused(5, "lacks 1 of them: " + parts_[3]);
  fs::copy(parts_[2], parts_[3]);
  expect_refused(2, "split.no: expected an integer from 3 to 3, found u16 2");
  fs::remove(parts_[3]);
  fs::copy(folder_.file("kept"), parts_[3]);
  fs::resize_file(parts_[3], 100);
  expect_refused(2, parts_[3] + ": ");
  EXPECT_FALSE(fs::exists(folder_.file("x.gguf")));
}

TEST_F(Split, SizesAreReadStrictly) {
  for (const char* size : {"0", "", "12x", "4T", "-1", "1.5G", "K", "4GiBs", "99999999999G"}) {
    const ProcessResult result =
        quern({"convert", whole_, "-o", folder_.file("x.gguf"), "--split-size", size});
    EXPECT_EQ(result.exit_code, 1) << size << describe(result);
  }
  const ProcessResult small = quern({"convert", whole_, "-o", folder_.file("x.gguf"), "--split-size", "20K"});
  EXPECT_EQ(small.exit_code, 1) << describe(small);
  EXPECT_NE(small.err.find("alone needs a file of"), std::string::npos) << describe(small);
}

TEST_F(Split, PartsThatAnotherSplitLeftAreNamed) {
  const std::string out = folder_.file("again.gguf");
  const auto split = [&](const std::string& size) {
    const ProcessResult result = quern({"convert", whole_, "-o", out, "--split-size", size, "--force"});
    EXPECT_EQ(result.exit_code, 0) << describe(result);
    return result.err;
  };
  const std::string older = "left from an earlier split, and not of this model: ";
  EXPECT_EQ(split("200K").find(older), std::string::npos);
  EXPECT_EQ(split("200K").find(older), std::string::npos);
  const std::string err = split("100G");
  EXPECT_NE(err.find(older + folder_.file("again-00001-of-")), std::string::npos) << err;
  // Those that are read are not left over.
  const ProcessResult from_parts =
      quern({"convert", parts_.front(), "-o", folder_.file("parts.gguf"), "--split-size", "100G"});
  EXPECT_EQ(from_parts.exit_code, 0) << describe(from_parts);
  EXPECT_EQ(from_parts.err.find(older), std::string::npos) << describe(from_parts);
}

// A first part is never there without the others, whenever the process is killed.
TEST(SplitOutput, AKilledConversionLeavesNoSetThatLooksComplete) {
  const TempFolder folder;
  const std::string source = write_big_checkpoint(folder, 24), out = folder.file("out");
  for (const double delay : {0.02, 0.05, 0.08, 0.11, 0.14, 0.17, 0.2, 0.25}) {
    fs::create_directory(out);
    Process convert(
        quern_command({"convert", source, "-o", out + "/m.gguf", "--no-tokenizer", "--split-size", "2M"}),
        with_test_environment());
    convert.run_for(delay * kSlowdown);
    convert.send_signal(SIGKILL);
    convert.wait();
    for (const auto& entry : fs::directory_iterator(out))
      if (entry.path().filename().string().starts_with("m-00001-of-")) {
        const ProcessResult result = quern({"inspect", entry.path().string()});
        EXPECT_EQ(result.exit_code, 0) << describe(result);
        EXPECT_EQ(result.err.find("warning"), std::string::npos) << describe(result);
      }
    fs::remove_all(out);
  }
}

}  // namespace
}  // namespace quern::test
