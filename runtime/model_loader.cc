// From a file, or another source of tensors, to a model: Model::load, survey and check.
#include "runtime/model.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>

#include "kernels/cpu_device.h"
#include "kernels/cuda/gpu_list.h"
#include "kernels/dispatch.h"
#include "quant/format_size.h"
#include "quant/machine/cpu_count.h"
#include "quant/machine/cpu_features.h"
#include "quant/machine/disk_rate.h"
#include "quant/machine/memory.h"
#include "quant/panel_layout.h"
#include "quant/quantize.h"
#include "quant/zero_tail.h"
#include "runtime/architecture.h"
#include "runtime/engine.h"
#include "runtime/matched_tensors.h"
#include "runtime/memory_plan.h"
#include "runtime/placement.h"

namespace quern {

namespace {

// Of a GPU's free memory what is left alone: its driver and other programs take some as they go.
constexpr uint64_t kGpuMargin = uint64_t{256} << 20, kGpuMarginShare = 16;

// Of each file, the longest stretch of memory from one multiplied matrix to another without a gathered one in
// between.
std::vector<std::span<const uint8_t>> longest_runs(
    std::vector<std::pair<const TensorView*, MatrixUse>> matrices, const GgufFiles& files) {
  std::sort(matrices.begin(), matrices.end(),
            [](const auto& a, const auto& b) { return a.first->data < b.first->data; });
  std::vector<std::span<const uint8_t>> longest(files.files().size());
  std::span<const uint8_t> run;
  size_t run_file = 0;
  for (const auto& [tensor, use] : matrices) {
    const size_t file = files.file_of(tensor->data);
    if (file != run_file || use == MatrixUse::kGather) run = {};
    run_file = file;
    if (use == MatrixUse::kGather) continue;
    run = {run.empty() ? tensor->data : run.data(), tensor->data + tensor->n_bytes};
    if (run.size() > longest[file].size()) longest[file] = run;
  }
  return longest;
}

}  // namespace

// Takes a model through its steps; each checks all that the next one relies on.
class ModelLoader {
 public:
  ModelLoader(const ModelOptions& options, const Notice& notice)
      : options_(options), notice_(notice), model_(new Model()) {}

  std::unique_ptr<TensorSource> open(const std::string& path) const;
  std::unique_ptr<Model> load(std::unique_ptr<TensorSource> source) {
    check(std::move(source));
    choose_context();
    choose_device();
    place_on_gpus();
    plan_memory();
    require_room();
    check_tensors();
    load_weights();
    model_->load_seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    if (options_.lock_memory) lock_memory(model_->memory_plan_.total());
    return std::move(model_);
  }

  // What concerns the file alone. Returns why only token ids work; empty: text does too.
  const std::string& check(std::unique_ptr<TensorSource> source) {
    model_->source_ = std::move(source);
    read_shape();
    tensors_ = MatchedTensors(*model_->source_, *model_->parts_, model_->hparams().architecture, notice_);
    model_->weight_bytes_ = tensors_.n_bytes();
    model_->n_params_ = tensors_.n_params();
    read_tokenizer();
    return model_->no_text_;
  }

  ModelSurvey survey(std::unique_ptr<TensorSource> source);

 private:
  const GgufReader& gguf() const { return model_->gguf(); }
  void note(const std::string& line) const {
    if (notice_) notice_(line);
  }

  void refuse_other_kinds() const;
  void read_shape();
  void check_quantization_version() const;
  void read_tokenizer();
  void choose_context();
  void choose_device();
  void place_on_gpus();
  std::vector<LayerBytes> layer_bytes(const cuda::CudaDevice& gpu, LayerBytes* output);
  void tell_of_gpus(const std::vector<LayerBytes>& layers) const;
  void enter(const TensorDeclaration& declaration) const;
  void plan_memory();
  void require_room() const;
  void tell_of_paging(uint64_t available) const;
  MemoryPlan session_memory(uint64_t context) const;
  void check_tensors();
  void load_weights();
  uint64_t tensor_bytes_per_token() const;
  KvShape kv_shape(uint64_t context) const;

  bool is_output(const TensorDeclaration& declaration) const;
  MatrixUse use_of(const TensorDeclaration& declaration) const;
  template <class Body>
  void for_matrices(const TensorDeclaration& declaration, Body&& body);
  void read_ahead(int layer) const;
  void load_tensor(const TensorDeclaration& declaration);

  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  const ModelOptions& options_;
  const Notice& notice_;
  std::unique_ptr<Model> model_;
  uint64_t loaded_bytes_ = 0;                          // of matrices that are ready
  std::vector<std::span<const uint8_t>> mapped_runs_;  // of each file; none where something is copied
  MatchedTensors tensors_;
};

std::unique_ptr<TensorSource> ModelLoader::open(const std::string& path) const {
  if (!options_.allow_mmap) {
    const uint64_t size = gguf_files_bytes(path), available = available_memory();
    if (size > available)
      fail(ErrorCode::kResource,
           "not enough memory to copy the file (--no-mmap): {} needed, {} available; leave --no-mmap out",
           format_size(size), format_size(available));
  }
  return std::make_unique<GgufFile>(path, options_.allow_mmap, notice_);
}

// GGUF files that are no models by themselves.
void ModelLoader::refuse_other_kinds() const {
  struct Kind {
    std::string_view type, architecture, advice;
  };
  constexpr Kind kKinds[] = {
      {"adapter", "",
       "an adapter (LoRA), which is not a model by itself: merge it into its base model and take that"},
      {"mmproj", "clip",
       "what a model sees and hears with (mmproj), and only text goes in: give the file of the model itself"},
      {"imatrix", "", "an importance matrix, not a model: quern convert --imatrix takes it"},
  };
  const auto text = [this](std::string_view key) {
    const GgufValue* value = gguf().find(key);
    return value == nullptr ? std::string_view() : value->as_string().value_or("");
  };
  for (const Kind& kind : kKinds)
    if (text("general.type") == kind.type ||
        (!kind.architecture.empty() && text("general.architecture") == kind.architecture))
      gguf().refuse(std::string(kind.advice));
  if (gguf().tensors().empty() && gguf().find("tokenizer.ggml.tokens") != nullptr)
    gguf().refuse("a vocabulary without weights, which quern tokenize reads");
}

void ModelLoader::read_shape() {
  refuse_other_kinds();
  check_quantization_version();
  const std::string_view name = gguf().require_string("general.architecture");
  const Architecture* architecture = find_architecture(name);
  if (architecture == nullptr) {
    std::string known;
    for (const Architecture& row : architectures())
      known += fmt::format("{}{}", known.empty() ? "" : ", ", row.name);
    gguf().refuse(fmt::format("unsupported architecture '{}' (supported: {})", printable(name), known));
  }
  HParamReader keys(gguf(), name, notice_);
  model_->network_ = architecture->make(keys);
  keys.refuse_unread();
  model_->parts_ = std::make_unique<Declarations>(gguf());
  model_->network_->declare(*model_->parts_);
}

// The version says how blocks are packed; floats have no blocks.
void ModelLoader::check_quantization_version() const {
  constexpr const char* key = "general.quantization_version";
  constexpr uint64_t kVersion = 2;
  const GgufValue* value = gguf().find(key);
  if (value == nullptr || value->as_uint() == kVersion) return;
  for (const TensorView& tensor : gguf().tensors())
    if (!block_format(tensor.dtype).is_float())
      gguf().refuse_value(key, fmt::format("{} where tensors are quantized ({} is {})", kVersion,
                                           printable(tensor.name), block_format(tensor.dtype).name));
  const std::optional<uint64_t> version = value->as_uint();
  note(fmt::format("{} is {} and ignored: no tensor is quantized", key,
                   version ? fmt::to_string(*version) : fmt::format("of type {}", to_string(value->type))));
}

void ModelLoader::read_tokenizer() {
  model_->no_text_ = has_no_vocabulary(gguf())
                         ? "this file has no vocabulary (tokenizer.ggml.model is no_vocab)"
                         : unknown_tokenizer(gguf(), options_.pre_tokenizer);
  if (model_->no_text_.empty())
    model_->tokenizer_ = make_tokenizer(
        read_vocabulary(gguf(), model_->hparams().vocab_size, notice_, options_.pre_tokenizer));
}

void ModelLoader::choose_context() {
  constexpr uint64_t kDefault = 4096;
  const uint64_t trained = model_->hparams().context_length;
  if (options_.context > kMaxContext)
    fail(ErrorCode::kUsage, "{} {}: expected at most {}", options_.context_option, options_.context,
         kMaxContext);
  if (const uint64_t most = model_->network_->most_context(); options_.context > most)
    fail(ErrorCode::kUsage, "{} {}: this model knows {} positions and none beyond", options_.context_option,
         options_.context, most);
  if (options_.context != 0) {
    model_->context_ = options_.context;
    if (model_->context_ > trained)
      note(fmt::format(
          "warning: {} {} is beyond the {} tokens that the model was trained on; answers may degrade",
          options_.context_option, model_->context_, trained));
  } else if (options_.trained_context) {
    model_->context_ = trained;
    note(fmt::format("context: {} tokens (as many as the model was trained on; override: --ctx)", trained));
  } else {
    model_->context_ = std::min({trained, kDefault, model_->network_->usual_context()});
    note(fmt::format("context: {} tokens (the model was trained on {}; override: --ctx)", model_->context_,
                     trained));
  }
  model_->kv_shape_ = kv_shape(model_->context_);
  for (const KvLayer& layer : model_->kv_shape_.layers)
    if (options_.kv == KvType::kQ8_0 && layer.head_dim % kKvGroup != 0)
      fail(ErrorCode::kUsage,
           "--kv q8_0: needs heads whose dimension is a multiple of {}, this model's is {}; --kv f16 works",
           kKvGroup, layer.head_dim);
}

// Layers with a window keep what it needs behind the first row of a micro-batch, and some positions more, so
// that a sequence may go back by these without work.
KvShape ModelLoader::kv_shape(uint64_t context) const {
  KvShape shape{{}, static_cast<size_t>(context), options_.kv};
  for (size_t i = 0; i < model_->hparams().n_layers; ++i) {
    const AttentionShape attention = model_->network_->attention(i);
    if (attention.n_kv_heads == 0) {  // none, or that of another layer
      shape.layers.push_back({.state_floats = model_->network_->state_floats(i)});
      continue;
    }
    const size_t kept = attention.window == 0 || attention.window >= context
                            ? 0
                            : attention.window + Engine::kMicroBatch + KvShape::kStateRows;
    shape.layers.push_back({attention.n_kv_heads, attention.head_dim, kept});
  }
  const uint64_t state = shape.state_bytes();
  if (state == 0) return shape;
  shape.state_slots = 0;
  const uint64_t budget = options_.state_bytes.value_or(shape.bytes() / 4);
  shape.state_slots =
      KvShape::kStateRows + std::min(budget / state, (context - 1) / Sequence::kSnapshotDistance);
  return shape;
}

void ModelLoader::choose_device() {
  model_->kernels_ = &select_kernel_set(options_.isa);
  const std::string reason = explain_kernel_set(*model_->kernels_, cpu_features());
  note(fmt::format("kernels: {} ({}{}override: --isa)", model_->kernels_->name, reason,
                   reason.empty() ? "" : "; "));
  const CpuCount cpus = count_cpus();
  if (options_.n_threads > 0) {
    model_->n_threads_ = options_.n_threads;
  } else {
    model_->n_threads_ = cpus.usable;
    note(fmt::format("threads: {} ({}; override: --threads)", cpus.usable, reason_of_usable(cpus)));
  }
  model_->device_ = options_.make_device
                        ? options_.make_device(*model_->kernels_, model_->n_threads_, notice_)
                        : make_cpu_device(*model_->kernels_, model_->n_threads_, notice_);
}

// Bytes that each layer, and the output, would take on a GPU.
std::vector<LayerBytes> ModelLoader::layer_bytes(const cuda::CudaDevice& gpu, LayerBytes* output) {
  const KvShape shape = kv_shape(model_->context_);
  std::vector<LayerBytes> layers(model_->hparams().n_layers);
  for (size_t i = 0; i < layers.size(); ++i) {
    KvShape alone = shape;
    for (size_t j = 0; j < alone.layers.size(); ++j)
      if (j != i) alone.layers[j] = {};
    if (!checked_mul(gpu.kv_bytes(alone), options_.n_sequences, &layers[i].cache))
      layers[i].cache = UINT64_MAX;
    if (shape.layers[i].state_floats != 0) layers[i].can_move = false;
  }
  for (const TensorDeclaration& declaration : model_->parts_->tensors()) {
    const TensorView* const found = tensors_.find(declaration.name);
    if (found == nullptr) continue;
    if (declaration.layer < 0 && !is_output(declaration)) continue;  // the host's
    LayerBytes& bytes = declaration.layer < 0 ? *output : layers[static_cast<size_t>(declaration.layer)];
    if (!declaration.is_matrix()) {
      bytes.weights += gpu.buffer_bytes(1, found->n_elements());
      continue;
    }
    if (!gpu.can_multiply(found->dtype) || tensors_.factors(declaration.name) != nullptr) {
      bytes.can_move = false;
      continue;
    }
    for_matrices(declaration, [&](const TensorView& view, Matrix*) {
      bytes.weights += gpu.matrix_memory(view, MatrixUse::kProduct).allocated;
    });
  }
  return layers;
}

void ModelLoader::place_on_gpus() {
  std::vector<std::unique_ptr<cuda::CudaDevice>> gpus = cuda::open_gpus(options_.gpu);
  const bool is_wanted = options_.gpu_layers.value_or(0) != 0;
  if (gpus.empty()) {
    if (is_wanted)
      fail(ErrorCode::kResource, "--gpu-layers: no GPU is there ({}); leave it out, or --gpu-layers 0",
           cuda::why_no_gpu(options_.gpu));
    return;
  }
  GpuShare& share = model_->gpu_;
  for (size_t g = 0; g < gpus.size(); ++g) {
    share.names.push_back(fmt::format("{}: {}", g, gpus[g]->name()));
    share.drivers.push_back(gpus[g]->driver());
    const uint64_t free = gpus[g]->free_memory(), total = gpus[g]->total_memory();
    share.rooms.push_back({free - std::min({free, kGpuMargin, total / kGpuMarginShare}),
                           Engine::scratch_bytes(*gpus[g], *model_->network_, *model_->parts_,
                                                 model_->context_, Engine::kMicroBatch)});
  }
  LayerBytes output;
  const std::vector<LayerBytes> layers = layer_bytes(*gpus.front(), &output);
  share.placement = place_layers(layers, output, share.rooms, options_.gpu_layers);
  if (!share.placement.fits)
    fail(ErrorCode::kResource,
         "not enough memory on the GPU for {} layers; fewer of them, a smaller --ctx or --gpu-layers auto "
         "would fit\n{}",
         share.placement.n_moved, placement_table(share.placement, share.rooms, share.names));
  tell_of_gpus(layers);
  if (share.placement.n_moved == 0) return;
  std::vector<std::unique_ptr<Device>> devices;
  devices.push_back(std::move(model_->device_));
  for (auto& gpu : gpus) devices.push_back(std::move(gpu));
  model_->device_ = make_split_device(std::move(devices), share.placement.places);
}

void ModelLoader::tell_of_gpus(const std::vector<LayerBytes>& layers) const {
  const GpuShare& share = model_->gpu_;
  const size_t n = layers.size(), n_moved = share.placement.n_moved;
  const auto n_movable = static_cast<size_t>(
      std::count_if(layers.begin(), layers.end(), [](const LayerBytes& layer) { return layer.can_move; }));
  std::string why;
  if (n_movable < n) why += fmt::format("{} have no kernels there; ", n - n_movable);
  if (!options_.gpu_layers && n_moved < n_movable) why += "more do not fit; ";
  uint64_t weights = 0, cache = 0, fixed = 0, free = 0;
  for (size_t g = 0; g < share.names.size(); ++g) {
    const Placement::Taken& taken = share.placement.taken[g];
    weights += taken.weights;
    cache += taken.cache;
    fixed += taken.fixed;
    free += share.rooms[g].free;
  }
  note(
      fmt::format("gpu: {} of {} layers on {} ({}weights {} + cache {} + buffers {} of {} free; override: "
                  "--gpu-layers)",
                  n_moved, n, fmt::join(share.names, ", "), why, format_size(weights), format_size(cache),
                  format_size(fixed), format_size(free)));
}

// What is loaded, or asked about, belongs where the tensor's layer is.
void ModelLoader::enter(const TensorDeclaration& declaration) const {
  model_->device_->enter_layer(declaration.layer >= 0   ? static_cast<size_t>(declaration.layer)
                               : is_output(declaration) ? model_->hparams().n_layers
                                                        : Device::kBeforeLayers);
}

bool ModelLoader::is_output(const TensorDeclaration& declaration) const {
  return declaration.role == TensorRole::kOutput ||
         (declaration.is_matrix() && use_of(declaration) == MatrixUse::kBoth);
}

MatrixUse ModelLoader::use_of(const TensorDeclaration& declaration) const {
  if (declaration.role != TensorRole::kEmbedding) return MatrixUse::kProduct;
  // The one that serves as the output where there is none.
  const bool tied = declaration.name == "token_embd.weight" && tensors_.find("output.weight") == nullptr;
  return tied ? MatrixUse::kBoth : MatrixUse::kGather;
}

// Calls body(view, matrix) for each matrix that a tensor holds; matrix: where it will be.
template <class Body>
void ModelLoader::for_matrices(const TensorDeclaration& declaration, Body&& body) {
  const TensorView& tensor = *tensors_.find(declaration.name);
  const std::vector<float>* const factors = tensors_.factors(declaration.name);
  const auto rows_with_factor = [&](uint64_t begin, uint64_t end, size_t i) {
    TensorView view = rows_of(tensor, begin, end);
    if (factors != nullptr) view.factor = (*factors)[i];
    return view;
  };
  for (const TensorPart& part : declaration.parts)
    body(rows_with_factor(part.begin, part.end, 0), part.matrix);
  if (declaration.experts == nullptr) return;
  const uint64_t n_experts = declaration.shape[0], rows = declaration.shape[1];
  declaration.experts->resize(n_experts);
  for (uint64_t i = 0; i < n_experts; ++i)
    body(rows_with_factor(i * rows, (i + 1) * rows, i), &(*declaration.experts)[i]);
}

void ModelLoader::plan_memory() {
  model_->device_->run_pass([] {});  // starts its threads: their stacks are no longer available
  MemoryPlan& plan = model_->memory_plan_;
  bool all_in_place = true;
  std::vector<std::pair<const TensorView*, MatrixUse>> matrices;
  for (const TensorDeclaration& declaration : model_->parts_->tensors()) {
    const TensorView* const found = tensors_.find(declaration.name);
    if (found == nullptr || !declaration.is_matrix()) continue;
    const MatrixUse use = use_of(declaration);
    enter(declaration);
    for_matrices(declaration, [&](const TensorView& view, Matrix*) {
      const MatrixMemory memory = model_->device_->matrix_memory(view, use);
      // A file that was copied into memory is there already.
      const bool used_in_place = !model_->source_->is_in_memory() && memory.keeps_source;
      plan.weights += memory.allocated + (used_in_place ? view.n_bytes : 0);
      plan.in_place += used_in_place ? view.n_bytes : 0;
      // Some last rows may be copied.
      if (use != MatrixUse::kGather && (!used_in_place || memory.allocated >= view.n_bytes))
        all_in_place = false;
    });
    matrices.emplace_back(found, use);
  }
  plan.weights += model_->source_->load_bytes();
  if (const GgufFiles* const files = model_->source_->mapped_files(); files != nullptr && all_in_place)
    mapped_runs_ = longest_runs(std::move(matrices), *files);
  for (const std::span<const uint8_t> run : mapped_runs_)
    if (run.size() > model_->mapped_weights_.size()) model_->mapped_weights_ = run;
  const MemoryPlan session = session_memory(model_->context_);
  plan.kv = session.kv;
  plan.scratch = session.scratch;
}

// Of one session, without weights.
MemoryPlan ModelLoader::session_memory(uint64_t context) const {
  const Device& device = *model_->device_;
  return {.weights = 0,
          .in_place = 0,
          .kv = device.kv_bytes(kv_shape(context)),
          .scratch = Engine::scratch_bytes(device, *model_->network_, *model_->parts_, context,
                                           Engine::kMicroBatch)};
}

void ModelLoader::require_room() const {
  const MemoryPlan& plan = model_->memory_plan_;
  const uint64_t found = available_memory(), available = found - std::min(found, options_.promised_bytes);
  if (options_.state_memory)
    note(
        fmt::format("memory: {} of {} available for {}: weights {} + scratch {} + cache {} (context of {}{})",
                    format_size(plan.total()), format_size(available), printable(gguf().path(), kPathBytes),
                    format_size(plan.weights), format_size(plan.scratch), format_size(plan.kv),
                    model_->context_, options_.context_option == "--ctx" ? "; override: --ctx" : ""));
  if (options_.larger_than_memory && plan.total() > available && plan.total() - plan.in_place <= available)
    return tell_of_paging(available);
  const auto session_bytes = [&](uint64_t context) { return session_memory(context).total(); };
  require_memory(plan, available, model_->context_, options_.context_option, session_bytes);
}

// A token reads all weights in the same order, and what was read longest ago makes room for what comes: at
// worst nothing is still there when it is needed again, at best all that has room.
void ModelLoader::tell_of_paging(uint64_t available) const {
  const MemoryPlan& plan = model_->memory_plan_;
  const uint64_t token = std::min(tensor_bytes_per_token(), plan.in_place);
  const uint64_t room = available - (plan.total() - plan.in_place);
  const uint64_t least = token - std::min(token, room);
  const double rate = disk_read_rate(gguf().path());
  const std::string seconds =
      rate > 0 ? fmt::format("; at the {} per second that its disk gives, {:.2g} to {:.2g} seconds a token",
                             format_size(static_cast<uint64_t>(rate)), static_cast<double>(least) / rate,
                             static_cast<double>(token) / rate)
               : std::string("; its disk's speed could not be measured");
  note(fmt::format(
      "warning: larger than memory: {} of weights, {} of room for them; every token reads {} to {} from "
      "the disk{}",
      format_size(plan.in_place), format_size(room), format_size(least), format_size(token), seconds));
}

void ModelLoader::check_tensors() {
  constexpr uint64_t kAlwaysBelow = 64 << 20;
  if (!options_.check_tensors.value_or(gguf().file_size() < kAlwaysBelow)) return;
  const GgufValue* const token_types = gguf().find("tokenizer.ggml.token_type");
  std::vector<ZeroTail> tails;
  for (const TensorView& tensor : gguf().tensors()) {
    model_->source_->load(tensor);
    const BlockFormat& format = block_format(tensor.dtype);
    const uint64_t bad = first_non_finite_block(tensor, model_->n_threads_);
    if (bad < tensor.n_bytes / format.block_bytes)
      fail(ErrorCode::kIntegrity,
           "{}: tensor {}: NaN or infinity in block {} (weights {} to {}); the file is damaged, convert or "
           "download it again",
           printable(gguf().path(), kPathBytes), tensor.name, bad, bad * format.block_weights,
           (bad + 1) * format.block_weights - 1);
    for (ZeroTail& tail : find_zero_tails({tensor}, token_types)) tails.push_back(std::move(tail));
    model_->source_->release(tensor);
  }
  if (!tails.empty()) note(zero_tail_warning(gguf().path(), tails));
}

// Asks the disk for a layer's tensors (-1: the model's own): it reads them while others are repacked.
void ModelLoader::read_ahead(int layer) const {
  if (model_->read_ahead_) return;  // all of them are under way
  for (const TensorDeclaration& declaration : model_->parts_->tensors()) {
    const TensorView* const found = tensors_.find(declaration.name);
    if (declaration.layer != layer || declaration.role == TensorRole::kEmbedding || found == nullptr)
      continue;
    model_->source_->will_need(found->data, found->n_bytes);
  }
}

void ModelLoader::load_tensor(const TensorDeclaration& declaration) {
  const TensorView* const found = tensors_.find(declaration.name);
  if (found == nullptr) return;  // optional
  const TensorView& tensor = *found;
  TensorSource& source = *model_->source_;
  enter(declaration);
  source.load(tensor);
  for (const TensorPart& part : declaration.parts) {
    if (part.vector == nullptr) continue;
    const uint64_t value_bytes = block_format(tensor.dtype).block_bytes;
    TensorView elements = tensor;
    elements.shape = {part.end - part.begin};
    elements.data += part.begin * value_bytes;
    elements.n_bytes = (part.end - part.begin) * value_bytes;
    *part.vector = model_->device_->load_vector(elements);
  }
  if (declaration.values != nullptr) {
    declaration.values->resize(tensor.n_elements());
    block_format(tensor.dtype).decode(tensor.data, tensor.n_elements(), declaration.values->data());
  }
  if (!declaration.is_matrix()) return source.release(tensor);
  // Where the device makes its own copy, the source's pages go as they are taken over, so that a model is not
  // in memory twice.
  for_matrices(declaration, [&](const TensorView& view, Matrix* matrix) {
    if (options_.on_progress) options_.on_progress(loaded_bytes_, model_->weight_bytes_);
    loaded_bytes_ += view.n_bytes;
    *matrix = model_->device_->load_matrix(
        view, use_of(declaration),
        [&](const uint8_t* begin, uint64_t n_bytes) { source.done_with(begin, n_bytes); });
  });
}

void ModelLoader::load_weights() {
  Model& m = *model_;
  // Where nothing is repacked the first token is computed while the disk reads.
  if (!m.mapped_weights_.empty()) {
    std::vector<ReadAhead::Part> parts;
    for (size_t i = 0; i < mapped_runs_.size(); ++i)
      parts.push_back({&m.source_->mapped_files()->files()[i], mapped_runs_[i]});
    m.read_ahead_.emplace(std::move(parts));
  }
  int layer = -1;
  read_ahead(-1);
  read_ahead(0);
  for (const TensorDeclaration& declaration : m.parts_->tensors()) {
    if (declaration.layer != layer) read_ahead((layer = declaration.layer) + 1);
    load_tensor(declaration);
  }
}

std::unique_ptr<Model> Model::load(const std::string& path, const ModelOptions& options,
                                   const Notice& notice) {
  ModelLoader loader(options, notice);
  return loader.load(loader.open(path));
}

std::unique_ptr<Model> Model::load(std::unique_ptr<TensorSource> source, const ModelOptions& options,
                                   const Notice& notice) {
  return ModelLoader(options, notice).load(std::move(source));
}

// As the file has them, before anything is loaded.
uint64_t ModelLoader::tensor_bytes_per_token() const {
  const TensorView* last = tensors_.find("output.weight");
  if (last == nullptr) last = tensors_.find("token_embd.weight");
  return model_->layer_bytes_per_token() + (last != nullptr ? last->n_bytes : 0);
}

ModelSurvey ModelLoader::survey(std::unique_ptr<TensorSource> source) {
  ModelSurvey survey;
  survey.ids_only = check(std::move(source));
  choose_context();
  choose_device();
  place_on_gpus();
  plan_memory();
  survey.gpu = model_->gpu_;
  survey.architecture = model_->hparams().architecture;
  survey.n_params = model_->n_params_;
  survey.weight_bytes = model_->weight_bytes_;
  survey.trained_context = model_->hparams().context_length;
  survey.context = model_->context_;
  survey.memory = model_->memory_plan_;
  survey.available_bytes = available_memory();
  survey.fitting_context =
      largest_context(survey.memory, survey.available_bytes, std::min(survey.trained_context, kMaxContext),
                      [&](uint64_t context) { return session_memory(context).total(); });
  survey.bytes_per_token = tensor_bytes_per_token();
  survey.kv_bytes = survey.memory.kv;
  survey.macs_per_token = model_->macs_per_token();
  survey.n_threads = model_->n_threads_;
  survey.kernels = model_->kernels_;
  return survey;
}

ModelSurvey Model::survey(const std::string& path, const ModelOptions& options, const Notice& notice) {
  ModelLoader loader(options, notice);
  return loader.survey(loader.open(path));
}

std::string Model::check(const std::string& path, const ModelOptions& options) {
  const Notice silent = [](std::string_view) {};
  ModelLoader loader(options, silent);
  return loader.check(loader.open(path));
}

}  // namespace quern
