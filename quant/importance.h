// Importance of the columns of matrices: the mean square of what each is multiplied with, measured on a text.
// Source: llama.cpp's tools/imatrix of 0.3.36, both of its formats (formats.md 2.8).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quant/tensor_view.h"

namespace quern {

struct Importance {
  std::vector<float> weights;  // [n_matrices, columns]: several matrices where experts are stacked
  uint64_t n_matrices = 1;
  // Matrices whose experts were never chosen: their weights are all 1.
  std::vector<uint64_t> never_chosen = {};
};

// What a text gave for one tensor.
struct ImportanceSums {
  std::string tensor;
  uint64_t columns = 0;
  std::vector<double> sums;      // of squares, [n_matrices, columns]
  std::vector<uint64_t> counts;  // [n_matrices]: how many rows were summed
};

// What stands beside the sums in a file.
struct ImportanceOrigin {
  std::string dataset;  // the text's name
  uint32_t n_chunks = 0, chunk_tokens = 0;
};

// Writes them as llama.cpp's GGUF, ordered by name. Throws what GgufWriter throws.
void write_importance(const std::string& path, std::vector<ImportanceSums> entries,
                      const ImportanceOrigin& origin, bool overwrite);

class ImportanceFile {
 public:
  // Reads a GGUF of general.type "imatrix", or what llama.cpp wrote before it. Throws Error: kIo, and
  // kMalformed for a file that is neither, or has a tensor whose sums are not finite or negative, or all 0
  // although it was counted; the tensor is named.
  explicit ImportanceFile(const std::string& path);

  const std::string& path() const { return path_; }
  size_t n_entries() const { return entries_.size(); }
  uint32_t n_chunks() const { return n_chunks_; }
  const std::string& dataset() const { return dataset_; }  // what it was measured on; may be empty
  // By a tensor's name in GGUF; null when there is none.
  const Importance* find(std::string_view tensor) const;
  // The same for a tensor of this shape; null when it is not in the file. Throws kMalformed when it is there
  // with another number of columns or matrices.
  const Importance* find(std::string_view tensor, const Shape& shape) const;

 private:
  void read_gguf(std::span<const uint8_t> bytes);
  void read_legacy(std::span<const uint8_t> bytes);
  // sums, counts: [n_matrices, columns], [n_matrices] or [1]
  void add(const std::string& name, std::vector<float> sums, const std::vector<float>& counts);

  std::string path_, dataset_;
  uint32_t n_chunks_ = 0;
  std::map<std::string, Importance, std::less<>> entries_;
};

}  // namespace quern
