// A file's tensors beside those that an architecture declares.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "quant/error.h"
#include "quant/tensor_source.h"
#include "runtime/declarations.h"

namespace quern {

class MatchedTensors {
 public:
  // Every declared tensor is there with its shape, and no other that could change what the model computes: a
  // bias or a rope_freqs table that is silently ignored would give wrong answers. Others are named in a
  // notice. Nothing is kept of the arguments but views of the source's tensors. Throws kMalformed, and
  // kIntegrity for factors that are not finite.
  MatchedTensors(TensorSource& source, const Declarations& declarations, std::string_view architecture,
                 const Notice& notice);
  MatchedTensors() = default;

  // As declared: without GGUF's dimensions of 1 beyond. Null: an optional one that is not there.
  const TensorView* find(const std::string& name) const;
  // Numbers that a matrix's products are multiplied with, one or one for each expert; null: none.
  const std::vector<float>* factors(const std::string& name) const;
  uint64_t n_bytes() const { return n_bytes_; }    // of those that were declared
  uint64_t n_params() const { return n_params_; }  // likewise

 private:
  std::unordered_map<std::string, TensorView> tensors_;
  std::unordered_map<std::string, std::vector<float>> factors_;
  uint64_t n_bytes_ = 0, n_params_ = 0;
};

}  // namespace quern
