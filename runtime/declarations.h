// What a model is made of, said once: each tensor with its name, shape, layer and the member that will own
// it, and the buffers that a pass needs. Checking a file, planning memory, loading, and counting a token's
// bytes and multiply-adds all follow from these lines.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/device.h"
#include "quant/gguf_reader.h"
#include "quant/tensor_view.h"

namespace quern {

using Matrix = std::unique_ptr<DeviceMatrix>;
using Vector = std::unique_ptr<DeviceBuffer>;  // of one row
using Experts = std::vector<Matrix>;           // one matrix of each

// Index of a buffer, or of a routing, among those of a pass.
using BufferId = size_t;
using RoutingId = size_t;

enum class TensorRole : uint8_t {
  kEmbedding,  // a matrix whose rows are read one by one
  kOutput,     // the matrix of the logits
  kMatrix,     // multiplied once a token
  kExperts,    // [n_experts, rows, columns]: some of them are multiplied
  kVector,     // on the device, as floats
  kValues,     // on the host, as floats
};

// Some rows of a tensor, which become a matrix of their own; or some elements of a vector, likewise.
struct TensorPart {
  uint64_t begin, end;
  Matrix* matrix = nullptr;
  Vector* vector = nullptr;
};

struct TensorDeclaration {
  std::string name;  // GGUF's
  Shape shape;       // outermost first
  TensorRole role;
  int layer = -1;  // -1: of the model
  bool optional = false;
  uint64_t n_used = 1;  // kExperts: chosen for a token
  std::vector<TensorPart> parts;
  Experts* experts = nullptr;
  std::vector<float>* values = nullptr;

  bool is_matrix() const { return role <= TensorRole::kExperts; }
};

struct RoutingDeclaration {
  uint64_t n_experts, n_used;
};

struct BufferDeclaration {
  std::string name;
  uint64_t width;
  uint64_t rows_per_token;
};

// Filled by the model's Network; names are without "blk.N." between layer(N) and the next.
class Declarations {
 public:
  enum Presence : bool { kRequired = false, kOptional = true };

  // gguf: of the model, for tensors whose presence decides what is declared.
  explicit Declarations(const GgufReader& gguf) : gguf_(gguf) {}

  // What follows belongs to this layer.
  void layer(size_t index);
  size_t layer() const { return static_cast<size_t>(layer_); }
  bool holds(std::string_view name) const;  // the file, a tensor of this name
  [[noreturn]] void refuse(const std::string& problem) const { gguf_.refuse(problem); }

  void embedding(std::string_view name, uint64_t rows, uint64_t columns, Matrix* to);
  void output(std::string_view name, uint64_t rows, uint64_t columns, Matrix* to);  // optional
  void matrix(std::string_view name, uint64_t rows, uint64_t columns, Matrix* to);
  struct Rows {
    uint64_t n;
    Matrix* to;
  };
  // Matrices that stand below one another in one tensor.
  void stacked(std::string_view name, const std::vector<Rows>& parts, uint64_t columns);
  void experts(std::string_view name, uint64_t n_experts, uint64_t n_used, uint64_t rows, uint64_t columns,
               Experts* to);
  void vector(std::string_view name, uint64_t n, Vector* to, Presence presence = kRequired);
  struct Elements {
    uint64_t n;
    Vector* to;
  };
  void stacked_vectors(std::string_view name, const std::vector<Elements>& parts,
                       Presence presence = kRequired);
  // [n_vectors, n], as one vector.
  void vectors(std::string_view name, uint64_t n_vectors, uint64_t n, Vector* to,
               Presence presence = kRequired);
  void values(std::string_view name, uint64_t n, std::vector<float>* to, Presence presence = kRequired);

  // Buffers of the same name and width are one.
  BufferId buffer(std::string_view name, uint64_t width, uint64_t rows_per_token = 1);

  RoutingId routing(uint64_t n_experts, uint64_t n_used);  // of the same numbers: one

  const std::vector<TensorDeclaration>& tensors() const { return tensors_; }
  const std::vector<BufferDeclaration>& buffers() const { return buffers_; }
  const std::vector<RoutingDeclaration>& routings() const { return routings_; }
  // Rows of a product's input for each token, and columns of the widest matrix that is multiplied.
  uint64_t most_rows_per_token() const;
  uint64_t widest_input() const;

 private:
  std::string full(std::string_view name) const;
  TensorDeclaration& add(std::string_view name, Shape shape, TensorRole role);

  const GgufReader& gguf_;
  int layer_ = -1;
  std::vector<TensorDeclaration> tensors_;
  std::vector<BufferDeclaration> buffers_;
  std::vector<RoutingDeclaration> routings_;
};

}  // namespace quern
