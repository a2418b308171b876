// Reads a GGUF file from bytes: header, metadata, tensor table. Nothing is copied but names.
//
// Takes bytes, so that tests and fuzzers feed it directly. Every rule of robustness.md 1.1 R1-R9 is checked
// here, each before the first use of what it guards; a file that breaks one throws kMalformed with path and
// offset. GGUF's reversed dimensions are turned round here, once (tensor_view.h). After construction (and
// add_tensors_of) everything is const and thread-safe. `bytes` must outlive the reader and everything it
// hands out. A model in several files: gguf_files.h.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "quant/error.h"
#include "quant/gguf.h"
#include "quant/tensor_view.h"

namespace quern {

class GgufReader {
 public:
  struct KeyValue {
    std::string_view key;
    GgufValue value;
  };

  // `path` only names the file in messages. `notice` gets warnings (trailing bytes).
  GgufReader(std::span<const uint8_t> bytes, std::string path, const Notice& notice = {});

  // Takes the tensors of a later part of a split model over, behind its own (gguf_files.h). The part's bytes
  // must live as long. Throws kMalformed for a name that is there already.
  void add_tensors_of(const GgufReader& part);

  const std::string& path() const { return path_; }
  uint32_t version() const { return version_; }
  uint64_t alignment() const { return alignment_; }
  uint64_t data_offset() const { return data_offset_; }
  uint64_t file_size() const { return file_size_; }  // of parts that were added, too
  const std::vector<KeyValue>& metadata() const { return metadata_; }
  // Tensors in file order, their extents inside the file.
  const std::vector<TensorView>& tensors() const { return tensors_; }

  const GgufValue* find(std::string_view key) const;           // null when absent
  const TensorView* find_tensor(std::string_view name) const;  // null when absent

  // Typed access (R6). A key that is present with another type or out of [min, max] throws kMalformed naming
  // the key, the expectation and what was found. The ones without `fallback` also throw when the key is
  // absent.
  uint64_t require_uint(std::string_view key, uint64_t min, uint64_t max) const;
  uint64_t uint_or(std::string_view key, uint64_t fallback, uint64_t min, uint64_t max) const;
  double require_float(std::string_view key) const;  // finite and > 0
  double float_or(std::string_view key, double fallback) const;
  bool bool_or(std::string_view key, bool fallback) const;
  std::string_view require_string(std::string_view key) const;
  std::string_view string_or(std::string_view key, std::string_view fallback) const;

  // "<path>: <message>", for what is mended.
  std::string notice_text(std::string_view message) const;
  // Throws kMalformed "<path>: <message>".
  [[noreturn]] void refuse(const std::string& message) const;
  // The same for a key that is present: "<path>: <key>: expected <expected>, found u32 7".
  [[noreturn]] void refuse_value(std::string_view key, const std::string& expected) const;

 private:
  void require_key(std::string_view key) const;

  std::span<const uint8_t> bytes_;
  std::string path_;
  uint32_t version_ = 0;
  uint64_t alignment_ = 32;
  uint64_t data_offset_ = 0, file_size_ = 0;
  std::vector<KeyValue> metadata_;
  std::vector<TensorView> tensors_;
  std::unordered_map<std::string_view, size_t> key_index_, tensor_index_;
};

}  // namespace quern
