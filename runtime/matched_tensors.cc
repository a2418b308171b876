#include "runtime/matched_tensors.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "quant/panel_layout.h"

namespace quern {
namespace {

// Does a tensor hold nothing but `value`?
bool holds_only(const TensorView& tensor, float value) {
  const BlockFormat& format = block_format(tensor.dtype);
  if (format.decode == nullptr) return false;
  std::vector<float> weights(format.block_weights);
  for (uint64_t block = 0; block < tensor.n_bytes / format.block_bytes; ++block) {
    format.decode(tensor.data + block * format.block_bytes, 1, weights.data());
    if (std::any_of(weights.begin(), weights.end(), [&](float weight) { return weight != value; }))
      return false;
  }
  return true;
}

// A tensor that the architecture does not declare, and that changes nothing: a bias of zeros on a declared
// matrix, RoPE factors of 1, the frequencies that old writers stored beside what they are computed from, and
// scales for a matrix's inputs in 4 bits, which stay in 8 here (as in llama.cpp).
bool is_idle(const TensorView& tensor, const std::unordered_set<std::string_view>& declared) {
  constexpr std::string_view kBias = ".bias", kFrequencies = ".attn_rot_embd", kInputScale = ".input_scale";
  const std::string_view name = tensor.name;
  if (name.ends_with(kFrequencies)) return true;
  if (name == "rope_freqs.weight") return holds_only(tensor, 1);
  const auto of_a_matrix = [&](std::string_view suffix) {
    return name.ends_with(suffix) &&
           declared.contains(std::string(name.substr(0, name.size() - suffix.size())) + ".weight");
  };
  return of_a_matrix(kInputScale) || (of_a_matrix(kBias) && holds_only(tensor, 0));
}

void require_match(const GgufReader& gguf, const TensorDeclaration& declaration, const TensorView& tensor) {
  if (tensor.shape != declaration.shape)
    gguf.refuse(fmt::format("tensor {}: expected shape {}, found {}", declaration.name,
                            to_string(declaration.shape), to_string(tensor.shape)));
  const BlockFormat& format = block_format(tensor.dtype);
  const bool usable = format.is_float() || (declaration.is_matrix() && format.unpack_group != nullptr);
  if (!usable)
    gguf.refuse(fmt::format("tensor {}: format {} is not supported {}", declaration.name, format.name,
                            declaration.is_matrix() ? "for a matrix" : "for a vector"));
  for (const TensorPart& part : declaration.parts)
    if (declaration.is_matrix() && !can_be_cut(tensor, part.begin, part.end))
      gguf.refuse(fmt::format(
          "tensor {}: rows {} to {} are a matrix of their own and cannot be taken out of panels of {} rows; "
          "convert the file to the standard layout (convert --layout standard)",
          declaration.name, part.begin, part.end - 1, kPanelRows));
}

// A matrix may have a tensor `.scale` beside its `.weight`, which its products are multiplied with: a number,
// or one for each expert. Writers of NVFP4 put the scale of the whole tensor there. Returns it, or null:
// where the architecture declares a tensor of that name, it is something else.
const TensorView* read_factors(TensorSource& source, const TensorDeclaration& declaration,
                               const std::unordered_set<std::string_view>& declared,
                               std::unordered_map<std::string, std::vector<float>>* all) {
  const GgufReader& gguf = source.gguf();
  constexpr std::string_view kWeight = ".weight";
  if (!declaration.is_matrix() || declaration.role == TensorRole::kEmbedding ||
      !declaration.name.ends_with(kWeight))
    return nullptr;
  const std::string name = declaration.name.substr(0, declaration.name.size() - kWeight.size()) + ".scale";
  const TensorView* const found = gguf.find_tensor(name);
  if (found == nullptr || declared.contains(name)) return nullptr;
  const uint64_t n = declaration.experts != nullptr ? declaration.shape[0] : 1;
  const BlockFormat& format = block_format(found->dtype);
  if (!format.is_float() || found->n_elements() != n)
    gguf.refuse(
        fmt::format("tensor {}: expected {} float{} that the products of {} are multiplied with, found {} of "
                    "format {}",
                    name, n, n == 1 ? "" : "s", declaration.name, found->n_elements(), format.name));
  std::vector<float>& factors = (*all)[declaration.name];
  factors.resize(n);
  source.load(*found);
  format.decode(found->data, n, factors.data());
  for (const float factor : factors)
    if (!std::isfinite(factor))
      fail(ErrorCode::kIntegrity,
           "{}: tensor {}: expected finite numbers, found {}; the file is damaged, convert or "
           "download it again",
           printable(gguf.path(), kPathBytes), name, factor);
  return found;
}

}  // namespace

MatchedTensors::MatchedTensors(TensorSource& source, const Declarations& declarations,
                               std::string_view architecture, const Notice& notice) {
  const GgufReader& gguf = source.gguf();
  std::unordered_set<std::string_view> declared;
  for (const TensorDeclaration& declaration : declarations.tensors()) declared.insert(declaration.name);
  std::unordered_set<std::string_view> expected = declared;
  for (const TensorDeclaration& declaration : declarations.tensors()) {
    const TensorView* found = gguf.find_tensor(declaration.name);
    if (found == nullptr) {
      if (!declaration.optional) gguf.refuse(fmt::format("tensor {} is missing", declaration.name));
      continue;
    }
    TensorView tensor = *found;
    tensor.shape = without_outer_ones(tensor.shape, declaration.shape.size());
    while (tensor.shape.size() < declaration.shape.size()) tensor.shape.insert(tensor.shape.begin(), 1);
    require_match(gguf, declaration, tensor);
    n_bytes_ += tensor.n_bytes;
    n_params_ += tensor.n_elements();
    tensors_.emplace(declaration.name, std::move(tensor));
    if (const TensorView* factors = read_factors(source, declaration, declared, &factors_))
      expected.insert(factors->name);
  }
  std::vector<std::string> idle;
  for (const TensorView& tensor : gguf.tensors()) {
    if (expected.contains(tensor.name)) continue;
    source.load(tensor);
    if (!is_idle(tensor, expected))
      gguf.refuse(fmt::format(
          "tensor {}: not part of a '{}' model as quern knows it; ignoring it could give wrong answers",
          printable(tensor.name), architecture));
    idle.push_back(printable(tensor.name));
  }
  if (notice && !idle.empty())
    notice(fmt::format("tensors that change nothing are ignored: {}", fmt::join(idle, ", ")));
}

const TensorView* MatchedTensors::find(const std::string& name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

const std::vector<float>* MatchedTensors::factors(const std::string& name) const {
  const auto found = factors_.find(name);
  return found == factors_.end() ? nullptr : &found->second;
}

}  // namespace quern
