// A model that is loaded and ready: weights on a device, hyper-parameters, tokenizer. Immutable and shared by
// sessions.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/device.h"
#include "quant/gguf_reader.h"
#include "quant/mapped_file.h"
#include "quant/read_ahead.h"
#include "runtime/hparams.h"
#include "runtime/tokenizer.h"

namespace quern {

struct Architecture;

struct LayerWeights {
  std::unique_ptr<DeviceBuffer> attn_norm, ffn_norm;  // [1, dim]
  std::unique_ptr<DeviceMatrix> wq;                   // [n_heads * head_dim, dim]
  std::unique_ptr<DeviceMatrix> wk, wv;               // [n_kv_heads * head_dim, dim]
  std::unique_ptr<DeviceMatrix> wo;                   // [dim, n_heads * head_dim]
  std::unique_ptr<DeviceMatrix> w_gate, w_up;         // [hidden_dim, dim]
  std::unique_ptr<DeviceMatrix> w_down;               // [dim, hidden_dim]
};

inline constexpr uint64_t kMaxContext = uint64_t{1} << 24;  // positions

struct ModelOptions {
  std::string isa;       // empty: automatic (dispatch.h)
  int n_threads = 0;     // 0: automatic (cpu_features.h)
  uint64_t context = 0;  // positions of the session's cache, up to kMaxContext; 0: min(trained, 4096)
  std::string context_option = "--ctx";  // what sets it, as it stands in messages before the number
  KvType kv = KvType::kF16;
  std::optional<bool> check_tensors;  // default: files below 64 MiB
  bool allow_mmap = true;
};

class Model {
 public:
  // Opens, checks, plans memory (kResource with what would fit, before anything large is allocated), loads.
  // `notice` receives the automatic choices and warnings, a line each.
  static std::unique_ptr<Model> load(const std::string& path, const ModelOptions& options,
                                     const Notice& notice);
  ~Model();

  const HParams& hparams() const { return hparams_; }
  const Architecture& architecture() const { return *architecture_; }
  const GgufReader& gguf() const { return *gguf_; }
  Device& device() const { return *device_; }
  int n_threads() const { return n_threads_; }
  const KernelSet& kernels() const { return *kernels_; }
  uint64_t context() const { return context_; }
  KvType kv_type() const { return kv_; }
  double load_seconds() const { return load_seconds_; }

  bool has_tokenizer() const { return tokenizer_.has_value(); }
  // Throws kMalformed for a file without a vocabulary ("use --ids").
  const Tokenizer& tokenizer() const;

  uint64_t weight_bytes() const { return weight_bytes_; }  // sum of the tensors' bytes in the file
  uint64_t n_params() const { return n_params_; }
  // Bytes read per decoded token: every tensor that is multiplied, once.
  uint64_t bytes_per_token() const;
  // A part of the mapped file that products read where it is, the longest without a tensor that is only
  // gathered (vectors and padding may lie in it); empty where the file is not mapped or a matrix is read from
  // a copy. Lives as long as the model.
  std::span<const uint8_t> mapped_weights() const { return mapped_weights_; }
  // Multiply-adds per prefilled token: the layers' matrices; neither attention nor the output matrix.
  uint64_t macs_per_token() const;

  // Weights, for the architecture's forward pass.
  std::unique_ptr<DeviceMatrix> token_embd;  // [vocab_size, dim]
  std::unique_ptr<DeviceBuffer> output_norm;
  std::unique_ptr<DeviceMatrix> output;  // [vocab_size, dim]; null: tied, token_embd serves
  std::vector<LayerWeights> layers;

  const DeviceMatrix& output_matrix() const { return output ? *output : *token_embd; }

 private:
  Model() = default;
  friend class ModelLoader;

  std::unique_ptr<MappedFile> file_;
  std::unique_ptr<GgufReader> gguf_;
  std::unique_ptr<Device> device_;
  const KernelSet* kernels_ = nullptr;
  const Architecture* architecture_ = nullptr;
  HParams hparams_;
  std::optional<Tokenizer> tokenizer_;
  int n_threads_ = 1;
  uint64_t context_ = 0;
  KvType kv_ = KvType::kF16;
  double load_seconds_ = 0;
  uint64_t weight_bytes_ = 0, n_params_ = 0;
  std::span<const uint8_t> mapped_weights_;
  std::optional<ReadAhead> read_ahead_;  // of mapped_weights_
};

}  // namespace quern
