// Chat templates on the command line: tokenize --chat with --template and --render, and chat.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/cli/quern_cli.h"
#include "tests/support/gguf_files.h"

namespace quern::test {
namespace {

const std::string kMistral = test_data("tokenizers/mistral-v1.model");

constexpr const char* kTemplate =
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}";
constexpr const char* kMessages = R"([{"role": "user", "content": "Hi </s> there"}])";

class ChatTemplateCommand : public testing::Test {
 protected:
  ProcessResult tokenize(const std::string& source, const std::string& document,
                         std::vector<std::string> more = {"--render"}) const {
    const std::string chat = folder_.write("chat.json", document);
    const std::string file = folder_.write("chat.jinja", source);
    std::vector<std::string> arguments = {"tokenize", kMistral, "--chat", chat, "--template", file};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return quern(arguments);
  }

  TempFolder folder_;
};

TEST_F(ChatTemplateCommand, RendersAListOfMessages) {
  const ProcessResult result = tokenize(kTemplate, kMessages);
  EXPECT_EQ(result.exit_code, 0) << describe(result);
  EXPECT_EQ(result.out, "<s><user>Hi </s> there</s><assistant>");
}

TEST_F(ChatTemplateCommand, FileOfAnotherEncodingIsRefusedAndAMarkIsNoPartOfIt) {
  const ProcessResult marked = tokenize("\xEF\xBB\xBF{{ messages[0].content }}", kMessages);
  EXPECT_EQ(marked.out, "Hi </s> there");
  EXPECT_NE(marked.err.find("chat.jinja: the byte order mark at its start is left out"), std::string::npos)
      << marked.err;
  const ProcessResult wide = tokenize(std::string("\xFF\xFE{\0{\0", 6), kMessages);
  EXPECT_EQ(wide.exit_code, 2);
  EXPECT_NE(wide.err.find("chat.jinja: is UTF-16, expected UTF-8"), std::string::npos) << wide.err;
}

TEST_F(ChatTemplateCommand, TakesToolsAndTheGenerationPromptFromTheDocument) {
  const std::string document =
      R"({"messages": [{"role": "user", "content": "a"}], "tools": [{"b": 1, "a": [true, null]}],
          "add_generation_prompt": false})";
  EXPECT_EQ(
      tokenize("{{ tools | tojson }}{{ add_generation_prompt }}{{ documents is defined }}", document).out,
      R"([{"b": 1, "a": [true, null]}]FalseFalse)");
}

TEST_F(ChatTemplateCommand, BosAndEosTextsAreWhatOptionsSay) {
  EXPECT_EQ(tokenize(kTemplate, kMessages, {"--render", "--bos-text", "<BOS>", "--eos-text", "<EOS>"}).out,
            "<BOS><user>Hi </s> there<EOS><assistant>");
}

TEST_F(ChatTemplateCommand, SpecialTokensComeFromTheTemplateOnly) {
  const ProcessResult result = tokenize(kTemplate, kMessages, {"--json"});
  ASSERT_EQ(result.exit_code, 0) << describe(result);
  const std::vector<int> ids = Json::parse(result.out)["ids"];
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 1), 1);  // never two BOS
  EXPECT_EQ(ids.front(), 1);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 2), 1);  // the message's </s> is text
}

TEST_F(ChatTemplateCommand, BosGoesInFrontWhereTheTemplateHasNone) {
  const ProcessResult result = tokenize("{{ messages[0].content }}", kMessages, {"--json"});
  EXPECT_EQ(Json::parse(result.out)["ids"][0], 1) << describe(result);
}

TEST_F(ChatTemplateCommand, TimeIsPinned) {
  const std::string source = "{{ strftime_now('%d %b %Y %H:%M:%S') }}";
  EXPECT_EQ(tokenize(source, kMessages, {"--render", "--now", "2026-11-29"}).out, "29 Nov 2026 00:00:00");
  EXPECT_EQ(tokenize(source, kMessages, {"--render", "--now", "2024-02-29T12:34:56"}).out,
            "29 Feb 2024 12:34:56");
  for (const char* wrong : {"2026-02-30", "yesterday", "2026-11-29 12:00:00", "2026-11-29T25:00:00", ""})
    EXPECT_EQ(tokenize(source, kMessages, {"--render", "--now", wrong}).exit_code, 1) << wrong;

  const std::string chat = folder_.write("chat.json", kMessages), file = folder_.write("chat.jinja", source);
  const auto with_environment = [&](const std::string& now, const std::vector<std::string>& more) {
    ProcessOptions options;
    options.environment = {"QUERN_NOW=" + now};
    std::vector<std::string> arguments = {"tokenize",   kMistral, "--chat",  chat,
                                          "--template", file,     "--render"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return quern(arguments, options);
  };
  EXPECT_EQ(with_environment("2026-11-29T01:02:03", {}).out, "29 Nov 2026 01:02:03");
  EXPECT_EQ(with_environment("2026-11-29", {"--now", "2024-02-29"}).out, "29 Feb 2024 00:00:00");
  const ProcessResult wrong = with_environment("tomorrow", {});
  EXPECT_EQ(wrong.exit_code, 1) << describe(wrong);
  EXPECT_NE(wrong.err.find("QUERN_NOW"), std::string::npos) << describe(wrong);
}

TEST_F(ChatTemplateCommand, WhatRaisesEndsInExitTwoWithItsWordsFirst) {
  const ProcessResult result = tokenize("text {{ raise_exception('Roles must alternate') }}", kMessages);
  EXPECT_EQ(result.exit_code, 2) << describe(result);
  EXPECT_EQ(result.out, "");
  EXPECT_NE(result.err.find("error: Roles must alternate ("), std::string::npos) << describe(result);
  EXPECT_NE(result.err.find("line 1, column 24)"), std::string::npos) << describe(result);
}

TEST_F(ChatTemplateCommand, EndlessTemplateEnds) {
  const ProcessResult result =
      tokenize("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}", kMessages);
  EXPECT_EQ(result.exit_code, 2) << describe(result);
  EXPECT_NE(result.err.find("steps"), std::string::npos) << describe(result);
}

TEST_F(ChatTemplateCommand, FormatsAndTemplatesExcludeEachOther) {
  EXPECT_EQ(tokenize(kTemplate, kMessages, {"--chat-format", "mistral-v1"}).exit_code, 1);
  const std::string chat = folder_.write("chat.json", kMessages);
  EXPECT_EQ(
      quern({"tokenize", kMistral, "--chat", chat, "--chat-format", "mistral-v1", "--render"}).exit_code, 1);
  EXPECT_EQ(quern({"tokenize", kMistral, "-p", "a", "--render"}).exit_code, 1);
  for (const char* option : {"--template", "--chat-format", "--bos-text", "--eos-text", "--now"})
    EXPECT_NE(quern({"tokenize", kMistral, "-p", "a", option, "2026-11-29"})
                  .err.find(std::string(option) + " needs --chat"),
              std::string::npos)
        << option;
}

// Other programs exchange a file's template and know nothing of quern's own key.
TEST_F(ChatTemplateCommand, NameOfAFormatCountsOnlyWithoutAnotherTemplate) {
  const std::string model = converted(folder_, "tiny-mistral", "q8_0");
  const std::string chat = folder_.write("chat.json", R"([{"role": "user", "content": "hi"}])");
  const auto file = [&](const std::string& text) {
    const std::string path = folder_.file(text.empty() ? "named.gguf" : "other.gguf");
    rewrite_gguf(model, path, [&](GgufMetadata* metadata) {
      metadata->set_string("quern.chat_format", "mistral-v1");
      if (!text.empty()) metadata->set_string("tokenizer.chat_template", text);
    });
    return path;
  };
  const std::string expected =
      quern({"tokenize", model, "--chat", chat, "--chat-format", "mistral-v1", "--json"}).out;
  ASSERT_NE(expected, "");
  EXPECT_EQ(quern({"tokenize", file(""), "--chat", chat, "--json"}).out, expected);
  const std::string other = file("{{ bos_token }}Q: {{ messages[0].content }}");
  EXPECT_EQ(quern({"tokenize", other, "--chat", chat, "--render"}).out, "<s>Q: hi");
  const ProcessResult said = quern({"chat", other, "--once", "-p", "hi", "-n", "1"});
  EXPECT_EQ(said.exit_code, 0) << describe(said);
  EXPECT_NE(said.err.find("the file's own, which is not that of mistral-v1, as the file says"),
            std::string::npos)
      << describe(said);
}

TEST_F(ChatTemplateCommand, BareModelOfAnotherVocabularyIsNotTakenForMistrals) {
  const std::string chat = folder_.write("chat.json", kMessages);
  EXPECT_EQ(quern({"tokenize", kMistral, "--chat", chat}).exit_code, 0);
  const ProcessResult other = quern({"tokenize", test_data("tiny-mistral/tokenizer.model"), "--chat", chat});
  EXPECT_EQ(other.exit_code, 1) << describe(other);
  EXPECT_NE(other.err.find("give --template FILE"), std::string::npos) << describe(other);
}

TEST_F(ChatTemplateCommand, ToolsWithAMistralFormatAreRefusedByName) {
  const auto with = [&](const std::string& members) {
    const std::string chat =
        folder_.write("chat.json", R"({"messages": [{"role": "user", "content": "a"}])" + members + "}");
    return quern({"tokenize", kMistral, "--chat", chat, "--chat-format", "mistral-v1"});
  };
  for (const auto& [members, what] : {std::pair(R"(, "tools": [{"type": "function"}])", "tools"),
                                      {R"(, "tools": "f")", "tools"},
                                      {R"(, "functions": [{"name": "f"}])", "functions"},
                                      {R"(, "documents": [{"text": "t"}])", "documents"}}) {
    const ProcessResult result = with(members);
    EXPECT_EQ(result.exit_code, 2) << describe(result);
    EXPECT_NE(result.err.find(std::string("mistral-v1 does not take ") + what), std::string::npos)
        << describe(result);
  }
  for (const char* members : {"", R"(, "tools": [])", R"(, "tools": null, "documents": {})"})
    EXPECT_EQ(with(members).exit_code, 0) << members;
}

TEST_F(ChatTemplateCommand, ChatRunsATemplate) {
  const std::string model = converted(folder_, "tiny-mistral", "q4_0");
  const std::string file = folder_.write("chat.jinja", kTemplate);
  const auto chat = [&](const std::string& message) {
    return quern({"chat", model, "--template", file, "--once", "-p", message, "--temp", "0", "-n", "8"});
  };
  EXPECT_EQ(chat("Hello").exit_code, 0) << describe(chat("Hello"));
  EXPECT_NE(chat("Hello").out, "");
}

TEST_F(ChatTemplateCommand, ChatRegeneratesEditsReadsAndLoads) {
  const std::string model = converted(folder_, "tiny-mistral", "q4_0");
  const std::string saved = folder_.file("saved.json"), text = folder_.write("message.txt", "Hello\n");
  const auto converse = [&](const std::string& lines, std::vector<std::string> more = {}) {
    ProcessOptions options;
    options.input = lines;
    std::vector<std::string> arguments = {"chat", model, "--chat-format", "mistral-v1", "--temp", "0",
                                          "-n",   "8"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return quern(arguments, options);
  };
  const std::string once = converse("Hello\n").out;
  ASSERT_NE(once, "");
  EXPECT_EQ(converse("Hello\n/regen\n").out, once + once);
  EXPECT_EQ(converse("Something else\n/edit Hello\n").out, converse("Something else\n").out + once);
  EXPECT_EQ(converse("/read " + text + "\n").out, once);
  EXPECT_EQ(converse("/read " + folder_.file("none") + "\nHello\n").out, once);
  const std::string twice = converse("Hello\n/save " + saved + "\nAgain\n").out;
  EXPECT_EQ(converse("Again\n", {"--load", saved}).out, twice.substr(once.size()));
  EXPECT_EQ(converse("/load " + saved + "\nAgain\n").out, twice.substr(once.size()));
  EXPECT_EQ(converse("Hello\n", {"--load", folder_.write("bad.json", R"([{"role": "tool", "content": ""}])")})
                .exit_code,
            2);
}

// As templates of models that think do: what stood before "</think>" is gone from answers that are not the
// last.
TEST_F(ChatTemplateCommand, RewrittenTurnsAreEvaluatedFromWhereTheyDiffer) {
  const std::string model = converted(folder_, "tiny-mistral", "q4_0");
  const std::string file = folder_.write("rewrites.jinja",
                                         "{{ bos_token }}{% for m in messages %}{{ m.role }}: {% if m.role "
                                         "== 'assistant' %}{{ m.content | trim | upper }}"
                                         "{% else %}{{ m.content }}{% endif %}\n{% endfor %}assistant:");
  const auto converse = [&](const std::string& lines, const std::vector<std::string>& more = {}) {
    ProcessOptions options;
    options.input = lines;
    std::vector<std::string> arguments = {"chat", model, "--template", file, "--temp", "0", "-n", "12"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    ProcessResult result = quern(arguments, options);
    EXPECT_EQ(result.exit_code, 0) << describe(result);
    return result;
  };
  const auto n_evaluated = [](const ProcessResult& result) {  // of the last prompt
    const size_t at = result.err.rfind("prompt ");
    EXPECT_NE(at, std::string::npos) << describe(result);
    return std::stoi(result.err.substr(at + 7));
  };
  const std::string saved = folder_.file("saved.json");
  const std::string first = converse("Speak, good Romeo, of the stars\n").out;
  const ProcessResult both =
      converse("Speak, good Romeo, of the stars\n/save " + saved + "\nAnd then?\n/stats\n");
  const ProcessResult fresh = converse("And then?\n/stats\n", {"--load", saved});
  EXPECT_EQ(both.out, first + fresh.out);
  EXPECT_GT(n_evaluated(both), 0);
  EXPECT_LT(n_evaluated(both) + 10, n_evaluated(fresh)) << "the first question was evaluated again";
}

}  // namespace
}  // namespace quern::test
