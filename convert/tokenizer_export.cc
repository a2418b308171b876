#include "convert/tokenizer_export.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "convert/added_tokens.h"
#include "convert/checkpoint.h"
#include "convert/folder_files.h"
#include "convert/special_ids.h"
#include "convert/tokenizer_file.h"
#include "quant/gguf_files.h"
#include "quant/json/json.h"
#include "quant/mapped_file.h"
#include "quant/utf8.h"

namespace quern {
namespace {

struct FolderTokenizer {
  std::string path;
  TokenizerFile kind = TokenizerFile::kSentencePiece;
};

// Files that may hold a tokenizer, going by their names.
std::vector<std::string> tokenizer_paths(const std::string& folder) {
  std::vector<std::string> paths;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    const bool is_known = name == "tokenizer.model" || name.starts_with("tokenizer.model.") ||
                          name == "tokenizer.json" || name.ends_with(".tiktoken") ||
                          (name.find("tekken") != name.npos && name.ends_with(".json"));
    if (is_known && find_file(folder, name.c_str())) paths.push_back(entry.path().string());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

// The folder's tokenizer, by what is in the files. A SentencePiece model comes first; tokenizer.json says
// more than the others that some folders hold beside it, a list of ranks says least.
std::optional<FolderTokenizer> find_tokenizer(const std::string& folder) {
  std::vector<FolderTokenizer> found;
  const auto add = [&found](const std::string& path) {
    const MappedFile file(path);
    found.push_back({path, recognise_tokenizer_file(file.bytes())});
  };
  if (const auto path = find_file(folder, "tokenizer.model")) {
    add(*path);
    if (found[0].kind == TokenizerFile::kSentencePiece) return found[0];
  }
  for (const std::string& path : tokenizer_paths(folder)) add(path);
  for (const TokenizerFile kind : {TokenizerFile::kSentencePiece, TokenizerFile::kTokenizerJson,
                                   TokenizerFile::kTekken, TokenizerFile::kRanks}) {
    for (const FolderTokenizer& file : found)
      if (file.kind == kind) return file;
  }
  return std::nullopt;
}

Vocabulary read_vocabulary_file(const FolderTokenizer& tokenizer, const std::string& pre_tokenizer,
                                const Notice& notice) {
  const MappedFile file(tokenizer.path);
  return read_tokenizer_file(file.bytes(), tokenizer.path, pre_tokenizer, notice);
}

// A template, or a list of named ones of which the one called "default" is for plain chat. What is neither is
// left out with a notice: the model does not need it.
std::string chat_template_of(const Json& config, const std::string& path, const Notice& notice) {
  const Json* member = config.find("chat_template");
  if (member == nullptr || member->is_null()) return "";
  if (const std::string* text = member->as_string()) return *text;
  const Json::Array* list = member->as_array();
  const std::string* chosen = nullptr;
  std::string others;
  for (const Json& entry : list == nullptr ? std::span<const Json>{} : std::span(*list)) {
    const std::string *text = entry["template"].as_string(), *name = entry["name"].as_string();
    if (text == nullptr || name == nullptr) continue;
    if (*name == "default")
      chosen = text;
    else
      others += (others.empty() ? "" : ", ") + printable(*name);
  }
  if (chosen != nullptr) {
    if (notice && !others.empty())
      notice(
          fmt::format("{}: of its chat templates 'default' counts; left out: {} (--template FILE runs one)",
                      path, others));
    return *chosen;
  }
  if (notice)
    notice(fmt::format(
        "{}: chat_template is ignored: expected a string, or a list of names and templates with a "
        "\"default\" among them, found {}",
        path, member->describe()));
  return "";
}

// A template file's text: without a byte order mark, and left out where it is not UTF-8.
std::string checked_template(std::string text, const std::string& path, const Notice& notice) {
  if (skip_byte_order_mark(&text))
    notice(fmt::format("{}: the byte order mark at its start is left out", path));
  if (is_valid_utf8(text)) return text;
  notice(fmt::format("{}: ignored, it {}", path,
                     begins_like_utf16(text) ? byte_order_problem(text) : "is not UTF-8"));
  return "";
}

// Of the places that a folder has for its template the newest counts, as in transformers.
std::string find_chat_template(const std::string& folder, const Notice& notice) {
  std::string text, from;
  std::error_code ignored;
  const std::string more = (std::filesystem::path(folder) / "additional_chat_templates").string();
  if (notice && std::filesystem::exists(more, ignored) && !std::filesystem::is_empty(more, ignored))
    notice(fmt::format("{}: its chat templates are left out (--template FILE runs one)", more));
  for (const char* name : {"chat_template.jinja", "tokenizer_config.json", "chat_template.json"}) {
    const auto path = find_file(folder, name);
    if (!path) continue;
    const std::string content = read_text_file(*path);
    std::string found = std::string_view(name).ends_with(".jinja")
                            ? checked_template(content, *path, notice)
                            : chat_template_of(parse_json(content, *path), *path, notice);
    if (found.empty()) continue;
    if (text.empty()) {
      text = std::move(found);
      from = name;
    } else if (found != text && notice) {
      notice(fmt::format("{}: another chat template than {}'s, which counts", *path, from));
    }
  }
  return text;
}

bool flag_or(const Json& config, const char* key, bool fallback, const std::string& path) {
  const Json* member = config.find(key);
  if (member == nullptr || member->is_null()) return fallback;
  if (member->as_bool() == nullptr) {
    fail(ErrorCode::kMalformed, "{}: {} must be true or false, found {}", path, key, member->describe());
  }
  return *member->as_bool();
}

// `config`: null: the vocabulary is as large as its files make it.
Vocabulary read(const std::string& folder, const ModelConfig* config, const std::string& pre_tokenizer,
                const Notice& tell) {
  // A tokenizer.json is read for its vocabulary, and again for its added tokens.
  std::set<std::string, std::less<>> told;
  const Notice notice = [&](std::string_view line) {
    if (tell && told.emplace(line).second) tell(line);
  };
  const std::optional<FolderTokenizer> file = find_tokenizer(folder);
  if (!file) {
    std::error_code ignored;
    const bool has_halves = std::filesystem::exists(folder + "/vocab.json", ignored) &&
                            std::filesystem::exists(folder + "/merges.txt", ignored);
    const std::vector<std::string> models = gguf_models_in(folder);
    fail(ErrorCode::kMalformed,
         "{}: no tokenizer (tokenizer.model, tokenizer.json, tekken.json or *.tiktoken){}{}{}", folder,
         models.empty() ? ""
                        : fmt::format("; {} is a GGUF file: give that file instead of the folder",
                                      printable(models.front(), kPathBytes)),
         has_halves ? "; vocab.json and merges.txt are an older form of tokenizer.json, which transformers' "
                      "AutoTokenizer makes of them (save_pretrained)"
                    : "",
         config != nullptr ? "; --no-tokenizer converts the weights alone" : "");
  }
  Vocabulary vocabulary = read_vocabulary_file(*file, pre_tokenizer, notice);
  const std::vector<AddedTokenEntry> added = read_added_tokens(folder, read_special_texts(folder), notice);
  uint64_t n_tokens = vocabulary.size();
  for (const AddedTokenEntry& entry : added) n_tokens = std::max(n_tokens, entry.id + 1);
  add_tokens(&vocabulary, added, config != nullptr ? config->vocab_size : n_tokens, file->path, notice);
  resolve_special_ids(&vocabulary, folder, file->path, notice);
  if (config != nullptr && vocabulary.pad == kNoToken && config->pad_token_id) {
    vocabulary.pad = static_cast<TokenId>(*config->pad_token_id);
  }
  if (const auto path = find_file(folder, "tokenizer_config.json")) {
    const Json json = parse_json(read_text_file(*path), *path);
    for (const auto& [key, adds] :
         {std::pair("add_bos_token", &vocabulary.add_bos), {"add_eos_token", &vocabulary.add_eos}}) {
      const bool before = std::exchange(*adds, flag_or(json, key, *adds, *path));
      if (before && !*adds && file->kind == TokenizerFile::kTokenizerJson)
        notice(fmt::format("{}: {} is false, and {}'s post-processor adds that token: the former counts",
                           *path, key, file->path));
    }
    // A tokenizer.json says it itself; of a tokenizer.model, transformers and llama.cpp's converter ask the
    // config.
    if (file->kind == TokenizerFile::kSentencePiece) {
      bool* const adds = &vocabulary.add_space_prefix;
      const bool before = std::exchange(*adds, flag_or(json, "add_prefix_space", *adds, *path));
      if (before != *adds)
        notice(fmt::format("{}: add_prefix_space is {}, {} says {}: the former counts", *path, *adds,
                           file->path, before));
    }
  }
  if (vocabulary.bos == kNoToken) vocabulary.add_bos = false;  // one that is never added does no harm
  if (vocabulary.eos == kNoToken) vocabulary.add_eos = false;
  // GGUF has no way to say "none" of a SentencePiece vocabulary: a reader takes ids 1 and 2 where the keys
  // are absent.
  if (vocabulary.eos == kNoToken && config != nullptr && vocabulary.model == "llama") {
    fail(ErrorCode::kMalformed,
         "{}: no eos token, and no file of the folder names one that is a control token; a GGUF file needs "
         "one",
         file->path);
  }
  vocabulary.chat_template = find_chat_template(folder, notice);
  check_vocabulary(vocabulary, file->path, {});
  return vocabulary;
}

}  // namespace

Vocabulary read_checkpoint_tokenizer(
    const std::string& folder, const ModelConfig& config,
    const std::function<std::string(const Vocabulary&)>& recognise_chat_format, const Notice& notice,
    const std::string& pre_tokenizer) {
  Vocabulary vocabulary = read(folder, &config, pre_tokenizer, notice);
  if (!vocabulary.chat_template.empty() && recognise_chat_format) {
    vocabulary.chat_format = recognise_chat_format(vocabulary);
  }
  return vocabulary;
}

Vocabulary read_folder_tokenizer(const std::string& folder, const std::string& pre_tokenizer,
                                 const Notice& notice) {
  return read(folder, nullptr, pre_tokenizer, notice);
}

}  // namespace quern
