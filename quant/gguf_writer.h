// Writes a GGUF v3 file: tensors one after the other, header and magic last. Several such files that are one
// model: gguf_split_writer.h.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "quant/gguf.h"
#include "quant/output_file.h"
#include "quant/tensor_view.h"

namespace quern {

struct GgufTensorInfo {
  std::string name;  // <= 63 bytes
  DType dtype = DType::F32;
  Shape shape;  // outermost first; written reversed
  TensorLayout layout = TensorLayout::kRows;
};

// Where everything goes, known before the first byte is written. An alignment other than 32 must stand in the
// metadata as general.alignment. Throws kMalformed naming the tensor whose name, shape or format cannot be
// written.
struct GgufPlan {
  GgufPlan(const GgufMetadata& metadata, std::vector<GgufTensorInfo> tensors, uint64_t alignment = 32);

  std::vector<GgufTensorInfo> tensors;
  std::vector<uint64_t> offsets;  // from the start of the file
  std::vector<uint64_t> sizes;    // bytes without padding
  uint64_t alignment;
  uint64_t data_offset;
  uint64_t file_size;  // the last tensor's padding included
};

// Everything in front of the tensors: plan.data_offset bytes, magic first.
std::vector<uint8_t> encode_gguf_header(const GgufPlan& plan, const GgufMetadata& metadata);

// Write tensors through write_tensor in any pieces, from any threads; finish() writes the header (with
// metadata whose encoded size must equal the plan's) and commits. Nothing else is thread-safe.
class GgufWriter {
 public:
  // `plan` and `metadata` are kept by reference until finish(), so that values of fixed size (checksums) can
  // be filled in meanwhile. Throws what OutputFile throws.
  GgufWriter(const std::string& target, const GgufPlan& plan, const GgufMetadata& metadata, bool overwrite);

  // Writes `bytes` at `offset` within tensor `index`. Padding between tensors is left as the zeros of a fresh
  // file.
  void write_tensor(size_t index, uint64_t offset, std::span<const uint8_t> bytes);
  void finish(double* fsync_seconds = nullptr);
  // The steps of it, for several files that belong together: all bytes reach the disk; the file appears.
  void flush();
  void publish() { file_.publish(); }

 private:
  void write_header();

  const GgufPlan& plan_;
  const GgufMetadata& metadata_;
  OutputFile file_;
};

}  // namespace quern
