#include "tests/support/models.h"

#include <filesystem>
#include <map>

#include "convert/convert.h"
#include "tests/support/temp_folder.h"

namespace quern::test {

const std::vector<std::string>& bundled_models() {
  static const std::vector<std::string> names = {"random-window", "stories260k", "tiny-mistral"};
  return names;
}

std::string converted(const std::string& model, const std::string& type, TensorLayout layout) {
  static const TempFolder folder;
  static std::map<std::string, std::string> done;
  const std::string name = fmt::format("{}-{}-{}", model, type, to_string(layout));
  std::string& path = done[name];
  if (path.empty()) {
    ConvertOptions options;
    options.source = std::string(QUERN_TEST_DATA) + "/" + model;
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

}  // namespace quern::test
