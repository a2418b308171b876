// How one kind of checkpoint becomes a GGUF file: its keys and its tensors, said once (models/*.cc).
//
// Names and keys are the field's: gguf-py's constants.py and llama.cpp's converter say which.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "convert/config_file.h"
#include "convert/hf_config.h"
#include "convert/tensor_names.h"
#include "quant/gguf.h"

namespace quern {

// Filled by a row's describe(). Reading a key of the configuration through `config` says that it is
// supported.
class ModelExport {
 public:
  // architecture: GGUF's name, which its keys begin with. config and sizes must outlive it.
  ModelExport(const ConfigFile& config_file, const ModelConfig& model_config)
      : config(config_file), sizes(model_config) {}

  const ConfigFile& config;
  const ModelConfig& sizes;

  // --- keys, below "<architecture>." ---
  // Names the architecture and writes the sizes that all have; epsilon: "attention.layer_norm_rms_epsilon",
  // ...
  void begin(std::string_view architecture, std::string_view epsilon = kRms);
  void u32(std::string_view key, uint64_t value) {
    metadata_.set_u32(full(key), static_cast<uint32_t>(value));
  }
  void f32(std::string_view key, double value) { metadata_.set_f32(full(key), static_cast<float>(value)); }
  void boolean(std::string_view key, bool value) { metadata_.set_bool(full(key), value); }
  void string(std::string_view key, std::string_view value) { metadata_.set_string(full(key), value); }
  void bools(std::string_view key, const std::vector<bool>& values) {
    metadata_.set_bools(full(key), values);
  }
  // "quern.<key>", which other programs do not know.
  void u32_of_quern(std::string_view key, uint64_t value);
  void f32_of_quern(std::string_view key, double value);

  static constexpr std::string_view kRms = "attention.layer_norm_rms_epsilon";
  static constexpr std::string_view kLayer = "attention.layer_norm_epsilon";

  // rope_parameters or rope_scaling, partial_rotary_factor, and what follows from them: keys, rope_freqs,
  // rope_factors_*. Returns the rotary dimension.
  struct RopeRules {
    std::string_view layer_type = {};  // "full_attention": where parameters stand apart for kinds of layers
    bool partial = false;              // a part of a head may be rotated
    double default_partial = 1;
    bool longrope = false;
    bool yarn_log_multiplier = false;  // mscale_all_dim is written
    bool latents = false;              // likewise, as attention over latents has it
    bool sections = false;             // images turn by several positions: for text all are the same
    uint32_t rotary_dim = 0;           // 0: that of a head
    bool truncate = true;              // what YaRN's "truncate" must be
  };
  uint32_t rope(const RopeRules& rules);
  // The layers whose layer_types is sliding_attention, and the window; nothing where there is none.
  // default_period: every so many layers one has none, which needs no saying. names_period: without
  // layer_types, sliding_window_pattern says how many.
  std::vector<bool> window_layers(uint32_t default_period, bool names_period = false);
  // hidden_act, hidden_activation or activation_function must be one of these.
  void require_activation(std::initializer_list<std::string_view> names);
  void require(std::string_view key, bool value, bool fallback);  // must be `value`
  std::optional<double> number(std::string_view key) const;       // absent: nothing

  // --- tensors ---
  struct Size {
    uint64_t value;
    std::string words;  // in the configuration's keys
  };
  Size dim, hidden, query, key_value, vocab, head;
  uint32_t n_layers() const { return sizes.n_layers; }

  // The same name with ".weight" put behind both, of the model and of layer `layer` ("model.layers.N.").
  void matrix(std::string_view source, std::string_view gguf, const Size& rows, const Size& columns);
  void vector(std::string_view source, std::string_view gguf, const Size& n);
  // With ".bias", where the checkpoint has one.
  void bias(std::string_view source, std::string_view gguf, const Size& n);
  // Rows as the rotation of GGUF's neighbouring pairs wants them: of the last matrix and bias declared.
  void permute_last(uint32_t n_heads);
  // The last one is changed as it is written.
  void change_last(TensorMaker make, Shape source_shape);
  void add_one_to_last();
  void change_norm_of_ends(const TensorMaker& make);
  // One tensor of several, one above the other.
  void stack(const std::vector<std::string>& sources, std::string_view gguf, const Size& n, const Size& rows,
             const Size& columns);
  // Anything else: full names.
  void made(std::vector<std::string> sources, Shape source_shape, std::string gguf, Shape shape,
            TensorMaker make);
  // The same of sources that hold bytes, each with its shape.
  void made_of_bytes(std::vector<std::string> sources, std::vector<Shape> shapes, std::string gguf,
                     Shape shape, TensorMaker make);
  void computed(std::string gguf, std::vector<float> values);
  void layer(std::optional<uint32_t> index) { layer_ = index; }
  // "model.", and what layers are called: "model.layers.".
  void prefixes(std::string model, std::string layers) {
    model_prefix_ = std::move(model);
    layers_prefix_ = std::move(layers);
  }
  std::string source_name(std::string_view name) const;
  std::string gguf_name(std::string_view name) const;

  // token_embd, output_norm, output.
  void ends(std::string_view norm = "norm", std::string_view gguf_norm = "output_norm");
  // What most have, of every layer: attn_q, attn_k, attn_v, attn_output, and biases; permuted for GGUF's
  // neighbouring pairs. values_are_keys: without attn_v.
  void attention(bool permuted, bool values_are_keys = false);
  void head_norms();
  void gated_feed_forward(std::string_view module = "mlp");
  // Experts of three matrices each, "<module>.experts.N.<gate, up, down>".
  void experts(std::string_view module, uint64_t n_experts, const Size& rows,
               const std::vector<std::string>& names = {"gate_proj", "up_proj", "down_proj"});
  // One more that all rows go through, "<module>.<gate, up, down>_proj".
  void shared_expert(std::string_view module, const Size& rows);

  GgufMetadata& metadata() { return metadata_; }
  std::vector<DeclaredTensor> take_tensors() { return std::move(tensors_); }
  const std::string& architecture() const { return architecture_; }

 private:
  std::string full(std::string_view key) const { return architecture_ + "." + std::string(key); }
  void sections(std::string_view where, const Json* given, uint32_t n_pairs);
  DeclaredTensor& add(std::string source, std::string gguf, const std::vector<Size>& shape);

  std::string architecture_;
  GgufMetadata metadata_;
  std::vector<DeclaredTensor> tensors_;
  std::optional<uint32_t> layer_;
  std::string model_prefix_ = "model.", layers_prefix_ = "model.layers.";
};

// What a kind of checkpoint takes for a key that its configuration leaves out, in JSON: what transformers'
// class of that name does. Only those that differ from what the code takes of itself.
struct KeyDefault {
  std::string_view key, value;
};

// One kind of checkpoint.
struct CheckpointModel {
  std::string_view architecture, model_type;  // config.json's
  bool has_window = false;                    // all layers' attention has sliding_window
  bool tied_by_default = false;
  void (*describe)(ModelExport& out) = nullptr;
  std::span<const KeyDefault> defaults = {};
};
std::span<const CheckpointModel> checkpoint_models() noexcept;

}  // namespace quern
