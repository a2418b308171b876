// The file or files that a GGUF model is in, mapped, and one reader over all of them.
//
// A split model is several files called <name>-00001-of-0000N.gguf, ...; each says which one it is (split.no,
// from 0), of how many (split.count), and how many tensors all hold together (split.tensors.count). The first
// has the metadata; every tensor is whole in one of them, and any of them may hold none. Source: llama.cpp,
// tools/gguf-split and src/llama-model-loader.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quant/error.h"
#include "quant/gguf_reader.h"
#include "quant/mapped_file.h"
#include "quant/tensor_view.h"

namespace quern {

// What the name of a split model's file says: "<stem>-<part>-of-<count>.gguf", both numbers of five digits.
struct GgufPartName {
  std::string stem;              // with its folder
  uint32_t part = 0, count = 0;  // part: from 1
};
std::optional<GgufPartName> parse_gguf_part_name(std::string_view path);
std::string gguf_part_path(std::string_view stem, uint32_t part, uint32_t count);

inline constexpr const char* kSplitNoKey = "split.no";
inline constexpr const char* kSplitCountKey = "split.count";
inline constexpr const char* kSplitTensorsKey = "split.tensors.count";
// Is it one of these three, which say how a model is cut and nothing of the model?
bool is_split_key(std::string_view key) noexcept;

class GgufFiles {
 public:
  // Opens `path`, and with it the other parts where it is one of several; any part may be named, which
  // `notice` is told of unless it is the first. Throws what MappedFile and GgufReader throw; kIo naming the
  // parts that are not there, or what a folder holds instead; kMalformed for parts that do not belong
  // together: a name or a key that says something else, other metadata, a tensor that two parts hold, tensors
  // too few or too many.
  explicit GgufFiles(const std::string& path, bool allow_mmap = true, const Notice& notice = {});

  // Metadata of the first part, tensors of all in their order. Its path is the first part's.
  const GgufReader& gguf() const { return *gguf_; }
  // In order; one for a model that is not split.
  const std::vector<MappedFile>& files() const { return files_; }
  bool is_mapped() const;
  uint64_t n_bytes() const;  // of all files
  // Which of files() holds these bytes of a tensor.
  size_t file_of(const uint8_t* data) const;
  // MappedFile's hints, of bytes of one tensor.
  void will_need(std::span<const uint8_t> bytes) const noexcept;
  void done_with(std::span<const uint8_t> bytes) const noexcept;

  // The files, for a caller that copies what it needs of gguf() first.
  std::vector<MappedFile> take_files() && { return std::move(files_); }

 private:
  std::vector<MappedFile> files_;
  std::unique_ptr<GgufReader> gguf_;
};

// Paths of the models in a folder that are GGUF files, by their names: of a split one its first part, whether
// that is there or not. Sorted; projectors of images (mmproj-*) are left out. Empty where there are none.
std::vector<std::string> gguf_models_in(const std::string& folder);

// Paths of a folder's files that are named as parts of "<stem>", of any number of parts. Sorted.
std::vector<std::string> gguf_parts_of(const std::string& stem);

// Bytes of all the files that GgufFiles would open, without keeping them open. Throws like it.
uint64_t gguf_files_bytes(const std::string& path);

}  // namespace quern
