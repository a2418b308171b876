// tokenize: the golden vectors through the command line, with Mistral's own vocabulary.
#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "tests/cli/quern_cli.h"

namespace quern::test {
namespace {

const std::string kMistral = test_data("tokenizers/mistral-v1.model");

std::vector<Json> golden_lines(const std::string& kind) {
  std::vector<Json> lines;
  std::ifstream in(test_data("golden/mistral_v1_tokens.jsonl"));
  for (std::string line; std::getline(in, line);) {
    Json entry = Json::parse(line);
    if (entry["kind"] == kind) lines.push_back(std::move(entry));
  }
  return lines;
}

std::vector<int> ids_of(const ProcessResult& result) {
  if (result.exit_code != 0) return {-1};
  return Json::parse(result.out)["ids"];
}

TEST(Tokenize, TextOfEveryCategoryIsTheReference) {
  // The library's tests walk all texts; here one of each category takes the way through the command.
  std::set<std::string> seen;
  const TempFolder folder;
  for (const Json& entry : golden_lines("text")) {
    if (!seen.insert(entry["cat"]).second) continue;
    const std::string text = entry["text"];
    if (text.find('\0') != std::string::npos) continue;  // no argument can hold it
    const ProcessResult result = quern({"tokenize", kMistral, "--no-bos", "--json", "-p", text});
    EXPECT_EQ(ids_of(result), entry["ids"].get<std::vector<int>>()) << entry["cat"] << describe(result);
  }
  EXPECT_GT(seen.size(), 5u);
}

TEST(Tokenize, IdsAndPiecesBelongTogether) {
  const ProcessResult result = quern({"tokenize", kMistral, "--json", "-p", "Hello world"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  const Json report = Json::parse(result.out);
  EXPECT_EQ(report["ids"], Json::array({1, 22557, 1526}));
  EXPECT_EQ(report["pieces"], Json::array({"<s>", "\u2581Hello", "\u2581world"}));
  EXPECT_EQ(report.size(), 2u);
}

TEST(Tokenize, PlainOutputHasEveryIdAndPiece) {
  const ProcessResult result = quern({"tokenize", kMistral, "-p", "Hello world"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  for (const char* word : {"22557", "1526", "Hello", "world"}) {
    EXPECT_NE(result.out.find(word), std::string::npos) << describe(result);
  }
}

TEST(Tokenize, ModelFileHasTheVocabularyOfItsTokenizer) {
  const TempFolder folder;
  const std::string model = converted(folder, "tiny-mistral", "q8_0");
  const Json golden = golden_model("tiny-mistral");
  EXPECT_EQ(ids_of(quern({"tokenize", model, "--json", "-p", golden["text"]})),
            golden["ids"].get<std::vector<int>>());
}

TEST(Tokenize, DecodeIsTheReference) {
  size_t n_checked = 0;
  for (const Json& entry : golden_lines("decode")) {
    const std::string ids = join_ids(entry["ids"]);
    if (ids.empty()) continue;
    ++n_checked;
    const ProcessResult result = quern({"tokenize", kMistral, "--decode", ids});
    EXPECT_EQ(result.exit_code, 0) << describe(result);
    EXPECT_EQ(result.out, entry["text"]) << ids;
  }
  EXPECT_GT(n_checked, 5u);
}

TEST(Tokenize, ChatIsTheReference) {
  const TempFolder folder;
  ASSERT_FALSE(golden_lines("chat").empty());
  for (const Json& entry : golden_lines("chat")) {
    const std::string file = folder.write("chat.json", entry["messages"].dump());
    const ProcessResult result =
        quern({"tokenize", kMistral, "--chat", file, "--chat-format", "mistral-v1", "--json"});
    EXPECT_EQ(ids_of(result), entry["ids"].get<std::vector<int>>()) << entry["name"] << describe(result);
  }
}

TEST(Tokenize, ChatThatTheReferenceRefusesIsRefused) {
  const TempFolder folder;
  ASSERT_FALSE(golden_lines("chat_error").empty());
  for (const Json& entry : golden_lines("chat_error")) {
    if (entry.contains("continue_final_message")) continue;  // an option that the command does not have
    const std::string file = folder.write("chat.json", entry["messages"].dump());
    const ProcessResult result = quern({"tokenize", kMistral, "--chat", file, "--chat-format", "mistral-v1"});
    EXPECT_EQ(result.exit_code, 2) << entry["name"] << describe(result);
    EXPECT_EQ(count_lines_with_prefix(result.err, "error:"), 1u) << describe(result);
  }
}

TEST(Tokenize, ChatFileThatIsNoConversationIsRefused) {
  const TempFolder folder;
  for (const char* text :
       {"", "{", "[]", "{}", "[1]", R"([{"role": "user"}])", R"([{"role": 1, "content": "a"}])",
        R"([{"role": "user", "content": 5}])", "[[[[[[[[[[[[[[[[[[[["}) {
    const std::string file = folder.write("chat.json", text);
    const ProcessResult result = quern({"tokenize", kMistral, "--chat", file, "--chat-format", "mistral-v1"});
    EXPECT_EQ(result.exit_code, 2) << text << "\n" << describe(result);
  }
}

}  // namespace
}  // namespace quern::test
