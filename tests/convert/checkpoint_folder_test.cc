#include "convert/checkpoint_folder.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "convert/folder_files.h"
#include "quant/error.h"
#include "tests/support/temp_folder.h"

namespace quern {
namespace {

namespace fs = std::filesystem;
using test::TempFolder;

std::string refusal(const TempFolder& folder) {
  try {
    EXPECT_TRUE(find_checkpoints(folder.path().string()).empty());
    refuse_folder(folder.path().string());
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kMalformed);
    return e.what();
  }
}

struct StrangerCase {
  std::string file;                   // what the folder holds
  std::vector<std::string> expected;  // parts of the message
};

class Strangers : public testing::TestWithParam<StrangerCase> {};

TEST_P(Strangers, AreNamedWithWhatToDo) {
  const TempFolder folder;
  folder.write("config.json", "{}");
  folder.write(GetParam().file, "x");
  const std::string message = refusal(folder);
  EXPECT_NE(message.find("no model.safetensors"), std::string::npos) << message;
  EXPECT_NE(message.find(GetParam().file), std::string::npos) << message;
  for (const std::string& part : GetParam().expected)
    EXPECT_NE(message.find(part), std::string::npos) << message;
}

INSTANTIATE_TEST_SUITE_P(Files, Strangers,
                         testing::Values(StrangerCase{"pytorch_model.bin", {"PyTorch", "safetensors"}},
                                         StrangerCase{"consolidated.00.pth", {"PyTorch"}},
                                         StrangerCase{"adapter_model.safetensors", {"adapter", "merge"}},
                                         StrangerCase{"adapter_config.json", {"adapter", "merge"}},
                                         StrangerCase{"model.Q4_0.gguf", {"give that file"}},
                                         StrangerCase{"tf_model.h5", {"TensorFlow"}},
                                         StrangerCase{"model.safetensors.incomplete",
                                                      {"unfinished download"}}));

TEST(CheckpointFolder, EmptyFolderIsNamed) {
  const TempFolder folder;
  EXPECT_NE(refusal(folder).find("it is empty"), std::string::npos);
}

TEST(CheckpointFolder, SnapshotOfACacheIsNamed) {
  const TempFolder folder;
  fs::create_directories(folder.path() / "blobs");
  fs::create_directories(folder.path() / "snapshots" / "0123abc");
  EXPECT_NE(refusal(folder).find("snapshots/0123abc"), std::string::npos);
}

TEST(CheckpointFolder, BrokenLinkIsNamedWithItsTarget) {
  const TempFolder folder;
  fs::create_symlink("../../blobs/gone", folder.path() / "model.safetensors");
  EXPECT_EQ(find_checkpoints(folder.path().string()).size(), 1u);
  const std::string text = describe_missing_file(folder.file("model.safetensors"));
  EXPECT_NE(text.find("../../blobs/gone"), std::string::npos) << text;
  EXPECT_EQ(describe_missing_file(folder.file("other")), "file is missing: download it");
  // Statements of a file that is not there do not go unsaid.
  fs::create_symlink("../../blobs/gone", folder.path() / "generation_config.json");
  try {
    find_file(folder.path().string(), "generation_config.json");
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("generation_config.json: is a link to ../../blobs/gone"),
              std::string::npos)
        << e.what();
  }
  EXPECT_EQ(find_file(folder.path().string(), "tokenizer.json"), std::nullopt);
}

TEST(CheckpointFolder, SetsOfNumberedShardsAreFoundAndBounded) {
  const TempFolder folder;
  folder.write("weights-00001-of-00002.safetensors", "");
  folder.write("weights-00002-of-00002.safetensors", "");
  folder.write("model-1-of-4294967295.safetensors", "");
  folder.write("model-0-of-3.safetensors", "");  // no number
  const auto found = find_checkpoints(folder.path().string());
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].files.size(), 2u);  // and the first that is missing
  EXPECT_EQ(found[1].files, (std::vector<std::string>{"weights-00001-of-00002.safetensors",
                                                      "weights-00002-of-00002.safetensors"}));
}

TEST(CheckpointFolder, TheOnlyFileMayHaveAnyName) {
  const TempFolder folder;
  folder.write("mymodel.safetensors", "");
  const auto found = find_checkpoints(folder.path().string());
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].files, std::vector<std::string>{"mymodel.safetensors"});
  folder.write("another.safetensors", "");
  EXPECT_NE(refusal(folder).find("no index says which"), std::string::npos);
}

TEST(CheckpointFolder, ModelIsNamedAfterTheFolderOrTheRepositoryOfACache) {
  const TempFolder folder;
  const auto named = [&](const std::string& path) {
    fs::create_directories(folder.path() / path);
    return model_name_of_folder(folder.file(path));
  };
  EXPECT_EQ(named("Mistral-7B"), "Mistral-7B");
  EXPECT_EQ(named("Mistral-7B/"), "Mistral-7B");
  EXPECT_EQ(named("Mistral-7B/."), "Mistral-7B");
  EXPECT_EQ(named("models--mistralai--Mistral-7B-v0.1/snapshots/26bca36bde8333b5d7f72e9ed20ccda6a618af24"),
            "Mistral-7B-v0.1");
  EXPECT_EQ(named("models--gpt2/snapshots/607a30d783dfa663caf39e06633721c8d4cfcd7e"), "gpt2");
  EXPECT_EQ(named("my\xff\xfemodel"), "my\xEF\xBF\xBD\xEF\xBF\xBDmodel");
}

TEST(CheckpointFolder, ChatFormatIsKnownByTheRepositoryOfACacheOnly) {
  const TempFolder folder;
  const auto format = [&](const std::string& path) {
    fs::create_directories(folder.path() / path);
    return chat_format_of_repository(folder.file(path));
  };
  EXPECT_EQ(format("models--mistralai--Mistral-7B-Instruct-v0.2/snapshots/3ad372fc79158a2148299e3318516c786"),
            "mistral-v1");
  EXPECT_EQ(format("models--mistralai--Mistral-Nemo-Instruct-2407/snapshots/a"), "mistral-v3-tekken");
  EXPECT_EQ(format("models--mistralai--Mistral-7B-v0.1/snapshots/a"), "") << "a base model";
  EXPECT_EQ(format("models--somebody--Mistral-7B-Instruct-v0.2/snapshots/a"), "") << "a fine-tune";
  EXPECT_EQ(format("mistralai--Mistral-7B-Instruct-v0.2"), "");
  EXPECT_EQ(format("Mistral-7B-Instruct-v0.2"), "");
}

}  // namespace
}  // namespace quern
