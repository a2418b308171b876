#include "runtime/arch/llama.h"

#include <algorithm>
#include <array>
#include <iterator>

namespace quern {
namespace {

constexpr uint64_t kMaxDim = uint64_t{1} << 20, kMaxHeads = uint64_t{1} << 16;

// head_count_kv may be one number or one for each layer; layers that differ are not supported.
uint32_t read_n_kv_heads(const GgufReader& gguf, uint32_t n_layers, uint32_t n_heads) {
  const std::string key = "llama.attention.head_count_kv";
  const GgufValue* value = gguf.find(key);
  uint64_t n = n_heads;
  if (value != nullptr && value->type == GgufType::kArray) {
    const auto per_layer = value->as_int32s();
    if (!per_layer || per_layer->size() != n_layers)
      gguf.refuse(fmt::format(
          "{}: expected one number, or an array of {} i32 (one for each layer), found {} values of {}", key,
          n_layers, value->count, to_string(value->element_type)));
    for (const int32_t v : *per_layer)
      if (v != per_layer->front())
        gguf.refuse(key + ": layers with different numbers of KV heads are not supported");
    n = per_layer->front() < 0 ? 0 : static_cast<uint64_t>(per_layer->front());
  } else {
    n = gguf.uint_or(key, n_heads, 0, kMaxDim);
  }
  if (n == 0 || n_heads % n != 0)
    gguf.refuse(fmt::format("{}: expected a divisor of head_count ({}), found {}", key, n_heads, n));
  return static_cast<uint32_t>(n);
}

uint32_t read_head_dim(const GgufReader& gguf, uint32_t dim, uint32_t n_heads) {
  const std::string key = "llama.attention.key_length", value_key = "llama.attention.value_length";
  if (gguf.find(key) == nullptr && dim % n_heads != 0)
    gguf.refuse(
        fmt::format("llama.attention.head_count: {} does not divide embedding_length {}, and there is no {}",
                    n_heads, dim, key));
  constexpr uint64_t kMaxHeadDim = 1024;
  const uint64_t head_dim = gguf.uint_or(key, dim / n_heads, 1, kMaxHeadDim);
  if (head_dim > kMaxHeadDim)
    gguf.refuse(fmt::format(
        "llama.attention.head_count: {} heads of embedding_length {} have {} dimensions, at most {} "
        "are supported",
        n_heads, dim, head_dim, kMaxHeadDim));
  const uint64_t value_dim = gguf.uint_or(value_key, head_dim, 1, 1024);
  if (value_dim != head_dim)
    gguf.refuse(
        fmt::format("{}: {} differs from key_length {}: not supported", value_key, value_dim, head_dim));
  if (head_dim % 2 != 0) gguf.refuse(fmt::format("{}: expected an even number, found {}", key, head_dim));
  return static_cast<uint32_t>(head_dim);
}

// Every llama.* key that this file reads or that does not change what the model computes. Any other might, so
// it is refused by name: a model that runs and answers slightly wrong is the worst outcome.
bool is_known_key(std::string_view key) {
  static constexpr std::string_view kKnown[] = {"block_count",
                                                "context_length",
                                                "embedding_length",
                                                "feed_forward_length",
                                                "vocab_size",
                                                "expert_count",
                                                "expert_used_count",
                                                "tensor_data_layout",
                                                "attention.head_count",
                                                "attention.head_count_kv",
                                                "attention.key_length",
                                                "attention.value_length",
                                                "attention.layer_norm_rms_epsilon",
                                                "attention.sliding_window",
                                                "attention.causal",
                                                "rope.dimension_count",
                                                "rope.freq_base",
                                                "rope.scaling.type",
                                                "rope.scaling.factor",
                                                "rope.scale_linear",
                                                "rope.scaling.attn_factor",
                                                "rope.scaling.original_context_length",
                                                "rope.scaling.finetuned"};
  return std::find(std::begin(kKnown), std::end(kKnown), key) != std::end(kKnown);
}

void refuse_unsupported(const GgufReader& gguf) {
  constexpr std::string_view prefix = "llama.";
  for (const GgufReader::KeyValue& kv : gguf.metadata())
    if (kv.key.starts_with(prefix) && !is_known_key(kv.key.substr(prefix.size())))
      gguf.refuse(fmt::format("{}: unknown hyper-parameter; it may change what the model computes",
                              printable(kv.key)));

  const uint64_t experts = gguf.uint_or("llama.expert_count", 0, 0, kMaxDim);
  if (experts != 0)
    gguf.refuse(
        fmt::format("llama.expert_count is {}: mixture-of-experts models are not supported", experts));
  const std::string_view scaling = gguf.string_or("llama.rope.scaling.type", "none");
  if (scaling != "none")
    gguf.refuse(
        fmt::format("llama.rope.scaling.type is '{}': RoPE scaling is not supported", printable(scaling)));
  for (const char* key :
       {"llama.rope.scaling.factor", "llama.rope.scale_linear", "llama.rope.scaling.attn_factor"})
    if (const double factor = gguf.float_or(key, 1.0); factor != 1.0)
      gguf.refuse(fmt::format("{} is {}: RoPE scaling is not supported", key, factor));
  if (!gguf.bool_or("llama.attention.causal", true))
    gguf.refuse("llama.attention.causal is false: only causal attention is supported");
}

HParams read_hparams(const GgufReader& gguf, const Notice& notice) {
  refuse_unsupported(gguf);
  HParams h;
  h.architecture = "llama";
  h.name = std::string(gguf.string_or("general.name", ""));
  h.n_layers = static_cast<uint32_t>(gguf.require_uint("llama.block_count", 1, 512));
  h.dim = static_cast<uint32_t>(gguf.require_uint("llama.embedding_length", 1, kMaxDim));
  h.hidden_dim = static_cast<uint32_t>(gguf.require_uint("llama.feed_forward_length", 1, kMaxDim));
  h.n_heads = static_cast<uint32_t>(gguf.require_uint("llama.attention.head_count", 1, kMaxHeads));
  h.n_kv_heads = read_n_kv_heads(gguf, h.n_layers, h.n_heads);
  h.head_dim = read_head_dim(gguf, h.dim, h.n_heads);
  h.context_length = static_cast<uint32_t>(gguf.require_uint("llama.context_length", 1, uint64_t{1} << 24));
  h.window = static_cast<uint32_t>(gguf.uint_or("llama.attention.sliding_window", 0, 0, UINT32_MAX));
  const std::string rotary_key = "llama.rope.dimension_count";
  h.rotary_dim = static_cast<uint32_t>(gguf.uint_or(rotary_key, h.head_dim, 1, kMaxDim));
  if (h.rotary_dim != h.head_dim) {
    // The dimension key and the head size are two statements of one number; say which key is off.
    const bool from_key_length = gguf.find("llama.attention.key_length") != nullptr;
    gguf.refuse(fmt::format(
        "{}: expected {} ({}), found {}; rotating a part of a head is not supported", rotary_key, h.head_dim,
        from_key_length ? "llama.attention.key_length" : "embedding_length / head_count", h.rotary_dim));
  }
  h.rope_base = gguf.float_or("llama.rope.freq_base", 10000.0);
  if (!(h.rope_base >= 1.0))
    gguf.refuse(fmt::format("llama.rope.freq_base: expected a number >= 1, found {}", h.rope_base));
  h.rms_eps = static_cast<float>(gguf.require_float("llama.attention.layer_norm_rms_epsilon"));
  h.file_type = static_cast<uint32_t>(gguf.uint_or("general.file_type", 0, 0, UINT32_MAX));

  const TensorView* embedding = gguf.find_tensor("token_embd.weight");
  if (embedding == nullptr) gguf.refuse("tensor token_embd.weight is missing");
  if (embedding->shape.size() != 2 || embedding->columns() != h.dim || embedding->rows() > uint64_t{1} << 24)
    gguf.refuse(fmt::format("tensor token_embd.weight: expected shape [vocabulary, {}], found {}", h.dim,
                            to_string(embedding->shape)));
  h.vocab_size = static_cast<uint32_t>(embedding->rows());
  const uint64_t stated = gguf.uint_or("llama.vocab_size", h.vocab_size, 0, UINT32_MAX);
  if (stated != h.vocab_size && notice)
    notice(
        fmt::format("warning: llama.vocab_size is {}, but token_embd.weight has {} rows; the tensor decides",
                    stated, h.vocab_size));
  return h;
}

std::vector<TensorDeclaration> declare_tensors(const HParams& h) {
  using Role = TensorDeclaration::Role;
  const uint64_t dim = h.dim, hidden = h.hidden_dim;
  const uint64_t q_dim = uint64_t{h.n_heads} * h.head_dim, kv_dim = uint64_t{h.n_kv_heads} * h.head_dim;
  std::vector<TensorDeclaration> tensors = {
      {"token_embd.weight", {h.vocab_size, dim}, Role::kEmbedding},
      {"output_norm.weight", {dim}, Role::kVector},
      {"output.weight", {h.vocab_size, dim}, Role::kOutput, /*optional=*/true},
  };
  for (uint32_t i = 0; i < h.n_layers; ++i) {
    const std::string block = fmt::format("blk.{}.", i);
    tensors.push_back({block + "attn_norm.weight", {dim}, Role::kVector});
    tensors.push_back({block + "attn_q.weight", {q_dim, dim}, Role::kMatrix});
    tensors.push_back({block + "attn_k.weight", {kv_dim, dim}, Role::kMatrix});
    tensors.push_back({block + "attn_v.weight", {kv_dim, dim}, Role::kMatrix});
    tensors.push_back({block + "attn_output.weight", {dim, q_dim}, Role::kMatrix});
    tensors.push_back({block + "ffn_norm.weight", {dim}, Role::kVector});
    tensors.push_back({block + "ffn_gate.weight", {hidden, dim}, Role::kMatrix});
    tensors.push_back({block + "ffn_up.weight", {hidden, dim}, Role::kMatrix});
    tensors.push_back({block + "ffn_down.weight", {dim, hidden}, Role::kMatrix});
  }
  return tensors;
}

// x += attention(norm(x)); x += feed_forward(norm(x)).
void layer(const LayerWeights& w, size_t index, LayerContext& c) {
  const HParams& h = c.hparams;
  const AttentionShape shape{h.n_heads, h.n_kv_heads, h.head_dim, h.rotary_dim, h.window};

  c.device.rms_norm(c.x, 0, c.n, *w.attn_norm, h.rms_eps, c.h);
  const std::array<Device::Product, 3> qkv{{{w.wq.get(), &c.q}, {w.wk.get(), &c.k}, {w.wv.get(), &c.v}}};
  c.device.matmul(c.h, c.n, qkv, /*add=*/false);
  const size_t stored =
      c.device.rope_and_store(shape, index, c.position, c.n, c.cos_sin, c.q, c.k, c.v, c.cache);
  if (stored < c.n)
    fail(ErrorCode::kIntegrity,
         "NaN in the keys or values of layer {} at position {}; the weights may be damaged", index,
         c.position + stored);
  c.device.attention(shape, index, c.position, c.n, c.q, c.cache, c.attention_out);
  const std::array<Device::Product, 1> out{{{w.wo.get(), &c.x}}};
  c.device.matmul(c.attention_out, c.n, out, /*add=*/true);

  c.device.rms_norm(c.x, 0, c.n, *w.ffn_norm, h.rms_eps, c.h);
  const std::array<Device::Product, 2> gate_up{{{w.w_gate.get(), &c.gate}, {w.w_up.get(), &c.up}}};
  c.device.matmul(c.h, c.n, gate_up, /*add=*/false);
  c.device.swiglu(c.gate, c.up, c.n);
  const std::array<Device::Product, 1> down{{{w.w_down.get(), &c.x}}};
  c.device.matmul(c.gate, c.n, down, /*add=*/true);
}

}  // namespace

const Architecture kLlamaArchitecture{"llama", read_hparams, declare_tensors, layer};

}  // namespace quern
