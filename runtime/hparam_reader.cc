#include "runtime/hparam_reader.h"

#include <algorithm>
#include <iterator>
#include <optional>

#include "kernels/kernel_set.h"

namespace quern {
namespace {

// Keys that writers add where an architecture has no use for them: with `harmless` as their value they ask
// for nothing.
struct IdleKey {
  std::string_view key;
  std::optional<double> harmless;  // empty: any value
};
constexpr IdleKey kIdleKeys[] = {
    {"attention.layer_norm_epsilon", {}},  // of norms that have a mean too; ollama's writer adds it
    {"attention.max_alibi_bias", 0.0},
    {"attention.clamp_kqv", 0.0},
    {"attn_logit_softcapping", 0.0},
    {"final_logit_softcapping", 0.0},
    {"leading_dense_block_count", 0.0},
    {"use_parallel_residual", 0.0},
    {"logit_scale", 1.0},
    {"residual_scale", 1.0},
    {"embedding_scale", 1.0},
    {"expert_count", 0.0},
    {"expert_used_count", {}},
    {"expert_shared_count", 0.0},
    {"expert_feed_forward_length", {}},  // of experts that there are not
    {"attention.sliding_window", 0.0},
};

}  // namespace

const GgufValue* HParamReader::find(std::string_view key) {
  return gguf_.find(*read_.insert(full(key)).first);
}

uint32_t HParamReader::require_uint(std::string_view key, uint64_t min, uint64_t max) {
  return static_cast<uint32_t>(gguf_.require_uint(*read_.insert(full(key)).first, min, max));
}

uint32_t HParamReader::uint_or(std::string_view key, uint64_t fallback, uint64_t min, uint64_t max) {
  return static_cast<uint32_t>(gguf_.uint_or(*read_.insert(full(key)).first, fallback, min, max));
}

double HParamReader::require_float(std::string_view key) {
  return gguf_.require_float(*read_.insert(full(key)).first);
}

double HParamReader::float_or(std::string_view key, double fallback) {
  return gguf_.float_or(*read_.insert(full(key)).first, fallback);
}

double HParamReader::float_or_zero(std::string_view key, double fallback) {
  const GgufValue* value = find(key);
  return value != nullptr && number_of(*value) == 0.0 ? 0.0 : float_or(key, fallback);
}

bool HParamReader::bool_or(std::string_view key, bool fallback) {
  return gguf_.bool_or(*read_.insert(full(key)).first, fallback);
}

std::string_view HParamReader::string_or(std::string_view key, std::string_view fallback) {
  return gguf_.string_or(*read_.insert(full(key)).first, fallback);
}

std::vector<uint32_t> HParamReader::uints_per_layer(std::string_view key, uint32_t n_layers, uint64_t min,
                                                    uint64_t max) {
  const GgufValue* value = find(key);
  if (value == nullptr || value->type != GgufType::kArray)
    return std::vector<uint32_t>(n_layers, require_uint(key, min, max));
  const auto numbers = value->as_integers();
  if (!numbers || numbers->size() != n_layers)
    refuse(key, fmt::format("expected one number, or an array of {} integers (one for each layer), found {} "
                            "values of {}",
                            n_layers, value->count, to_string(value->element_type)));
  std::vector<uint32_t> out;
  for (const int64_t number : *numbers) {
    if (number < static_cast<int64_t>(min) || number > static_cast<int64_t>(max))
      refuse(key, fmt::format("expected numbers from {} to {}, found {}", min, max, number));
    out.push_back(static_cast<uint32_t>(number));
  }
  return out;
}

uint32_t HParamReader::same_for_layers(std::string_view key, uint32_t n_layers, uint64_t min, uint64_t max) {
  const std::vector<uint32_t> numbers = uints_per_layer(key, n_layers, min, max);
  for (const uint32_t number : numbers)
    if (number != numbers.front())
      refuse(key, fmt::format("layers that differ ({} and {}) are not supported", numbers.front(), number));
  return numbers.front();
}

void HParamReader::ignore(std::initializer_list<std::string_view> keys) {
  for (const std::string_view key : keys) read_.insert(full(key));
}

void HParamReader::refuse(std::string_view key, const std::string& problem) const {
  gguf_.refuse(fmt::format("{}: {}", full(key), problem));
}

void HParamReader::refuse_unread() const {
  for (const GgufReader::KeyValue& pair : gguf_.metadata()) {
    if (!pair.key.starts_with(prefix_) || read_.contains(std::string(pair.key))) continue;
    const std::string_view key = pair.key.substr(prefix_.size());
    const std::optional<double> number = number_of(pair.value);
    const bool is_idle = std::any_of(std::begin(kIdleKeys), std::end(kIdleKeys), [&](const IdleKey& row) {
      return row.key == key && (!row.harmless || row.harmless == number);
    });
    if (!is_idle)
      gguf_.refuse(fmt::format("{}: unknown hyper-parameter; it may change what the model computes",
                               printable(pair.key)));
    note(fmt::format("{} is ignored: it changes nothing in a {}", pair.key, architecture()));
  }
}

std::optional<double> number_of(const GgufValue& value) {
  if (const auto boolean = value.as_bool()) return *boolean ? 1.0 : 0.0;
  if (const auto integer = value.as_int()) return static_cast<double>(*integer);
  return value.as_float();
}

namespace {

// What only describes the file is left out, with a notice, where it is of another type.
void read_description(const HParamReader& keys, HParams* h) {
  const auto ignore = [&](std::string_view key, const GgufValue& value, std::string_view expected) {
    keys.note(fmt::format("{} is of type {}, expected {}: ignored", key, to_string(value.type), expected));
  };
  if (const GgufValue* name = keys.gguf().find("general.name")) {
    if (const auto text = name->as_string())
      h->name = *text;
    else
      ignore("general.name", *name, "a string");
  }
  if (const GgufValue* type = keys.gguf().find("general.file_type")) {
    if (const auto id = type->as_uint(); id && *id <= UINT32_MAX)
      h->file_type = static_cast<uint32_t>(*id);
    else
      ignore("general.file_type", *type, "a number of 32 bits");
  }
}

}  // namespace

HParams read_model_sizes(HParamReader& keys, std::string_view epsilon) {
  const GgufReader& gguf = keys.gguf();
  // Informational, stated by the tensors' shapes, or of embeddings alone (engine/embedding.h).
  keys.ignore({"tensor_data_layout", "rope.scaling.finetuned", "pooling_type"});
  if (!keys.bool_or("attention.causal", true))
    keys.refuse("attention.causal", "is false: only causal attention is supported");
  HParams h;
  h.architecture = std::string(keys.architecture());
  read_description(keys, &h);
  h.n_layers = keys.require_uint("block_count", 1, kMaxLayers);
  h.dim = keys.require_uint("embedding_length", 1, kMaxDim);
  h.context_length = keys.require_uint("context_length", 1, kMaxTokens);
  h.norm_eps = static_cast<float>(keys.require_float(epsilon));

  const TensorView* embedding = gguf.find_tensor("token_embd.weight");
  if (embedding == nullptr) gguf.refuse("tensor token_embd.weight is missing");
  if (without_outer_ones(embedding->shape, 2).size() != 2 || embedding->columns() != h.dim ||
      embedding->rows() > kMaxTokens)
    gguf.refuse(fmt::format("tensor token_embd.weight: expected shape [vocabulary, {}], found {}", h.dim,
                            to_string(embedding->shape)));
  h.vocab_size = static_cast<uint32_t>(embedding->rows());
  const uint64_t stated = keys.uint_or("vocab_size", h.vocab_size, 0, UINT32_MAX);
  if (stated != h.vocab_size)
    keys.note(fmt::format("warning: {} is {}, but token_embd.weight has {} rows; the tensor decides",
                          keys.full("vocab_size"), stated, h.vocab_size));
  return h;
}

void read_head_sizes(HParamReader& keys, HParams* h, std::vector<bool>* attends,
                     std::vector<uint32_t>* kv_heads) {
  h->n_heads = keys.same_for_layers("attention.head_count", h->n_layers, 1, kMaxHeads);
  const std::string_view kv_key = "attention.head_count_kv", dim_key = "attention.key_length";
  h->n_kv_heads = h->n_heads;
  if (attends != nullptr) {
    attends->assign(h->n_layers, true);
    if (keys.has(kv_key)) {
      const std::vector<uint32_t> counts = keys.uints_per_layer(kv_key, h->n_layers, 0, kMaxHeads);
      const auto some = std::find_if(counts.begin(), counts.end(), [](uint32_t n) { return n != 0; });
      if (some == counts.end()) keys.refuse(kv_key, "no layer has KV heads");
      h->n_kv_heads = *some;
      for (size_t i = 0; i < counts.size(); ++i) {
        if (counts[i] != 0 && counts[i] != *some)
          keys.refuse(kv_key,
                      fmt::format("layers that differ ({} and {}) are not supported", *some, counts[i]));
        (*attends)[i] = counts[i] != 0;
      }
    }
  } else if (keys.has(kv_key) && kv_heads == nullptr) {
    h->n_kv_heads = keys.same_for_layers(kv_key, h->n_layers, 1, kMaxHeads);
  }
  if (kv_heads != nullptr) {
    *kv_heads = keys.has(kv_key) ? keys.uints_per_layer(kv_key, h->n_layers, 1, kMaxHeads)
                                 : std::vector<uint32_t>(h->n_layers, h->n_heads);
    h->n_kv_heads = *std::max_element(kv_heads->begin(), kv_heads->end());
    for (const uint32_t n : *kv_heads)
      if (h->n_heads % n != 0)
        keys.refuse(kv_key, fmt::format("expected divisors of head_count ({}), found {}", h->n_heads, n));
  }
  if (h->n_heads % h->n_kv_heads != 0)
    keys.refuse(kv_key,
                fmt::format("expected a divisor of head_count ({}), found {}", h->n_heads, h->n_kv_heads));
  if (!keys.has(dim_key) && h->dim % h->n_heads != 0)
    keys.refuse("attention.head_count",
                fmt::format("{} does not divide embedding_length {}, and there is no {}", h->n_heads, h->dim,
                            keys.full(dim_key)));
  const uint64_t head_dim = keys.uint_or(dim_key, h->dim / h->n_heads, 1, kMaxHeadDim);
  if (head_dim > kMaxHeadDim)
    keys.refuse("attention.head_count",
                fmt::format("{} heads of embedding_length {} have {} dimensions, at most {} are supported",
                            h->n_heads, h->dim, head_dim, kMaxHeadDim));
  const uint64_t value_dim = keys.uint_or("attention.value_length", head_dim, 1, kMaxHeadDim);
  if (value_dim != head_dim)
    keys.refuse("attention.value_length",
                fmt::format("{} differs from key_length {}: not supported", value_dim, head_dim));
  if (head_dim % 2 != 0) keys.refuse(dim_key, fmt::format("expected an even number, found {}", head_dim));
  const std::string_view other_key = "attention.head_dim";  // what ollama's writer calls it
  if (const uint64_t other = keys.uint_or(other_key, head_dim, 0, UINT32_MAX); other != head_dim)
    keys.refuse(other_key, fmt::format("{} differs from the {} dimensions that the other keys give a head",
                                       other, head_dim));
  h->head_dim = static_cast<uint32_t>(head_dim);
}

HParams read_common_hparams(HParamReader& keys, std::string_view epsilon, std::vector<bool>* attends,
                            std::vector<uint32_t>* hidden_dims, std::vector<uint32_t>* kv_heads) {
  HParams h = read_model_sizes(keys, epsilon);
  const std::string_view hidden_key = "feed_forward_length";
  if (hidden_dims == nullptr) {
    h.hidden_dim = keys.same_for_layers(hidden_key, h.n_layers, 1, kMaxDim);
  } else {
    *hidden_dims = keys.uints_per_layer(hidden_key, h.n_layers, 1, kMaxDim);
    h.hidden_dim = *std::max_element(hidden_dims->begin(), hidden_dims->end());
  }
  read_head_sizes(keys, &h, attends, kv_heads);
  return h;
}

}  // namespace quern
