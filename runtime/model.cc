#include "runtime/model.h"

#include <string>

namespace quern {

namespace {

// Multiplied for a token: all of a tensor's matrices, or those of the experts that are chosen.
uint64_t used_share(const TensorDeclaration& tensor, uint64_t amount) {
  return tensor.role == TensorRole::kExperts ? amount / tensor.shape[0] * tensor.n_used : amount;
}

}  // namespace

Model::~Model() = default;

const Tokenizer& Model::tokenizer() const {
  if (!tokenizer_)
    gguf().refuse(
        no_text_ +
        "; it can take and give token ids only (run --ids, perplexity --ids, bench), until the checkpoint "
        "is converted again with a tokenizer that is known");
  return *tokenizer_;
}

uint64_t Model::layer_bytes_per_token() const {
  uint64_t bytes = 0;
  for (const TensorDeclaration& tensor : parts_->tensors())
    if (tensor.role == TensorRole::kMatrix || tensor.role == TensorRole::kExperts)
      if (const TensorView* view = gguf().find_tensor(tensor.name))
        bytes += used_share(tensor, view->n_bytes);
  return bytes;
}

uint64_t Model::bytes_per_token() const {
  return network_->output_matrix().bytes() + layer_bytes_per_token();
}

uint64_t Model::macs_per_token() const {
  uint64_t macs = 0;
  for (const TensorDeclaration& tensor : parts_->tensors())
    if (tensor.role == TensorRole::kMatrix || tensor.role == TensorRole::kExperts)
      if (const TensorView* view = gguf().find_tensor(tensor.name))
        macs += used_share(tensor, view->n_elements());
  return macs;
}

uint64_t Model::macs_per_dropped_row() const {
  uint64_t macs = 0;
  for (const TensorDeclaration& tensor : parts_->tensors())
    if (tensor.layer + 1 == static_cast<int64_t>(hparams().n_layers) &&
        tensor.name.find(".ffn_") != std::string::npos &&
        (tensor.role == TensorRole::kMatrix || tensor.role == TensorRole::kExperts))
      if (const TensorView* view = gguf().find_tensor(tensor.name))
        macs += used_share(tensor, view->n_elements());
  return macs;
}

}  // namespace quern
