#include "tests/runtime/tokenizer_fixtures.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "convert/sentencepiece_model.h"
#include "quant/gguf_writer.h"
#include "quant/mapped_file.h"
#include "quant/utf8.h"
#include "tests/support/json.h"
#include "tests/support/paths.h"
#include "tests/support/temp_folder.h"

namespace quern::test {

std::string tokenizer_model_path(const std::string& name) {
  const std::string data = test_data("");
  const std::string bare = data + "/tokenizers/" + name + ".model";
  return std::filesystem::exists(bare) ? bare : data + "/" + name + "/tokenizer.model";
}

std::string route_name(Route route) { return route == Route::kModelFile ? "ModelFile" : "Gguf"; }

Vocabulary load_vocabulary(const std::string& name, Route route) {
  const MappedFile model(tokenizer_model_path(name));
  Vocabulary vocabulary = read_sentencepiece_model(model.bytes(), tokenizer_model_path(name), {});
  if (route == Route::kModelFile) return vocabulary;

  const TempFolder folder;
  const std::string path = folder.file("vocabulary.gguf");
  GgufMetadata metadata;
  metadata.set_string("general.architecture", "llama");
  write_vocabulary(vocabulary, &metadata);
  const GgufPlan plan(metadata, {{"token_embd.weight", DType::F32, {1}}});
  GgufWriter writer(path, plan, metadata, false);
  const uint8_t zeros[4] = {};
  writer.write_tensor(0, 0, zeros);
  writer.finish();
  const MappedFile file(path);
  return read_vocabulary(GgufReader(file.bytes(), path), vocabulary.size(), {});
}

std::string stream(const Tokenizer& tokenizer, const std::vector<TokenId>& context,
                   const std::vector<TokenId>& ids) {
  StreamDecoder decoder(tokenizer, context);
  std::string text;
  for (const TokenId id : ids) {
    const std::string piece = decoder.push(id);
    EXPECT_TRUE(is_valid_utf8(piece)) << "after id " << id;
    text += piece;
  }
  return text + decoder.finish();
}

std::vector<Json> golden_lines(const std::string& kind) {
  std::vector<Json> lines;
  std::ifstream file(test_data("golden/mistral_v1_tokens.jsonl"));
  for (std::string line; std::getline(file, line);) {
    Json parsed = Json::parse(line);
    if (parsed["kind"] == kind) lines.push_back(std::move(parsed));
  }
  EXPECT_FALSE(lines.empty()) << "no line of the kind " << kind;
  return lines;
}

}  // namespace quern::test
