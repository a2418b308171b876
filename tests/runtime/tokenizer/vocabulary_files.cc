#include "tests/runtime/tokenizer/vocabulary_files.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <vector>

#include "convert/tokenizer_file.h"
#include "quant/gguf_writer.h"
#include "quant/mapped_file.h"
#include "tests/support/paths.h"
#include "tests/support/temp_folder.h"

namespace quern::test {

std::optional<std::string> find_vocabulary_file(const std::string& name) {
  std::vector<std::string> places = {unpacked_data("vocabularies")};
  if (const char* const folder = std::getenv("QUERN_VOCABULARIES")) places.emplace_back(folder);
  for (const std::string& place : places) {
    const std::string path = place + "/" + name;
    if (std::filesystem::exists(path)) return path;
  }
  return std::nullopt;
}

std::string how_to_get(const std::string& name) {
  return name + " is not here: run tests/fetch_vocabularies.sh FOLDER and set QUERN_VOCABULARIES=FOLDER";
}

Vocabulary read_vocabulary_of(const std::string& path, const std::string& pre_tokenizer) {
  const MappedFile file(path);
  return read_tokenizer_file(file.bytes(), path, pre_tokenizer, {});
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path, const std::string& pre_tokenizer) {
  return make_tokenizer(read_vocabulary_of(path, pre_tokenizer));
}

Vocabulary through_gguf(const Vocabulary& vocabulary) {
  const TempFolder folder;
  const std::string path = folder.file("vocabulary.gguf");
  GgufMetadata metadata;
  metadata.set_string("general.architecture", "llama");
  write_vocabulary(vocabulary, &metadata);
  const GgufPlan plan(metadata, {{"output_norm.weight", DType::F32, {1}}});
  GgufWriter writer(path, plan, metadata, false);
  const uint8_t zeros[4] = {};
  writer.write_tensor(0, 0, zeros);
  writer.finish();
  return read_vocabulary_of(path);
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace quern::test
