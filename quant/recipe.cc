#include "quant/recipe.h"

#include <algorithm>
#include <charconv>
#include <numeric>
#include <regex>
#include <utility>

#include "quant/error.h"
#include "quant/panel_layout.h"
#include "quant/utf8.h"

namespace quern {
namespace {

using enum TensorKind;
using enum RuleWhere;
using enum RuleFamily;
using enum DType;

// Formats.md 2.4; the numbers of general.file_type: 2.1.
constexpr RecipeRule kShared[] = {
    {kOutput, kEverywhere, 0, Q8_0, kFalcon},
    {kValue, kEightExperts, 0, Q8_0},
    {kKey, kEightExperts, 0, Q8_0},
};
constexpr RecipeRule kQ4_0[] = {{kDown, kFirstPartWeighted, 8, Q4_1}};
constexpr RecipeRule kQ5_0[] = {{kDown, kFirstPartWeighted, 8, Q5_1}};
constexpr RecipeRule kQ2_K[] = {
    {kValue, kFewKvHeads, 4, Q4_K},
    {kValue, kEverywhere, 0, Q3_K},
    {kDown, kEverywhere, 0, Q3_K},
    {kAttentionOutput, kEightExperts, 0, Q5_K, kOthers},
    {kAttentionOutput, kEverywhere, 0, Q3_K, kOthers},
};
constexpr RecipeRule kQ3_K_S[] = {{kAttentionOutput, kEightExperts, 0, Q5_K, kOthers}};
constexpr RecipeRule kQ3_K_M[] = {
    {kValue, kFirst, 2, Q5_K},
    {kValue, kEverywhere, 0, Q4_K},
    {kDown, kFirstPart, 16, Q5_K},
    {kDown, kEverywhere, 0, Q4_K, kOthers},
    {kDown, kMoreBits, 0, Q4_K, kFalcon},
    {kAttentionOutput, kEightExperts, 0, Q5_K, kOthers},
    {kAttentionOutput, kEverywhere, 0, Q4_K, kOthers},
};
constexpr RecipeRule kQ3_K_L[] = {
    {kValue, kEverywhere, 0, Q5_K},
    {kDown, kEverywhere, 0, Q5_K, kOthers},
    {kDown, kEverywhere, 0, Q4_K, kFalcon},
    {kAttentionOutput, kEightExperts, 0, Q3_K, kOthers},
    {kAttentionOutput, kEverywhere, 0, Q5_K, kOthers},
    {kAttentionOutput, kEverywhere, 0, Q4_K, kFalcon},
};
constexpr RecipeRule kQ4_K_S[] = {
    {kValue, kFirst, 4, Q5_K},
    {kDown, kFirstPart, 8, Q5_K, kOthers},
    {kAttentionOutput, kEightExperts, 0, Q5_K, kOthers},
};
constexpr RecipeRule kQ4_K_M[] = {
    {kValue, kMoreBits, 0, Q6_K},
    {kDown, kMoreBits, 0, Q6_K, kOthers},
    {kDown, kFirstPart, 16, Q6_K, kFalcon},
    {kDown, kMoreBits, 0, Q5_K, kFalcon},
    {kAttentionOutput, kEightExperts, 0, Q5_K, kOthers},
};
constexpr RecipeRule kQ5_K_M[] = {
    {kValue, kMoreBits, 0, Q6_K},
    {kDown, kMoreBits, 0, Q6_K},
};
constexpr RecipeRule kIq4[] = {
    {kValue, kFewKvHeads, 4, Q5_K},
    {kDown, kFirstPartPlain, 8, Q5_K},
    {kAttentionOutput, kEightExperts, 0, Q5_K, kOthers},
};
constexpr RecipeRule kMxfp4Moe[] = {
    {kAllButOutput, kExperts, 0, MXFP4},
    {kAllButOutput, kEverywhere, 0, Q8_0},
};

constexpr Recipe kRecipes[] = {
    // name, base, output, file_type, rules
    {"q4_0", Q4_0, Q6_K, 2, kQ4_0},
    {"q4_1", Q4_1, Q6_K, 3},
    {"q5_0", Q5_0, Q6_K, 8, kQ5_0},
    {"q5_1", Q5_1, Q6_K, 9},
    {"q8_0", Q8_0, Q8_0, 7},
    {"q2_k", Q2_K, Q6_K, 10, kQ2_K},
    {"q3_k_s", Q3_K, Q6_K, 11, kQ3_K_S},
    {"q3_k_m", Q3_K, Q6_K, 12, kQ3_K_M},
    {"q3_k_l", Q3_K, Q6_K, 13, kQ3_K_L},
    {"q4_k_s", Q4_K, Q6_K, 14, kQ4_K_S},
    {"q4_k_m", Q4_K, Q6_K, 15, kQ4_K_M},
    {"q5_k_s", Q5_K, Q6_K, 16},
    {"q5_k_m", Q5_K, Q6_K, 17, kQ5_K_M},
    {"q6_k", Q6_K, Q6_K, 18},
    {"iq4_nl", IQ4_NL, Q6_K, 25, kIq4},
    {"iq4_xs", IQ4_XS, Q6_K, 30, kIq4},
    {"mxfp4_moe", MXFP4, Q8_0, 38, kMxfp4Moe, false},
    {"f16", F16, F16, 1, {}, false},
    {"bf16", BF16, BF16, 32, {}, false},
    {"f32", F32, F32, 0, {}, false},
};

// As a projection.
constexpr auto lower = [](char c) { return lower_ascii(c); };

// Small matrices that decide much are kept: routers of experts, learned positions, convolutions, and what
// makes the layers' own embeddings of one.
constexpr std::string_view kKept[] = {"_norm.weight",          "ffn_gate_inp.weight",
                                      "position_embd.weight",  "ssm_conv1d.weight",
                                      "shortconv.conv.weight", "per_layer_model_proj.weight"};

// What takes the place of a format whose blocks do not divide a row; F16, which takes any width, follows the
// last.
constexpr std::pair<DType, DType> kNarrower[] = {
    {Q2_K, Q4_0}, {Q3_K, Q4_0}, {Q4_K, Q5_0}, {Q5_K, Q5_1}, {Q6_K, Q8_0}, {IQ4_XS, IQ4_NL},
};

DType narrower(DType dtype) {
  for (const auto& [wide, narrow] : kNarrower)
    if (wide == dtype) return narrow;
  return F16;
}

TensorKind kind_of(std::string_view name) {
  if (name == "output.weight") return kOutput;
  if (name == "token_embd.weight" || name == "per_layer_token_embd.weight") return kEmbedding;
  const auto has = [name](std::string_view part) { return name.find(part) != std::string_view::npos; };
  if (has("attn_qkv.weight") || has("attn_kv_b.weight") || has("attn_v.weight")) return kValue;
  if (has("attn_k.weight")) return kKey;
  if (has("attn_output.weight")) return kAttentionOutput;
  return has("ffn_down") && !has("attn_q.weight") && !has("ffn_up") && !has("ffn_gate") ? kDown : kOther;
}

// N of "blk.N.", -1 of other names.
int64_t layer_of(std::string_view name) {
  constexpr std::string_view kPrefix = "blk.";
  int64_t layer = -1;
  if (name.starts_with(kPrefix))
    std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), layer);
  return layer;
}

// Models that the reference calls 70B, whose values have fewer rows than usual.
bool is_70b(const RecipeModel& model) {
  const std::string& name = model.architecture;
  if (name == "llama") return model.n_layers == 80 && model.n_heads != model.n_kv_heads;
  if (name == "jais2") return model.n_layers == 68;
  return model.n_layers == 80 && (name == "qwen2" || name == "deci" || name == "olmo");
}

class RuleBook {
 public:
  RuleBook(const Recipe& recipe, const RecipeModel& model, std::span<const RecipeTensor> tensors)
      : recipe_(recipe), model_(model) {
    for (const RecipeTensor& tensor : tensors)
      if (kind_of(tensor.name) == kValue) ++n_values_;
  }

  // Tensors in the order of their layers: their places are counted.
  DType choose(const RecipeTensor& tensor) {
    TensorKind kind = kind_of(tensor.name);
    if (kind == kEmbedding && model_.tied) kind = kOutput;
    int64_t place = -1, count = 0;
    if (kind == kValue) {
      place = next_value_++;
      count = n_values_;
    } else if (kind == kDown) {
      place = next_down_++;
      if (model_.n_experts > 1) place = layer_of(tensor.name);
      count = model_.n_layers;
    }
    const auto holds = [&](const RecipeRule& rule) {
      return is_for(rule.kind, kind) && of_family(rule.family) && holds_at(rule, tensor, place, count);
    };
    DType dtype = kind == kOutput ? recipe_.output : recipe_.base;
    const auto* shared = std::ranges::find_if(kShared, holds);
    if (recipe_.shares_rules && shared != std::end(kShared)) return shared->dtype;
    const auto rule = std::ranges::find_if(recipe_.rules, holds);
    if (rule != recipe_.rules.end()) dtype = rule->dtype;
    if (kind == kValue && recipe_.shares_rules && is_70b(model_) && (dtype == Q3_K || dtype == Q4_K))
      dtype = Q5_K;
    return dtype;
  }

 private:
  static bool is_for(TensorKind rule, TensorKind kind) {
    return rule == kind || (rule == kAllButOutput && kind != kOutput);
  }

  bool of_family(RuleFamily family) const {
    return family == kAny || (family == kFalcon) == (model_.architecture == "falcon");
  }

  bool holds_at(const RecipeRule& rule, const RecipeTensor& tensor, int64_t place, int64_t count) const {
    const auto n = static_cast<int64_t>(rule.n);
    switch (rule.where) {
      case kEverywhere:
        return true;
      case kFirst:
        return place < n;
      case kFirstPart:
        return place < count / n;
      case kMoreBits: {
        const int64_t eighth = count / 8;
        return place < eighth || place >= 7 * count / 8 || (place - eighth) % 3 == 2;
      }
      case kFewKvHeads:
        return model_.n_kv_heads > 0 && model_.n_heads / model_.n_kv_heads >= rule.n;
      case kEightExperts:
        return model_.n_experts == 8;
      case kFirstPartPlain:
        return place < count / n && !model_.has_importance;
      case kFirstPartWeighted:
        return place < count / n && model_.has_importance;
      case kExperts:
        return tensor.shape.size() > 2 && tensor.shape[tensor.shape.size() - 3] > 1;
    }
    return false;
  }

  const Recipe& recipe_;
  const RecipeModel& model_;
  int64_t n_values_ = 0, next_value_ = 0, next_down_ = 0;
};

// Names of tensors are in lower case; patterns need not be, as for llama-quantize. Of GCC's library the
// matcher whose work a pattern cannot make exponential; it knows no references to groups.
#ifdef __GLIBCXX__
constexpr std::regex::flag_type kPatternSyntax =
    std::regex::ECMAScript | std::regex::icase | std::regex_constants::__polynomial;
#else
constexpr std::regex::flag_type kPatternSyntax = std::regex::ECMAScript | std::regex::icase;
#endif

// The user's own choices, counted.
class Wishes {
 public:
  explicit Wishes(const FormatOverrides& overrides) : overrides_(overrides) {
    for (const TensorFormat& wish : overrides.tensors) {
      try {
        patterns_.emplace_back(wish.pattern, kPatternSyntax);
      } catch (const std::regex_error& error) {
        refuse(wish, error);
      }
    }
    hits_.resize(patterns_.size());
  }

  std::optional<DType> find(const RecipeTensor& tensor, bool tied) {
    std::optional<DType> wanted;
    for (size_t i = 0; i < patterns_.size(); ++i) {
      if (!fits(i, tensor.name)) continue;
      ++hits_[i];
      if (!wanted) wanted = overrides_.tensors[i].dtype;
    }
    // Formats.md 2.4: what the user said in general gives way to a pattern in two places.
    const TensorKind kind = kind_of(tensor.name);
    const bool of_layers = tensor.name == "per_layer_token_embd.weight";
    if (kind == kEmbedding && overrides_.embedding && !(of_layers && wanted)) return overrides_.embedding;
    if (kind == kOutput && overrides_.output) return overrides_.output;
    if (kind == kEmbedding && tied && !wanted) return overrides_.output;
    return wanted;
  }

  void require_hits() const {
    for (size_t i = 0; i < hits_.size(); ++i)
      if (hits_[i] == 0)
        fail(ErrorCode::kUsage,
             "--tensor-type: '{}' fits the name of no matrix that is quantized (names are those of the GGUF "
             "file, such as blk.0.ffn_down.weight; --dry-run lists them)",
             printable(overrides_.tensors[i].pattern));
  }

 private:
  [[noreturn]] static void refuse(const TensorFormat& wish, const std::regex_error& error) {
    fail(ErrorCode::kUsage, "--tensor-type: '{}' is no pattern (a regular expression as in JavaScript): {}",
         printable(wish.pattern), error.what());
  }

  bool fits(size_t i, std::string_view name) const {
    try {
      return std::regex_search(name.begin(), name.end(), patterns_[i]);
    } catch (const std::regex_error& error) {  // too much work
      refuse(overrides_.tensors[i], error);
    }
  }

  const FormatOverrides& overrides_;
  std::vector<std::regex> patterns_;
  std::vector<size_t> hits_;
};

}  // namespace

std::span<const Recipe> recipes() noexcept { return kRecipes; }

bool is_quantized(std::string_view name, const Shape& shape) {
  const auto is_kept = [name](std::string_view end) { return name.ends_with(end); };
  return shape.size() >= 2 && shape.front() != 1 && name.ends_with("weight") &&
         std::ranges::none_of(kKept, is_kept);
}

const Recipe* find_recipe(std::string_view name) noexcept {
  const auto* found = std::ranges::find_if(kRecipes, [name](const Recipe& recipe) {
    return std::ranges::equal(recipe.name, name, {}, {}, lower);
  });
  return found == std::end(kRecipes) ? nullptr : found;
}

DType parse_written_format(std::string_view option, std::string_view name) {
  std::string names;
  for (const BlockFormat& format : block_formats()) {
    if (format.encode == nullptr) continue;
    if (std::ranges::equal(format.name, name, {}, lower, lower)) return format.dtype;
    std::string spelled(format.name);
    std::ranges::transform(spelled, spelled.begin(), lower);
    names += (names.empty() ? "" : ", ") + spelled;
  }
  fail(ErrorCode::kUsage, "{}: '{}' is no format that can be written: expected one of {}", option,
       printable(name), names);
}

TensorFormat parse_tensor_format(std::string_view text) {
  const size_t equals = text.rfind('=');
  if (equals == std::string_view::npos || equals == 0)
    fail(ErrorCode::kUsage, "--tensor-type: '{}': expected PATTERN=FORMAT, such as ffn_down=q6_k",
         printable(text));
  return {std::string(text.substr(0, equals)),
          parse_written_format("--tensor-type", text.substr(equals + 1))};
}

std::vector<FormatChoice> choose_formats(const Recipe& recipe, const RecipeModel& model,
                                         const FormatOverrides& overrides,
                                         std::span<const RecipeTensor> tensors) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, [&](size_t a, size_t b) {
    const int64_t left = layer_of(tensors[a].name), right = layer_of(tensors[b].name);
    return left != right ? left < right : tensors[a].name < tensors[b].name;
  });

  std::vector<FormatChoice> choices;
  for (const RecipeTensor& tensor : tensors) choices.push_back({tensor.kept, tensor.kept});
  RuleBook rules(recipe, model, tensors);
  Wishes wishes(overrides);
  for (const size_t i : order) {
    const RecipeTensor& tensor = tensors[i];
    if (!is_quantized(tensor.name, tensor.shape)) continue;
    // A tensor that the user chose a format for counts among no rule's places.
    const std::optional<DType> wish = wishes.find(tensor, model.tied);
    const DType wanted = wish ? *wish : overrides.pure ? recipe.base : rules.choose(tensor);
    DType dtype = wanted;
    while (tensor.shape.back() % block_format(dtype).block_weights != 0) dtype = narrower(dtype);
    choices[i] = {dtype, wanted};
  }
  wishes.require_hits();
  return choices;
}

TensorLayout choose_layout(TensorLayout wanted, std::string_view tensor_name, DType dtype, const Shape& shape,
                           bool tied) {
  const bool multiplied = is_quantized(tensor_name, shape) && (tied || tensor_name != "token_embd.weight");
  const bool panels = wanted == TensorLayout::kPanels && multiplied && can_be_panels(dtype, shape);
  return panels ? TensorLayout::kPanels : TensorLayout::kRows;
}

}  // namespace quern
