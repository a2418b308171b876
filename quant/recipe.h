// Which tensor gets which format under a type name: llama-quantize's mixes (formats.md 2.4).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quant/gguf_writer.h"

namespace quern {

// What a tensor is to a recipe, by its name; rules may be for all but the output.
enum class TensorKind { kOutput, kEmbedding, kValue, kKey, kAttentionOutput, kDown, kOther, kAllButOutput };

// Where a rule holds. A tensor's place is its number among those of its kind, in the order of layers, of as
// many as there are (kDown: of as many as there are layers; in models of experts its layer).
enum class RuleWhere {
  kEverywhere,
  kFirst,       // place < n
  kFirstPart,   // place < count / n
  kMoreBits,    // the first and last eighth, and every third place between
  kFewKvHeads,  // n heads of queries or more share one of keys
  kEightExperts,
  kFirstPartPlain,     // kFirstPart, quantized without importance
  kFirstPartWeighted,  // kFirstPart, quantized with importance
  kExperts,            // the tensor is a stack of experts' matrices
};
enum class RuleFamily { kAny, kFalcon, kOthers };

struct RecipeRule {
  TensorKind kind;
  RuleWhere where;
  uint32_t n;
  DType dtype;
  RuleFamily family = RuleFamily::kAny;
};

struct Recipe {
  std::string_view name;  // "q4_0"
  DType base;
  DType output;        // output.weight, or the embedding where it serves as the output
  uint32_t file_type;  // general.file_type
  // The first that holds decides, after those that all recipes share (but for floats and mxfp4_moe).
  std::span<const RecipeRule> rules = {};
  bool shares_rules = true;
};

std::span<const Recipe> recipes() noexcept;
const Recipe* find_recipe(std::string_view name) noexcept;  // case-insensitive; null when unknown

// What the rules ask of a model.
struct RecipeModel {
  std::string architecture;
  uint32_t n_layers = 0, n_experts = 0;
  uint32_t n_heads = 0, n_kv_heads = 0;  // of the first layer
  bool tied = false;                     // it has no output.weight
  bool has_importance = false;
};

struct RecipeTensor {
  std::string_view name;
  Shape shape;
  DType kept = DType::F32;  // its format where no recipe quantizes it
};

// A pattern (ECMAScript without references to groups, in any case, found anywhere in a tensor's name) and the
// format of the matrices whose names it fits.
struct TensorFormat {
  std::string pattern;
  DType dtype;
};

// "PATTERN=FORMAT". Throws kUsage for what is not one, or no format that can be written.
TensorFormat parse_tensor_format(std::string_view text);
// "q4_k", in any case. Throws kUsage, with the formats that there are; `option` is named in the message.
DType parse_written_format(std::string_view option, std::string_view name);

// What the user wants instead of the recipe.
struct FormatOverrides {
  std::vector<TensorFormat> tensors;  // the first pattern that fits decides
  std::optional<DType> output, embedding;
  bool pure = false;  // no rules: the base everywhere

  bool empty() const { return tensors.empty() && !output && !embedding && !pure; }
};

struct FormatChoice {
  DType dtype;
  DType wanted;  // differs from dtype when the width forced a fallback
};

// Whether a recipe decides on a tensor at all; others are kept: vectors, norms, small matrices that decide
// much.
bool is_quantized(std::string_view name, const Shape& shape);

// The format of each tensor, in their order. What is not quantized has RecipeTensor::kept.
// Throws kUsage for a pattern that is none, or that fits no tensor that is quantized.
std::vector<FormatChoice> choose_formats(const Recipe& recipe, const RecipeModel& model,
                                         const FormatOverrides& overrides,
                                         std::span<const RecipeTensor> tensors);

// The layout of a tensor in a file whose layout is `wanted`. Panels are the matrices that are multiplied:
// token_embd is one only when it serves as the output too (rows are gathered from panels then).
TensorLayout choose_layout(TensorLayout wanted, std::string_view tensor_name, DType dtype, const Shape& shape,
                           bool tied);

}  // namespace quern
