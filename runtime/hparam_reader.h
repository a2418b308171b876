// Access to the keys of one architecture ("llama.block_count") that remembers what was asked for: a key that
// nobody reads might change what the model computes, so it is refused by name. A model that runs and answers
// slightly wrong is the worst outcome.
//
// Functions throw kMalformed naming the whole key, what was expected and what was found. Not thread-safe.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "quant/error.h"
#include "quant/gguf_reader.h"
#include "runtime/hparams.h"

namespace quern {

// The largest of each that a file may state; beyond lies damage, not a model.
inline constexpr uint64_t kMaxLayers = 512, kMaxDim = uint64_t{1} << 20, kMaxHeads = uint64_t{1} << 16;
inline constexpr uint64_t kMaxTokens = uint64_t{1} << 24;  // of a vocabulary or a trained context

class HParamReader {
 public:
  // gguf must outlive it. Keys are given without "<architecture>." in front.
  HParamReader(const GgufReader& gguf, std::string_view architecture, const Notice& notice)
      : gguf_(gguf), prefix_(std::string(architecture) + "."), notice_(notice) {}

  const GgufReader& gguf() const { return gguf_; }
  std::string_view architecture() const { return std::string_view(prefix_).substr(0, prefix_.size() - 1); }
  std::string full(std::string_view key) const { return prefix_ + std::string(key); }

  bool has(std::string_view key) { return find(key) != nullptr; }
  const GgufValue* find(std::string_view key);
  uint32_t require_uint(std::string_view key, uint64_t min, uint64_t max);
  uint32_t uint_or(std::string_view key, uint64_t fallback, uint64_t min, uint64_t max);
  double require_float(std::string_view key);
  double float_or(std::string_view key, double fallback);
  double float_or_zero(std::string_view key, double fallback);  // one that may be 0: of no effect
  bool bool_or(std::string_view key, bool fallback);
  std::string_view string_or(std::string_view key, std::string_view fallback);
  // One number for all layers, or an array with one for each: [n_layers].
  std::vector<uint32_t> uints_per_layer(std::string_view key, uint32_t n_layers, uint64_t min, uint64_t max);
  // The number that all layers share; refuses arrays whose numbers differ.
  uint32_t same_for_layers(std::string_view key, uint32_t n_layers, uint64_t min, uint64_t max);

  // Keys that may be there and do not change what the model computes.
  void ignore(std::initializer_list<std::string_view> keys);
  // "<key>: <problem>".
  [[noreturn]] void refuse(std::string_view key, const std::string& problem) const;
  void refuse_unread() const;
  void note(const std::string& line) const {
    if (notice_) notice_(line);
  }

 private:
  const GgufReader& gguf_;
  std::string prefix_;
  const Notice& notice_;
  std::unordered_set<std::string> read_;
};

// A value that is a number, or a boolean as 0 or 1.
std::optional<double> number_of(const GgufValue& value);

// The sizes of a decoder whose layers have all the same: everything in HParams. `epsilon`: the norms' key,
// "attention.layer_norm_rms_epsilon" or "attention.layer_norm_epsilon".
// attends: null, or which layers have KV heads (attention.head_count_kv is not 0); null refuses others.
// hidden_dims: null, or feed_forward_length of each layer, the largest of which hidden_dim is; null likewise.
// kv_heads: null, or attention.head_count_kv of each layer, the largest of which n_kv_heads is; null
// likewise.
HParams read_common_hparams(HParamReader& keys, std::string_view epsilon,
                            std::vector<bool>* attends = nullptr,
                            std::vector<uint32_t>* hidden_dims = nullptr,
                            std::vector<uint32_t>* kv_heads = nullptr);
// The parts of it, for architectures whose layers differ: name, sizes of the model and the vocabulary.
HParams read_model_sizes(HParamReader& keys, std::string_view epsilon);
void read_head_sizes(HParamReader& keys, HParams* hparams, std::vector<bool>* attends = nullptr,
                     std::vector<uint32_t>* kv_heads = nullptr);

}  // namespace quern
