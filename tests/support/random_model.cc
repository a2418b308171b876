#include "tests/support/random_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>

#include "quant/error.h"
#include "quant/gguf_writer.h"
#include "quant/panel_layout.h"
#include "quant/recipe.h"
#include "tests/support/weight_blocks.h"

namespace quern::test {
namespace {

void choose_by_recipe(const RandomModel& m, std::vector<GgufTensorInfo>* tensors) {
  const Recipe* const recipe = find_recipe(m.recipe);
  if (recipe == nullptr) fail(ErrorCode::kUsage, "unknown type '{}'", printable(m.recipe));
  RecipeModel model;
  model.architecture = "llama";
  model.n_layers = m.n_layers;
  model.n_heads = m.n_heads;
  model.n_kv_heads = m.n_kv_heads;
  model.tied = m.tied;
  std::vector<RecipeTensor> named;
  for (const GgufTensorInfo& tensor : *tensors) named.push_back({tensor.name, tensor.shape});
  const std::vector<FormatChoice> choices = choose_formats(*recipe, model, {}, named);
  for (size_t i = 0; i < choices.size(); ++i) (*tensors)[i].dtype = choices[i].dtype;
}

std::vector<GgufTensorInfo> tensors_of(const RandomModel& m) {
  const uint64_t q_dim = m.dim, kv_dim = uint64_t{m.dim} / m.n_heads * m.n_kv_heads;
  std::vector<GgufTensorInfo> tensors;
  const auto vector = [&](const std::string& name) { tensors.push_back({name, DType::F32, {m.dim}}); };
  const auto matrix = [&](const std::string& name, DType dtype, Shape shape) {
    const bool panels = m.layout == TensorLayout::kPanels && can_be_panels(dtype, shape);
    tensors.push_back({name, dtype, std::move(shape), panels ? TensorLayout::kPanels : TensorLayout::kRows});
  };
  matrix("token_embd.weight", m.embedding, {m.vocab_size, m.dim});
  for (uint32_t i = 0; i < m.n_layers; ++i) {
    const std::string block = fmt::format("blk.{}.", i);
    vector(block + "attn_norm.weight");
    matrix(block + "attn_q.weight", m.matrices, {q_dim, m.dim});
    matrix(block + "attn_k.weight", m.matrices, {kv_dim, m.dim});
    matrix(block + "attn_v.weight", m.matrices, {kv_dim, m.dim});
    matrix(block + "attn_output.weight", m.matrices, {m.dim, q_dim});
    vector(block + "ffn_norm.weight");
    matrix(block + "ffn_gate.weight", m.matrices, {m.hidden_dim, m.dim});
    matrix(block + "ffn_up.weight", m.matrices, {m.hidden_dim, m.dim});
    matrix(block + "ffn_down.weight", m.matrices, {m.dim, m.hidden_dim});
  }
  vector("output_norm.weight");
  if (!m.tied) matrix("output.weight", m.output, {m.vocab_size, m.dim});
  if (!m.recipe.empty()) choose_by_recipe(m, &tensors);
  return tensors;
}

GgufMetadata metadata_of(const RandomModel& m) {
  GgufMetadata metadata;
  metadata.set_string("general.architecture", "llama");
  metadata.set_string("general.name", "random");
  if (const Recipe* const recipe = find_recipe(m.recipe))
    metadata.set_u32("general.file_type", recipe->file_type);
  metadata.set_u32("llama.block_count", m.n_layers);
  metadata.set_u32("llama.embedding_length", m.dim);
  metadata.set_u32("llama.feed_forward_length", m.hidden_dim);
  metadata.set_u32("llama.attention.head_count", m.n_heads);
  metadata.set_u32("llama.attention.head_count_kv", m.n_kv_heads);
  metadata.set_u32("llama.context_length", m.context_length);
  metadata.set_f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  if (m.window != 0) metadata.set_u32("llama.attention.sliding_window", m.window);
  metadata.set_u32("llama.vocab_size", m.vocab_size);  // llama.cpp counts a vocabulary's tokens else
  metadata.set_string("tokenizer.ggml.model", "no_vocab");
  return metadata;
}

// Bytes of weights whose products with values of size 1 have size 1: rows are runs of blocks from a pool.
class Weights {
 public:
  // Rows of `columns` weights, one after the other.
  void fill_rows(const BlockFormat& format, uint64_t columns, std::span<uint8_t> rows) {
    std::vector<uint8_t>& pool = pools_[{format.dtype, columns}];
    if (pool.empty()) {
      const uint64_t n_blocks = std::max<uint64_t>(kPoolBlocks, columns / format.block_weights);
      pool.resize(n_blocks * format.block_bytes);
      RandomBlocks(format, 1 / std::sqrt(static_cast<float>(columns))).fill(random_, pool);
    }
    const uint64_t row_bytes = format.row_bytes(columns);
    const uint64_t n_places = (pool.size() - row_bytes) / format.block_bytes + 1;
    for (uint64_t at = 0; at < rows.size(); at += row_bytes) {
      const uint64_t place = random_() % n_places * format.block_bytes;
      std::copy_n(pool.begin() + static_cast<ptrdiff_t>(place), row_bytes,
                  rows.begin() + static_cast<ptrdiff_t>(at));
    }
  }

 private:
  static constexpr uint64_t kPoolBlocks = 4096;
  std::mt19937 random_{1};
  std::map<std::pair<DType, uint64_t>, std::vector<uint8_t>> pools_;
};

std::vector<uint8_t> bytes_of(const GgufTensorInfo& tensor, uint64_t n_bytes, Weights& weights) {
  const BlockFormat& format = block_format(tensor.dtype);
  std::vector<uint8_t> bytes(n_bytes);
  if (tensor.shape.size() == 1) {  // a norm: ones
    const std::vector<float> ones(tensor.shape[0], 1.0f);
    format.encode(ones.data(), ones.size(), bytes.data());
    return bytes;
  }
  const uint64_t columns = tensor.shape[1], row_bytes = format.row_bytes(columns);
  weights.fill_rows(format, columns, bytes);
  if (tensor.layout == TensorLayout::kRows) return bytes;
  const std::vector<uint8_t> rows = bytes;
  for (uint64_t row = 0; row + kPanelRows <= tensor.shape[0]; row += kPanelRows)
    pack_panel(tensor.dtype, &rows[row * row_bytes], kPanelRows, columns, &bytes[row * row_bytes]);
  return bytes;
}

}  // namespace

void write_random_model(const RandomModel& model, const std::string& path) {
  const GgufMetadata metadata = metadata_of(model);
  const GgufPlan plan(metadata, tensors_of(model));
  GgufWriter writer(path, plan, metadata, /*overwrite=*/false);
  Weights weights;
  for (size_t i = 0; i < plan.tensors.size(); ++i)
    writer.write_tensor(i, 0, bytes_of(plan.tensors[i], plan.sizes[i], weights));
  writer.finish();
}

}  // namespace quern::test
