#include "convert/tokenizer_export.h"

#include <filesystem>
#include <optional>

#include "convert/checkpoint.h"
#include "convert/json.h"
#include "convert/sentencepiece_model.h"
#include "quant/mapped_file.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

std::optional<std::string> find_file(const std::string& folder, const char* name) {
  const fs::path path = fs::path(folder) / name;
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return std::nullopt;
  return path.string();
}

[[noreturn]] void refuse_missing_tokenizer(const std::string& folder) {
  struct Other {
    const char *file, *kind;
  };
  constexpr Other kOthers[] = {{"tokenizer.json", "a tokenizer.json (BPE or another Hugging Face tokenizer)"},
                               {"tekken.json", "a tekken.json (BPE)"}};
  for (const Other& other : kOthers) {
    if (!find_file(folder, other.file)) continue;
    fail(ErrorCode::kMalformed,
         "{}: no tokenizer.model, only {}, which is not supported; --no-tokenizer converts the weights alone",
         folder, other.kind);
  }
  fail(ErrorCode::kMalformed, "{}: no tokenizer.model; --no-tokenizer converts the weights alone", folder);
}

// A template, or a list of named ones of which the one called "default" is for plain chat.
std::string chat_template_of(const Json& config, const std::string& path) {
  const Json* member = config.find("chat_template");
  if (member == nullptr || member->is_null()) return "";
  if (const std::string* text = member->as_string()) return *text;
  const Json::Array* list = member->as_array();
  if (list == nullptr) {
    fail(ErrorCode::kMalformed, "{}: chat_template must be a string or a list, found {}", path,
         member->describe());
  }
  for (const Json& entry : *list) {
    const Json *name = entry.find("name"), *text = entry.find("template");
    if (name == nullptr || name->as_string() == nullptr || text == nullptr || text->as_string() == nullptr) {
      fail(ErrorCode::kMalformed, "{}: chat_template holds an entry without a name and a template", path);
    }
    if (*name->as_string() == "default") return *text->as_string();
  }
  return "";
}

bool flag_or(const Json& config, const char* key, bool fallback, const std::string& path) {
  const Json* member = config.find(key);
  if (member == nullptr || member->is_null()) return fallback;
  if (member->as_bool() == nullptr) {
    fail(ErrorCode::kMalformed, "{}: {} must be true or false, found {}", path, key, member->describe());
  }
  return *member->as_bool();
}

}  // namespace

Vocabulary read_checkpoint_tokenizer(
    const std::string& folder, const ModelConfig& config,
    const std::function<std::string(const Vocabulary&)>& recognise_chat_format, const Notice& notice) {
  const std::optional<std::string> model_path = find_file(folder, "tokenizer.model");
  if (!model_path) refuse_missing_tokenizer(folder);
  const MappedFile model(*model_path);
  Vocabulary vocabulary = read_sentencepiece_model(model.bytes(), *model_path, notice);
  if (vocabulary.size() != config.vocab_size) {
    fail(ErrorCode::kMalformed, "{}: {} pieces, {} says vocab_size = {}", *model_path, vocabulary.size(),
         config.path, config.vocab_size);
  }
  if (vocabulary.pad == kNoToken && config.pad_token_id) {
    vocabulary.pad = static_cast<TokenId>(*config.pad_token_id);
  }
  if (const auto path = find_file(folder, "tokenizer_config.json")) {
    const Json json = parse_json(read_text_file(*path), *path);
    vocabulary.add_bos = flag_or(json, "add_bos_token", vocabulary.add_bos, *path);
    vocabulary.add_eos = flag_or(json, "add_eos_token", vocabulary.add_eos, *path);
    vocabulary.chat_template = chat_template_of(json, *path);
  }
  // GGUF has no way to say "none": a reader takes ids 1 and 2 where the keys are absent.
  if (vocabulary.bos == kNoToken || vocabulary.eos == kNoToken)
    fail(ErrorCode::kMalformed, "{}: no {} token; a GGUF file needs both bos and eos", *model_path,
         vocabulary.bos == kNoToken ? "bos" : "eos");
  // The newer place; where both are present transformers takes this one too.
  if (const auto path = find_file(folder, "chat_template.jinja"))
    vocabulary.chat_template = read_text_file(*path);
  if (!vocabulary.chat_template.empty() && recognise_chat_format) {
    vocabulary.chat_format = recognise_chat_format(vocabulary);
  }
  return vocabulary;
}

}  // namespace quern
