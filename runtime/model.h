// A model that is loaded and ready: weights on a device, hyper-parameters, tokenizer. Immutable and shared by
// sessions.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/cuda/cuda_device.h"
#include "kernels/device.h"
#include "quant/gguf_reader.h"
#include "quant/read_ahead.h"
#include "quant/tensor_source.h"
#include "runtime/memory_plan.h"
#include "runtime/network.h"
#include "runtime/placement.h"
#include "runtime/tokenizer/tokenizer.h"

namespace quern {

inline constexpr uint64_t kMaxContext = uint64_t{1} << 24;  // positions

struct ModelOptions {
  std::string isa;               // empty: automatic (dispatch.h)
  int n_threads = 0;             // 0: automatic (cpu_count.h)
  uint64_t context = 0;          // positions of the session's cache, up to kMaxContext; 0: min(trained, 4096)
  bool trained_context = false;  // where context is 0: as many as the model was trained on
  std::string context_option = "--ctx";  // what sets it, as it stands in messages before the number
  KvType kv = KvType::kF16;
  // For what recurrent states were at earlier positions, so that a sequence may go back to these; default: a
  // quarter of the cache's keys and values. Models without such states take nothing.
  std::optional<uint64_t> state_bytes;
  std::optional<bool> check_tensors;  // default: files below 64 MiB
  bool allow_mmap = true;
  // Weights that are used in a mapped file may be more than the memory that is there: they are then read from
  // the disk again for every token, of which `notice` is told with the time that takes.
  bool larger_than_memory = false;
  bool lock_memory = false;  // what was loaded stays in memory (quant/machine/memory.h)
  // Bytes that are available but promised to somebody else, as another model's sessions.
  uint64_t promised_bytes = 0;
  // GPUs that layers may go to (kernels/cuda/gpu_list.h), and how many of the last layers do; nothing: as
  // many as fit, with the caches of so many sequences.
  std::string gpu = "none";
  std::optional<uint64_t> gpu_layers;
  uint64_t n_sequences = 1;
  bool state_memory = false;  // a notice of what the model and a session will take, before it is loaded
  std::string pre_tokenizer;  // a name of quant/pre_tokenizer.h; empty: what the file says
  // Makes the device that the model runs on; empty: a CPU device of these kernels and threads.
  std::function<std::unique_ptr<Device>(const KernelSet& kernels, int n_threads, const Notice& notice)>
      make_device;
  // While weights are loaded, by the calling thread: bytes of matrices that are ready, and of all. May be
  // null.
  std::function<void(uint64_t done, uint64_t total)> on_progress;
};

// What of a model is on GPUs.
struct GpuShare {
  std::vector<std::string> names;    // of the GPUs
  std::vector<std::string> drivers;  // their versions; empty: none
  std::vector<GpuRoom> rooms;        // before the model was there
  Placement placement;
};

// What a model would take and give on this machine, known without loading it.
struct ModelSurvey {
  std::string architecture;
  std::string ids_only;  // as Model::check() says
  uint64_t n_params = 0, weight_bytes = 0;
  uint64_t trained_context = 0, context = 0;  // context: as Model::context() would be
  MemoryPlan memory;                          // with that context
  uint64_t available_bytes = 0;
  uint64_t fitting_context = 0;  // the largest that fits, at most trained_context; 0: none
  // Of one token: bytes of matrices that are read, and of a full cache; multiply-adds of the layers'
  // matrices.
  uint64_t bytes_per_token = 0, kv_bytes = 0, macs_per_token = 0;
  int n_threads = 1;
  const KernelSet* kernels = nullptr;
  GpuShare gpu;
};

class Model {
 public:
  // Opens, checks, plans memory (kResource with what would fit, before anything large is allocated), loads.
  // `notice` receives the automatic choices and warnings, a line each.
  static std::unique_ptr<Model> load(const std::string& path, const ModelOptions& options,
                                     const Notice& notice);
  // The same of another source, which the model keeps. options.allow_mmap does not matter.
  static std::unique_ptr<Model> load(std::unique_ptr<TensorSource> source, const ModelOptions& options,
                                     const Notice& notice);
  // The same without memory and weights: throws what load() throws for a file that does not run, nothing for
  // one that does not fit.
  static ModelSurvey survey(const std::string& path, const ModelOptions& options, const Notice& notice);
  // Throws what load() throws before it looks at this machine: does the file run at all? Says why only on
  // token ids, without the file's name; empty: on text too.
  static std::string check(const std::string& path, const ModelOptions& options);
  ~Model();

  const HParams& hparams() const { return network_->hparams(); }
  const Network& network() const { return *network_; }
  const Declarations& parts() const { return *parts_; }
  const GgufReader& gguf() const { return source_->gguf(); }
  // Where the weights came from, for who needs their bytes once more.
  TensorSource& source() const { return *source_; }
  // Null where tensors are not in mapped files.
  const GgufFiles* mapped_files() const { return source_->mapped_files(); }
  Device& device() const { return *device_; }
  int n_threads() const { return n_threads_; }
  const KernelSet& kernels() const { return *kernels_; }
  uint64_t context() const { return context_; }
  // The cache of one sequence.
  const KvShape& kv_shape() const { return kv_shape_; }
  double load_seconds() const { return load_seconds_; }

  bool has_tokenizer() const { return tokenizer_ != nullptr; }
  // Throws kMalformed for a file without a vocabulary, or with one of no known kind ("use --ids").
  const Tokenizer& tokenizer() const;

  uint64_t weight_bytes() const { return weight_bytes_; }  // sum of the tensors' bytes in the file
  uint64_t n_params() const { return n_params_; }
  // Bytes read per decoded token: every tensor that is multiplied, once; of experts those that are chosen.
  uint64_t bytes_per_token() const;
  // The longest part of the mapped file of which every token reads all: a run of multiplied matrices that are
  // used where they lie, with the small tensors and the padding between them, but no embedding, of which a
  // token reads one row. What a plain read of the same bytes takes is the least that a token can take. Empty
  // where the file is not mapped, or where a matrix was copied into another layout. Lives as long as the
  // model.
  std::span<const uint8_t> mapped_weights() const { return mapped_weights_; }
  // What the model and one session were expected to take of the host's memory when the model was loaded.
  const MemoryPlan& memory_plan() const { return memory_plan_; }
  const GpuShare& gpu() const { return gpu_; }
  // Multiply-adds per prefilled token: the layers' matrices; neither attention nor the output matrix.
  uint64_t macs_per_token() const;
  // Those among them that a row is spared which the last layer drops (Engine::rows_dropped).
  uint64_t macs_per_dropped_row() const;

 private:
  Model() = default;
  friend class ModelLoader;  // model_loader.cc

  uint64_t layer_bytes_per_token() const;  // of the layers' matrices

  std::unique_ptr<TensorSource> source_;
  std::unique_ptr<Device> device_;
  const KernelSet* kernels_ = nullptr;
  std::unique_ptr<Network> network_;
  std::unique_ptr<Declarations> parts_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::string no_text_;  // why there is none
  int n_threads_ = 1;
  uint64_t context_ = 0;
  KvShape kv_shape_;
  double load_seconds_ = 0;
  uint64_t weight_bytes_ = 0, n_params_ = 0;
  MemoryPlan memory_plan_;
  GpuShare gpu_;
  std::span<const uint8_t> mapped_weights_;
  std::optional<ReadAhead> read_ahead_;  // of the parts of all files that are used where they are
};

}  // namespace quern
