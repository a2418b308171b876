// Conversations against the ids of mistral_common's tokenizers of versions 2, 3 (with both vocabularies)
// and 7, and which templates stand for a built-in format.
#include "runtime/mistral_format.h"

#include <gtest/gtest.h>

#include <fstream>

#include "convert/tokenizer_file.h"
#include "quant/error.h"
#include "quant/mapped_file.h"
#include "runtime/tokenizer/tokenizer.h"
#include "tests/support/json.h"
#include "tests/support/paths.h"

namespace quern::test {
namespace {

const std::string kFolder = unpacked_data("mistral_vocabularies");

std::vector<Json> lines_of(const std::string& version) {
  std::vector<Json> lines;
  std::ifstream in(kFolder + "/chats.jsonl");
  for (std::string line; std::getline(in, line);) {
    Json parsed = Json::parse(line);
    if (parsed["version"] == version) lines.push_back(std::move(parsed));
  }
  return lines;
}

std::vector<ChatMessage> messages_of(const Json& list) {
  std::vector<ChatMessage> messages;
  for (const auto& entry : list) {
    std::string content;
    if (entry["content"].is_string()) {
      content = entry["content"].get<std::string>();
    } else {
      for (const auto& chunk : entry["content"])
        content += (content.empty() ? "" : "\n\n") + chunk["text"].get<std::string>();
    }
    messages.push_back({entry["role"], content, entry.value("prefix", false)});
  }
  return messages;
}

std::unique_ptr<Tokenizer> tokenizer_of(const std::string& version) {
  const std::string path = version == "v3-tekken" ? unpacked_data("vocabularies/tekken_240911.json")
                                                  : kFolder + "/mistral-" + version + ".model";
  const MappedFile file(path);
  return make_tokenizer(read_tokenizer_file(file.bytes(), path, "", {}));
}

class MistralChats : public testing::TestWithParam<std::string> {};

TEST_P(MistralChats, AreMistralCommonsIds) {
  const auto tokenizer = tokenizer_of(GetParam());
  const ChatFormat* format = find_chat_format("mistral-" + GetParam());
  ASSERT_NE(format, nullptr);
  size_t n_equal = 0;
  for (const Json& line : lines_of(GetParam())) {
    SCOPED_TRACE(line["n"].dump());
    const std::vector<ChatMessage> messages = messages_of(line["messages"]);
    if (line["kind"] == "chat_error") {
      EXPECT_THROW(format->encode(*tokenizer, messages), Error);
      continue;
    }
    const auto ids = line["ids"].get<std::vector<TokenId>>();
    EXPECT_EQ(format->encode(*tokenizer, messages), ids);
    n_equal += format->encode(*tokenizer, messages) == ids;
  }
  EXPECT_EQ(n_equal, 31u);
}

INSTANTIATE_TEST_SUITE_P(Versions, MistralChats, testing::Values("v2", "v3", "v3-tekken", "v7"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::erase(name, '-');
                           return name;
                         });

TEST(MistralFormat, RefusesAVocabularyWithoutItsTokensByName) {
  const auto tokenizer = tokenizer_of("v3");
  const std::vector<ChatMessage> messages = {{"system", "S"}, {"user", "a"}};
  try {
    find_chat_format("mistral-v7")->encode(*tokenizer, messages);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("mistral-v7 needs the control token [SYSTEM_PROMPT]"),
              std::string::npos)
        << error.what();
  }
}

TEST(MistralFormat, RefusesToolsByName) {
  const auto tokenizer = tokenizer_of("v3");
  const std::vector<ChatMessage> messages = {{"user", "a"}, {"assistant", "b"}, {"tool", "x"}};
  try {
    find_chat_format("mistral-v3")->encode(*tokenizer, messages);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("mistral-v3 does not take tools"), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace quern::test
