// Paths that are not the file they should be. None may block, crash or print a result.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/cli/quern_cli.h"
#include "tests/support/gguf_files.h"
#include "tests/support/paths.h"

namespace quern::test {
namespace {

namespace fs = std::filesystem;

void expect_refused(const std::vector<std::string>& arguments, const std::vector<int>& exit_codes) {
  ProcessOptions options;
  options.timeout_seconds = 5;
  const ProcessResult result = quern(arguments, options);
  EXPECT_FALSE(result.timed_out) << "blocks: " << testing::PrintToString(arguments);
  EXPECT_EQ(std::count(exit_codes.begin(), exit_codes.end(), result.exit_code), 1)
      << testing::PrintToString(arguments) << "\n"
      << describe(result);
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(count_lines_with_prefix(result.err, "error:"), 1u) << describe(result);
}

// Every command that takes a model, and the one that takes a source.
void expect_refused_everywhere(const std::string& path, const std::vector<int>& exit_codes) {
  const TempFolder folder;
  const std::string text = folder.write("text.txt", "text");
  expect_refused({"run", path, "-p", "a", "-n", "1"}, exit_codes);
  expect_refused({"chat", path, "--once", "-p", "a"}, exit_codes);
  expect_refused({"perplexity", path, "-f", text}, exit_codes);
  expect_refused({"bench", path, "-p", "1", "-n", "1", "-r", "1"}, exit_codes);
  expect_refused({"tokenize", path, "-p", "a"}, exit_codes);
  expect_refused({"inspect", path}, exit_codes);
  expect_refused({"convert", path, "-o", folder.file("out.gguf")}, exit_codes);
  EXPECT_EQ(folder.names(), std::vector<std::string>{"text.txt"});
}

TEST(HostileFiles, MissingFileIsAnIoError) { expect_refused_everywhere("/no/such/model.gguf", {5}); }

TEST(HostileFiles, SymlinkLoopIsAnIoError) {
  const TempFolder folder;
  const std::string loop = folder.file("loop.gguf");
  fs::create_symlink(loop, loop);
  expect_refused_everywhere(loop, {5});
}

TEST(HostileFiles, PipeDoesNotBlock) {
  const TempFolder folder;
  const std::string fifo = folder.file("pipe.gguf");
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  expect_refused_everywhere(fifo, {2, 5});
}

TEST(HostileFiles, EndlessDeviceDoesNotBlock) { expect_refused_everywhere("/dev/zero", {2, 5}); }

TEST(HostileFiles, EmptyFileIsMalformed) {
  const TempFolder folder;
  expect_refused_everywhere(folder.write("empty.gguf", ""), {2});
}

TEST(HostileFiles, EmptyFolderIsRefused) {
  const TempFolder folder;
  expect_refused_everywhere(folder.path().string(), {2, 5});
}

TEST(HostileFiles, PromptFileIsCheckedToo) {
  const TempFolder folder;
  const std::string model = converted(folder, "stories260k", "q8_0");
  for (const std::string& path :
       {std::string("/no/such/text"), std::string("/dev/zero"), folder.path().string()}) {
    expect_refused({"run", model, "-n", "1", "-f", path}, {2, 5});
    expect_refused({"perplexity", model, "-f", path}, {2, 5});
  }
}

TEST(HostileFiles, PartWhoseNameIsNotAPartsIsRefused) {
  const TempFolder folder;
  const std::string whole = converted(folder, "stories260k", "q8_0");
  const std::string split = folder.file("model-00001-of-00003.gguf");
  fs::copy(whole, split);
  // A file of that name without split.count is a whole model; the corpus (M146) has the one that is not.
  EXPECT_EQ(quern({"run", split, "-p", "a", "-n", "1"}).exit_code, 0);
  const ProcessResult result = quern({"run", unpacked_data("corpus/M146_split_count_3.gguf"), "-p", "a"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_NE(result.err.find("split"), std::string::npos) << describe(result);
}

// The type id of the first matrix of panels becomes another.
std::string with_panel_type(const TempFolder& folder, const std::string& panels, uint32_t id) {
  constexpr uint32_t kQ8_0Panels = 0x50160108;
  std::string bytes = read_file(panels);
  const size_t at = bytes.find(std::string(reinterpret_cast<const char*>(&kQ8_0Panels), sizeof kQ8_0Panels));
  if (at == std::string::npos) throw std::runtime_error("no panels in " + panels);
  bytes.replace(at, sizeof id, reinterpret_cast<const char*>(&id), sizeof id);
  return folder.write(fmt::format("{:08x}.gguf", id), bytes);
}

TEST(HostileFiles, PanelsThatAreNotOursAreRefusedInOneLine) {
  const TempFolder folder;
  const std::string panels = converted(folder, "stories260k", "q8_0", {"--layout", "p16"});
  const struct {
    uint32_t id;
    const char* problem;
  } cases[] = {
      {0x50160208, "has panels of version 2, this program reads version 1"},
      {0x50160008, "has panels of version 0"},
      {0x50160113, "is unknown or not supported"},  // IQ1_S has no panels
      {0x501601FF, "is unknown or not supported"},
      {0x50170108, "is unknown or not supported"},
      {0x50160102, "offset"},  // smaller blocks: the next tensor does not follow
  };
  for (const auto& [id, problem] : cases) {
    const std::string path = with_panel_type(folder, panels, id);
    expect_refused_everywhere(path, {2});
    const ProcessResult result = quern({"run", path, "-p", "a", "-n", "1"});
    EXPECT_NE(result.err.find(problem), std::string::npos) << describe(result);
  }
}

TEST(HostileFiles, UnigramTokenizerIsRefusedByName) {
  const TempFolder folder;
  const fs::path source = folder.path() / "checkpoint";
  fs::copy(test_data("stories260k"), source);
  fs::remove(source / "tokenizer.model");
  folder.write("checkpoint/tokenizer.json", R"({"version": "1.0", "model": {"type": "Unigram"}})");
  const ProcessResult result = quern({"convert", source.string(), "-o", folder.file("out.gguf")});
  EXPECT_EQ(result.exit_code, 2) << describe(result);
  EXPECT_NE(result.err.find("tokenizer.json: the tokenizer's model is 'Unigram'"), std::string::npos)
      << describe(result);
  EXPECT_EQ(folder.names(), std::vector<std::string>{"checkpoint"});
}

// What is given in place of a model is named, with what to do.
TEST(HostileFiles, WhatIsNotAModelIsNamed) {
  const TempFolder folder;
  const auto expect_said = [](const std::vector<std::string>& command, const std::string& words) {
    const ProcessResult result = quern(command);
    EXPECT_GT(result.exit_code, 0) << describe(result);  // -1: a signal
    EXPECT_NE(result.err.find(words), std::string::npos) << words << "\n" << describe(result);
  };
  const std::string checkpoint = test_data("stories260k");
  expect_said({"run", checkpoint, "-p", "a"},
              "it holds a checkpoint, which becomes a file first: quern convert");
  expect_said({"run", checkpoint + "/config.json", "-p", "a"}, "this is a JSON file");
  expect_said({"convert", checkpoint + "/model.safetensors", "-o", folder.file("x")},
              "the folder that it is in");
  fs::create_directories(folder.file("models--a--b/snapshots"));
  expect_said({"run", folder.file("models--a--b"), "-p", "a"}, "it is a repository in Hugging Face's cache");
  fs::create_directory(folder.file("ggufs"));
  folder.write("ggufs/one.gguf", "");
  expect_said({"run", folder.file("ggufs"), "-p", "a"},
              "give the model's file: " + folder.file("ggufs/one.gguf"));
  expect_said({"run", unpacked_data("vocabularies/ggml-vocab-gpt-2.gguf"), "-p", "a"},
              "a vocabulary without weights, which quern tokenize reads");
  const std::string model = converted(folder, "stories260k", "q8_0");
  const auto expect_kind = [&](const std::string& type, const std::string& words) {
    const std::string other = folder.file(type + ".gguf");
    rewrite_gguf(model, other, [&](GgufMetadata* metadata) { metadata->set_string("general.type", type); });
    expect_said({"run", other, "-p", "a"}, words);
    EXPECT_NE(quern({"inspect", other}).out.find(words), std::string::npos) << type;
  };
  expect_kind("adapter", "an adapter (LoRA)");
  expect_kind("mmproj", "give the file of the model itself");
  expect_kind("imatrix", "quern convert --imatrix takes it");
}

}  // namespace
}  // namespace quern::test
