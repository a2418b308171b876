#include "runtime/model.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <unordered_map>
#include <unordered_set>

#include "kernels/cpu_device.h"
#include "kernels/cpu_features.h"
#include "kernels/dispatch.h"
#include "quant/quantize.h"
#include "runtime/architecture.h"
#include "runtime/memory_plan.h"
#include "runtime/session.h"

namespace quern {

namespace {

// The longest stretch of memory from one multiplied matrix to another without a gathered one in between.
std::span<const uint8_t> longest_run(std::vector<std::pair<const TensorView*, MatrixUse>> matrices) {
  std::sort(matrices.begin(), matrices.end(),
            [](const auto& a, const auto& b) { return a.first->data < b.first->data; });
  std::span<const uint8_t> longest, run;
  for (const auto& [tensor, use] : matrices) {
    const uint8_t* const end = tensor->data + tensor->n_bytes;
    if (use == MatrixUse::kGather)
      run = {};
    else
      run = {run.empty() ? tensor->data : run.data(), end};
    if (run.size() > longest.size()) longest = run;
  }
  return longest;
}

}  // namespace

// Takes a model through its steps; each checks all that the next one relies on.
class ModelLoader {
 public:
  ModelLoader(const std::string& path, const ModelOptions& options, const Notice& notice)
      : path_(path), options_(options), notice_(notice), model_(new Model()) {}

  std::unique_ptr<Model> load() {
    const auto start = std::chrono::steady_clock::now();
    open();
    read_shape();
    match_tensors();
    read_tokenizer();
    choose_context();
    choose_device();
    plan_memory();
    check_tensors();
    model_->device_->run_pass([&] { load_weights(); });  // its threads repack one matrix after the other
    model_->load_seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return std::move(model_);
  }

 private:
  const GgufReader& gguf() const { return *model_->gguf_; }
  void note(const std::string& line) const {
    if (notice_) notice_(line);
  }

  void open();
  void read_shape();
  void match_tensors();
  void read_tokenizer();
  void choose_context();
  void choose_device();
  void plan_memory();
  void check_tensors();
  void load_weights();

  void match_tensor(const TensorDeclaration& declaration, const TensorView& tensor) const;
  MatrixUse use_of(const TensorDeclaration& declaration) const;
  void read_ahead(const std::string& name_prefix) const;
  std::unique_ptr<DeviceMatrix> take_matrix(const std::string& name, MatrixUse use);
  std::unique_ptr<DeviceBuffer> take_vector(const std::string& name);

  std::string path_;
  const ModelOptions& options_;
  const Notice& notice_;
  std::unique_ptr<Model> model_;
  std::vector<TensorDeclaration> declared_;
  std::unordered_map<std::string, TensorView> tensors_;  // shapes as declared: without GGUF's trailing ones
};

void ModelLoader::open() {
  std::error_code no_size;  // MappedFile says what is wrong
  const uint64_t size = std::filesystem::file_size(path_, no_size), available = available_memory();
  if (!options_.allow_mmap && !no_size && size > available)
    fail(ErrorCode::kResource, "not enough memory to copy the file (--no-mmap): {} needed, {} available",
         format_bytes(size), format_bytes(available));
  model_->file_ = std::make_unique<MappedFile>(path_, options_.allow_mmap);
  model_->gguf_ = std::make_unique<GgufReader>(model_->file_->bytes(), path_, notice_);
}

void ModelLoader::read_shape() {
  const uint64_t n_parts = gguf().uint_or("split.count", 1, 0, UINT16_MAX);
  if (n_parts > 1)
    gguf().refuse(fmt::format(
        "this is one part of a split GGUF (split.count is {}); join the parts into one file first "
        "(llama-gguf-split --merge)",
        n_parts));
  gguf().uint_or("general.quantization_version", 2, 2, 2);
  const std::string_view name = gguf().require_string("general.architecture");
  model_->architecture_ = find_architecture(name);
  if (model_->architecture_ == nullptr) {
    std::string known;
    for (const Architecture& row : architectures())
      known += fmt::format("{}{}", known.empty() ? "" : ", ", row.name);
    gguf().refuse(fmt::format("unsupported architecture '{}' (supported: {})", printable(name), known));
  }
  model_->hparams_ = model_->architecture_->read_hparams(gguf(), notice_);
}

void ModelLoader::match_tensor(const TensorDeclaration& declaration, const TensorView& tensor) const {
  if (tensor.shape != declaration.shape)
    gguf().refuse(fmt::format("tensor {}: expected shape {}, found {}", declaration.name,
                              to_string(declaration.shape), to_string(tensor.shape)));
  const BlockFormat& format = block_format(tensor.dtype);
  const bool usable = declaration.role == TensorDeclaration::Role::kVector
                          ? format.is_float()
                          : format.is_float() || format.unpack_group != nullptr;
  if (!usable)
    gguf().refuse(
        fmt::format("tensor {}: format {} is not supported {}", declaration.name, format.name,
                    declaration.role == TensorDeclaration::Role::kVector ? "for a vector" : "for a matrix"));
}

// Every declared tensor is there with its shape, and no other: a bias or a rope_freqs table that is silently
// ignored would give wrong answers.
void ModelLoader::match_tensors() {
  declared_ = model_->architecture_->declare_tensors(model_->hparams_);
  std::unordered_set<std::string_view> expected;
  for (const TensorDeclaration& declaration : declared_) {
    expected.insert(declaration.name);
    const TensorView* found = gguf().find_tensor(declaration.name);
    if (found == nullptr) {
      if (!declaration.optional) gguf().refuse(fmt::format("tensor {} is missing", declaration.name));
      continue;
    }
    TensorView tensor = *found;
    while (tensor.shape.size() > declaration.shape.size() && tensor.shape.front() == 1)
      tensor.shape.erase(tensor.shape.begin());
    match_tensor(declaration, tensor);
    model_->weight_bytes_ += tensor.n_bytes;
    model_->n_params_ += tensor.n_elements();
    tensors_.emplace(declaration.name, std::move(tensor));
  }
  for (const TensorView& tensor : gguf().tensors())
    if (!expected.contains(tensor.name))
      gguf().refuse(fmt::format(
          "tensor {}: not part of a '{}' model as quern knows it; ignoring it could give wrong answers",
          printable(tensor.name), model_->hparams_.architecture));
}

void ModelLoader::read_tokenizer() {
  if (!has_no_vocabulary(gguf()))
    model_->tokenizer_.emplace(read_vocabulary(gguf(), model_->hparams_.vocab_size, notice_));
}

void ModelLoader::choose_context() {
  constexpr uint64_t kDefault = 4096;
  const uint64_t trained = model_->hparams_.context_length;
  if (options_.context > kMaxContext)
    fail(ErrorCode::kUsage, "{} {}: expected at most {}", options_.context_option, options_.context,
         kMaxContext);
  if (options_.context != 0) {
    model_->context_ = options_.context;
    if (model_->context_ > trained)
      note(fmt::format(
          "warning: {} {} is beyond the {} tokens that the model was trained on; answers may degrade",
          options_.context_option, model_->context_, trained));
  } else {
    model_->context_ = std::min(trained, kDefault);
    note(fmt::format("context: {} tokens (the model was trained on {}; override: --ctx)", model_->context_,
                     trained));
  }
  model_->kv_ = options_.kv;
  if (const uint32_t head_dim = model_->hparams_.head_dim;
      model_->kv_ == KvType::kQ8_0 && head_dim % kKvGroup != 0)
    fail(ErrorCode::kUsage,
         "--kv q8_0: needs heads whose dimension is a multiple of {}, this model's is {}; --kv f16 works",
         kKvGroup, head_dim);
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
  model_->device_ = make_cpu_device(*model_->kernels_, model_->n_threads_, notice_);
}

MatrixUse ModelLoader::use_of(const TensorDeclaration& declaration) const {
  if (declaration.role != TensorDeclaration::Role::kEmbedding) return MatrixUse::kProduct;
  return tensors_.contains("output.weight") ? MatrixUse::kGather : MatrixUse::kBoth;
}

void ModelLoader::plan_memory() {
  MemoryPlan plan;
  bool all_in_place = true;
  std::vector<std::pair<const TensorView*, MatrixUse>> matrices;
  for (const TensorDeclaration& declaration : declared_) {
    const auto found = tensors_.find(declaration.name);
    if (found == tensors_.end() || declaration.role == TensorDeclaration::Role::kVector) continue;
    const MatrixUse use = use_of(declaration);
    const MatrixMemory memory = model_->device_->matrix_memory(found->second, use);
    // A file that was copied into memory is there already.
    const bool used_in_place = model_->file_->is_mapped() && memory.keeps_source;
    plan.weights += memory.allocated + (used_in_place ? found->second.n_bytes : 0);
    matrices.emplace_back(&found->second, use);
    // Some last rows may be copied.
    if (use != MatrixUse::kGather && (!used_in_place || memory.allocated >= found->second.n_bytes))
      all_in_place = false;
  }
  if (all_in_place) model_->mapped_weights_ = longest_run(std::move(matrices));
  const auto session = [&](uint64_t context) {
    const HParams& h = model_->hparams_;
    return MemoryPlan{
        .weights = 0,
        .kv = Session::kv_shape(h, context, model_->kv_).bytes(),
        .scratch = Session::scratch_memory(h, context, Session::kMicroBatch, model_->n_threads_)};
  };
  plan.kv = session(model_->context_).kv;
  plan.scratch = session(model_->context_).scratch;
  const auto session_bytes = [&](uint64_t context) { return session(context).total(); };
  require_memory(plan, available_memory(), model_->context_, options_.context_option, session_bytes);
}

void ModelLoader::check_tensors() {
  constexpr uint64_t kAlwaysBelow = 64 << 20;
  if (!options_.check_tensors.value_or(gguf().file_size() < kAlwaysBelow)) return;
  for (const TensorView& tensor : gguf().tensors()) {
    const BlockFormat& format = block_format(tensor.dtype);
    const uint64_t bad = first_non_finite_block(tensor, model_->n_threads_);
    if (bad < tensor.n_bytes / format.block_bytes)
      fail(ErrorCode::kIntegrity,
           "{}: tensor {}: NaN or infinity in block {} (weights {} to {}); the file is damaged, convert or "
           "download it again",
           printable(path_, kPathBytes), tensor.name, bad, bad * format.block_weights,
           (bad + 1) * format.block_weights - 1);
  }
}

// Asks the disk for the tensors whose names begin so: it reads them while others are repacked.
void ModelLoader::read_ahead(const std::string& name_prefix) const {
  if (model_->read_ahead_) return;  // all of them are under way
  for (const TensorView& tensor : gguf().tensors())
    if (tensor.name.starts_with(name_prefix))
      model_->file_->will_need(static_cast<uint64_t>(tensor.data - model_->file_->bytes().data()),
                               tensor.n_bytes);
}

std::unique_ptr<DeviceMatrix> ModelLoader::take_matrix(const std::string& name, MatrixUse use) {
  // Where the device makes its own copy, the source's pages go as they are taken over, so that a model is not
  // in memory twice.
  const MappedFile& file = *model_->file_;
  return model_->device_->load_matrix(tensors_.at(name), use, [&](const uint8_t* begin, uint64_t n_bytes) {
    file.done_with(static_cast<uint64_t>(begin - file.bytes().data()), n_bytes);
  });
}

std::unique_ptr<DeviceBuffer> ModelLoader::take_vector(const std::string& name) {
  return model_->device_->load_vector(tensors_.at(name));
}

void ModelLoader::load_weights() {
  Model& m = *model_;
  // Where nothing is repacked the first token is computed while the disk reads.
  if (!m.mapped_weights_.empty()) m.read_ahead_.emplace(*m.file_, m.mapped_weights_);
  read_ahead("output");
  read_ahead("blk.0.");
  const bool tied = !tensors_.contains("output.weight");
  m.token_embd = take_matrix("token_embd.weight", tied ? MatrixUse::kBoth : MatrixUse::kGather);
  m.output_norm = take_vector("output_norm.weight");
  if (!tied) m.output = take_matrix("output.weight", MatrixUse::kProduct);
  for (uint32_t i = 0; i < m.hparams_.n_layers; ++i) {
    const std::string block = fmt::format("blk.{}.", i);
    read_ahead(fmt::format("blk.{}.", i + 1));
    const auto matrix = [&](const char* name) {
      return take_matrix(block + name + ".weight", MatrixUse::kProduct);
    };
    LayerWeights w;
    w.attn_norm = take_vector(block + "attn_norm.weight");
    w.ffn_norm = take_vector(block + "ffn_norm.weight");
    w.wq = matrix("attn_q");
    w.wk = matrix("attn_k");
    w.wv = matrix("attn_v");
    w.wo = matrix("attn_output");
    w.w_gate = matrix("ffn_gate");
    w.w_up = matrix("ffn_up");
    w.w_down = matrix("ffn_down");
    m.layers.push_back(std::move(w));
  }
}

std::unique_ptr<Model> Model::load(const std::string& path, const ModelOptions& options,
                                   const Notice& notice) {
  return ModelLoader(path, options, notice).load();
}

Model::~Model() = default;

const Tokenizer& Model::tokenizer() const {
  if (!tokenizer_)
    gguf_->refuse(
        "this file has no vocabulary (tokenizer.ggml.model is no_vocab), so it can take and give token ids "
        "only; "
        "use run --ids, or convert the checkpoint again with its tokenizer");
  return *tokenizer_;
}

namespace {

// Sum over the layers' matrices.
template <class Count>
uint64_t sum_of_matrices(const std::vector<LayerWeights>& layers, Count&& count) {
  uint64_t sum = 0;
  for (const LayerWeights& w : layers)
    for (const DeviceMatrix* matrix :
         {w.wq.get(), w.wk.get(), w.wv.get(), w.wo.get(), w.w_gate.get(), w.w_up.get(), w.w_down.get()})
      sum += count(*matrix);
  return sum;
}

}  // namespace

uint64_t Model::bytes_per_token() const {
  return output_matrix().bytes() +
         sum_of_matrices(layers, [](const DeviceMatrix& matrix) { return matrix.bytes(); });
}

uint64_t Model::macs_per_token() const {
  return sum_of_matrices(
      layers, [](const DeviceMatrix& matrix) { return uint64_t{matrix.rows()} * matrix.columns(); });
}

}  // namespace quern
