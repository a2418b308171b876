#include "quant/zero_tail.h"

#include <algorithm>
#include <array>

#include "quant/error.h"
#include "quant/panel_layout.h"

namespace quern {
namespace {

constexpr size_t kChunkWeights = 256;  // decoded at once: whole blocks of every format

// blocks: n_blocks of `format`, at most kChunkWeights weights.
bool is_zero(const BlockFormat& format, const uint8_t* blocks, size_t n_blocks) {
  if (format.decode == nullptr)
    return std::all_of(blocks, blocks + n_blocks * format.block_bytes,
                       [](uint8_t byte) { return byte == 0; });
  std::array<float, kChunkWeights> weights;
  format.decode(blocks, n_blocks, weights.data());
  return std::all_of(weights.data(), weights.data() + n_blocks * format.block_weights,
                     [](float weight) { return weight == 0; });
}

bool is_zero_row(const TensorView& tensor, uint64_t row) {
  const BlockFormat& format = block_format(tensor.dtype);
  const uint64_t row_bytes = format.row_bytes(tensor.columns());
  const uint64_t n_blocks = tensor.columns() / format.block_weights;
  const uint64_t step = std::max<uint64_t>(kChunkWeights / format.block_weights, 1);
  const uint64_t group = row / kPanelRows * kPanelRows;
  const bool in_panel = tensor.layout == TensorLayout::kPanels && group + kPanelRows <= tensor.rows();
  std::vector<uint8_t> unpacked(in_panel ? step * format.block_bytes : 0);
  for (uint64_t block = 0; block < n_blocks; block += step) {
    const uint64_t end = std::min(block + step, n_blocks);
    const uint8_t* blocks = tensor.data + row * row_bytes + block * format.block_bytes;
    if (in_panel) {
      unpack_row_blocks(tensor.dtype, tensor.data + group * row_bytes, row - group, block, end,
                        unpacked.data());
      blocks = unpacked.data();
    }
    if (!is_zero(format, blocks, end - block)) return false;
  }
  return true;
}

// A vector's elements are its rows.
bool is_zero_element(const TensorView& tensor, uint64_t element) {
  const BlockFormat& format = block_format(tensor.dtype);
  const uint64_t block = element / format.block_weights;
  return is_zero(format, tensor.data + block * format.block_bytes, 1);
}

}  // namespace

std::optional<ZeroTail> find_zero_tail(const TensorView& tensor, uint64_t rows) {
  constexpr uint64_t kManyRows = 16, kManyPercent = 5;
  const bool is_vector = tensor.rows() <= 1;
  rows = std::min(rows, is_vector ? tensor.columns() : tensor.rows());
  if (rows == 0 || tensor.name.ends_with(".bias")) return std::nullopt;
  uint64_t first = rows;
  while (first > 0 && (is_vector ? is_zero_element(tensor, first - 1) : is_zero_row(tensor, first - 1)))
    --first;
  const uint64_t n_rows = rows - first;
  if (n_rows == 0 || (n_rows < kManyRows && n_rows * 100 < rows * kManyPercent)) return std::nullopt;
  return ZeroTail{tensor.name, first, n_rows, rows};
}

std::optional<ZeroTail> find_zero_tail(const TensorView& tensor) {
  return find_zero_tail(tensor, UINT64_MAX);
}

uint64_t rows_of_text(const GgufValue* types, uint64_t rows) {
  constexpr int32_t kUnknown = 2, kControl = 3, kUnused = 5;  // of tokenizer.ggml.token_type
  const auto numbers = types == nullptr ? std::nullopt : types->as_int32s();
  if (!numbers) return rows;
  uint64_t n = std::min<uint64_t>(rows, numbers->size());
  const auto is_text = [&](int32_t type) { return type != kUnknown && type != kControl && type != kUnused; };
  while (n > 0 && !is_text((*numbers)[n - 1])) --n;
  return n;
}

std::vector<ZeroTail> find_zero_tails(const std::vector<TensorView>& tensors, const GgufValue* token_types) {
  std::vector<ZeroTail> tails;
  for (const TensorView& tensor : tensors) {
    const bool has_tokens = tensor.name == "token_embd.weight" || tensor.name == "output.weight";
    const uint64_t rows = has_tokens ? rows_of_text(token_types, tensor.rows()) : UINT64_MAX;
    if (auto tail = find_zero_tail(tensor, rows)) tails.push_back(std::move(*tail));
  }
  return tails;
}

std::string describe(const std::vector<ZeroTail>& tails, size_t max_named) {
  std::string text;
  for (size_t i = 0; i < std::min(tails.size(), max_named); ++i) {
    const ZeroTail& tail = tails[i];
    text += fmt::format("{}{} ({})", i == 0 ? "" : ", ", printable(tail.tensor),
                        tail.is_whole()
                            ? "all"
                            : fmt::format("rows {} to {}", tail.first_row, tail.first_row + tail.n_rows - 1));
  }
  if (tails.size() > max_named) text += fmt::format(" and {} more", tails.size() - max_named);
  return text;
}

std::string zero_tail_warning(std::string_view path, const std::vector<ZeroTail>& tails) {
  constexpr size_t kNamed = 32;
  if (tails.empty()) return "";
  return fmt::format(
      "warning: {}: zeros where weights should be: {}; perhaps an incomplete download: compare its checksum, "
      "or "
      "download it again",
      printable(path, kPathBytes), describe(tails, kNamed));
}

}  // namespace quern
