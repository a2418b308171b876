// Writes a model as one GGUF file, or cut into several of at most a given size (gguf_files.h).
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quant/gguf.h"
#include "quant/gguf_writer.h"

namespace quern {

// What goes into which file, known before the first byte is written.
struct GgufSplitPlan {
  struct Part {
    GgufMetadata metadata;  // of the first part all, of the others what says that they are parts
    GgufPlan plan;
    size_t first_tensor;  // of the model's
  };
  // most_file_bytes: that a file may have; 0: any number, one file. Tensors stay whole and keep their order.
  // Throws kUsage with the size that would do, where the metadata or one tensor with a header is larger;
  // otherwise like GgufPlan.
  GgufSplitPlan(const GgufMetadata& metadata, const std::vector<GgufTensorInfo>& tensors, uint64_t alignment,
                uint64_t most_file_bytes);

  std::deque<Part> parts;  // whose addresses stay: writers refer to them

  size_t part_of(size_t tensor) const;         // index in parts
  uint64_t tensor_bytes(size_t tensor) const;  // without padding
  uint64_t file_bytes() const;                 // of all files
  // Where the model goes: `target` itself when it is one file, else the parts' names, made of `target`
  // without its
  // ".gguf".
  std::vector<std::string> paths(const std::string& target) const;
};

// As GgufWriter, for all parts. No part of an unfinished set is ever taken for a model: all bytes are on the
// disk before the first file gets its name, and the first part, without which the others are nothing, gets
// its own last; where one of an older set is to be replaced it goes before the others are touched.
class GgufSplitWriter {
 public:
  // `plan` is kept by reference until finish(). Throws what OutputFile throws, for any of the files.
  GgufSplitWriter(const std::string& target, const GgufSplitPlan& plan, bool overwrite);

  // index: of the model's tensors. Any thread.
  void write_tensor(size_t index, uint64_t offset, std::span<const uint8_t> bytes);
  // After an error no file of this set is left.
  void finish(double* fsync_seconds = nullptr);

 private:
  void publish_parts();

  const GgufSplitPlan& plan_;
  std::vector<std::string> paths_;
  bool overwrite_;
  std::deque<GgufWriter> writers_;
};

}  // namespace quern
