#include "runtime/declarations.h"

#include <algorithm>

namespace quern {

void Declarations::layer(size_t index) { layer_ = static_cast<int>(index); }

std::string Declarations::full(std::string_view name) const {
  return layer_ < 0 ? std::string(name) : fmt::format("blk.{}.{}", layer_, name);
}

bool Declarations::holds(std::string_view name) const { return gguf_.find_tensor(full(name)) != nullptr; }

TensorDeclaration& Declarations::add(std::string_view name, Shape shape, TensorRole role) {
  TensorDeclaration& tensor = tensors_.emplace_back();
  tensor.name = full(name);
  tensor.shape = std::move(shape);
  tensor.role = role;
  tensor.layer = layer_;
  return tensor;
}

void Declarations::embedding(std::string_view name, uint64_t rows, uint64_t columns, Matrix* to) {
  add(name, {rows, columns}, TensorRole::kEmbedding).parts = {{.begin = 0, .end = rows, .matrix = to}};
}

void Declarations::output(std::string_view name, uint64_t rows, uint64_t columns, Matrix* to) {
  TensorDeclaration& tensor = add(name, {rows, columns}, TensorRole::kOutput);
  tensor.parts = {{.begin = 0, .end = rows, .matrix = to}};
  tensor.optional = true;
}

void Declarations::matrix(std::string_view name, uint64_t rows, uint64_t columns, Matrix* to) {
  add(name, {rows, columns}, TensorRole::kMatrix).parts = {{.begin = 0, .end = rows, .matrix = to}};
}

void Declarations::stacked(std::string_view name, const std::vector<Rows>& parts, uint64_t columns) {
  TensorDeclaration& tensor = add(name, {0, columns}, TensorRole::kMatrix);
  uint64_t row = 0;
  for (const Rows& part : parts) {
    tensor.parts.push_back({.begin = row, .end = row + part.n, .matrix = part.to});
    row += part.n;
  }
  tensor.shape[0] = row;
}

void Declarations::experts(std::string_view name, uint64_t n_experts, uint64_t n_used, uint64_t rows,
                           uint64_t columns, Experts* to) {
  TensorDeclaration& tensor = add(name, {n_experts, rows, columns}, TensorRole::kExperts);
  tensor.experts = to;
  tensor.n_used = n_used;
}

void Declarations::vector(std::string_view name, uint64_t n, Vector* to, Presence presence) {
  stacked_vectors(name, {{n, to}}, presence);
}

void Declarations::stacked_vectors(std::string_view name, const std::vector<Elements>& parts,
                                   Presence presence) {
  TensorDeclaration& tensor = add(name, {0}, TensorRole::kVector);
  uint64_t begin = 0;
  for (const Elements& part : parts) {
    tensor.parts.push_back({.begin = begin, .end = begin + part.n, .vector = part.to});
    begin += part.n;
  }
  tensor.shape[0] = begin;
  tensor.optional = presence;
}

void Declarations::vectors(std::string_view name, uint64_t n_vectors, uint64_t n, Vector* to,
                           Presence presence) {
  TensorDeclaration& tensor = add(name, {n_vectors, n}, TensorRole::kVector);
  tensor.parts = {{.begin = 0, .end = n_vectors * n, .vector = to}};
  tensor.optional = presence;
}

void Declarations::values(std::string_view name, uint64_t n, std::vector<float>* to, Presence presence) {
  TensorDeclaration& tensor = add(name, {n}, TensorRole::kValues);
  tensor.values = to;
  tensor.optional = presence;
}

BufferId Declarations::buffer(std::string_view name, uint64_t width, uint64_t rows_per_token) {
  for (size_t i = 0; i < buffers_.size(); ++i)
    if (buffers_[i].name == name && buffers_[i].width == width &&
        buffers_[i].rows_per_token == rows_per_token)
      return i;
  buffers_.push_back({std::string(name), width, rows_per_token});
  return buffers_.size() - 1;
}

RoutingId Declarations::routing(uint64_t n_experts, uint64_t n_used) {
  for (size_t i = 0; i < routings_.size(); ++i)
    if (routings_[i].n_experts == n_experts && routings_[i].n_used == n_used) return i;
  routings_.push_back({n_experts, n_used});
  return routings_.size() - 1;
}

uint64_t Declarations::most_rows_per_token() const {
  uint64_t most = 1;
  for (const BufferDeclaration& buffer : buffers_) most = std::max(most, buffer.rows_per_token);
  return most;
}

uint64_t Declarations::widest_input() const {
  uint64_t widest = 0;
  for (const TensorDeclaration& tensor : tensors_)
    if (tensor.is_matrix()) widest = std::max(widest, tensor.shape.back());
  return widest;
}

}  // namespace quern
