#include "convert/tensor_names.h"

#include "convert/hf_config.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "quant/error.h"

namespace quern {
namespace {

enum class Size { kNone, kDim, kHidden, kQuery, kKeyValue, kVocab };
enum class Heads { kNone, kQuery, kKeyValue };

struct TensorRow {
  std::string_view hugging_face, mistral, gguf;
  Size rows, columns;  // columns kNone: a vector of `rows`
  Heads permuted = Heads::kNone;
};

constexpr TensorRow kModelTensors[] = {
    {"model.embed_tokens.weight", "tok_embeddings.weight", "token_embd.weight", Size::kVocab, Size::kDim},
    {"model.norm.weight", "norm.weight", "output_norm.weight", Size::kDim, Size::kNone},
};
constexpr TensorRow kOutputTensor = {"lm_head.weight", "output.weight", "output.weight", Size::kVocab,
                                     Size::kDim};
// Below "model.layers.N.", "layers.N." and "blk.N.".
constexpr TensorRow kLayerTensors[] = {
    {"input_layernorm.weight", "attention_norm.weight", "attn_norm.weight", Size::kDim, Size::kNone},
    {"self_attn.q_proj.weight", "attention.wq.weight", "attn_q.weight", Size::kQuery, Size::kDim,
     Heads::kQuery},
    {"self_attn.k_proj.weight", "attention.wk.weight", "attn_k.weight", Size::kKeyValue, Size::kDim,
     Heads::kKeyValue},
    {"self_attn.v_proj.weight", "attention.wv.weight", "attn_v.weight", Size::kKeyValue, Size::kDim},
    {"self_attn.o_proj.weight", "attention.wo.weight", "attn_output.weight", Size::kDim, Size::kQuery},
    {"post_attention_layernorm.weight", "ffn_norm.weight", "ffn_norm.weight", Size::kDim, Size::kNone},
    {"mlp.gate_proj.weight", "feed_forward.w1.weight", "ffn_gate.weight", Size::kHidden, Size::kDim},
    {"mlp.down_proj.weight", "feed_forward.w2.weight", "ffn_down.weight", Size::kDim, Size::kHidden},
    {"mlp.up_proj.weight", "feed_forward.w3.weight", "ffn_up.weight", Size::kHidden, Size::kDim},
};

constexpr std::string_view kComputed = "computed, not stored";
constexpr std::string_view kMask = "the causal mask, which is computed";
constexpr std::string_view kOfImages = "of images and sound, which are left out";
constexpr std::string_view kTrainingHead = "a head of training, which generated text does not pass";

// Where a name's part stands: at its end, or at its beginning (or that of a module within).
enum class Place { kLast, kFirst };

struct NeedlessTensor {
  std::string_view name;
  Place place;
  std::string_view reason;
};

constexpr NeedlessTensor kNeedlessTensors[] = {
    {"rotary_emb.inv_freq", Place::kLast, kComputed},
    {"rotary_emb.original_inv_freq", Place::kLast, kComputed},
    {"rotary_emb.cos_cached", Place::kLast, kComputed},
    {"rotary_emb.sin_cached", Place::kLast, kComputed},
    {"rotary_emb.cos_sin_cache", Place::kLast, kComputed},
    {"rotary_pos_emb.inv_freq", Place::kLast, kComputed},
    {"rope.freqs", Place::kLast, kComputed},
    {"freqs_cis", Place::kLast, kComputed},
    {"freqs_cos", Place::kLast, kComputed},
    {"freqs_sin", Place::kLast, kComputed},
    {"position_ids", Place::kLast, kComputed},
    {"masked_bias", Place::kLast, kMask},
    {"attn.bias", Place::kLast, kMask},
    {"self_attn.bias", Place::kLast, kMask},
    {"attention.bias", Place::kLast, kMask},
    {"causal_mask", Place::kLast, kMask},
    {"_extra_state", Place::kLast, "bookkeeping of the training program"},
    {"vision_tower.", Place::kFirst, kOfImages},
    {"vision_model.", Place::kFirst, kOfImages},
    {"visual.", Place::kFirst, kOfImages},
    {"multi_modal_projector.", Place::kFirst, kOfImages},
    {"audio_tower.", Place::kFirst, kOfImages},
    {"embed_vision.", Place::kFirst, kOfImages},
    {"embed_audio.", Place::kFirst, kOfImages},
    {"mtp.", Place::kFirst, "a head that guesses further tokens, which generated text does not pass"},
    {"v_head.", Place::kFirst, kTrainingHead},
    {"value_head.", Place::kFirst, kTrainingHead},
    {"reward_head.", Place::kFirst, kTrainingHead},
    {"ilql_heads.", Place::kFirst, kTrainingHead},
    {"score.", Place::kFirst, kTrainingHead},
};

// Whole parts between dots: "a.freqs_cis" ends with "freqs_cis", "my_freqs_cis" does not.
bool ends_with_part(std::string_view name, std::string_view part) {
  return name == part || (name.ends_with(part) && name[name.size() - part.size() - 1] == '.');
}

bool contains_part(std::string_view name, std::string_view part) {
  const size_t at = name.find(part);
  return at != name.npos && (at == 0 || name[at - 1] == '.');
}

uint64_t value_of(Size size, const ModelConfig& c) {
  switch (size) {
    case Size::kDim:
      return c.dim;
    case Size::kHidden:
      return c.hidden_dim;
    case Size::kQuery:
      return uint64_t{c.n_heads} * c.head_dim;
    case Size::kKeyValue:
      return uint64_t{c.n_kv_heads} * c.head_dim;
    case Size::kVocab:
      return c.vocab_size;
    case Size::kNone:
      break;
  }
  return 0;
}

std::string words_of(Size size, const ModelConfig& c) {
  const ConfigKeys& keys = config_keys(c.dialect);
  const auto heads = [&](const char* count) {
    return c.head_dim_given ? fmt::format("{} * {}", count, keys.head_dim)
                            : fmt::format("{} * {} / {}", count, keys.dim, keys.n_heads);
  };
  switch (size) {
    case Size::kDim:
      return keys.dim;
    case Size::kHidden:
      return keys.hidden_dim;
    case Size::kQuery:
      return heads(keys.n_heads);
    case Size::kKeyValue:
      return heads(keys.n_kv_heads);
    case Size::kVocab:
      return keys.vocab_size;
    case Size::kNone:
      break;
  }
  return "";
}

DeclaredTensor declare(const TensorRow& row, const ModelConfig& config, CheckpointLayout layout, int block) {
  const bool hugging_face = layout == CheckpointLayout::kHuggingFace;
  DeclaredTensor tensor;
  tensor.source = hugging_face ? row.hugging_face : row.mistral;
  tensor.gguf = row.gguf;
  if (block >= 0) {
    tensor.source = fmt::format("{}.{}.{}", hugging_face ? "model.layers" : "layers", block, tensor.source);
    tensor.gguf = fmt::format("blk.{}.{}", block, tensor.gguf);
  }
  tensor.shape = {value_of(row.rows, config)};
  std::string words = words_of(row.rows, config);
  if (row.columns != Size::kNone) {
    tensor.shape.push_back(value_of(row.columns, config));
    words += ", " + words_of(row.columns, config);
  }
  tensor.shape_key = fmt::format("[{}]", words);
  if (hugging_face && row.permuted == Heads::kQuery) tensor.permuted_heads = config.n_heads;
  if (hugging_face && row.permuted == Heads::kKeyValue) tensor.permuted_heads = config.n_kv_heads;
  return tensor;
}

// N of "blk.N.", -1 for other names.
int64_t block_number(std::string_view name) {
  constexpr std::string_view kPrefix = "blk.";
  if (!name.starts_with(kPrefix)) return -1;
  int64_t number = -1;
  std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), number);
  return number;
}

}  // namespace

CheckpointLayout detect_layout(std::span<const std::string_view> names, const std::string& where) {
  const TensorRow& embedding = kModelTensors[0];
  const auto has = [&](std::string_view name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  if (has(embedding.hugging_face)) return CheckpointLayout::kHuggingFace;
  if (has(embedding.mistral)) return CheckpointLayout::kMistral;
  for (const std::string_view name : names) {
    if (!name.ends_with(fmt::format(".{}", embedding.hugging_face))) continue;
    const std::string_view prefix = name.substr(0, name.size() - embedding.hugging_face.size());
    fail(ErrorCode::kMalformed,
         "{}: tensors are named '{}', expected {}: torch.compile, DataParallel, PEFT and other modules "
         "around a "
         "model put '{}' before its names; save the model inside",
         where, printable(name), embedding.hugging_face, printable(prefix));
  }
  fail(ErrorCode::kMalformed,
       "{}: no tensor is named {} (Hugging Face) or {} (Mistral): not a Llama or Mistral model", where,
       embedding.hugging_face, embedding.mistral);
}

std::vector<DeclaredTensor> declare_checkpoint_tensors(const ModelConfig& config, CheckpointLayout layout) {
  std::vector<DeclaredTensor> tensors;
  for (const TensorRow& row : kModelTensors) tensors.push_back(declare(row, config, layout, -1));
  if (!config.tied) tensors.push_back(declare(kOutputTensor, config, layout, -1));
  for (uint32_t block = 0; block < config.n_layers; ++block) {
    for (const TensorRow& row : kLayerTensors) {
      tensors.push_back(declare(row, config, layout, static_cast<int>(block)));
    }
  }
  std::sort(tensors.begin(), tensors.end(), [](const DeclaredTensor& a, const DeclaredTensor& b) {
    return gguf_tensor_less(a.gguf, b.gguf);
  });
  return tensors;
}

bool gguf_tensor_less(std::string_view a, std::string_view b) {
  return std::pair(block_number(a), a) < std::pair(block_number(b), b);
}

std::string_view needless_tensor_reason(std::string_view name) {
  for (const NeedlessTensor& row : kNeedlessTensors) {
    const bool matches =
        row.place == Place::kFirst ? contains_part(name, row.name) : ends_with_part(name, row.name);
    if (matches) return row.reason;
  }
  return "";
}

std::string_view embedding_tensor_name(CheckpointLayout layout) {
  return layout == CheckpointLayout::kHuggingFace ? kModelTensors[0].hugging_face : kModelTensors[0].mistral;
}

bool is_output_tensor(std::string_view name) {
  return name == kOutputTensor.hugging_face || name == kOutputTensor.mistral;
}

std::string_view output_tensor_name(CheckpointLayout layout) {
  return layout == CheckpointLayout::kHuggingFace ? kOutputTensor.hugging_face : kOutputTensor.mistral;
}

}  // namespace quern
