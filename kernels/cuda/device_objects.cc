#include "kernels/cuda/device_objects.h"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "quant/checked_math.h"
#include "quant/panel_layout.h"

namespace quern::cuda {
namespace {

constexpr uint64_t kStagingBytes = uint64_t{4} << 20;  // of weights on their way

constexpr FormatKernels kFormats[] = {
    {DType::Q4_0, false, Kernel::few_1_q4_0},     {DType::Q4_1, false, Kernel::few_1_q4_1},
    {DType::Q5_0, false, Kernel::few_1_q5_0},     {DType::Q5_1, false, Kernel::few_1_q5_1},
    {DType::Q8_0, false, Kernel::few_1_q8_0},     {DType::Q2_K, false, Kernel::few_1_q2_k},
    {DType::Q3_K, false, Kernel::few_1_q3_k},     {DType::Q4_K, false, Kernel::few_1_q4_k},
    {DType::Q5_K, false, Kernel::few_1_q5_k},     {DType::Q6_K, false, Kernel::few_1_q6_k},
    {DType::IQ4_NL, false, Kernel::few_1_iq4_nl}, {DType::IQ4_XS, false, Kernel::few_1_iq4_xs},
    {DType::MXFP4, false, Kernel::few_1_mxfp4},   {DType::F32, true, Kernel::float_1_f32},
    {DType::F16, true, Kernel::float_1_f16},      {DType::BF16, true, Kernel::float_1_bf16},
};

}  // namespace

const FormatKernels* find_kernels(DType dtype) {
  const auto* const found = std::find_if(std::begin(kFormats), std::end(kFormats),
                                         [&](const FormatKernels& row) { return row.dtype == dtype; });
  return found == std::end(kFormats) ? nullptr : found;
}

CudaMatrix::CudaMatrix(Gpu& gpu, const TensorView& tensor, const FormatKernels& of_format,
                       const SourceDone& done)
    : DeviceMatrix(tensor.dtype, tensor.rows(), tensor.columns(), tensor.n_bytes),
      kernels(of_format),
      factor(tensor.factor),
      panels(gpu, panel_bytes(tensor.dtype, tensor.rows(), tensor.columns()), "weights") {
  const uint64_t rows = tensor.rows(), row_bytes = block_format(tensor.dtype).row_bytes(tensor.columns());
  const uint64_t panel = row_bytes * kPanelRows, at_once = std::max<uint64_t>(kStagingBytes / panel, 1);
  uint8_t* const to = panels.as<uint8_t>();
  std::vector<uint8_t> staging;
  for (uint64_t row = 0; row < rows;) {
    const uint64_t end = std::min(rows, row + at_once * kPanelRows), whole = end / kPanelRows * kPanelRows;
    const uint8_t* from = tensor.data + row * row_bytes;
    uint64_t n_bytes = (end - row) * row_bytes;
    if (tensor.layout != TensorLayout::kPanels || whole != end) {
      staging.resize((end - row + kPanelRows - 1) / kPanelRows * panel);
      for (uint64_t r = row; r < end; r += kPanelRows) {
        uint8_t* const packed = staging.data() + (r - row) * row_bytes;
        const uint8_t* const source = tensor.data + r * row_bytes;
        if (tensor.layout == TensorLayout::kPanels && r + kPanelRows <= rows)
          std::memcpy(packed, source, panel);
        else
          pack_panel(tensor.dtype, source, std::min<uint64_t>(kPanelRows, end - r), tensor.columns(), packed);
      }
      from = staging.data();
      n_bytes = staging.size();
    }
    gpu.upload(to + row * row_bytes, from, n_bytes);
    if (done) done(tensor.data + row * row_bytes, (end - row) * row_bytes);
    row = end;
  }
}

CudaKvCache::CudaKvCache(Gpu& gpu, const KvShape& shape)
    : shape_(shape), memory_(gpu, bytes(shape), "the KV cache") {
  uint64_t begin = 0;
  for (const KvLayer& layer : shape.layers) {
    QUERN_CHECK(layer.n_kv_heads == 0 || (layer.head_dim >= 1 && layer.head_dim <= kMaxHeadDim));
    const uint64_t segment = shape.segment_bytes(layer), n_segments = shape.segments_of(layer);
    places_.push_back({memory_.as<uint8_t>() + begin, layer.n_kv_heads == 0 ? 0 : segment / layer.n_kv_heads,
                       segment, std::max<uint64_t>(n_segments, 1)});
    begin += segment * n_segments;
  }
  if (memory_.size() != 0) gpu.clear(memory_.as<void>(), memory_.size());
}

uint64_t CudaKvCache::bytes(const KvShape& shape) {
  uint64_t bytes = shape.bytes(), states = shape.state_bytes();
  return bytes == UINT64_MAX || !checked_mul(states, shape.state_slots, &states) ? UINT64_MAX
                                                                                 : bytes - states;
}

CudaRouting::CudaRouting(Gpu& gpu, size_t max_rows, size_t n_experts, size_t n_used)
    : host(max_rows, n_experts, n_used),
      row(gpu, uint64_t{max_rows} * n_used * sizeof(uint32_t), "routes of experts"),
      place(gpu, uint64_t{max_rows} * n_used * sizeof(uint32_t), "routes of experts"),
      weight(gpu, uint64_t{max_rows} * n_used * sizeof(float), "routes of experts") {}

}  // namespace quern::cuda
