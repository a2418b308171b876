#include "cli/model_source.h"

#include <filesystem>
#include <vector>

#include "cli/model_progress.h"
#include "cli/report.h"
#include "cli/text_input.h"
#include "convert/checkpoint_source.h"
#include "quant/gguf_files.h"
#include "quant/machine/cpu_count.h"
#include "runtime/chat_format.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

bool is_folder(const std::string& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

using OpenFolder = std::unique_ptr<TensorSource>(const ConvertOptions& options,
                                                 const ConvertCallbacks& callbacks);

std::unique_ptr<TensorSource> open(const std::string& path, const ModelOptions& model,
                                   FolderTokenizer tokenizer, OpenFolder& open_folder,
                                   const Notice& notice_of_file, const Notice& notice_of_folder) {
  if (!is_folder(path)) return std::make_unique<GgufFile>(path, /*allow_mmap=*/true, notice_of_file);
  ConvertOptions options;
  options.source = path;
  options.pre_tokenizer = model.pre_tokenizer;
  options.no_tokenizer = tokenizer == FolderTokenizer::kLeftOut;
  options.n_threads = model.n_threads > 0 ? model.n_threads : count_cpus().usable;
  ConvertCallbacks callbacks;
  callbacks.notice = notice_of_folder;
  callbacks.recognise_chat_format = [](const Vocabulary& vocabulary) {
    return std::string(recognise_chat_format(vocabulary));
  };
  return open_folder(options, callbacks);
}

}  // namespace

std::unique_ptr<TensorSource> open_model_source(const std::string& path, const ModelOptions& model,
                                                FolderTokenizer tokenizer, const Notice& tell) {
  return open(path, model, tokenizer, open_checkpoint_as_bf16, tell, tell);
}

std::unique_ptr<TensorSource> open_original_source(const std::string& path, const ModelOptions& model,
                                                   FolderTokenizer tokenizer, bool is_bf16) {
  return open(path, model, tokenizer, is_bf16 ? open_checkpoint_as_bf16 : open_checkpoint_as_f32, notice,
              [](std::string_view) {});
}

std::unique_ptr<Model> load_model_or_checkpoint(const std::string& path, ModelOptions options,
                                                FolderTokenizer tokenizer, const Notice& tell) {
  if (!is_folder(path)) return load_model(path, options, tell);
  options.state_memory = true;
  auto source = open_model_source(path, options, tokenizer, tell);
  ProgressBar bar(ProgressUnit::kBytes, kProgressDelay);
  options.on_progress = [&](uint64_t done, uint64_t total) { bar.update(done, total); };
  return Model::load(std::move(source), options, [&](std::string_view line) {
    bar.clear();
    tell(line);
  });
}

void refuse_input(std::string_view option, const std::string& path, std::span<const std::string> inputs) {
  std::vector<std::string> files;
  for (const std::string& input : inputs) {
    files.push_back(input);
    if (const auto part = parse_gguf_part_name(input))
      for (uint32_t i = 1; i <= part->count; ++i) files.push_back(gguf_part_path(part->stem, i, part->count));
    std::error_code error;
    if (is_folder(input))
      for (fs::directory_iterator it(input, error), end; !error && it != end; it.increment(error))
        if (it->path().extension() != ".gguf") files.push_back(it->path().string());
  }
  for (const std::string& file : files)
    if (is_same_file(path, file))
      fail(ErrorCode::kUsage, "{}: '{}' is an input; it would be overwritten", option,
           printable(path, kPathBytes));
}

}  // namespace quern
