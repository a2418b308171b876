#include "quant/gguf_writer.h"

#include <cstring>
#include <string_view>
#include <utility>

#include "quant/checked_math.h"
#include "quant/error.h"
#include "quant/gguf_encode.h"
#include "quant/panel_layout.h"

namespace quern {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr uint32_t kVersion = 3;
constexpr size_t kMaxNameBytes = 63;  // other readers keep names in 64 bytes, with a NUL

// Everything in front of the padding that precedes the data. Its size does not depend on plan.offsets.
std::vector<uint8_t> encode_header(const GgufPlan& plan, const GgufMetadata& metadata) {
  std::vector<uint8_t> out(kMagic.begin(), kMagic.end());
  append_number(&out, kVersion);
  append_number<uint64_t>(&out, plan.tensors.size());
  append_number<uint64_t>(&out, metadata.entries().size());
  for (const GgufMetadata::Entry& entry : metadata.entries()) {
    append_string(&out, entry.key);
    append_bytes(&out, entry.encoded);
  }
  for (size_t i = 0; i < plan.tensors.size(); ++i) {
    const GgufTensorInfo& tensor = plan.tensors[i];
    append_string(&out, tensor.name);
    append_number(&out, static_cast<uint32_t>(tensor.shape.size()));
    for (auto dim = tensor.shape.rbegin(); dim != tensor.shape.rend(); ++dim) append_number(&out, *dim);
    if (tensor.layout == TensorLayout::kPanels) {
      append_number(&out, panel_type_id(tensor.dtype));
    } else {
      append_number(&out, tensor.dtype);
    }
    append_number(&out, plan.offsets[i] - plan.data_offset);
  }
  return out;
}

uint64_t size_in_bytes(const GgufTensorInfo& tensor) {
  const std::string name = printable(tensor.name);
  if (tensor.name.empty() || tensor.name.size() > kMaxNameBytes) {
    fail(ErrorCode::kMalformed, "tensor name '{}' has {} bytes, a GGUF file takes 1 to {}", name,
         tensor.name.size(), kMaxNameBytes);
  }
  const BlockFormat& format = block_format(tensor.dtype);
  uint64_t n_elements = 1;
  bool fits = !tensor.shape.empty() && tensor.shape.size() <= 4;
  for (const uint64_t dim : tensor.shape) fits = fits && dim > 0 && checked_mul(n_elements, dim, &n_elements);
  uint64_t n_bytes = 0;
  if (!fits || tensor.shape.back() % format.block_weights != 0 ||
      !checked_mul(n_elements / format.block_weights, format.block_bytes, &n_bytes)) {
    fail(ErrorCode::kMalformed, "tensor '{}' with shape {} cannot be written as {} in GGUF", name,
         to_string(tensor.shape), format.name);
  }
  if (tensor.layout == TensorLayout::kPanels && !can_be_panels(tensor.dtype, tensor.shape)) {
    fail(ErrorCode::kMalformed, "tensor '{}' with shape {} cannot be written as panels of {}", name,
         to_string(tensor.shape), format.name);
  }
  return n_bytes;
}

// The alignment that a reader will find.
uint64_t declared_alignment(const GgufMetadata& metadata) {
  for (const GgufMetadata::Entry& entry : metadata.entries()) {
    if (entry.key != "general.alignment") continue;
    uint32_t value = 0;  // behind the type
    QUERN_CHECK(entry.encoded.size() == 2 * sizeof value);
    std::memcpy(&value, entry.encoded.data() + sizeof value, sizeof value);
    return value;
  }
  return 32;
}

}  // namespace

GgufPlan::GgufPlan(const GgufMetadata& metadata, std::vector<GgufTensorInfo> tensors_to_write,
                   uint64_t file_alignment)
    : tensors(std::move(tensors_to_write)), alignment(file_alignment), data_offset(0), file_size(0) {
  QUERN_CHECK(declared_alignment(metadata) == alignment);
  for (const GgufTensorInfo& tensor : tensors) sizes.push_back(size_in_bytes(tensor));
  offsets.assign(tensors.size(), 0);
  bool fits = checked_align(encode_header(*this, metadata).size(), alignment, &data_offset);
  uint64_t end = data_offset;
  for (size_t i = 0; i < tensors.size(); ++i) {
    offsets[i] = end;
    fits = fits && checked_add(end, sizes[i], &end) && checked_align(end, alignment, &end);
  }
  if (!fits) fail(ErrorCode::kMalformed, "the tensors together are larger than 64 bits can count");
  file_size = end;
}

GgufWriter::GgufWriter(const std::string& target, const GgufPlan& plan, const GgufMetadata& metadata,
                       bool overwrite)
    : plan_(plan), metadata_(metadata), file_(target, plan.file_size, overwrite) {}

void GgufWriter::write_tensor(size_t index, uint64_t offset, std::span<const uint8_t> bytes) {
  QUERN_CHECK(index < plan_.tensors.size());
  QUERN_CHECK(offset <= plan_.sizes[index] && bytes.size() <= plan_.sizes[index] - offset);
  file_.write_at(plan_.offsets[index] + offset, bytes);
}

std::vector<uint8_t> encode_gguf_header(const GgufPlan& plan, const GgufMetadata& metadata) {
  std::vector<uint8_t> header = encode_header(plan, metadata);
  uint64_t end = 0;
  QUERN_CHECK(checked_align(header.size(), plan.alignment, &end) && end == plan.data_offset);
  header.resize(end);
  return header;
}

void GgufWriter::write_header() {
  const std::vector<uint8_t> header = encode_gguf_header(plan_, metadata_);
  // The magic last: until then nothing takes the temporary file for a model.
  const std::span<const uint8_t> all(header);
  file_.write_at(kMagic.size(), all.subspan(kMagic.size()));
  file_.write_at(0, all.first(kMagic.size()));
}

void GgufWriter::finish(double* fsync_seconds) {
  write_header();
  file_.commit(fsync_seconds);
}

void GgufWriter::flush() {
  write_header();
  file_.flush();
}

}  // namespace quern
