#include "tests/support/models.h"

#include <filesystem>
#include <map>
#include <random>

#include "convert/convert.h"
#include "tests/support/paths.h"
#include "tests/support/temp_folder.h"

namespace quern::test {

const std::vector<std::string>& bundled_models() {
  static const std::vector<std::string> names = {"random-window", "stories260k", "tiny-mistral"};
  return names;
}

std::string converted(const std::string& model, const std::string& type, TensorLayout layout) {
  return converted_folder(test_data(model), type, layout);
}

std::string converted_folder(const std::string& source, const std::string& type, TensorLayout layout) {
  static const TempFolder folder;
  static std::map<std::string, std::string> done;
  const std::string model = std::filesystem::path(source).filename().string();
  const std::string name = fmt::format("{}-{}-{}", model, type, to_string(layout));
  std::string& path = done[name];
  if (path.empty()) {
    ConvertOptions options;
    options.source = source;
    options.output = folder.file(name + ".gguf");
    options.type = type;
    options.layout = layout;
    options.n_threads = 2;
    options.no_tokenizer = !std::filesystem::exists(options.source + "/tokenizer.model");
    convert(options, {});
    path = options.output;
  }
  return path;
}

std::unique_ptr<Model> open_model(const std::string& path, const ModelOptions& options) {
  return Model::load(path, options, {});
}

std::vector<float> all_logits(const Model& model, const std::vector<int32_t>& ids, size_t chunk,
                              size_t micro_batch) {
  Session session(model, micro_batch);
  std::vector<float> all;
  for (size_t begin = 0; begin < ids.size(); begin += chunk) {
    const auto part = std::span<const int32_t>(ids).subspan(begin, std::min(chunk, ids.size() - begin));
    session.eval(part, part.size(), [&](size_t, std::span<const float> logits) {
      all.insert(all.end(), logits.begin(), logits.end());
    });
  }
  return all;
}

std::vector<int32_t> random_ids(const Model& model, size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> ids(n);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % model.hparams().vocab_size);
  return ids;
}

}  // namespace quern::test
