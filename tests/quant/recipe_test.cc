#include "quant/recipe.h"

#include <gtest/gtest.h>

#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "quant/error.h"

namespace quern {
namespace {

struct Tensor {
  std::string name;
  Shape shape;
};

std::vector<Tensor> mistral_7b() {
  std::vector<Tensor> tensors = {
      {"token_embd.weight", {32000, 4096}}, {"output_norm.weight", {4096}}, {"output.weight", {32000, 4096}}};
  for (int i = 0; i < 32; ++i) {
    const std::string block = "blk." + std::to_string(i) + ".";
    for (const auto& [name, shape] : std::vector<Tensor>{{"attn_norm", {4096}},
                                                         {"attn_q", {4096, 4096}},
                                                         {"attn_k", {1024, 4096}},
                                                         {"attn_v", {1024, 4096}},
                                                         {"attn_output", {4096, 4096}},
                                                         {"ffn_norm", {4096}},
                                                         {"ffn_gate", {14336, 4096}},
                                                         {"ffn_up", {14336, 4096}},
                                                         {"ffn_down", {4096, 14336}}}) {
      tensors.push_back({block + name + ".weight", shape});
    }
  }
  return tensors;
}

struct Totals {
  uint64_t bytes = 0;
  std::map<DType, int> n_tensors;
};

const RecipeModel kMistral{"llama", 32, 0, 32, 8};

std::vector<FormatChoice> choose(std::string_view recipe, const std::vector<Tensor>& tensors,
                                 const RecipeModel& model, const FormatOverrides& overrides = {}) {
  std::vector<RecipeTensor> views;
  for (const auto& [name, shape] : tensors) views.push_back({name, shape});
  return choose_formats(*find_recipe(recipe), model, overrides, views);
}

Totals totals(std::string_view recipe_name, const std::vector<Tensor>& tensors) {
  Totals sum;
  const std::vector<FormatChoice> choices = choose(recipe_name, tensors, kMistral);
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Shape& shape = tensors[i].shape;
    uint64_t rows = 1;
    for (size_t d = 0; d + 1 < shape.size(); ++d) rows *= shape[d];
    sum.bytes += rows * block_format(choices[i].dtype).row_bytes(shape.back());
    ++sum.n_tensors[choices[i].dtype];
  }
  return sum;
}

FormatChoice choice(std::string_view recipe, std::string_view tensor, const Shape& shape, bool tied = false) {
  RecipeModel model = kMistral;
  model.tied = tied;
  return choose(recipe, {{std::string(tensor), shape}}, model).front();
}

DType chosen(std::string_view recipe, std::string_view tensor, const Shape& shape, bool tied = false) {
  return choice(recipe, tensor, shape, tied).dtype;
}

TEST(Recipe, Mistral7BHasTheSizeThatLlamaQuantizeGivesIt) {
  const std::vector<Tensor> tensors = mistral_7b();
  const Totals q4_0 = totals("q4_0", tensors);
  EXPECT_EQ(q4_0.bytes, 4'108'181'504u);
  EXPECT_EQ(q4_0.n_tensors, (std::map<DType, int>{{DType::Q4_0, 225}, {DType::Q6_K, 1}, {DType::F32, 65}}));
  EXPECT_EQ(totals("q8_0", tensors).bytes, 7'695'122'432u);
  EXPECT_EQ(totals("q6_k", tensors).bytes, 5'941'329'920u);
  const Totals q4_k_s = totals("q4_k_s", tensors);
  EXPECT_EQ(q4_k_s.bytes, 4'139'638'784u);
  EXPECT_EQ(q4_k_s.n_tensors,
            (std::map<DType, int>{{DType::Q4_K, 217}, {DType::Q5_K, 8}, {DType::Q6_K, 1}, {DType::F32, 65}}));
  const Totals q4_k_m = totals("q4_k_m", tensors);
  EXPECT_EQ(q4_k_m.bytes, 4'367'704'064u);
  EXPECT_EQ(q4_k_m.n_tensors,
            (std::map<DType, int>{{DType::Q4_K, 193}, {DType::Q6_K, 33}, {DType::F32, 65}}));
  EXPECT_EQ(totals("q5_k_m", tensors).bytes, 5'130'674'176u);
}

TEST(Recipe, FileTypesAreThoseOfTheSpecification) {
  const std::map<std::string_view, uint32_t> kExpected = {
      {"f32", 0},     {"f16", 1},     {"q4_0", 2},    {"q4_1", 3},    {"q8_0", 7},
      {"q5_0", 8},    {"q5_1", 9},    {"q6_k", 18},   {"bf16", 32},   {"q2_k", 10},
      {"q3_k_s", 11}, {"q3_k_m", 12}, {"q3_k_l", 13}, {"q4_k_s", 14}, {"q4_k_m", 15},
      {"q5_k_s", 16}, {"q5_k_m", 17}, {"iq4_nl", 25}, {"iq4_xs", 30}, {"mxfp4_moe", 38},
  };
  EXPECT_EQ(recipes().size(), kExpected.size());
  for (const Recipe& recipe : recipes()) {
    SCOPED_TRACE(recipe.name);
    ASSERT_TRUE(kExpected.contains(recipe.name));
    EXPECT_EQ(recipe.file_type, kExpected.at(recipe.name));
    EXPECT_EQ(find_recipe(recipe.name), &recipe);
    EXPECT_NE(block_format(recipe.base).encode, nullptr);
    EXPECT_NE(block_format(recipe.output).encode, nullptr);
  }
  EXPECT_EQ(find_recipe("Q4_0"), find_recipe("q4_0"));
  EXPECT_EQ(find_recipe("q4_k"), nullptr);
  EXPECT_EQ(find_recipe(""), nullptr);
}

TEST(Recipe, VectorsNormsAndWhatIsNoWeightStayF32) {
  for (const Recipe& recipe : recipes()) {
    SCOPED_TRACE(recipe.name);
    EXPECT_EQ(chosen(recipe.name, "output_norm.weight", {4096}), DType::F32);
    EXPECT_EQ(chosen(recipe.name, "rope_freqs.weight", {64}), DType::F32);
    EXPECT_EQ(chosen(recipe.name, "blk.0.attn_q.bias", {4096}), DType::F32);
    EXPECT_EQ(chosen(recipe.name, "blk.0.attn_q_norm.weight", {32, 128}), DType::F32);
    EXPECT_EQ(chosen(recipe.name, "blk.0.attn_q.bias", {2, 4096}), DType::F32);
    EXPECT_EQ(chosen(recipe.name, "blk.0.attn_q.weight", {4096, 4096}),
              recipe.name == "mxfp4_moe" ? DType::Q8_0 : recipe.base);
  }
}

TEST(Recipe, WhatIsNotQuantizedIsKept) {
  for (const Recipe& recipe : recipes()) {
    SCOPED_TRACE(recipe.name);
    for (const DType kept : {DType::F32, DType::F16, DType::BF16}) {
      const std::vector<RecipeTensor> tensors = {{"blk.0.ffn_gate_inp.weight", {8, 256}, kept},
                                                 {"per_layer_model_proj.weight", {512, 256}, kept},
                                                 {"blk.0.attn_q.bias", {256}, kept}};
      for (const FormatChoice& choice : choose_formats(recipe, kMistral, {}, tensors)) {
        EXPECT_EQ(choice.dtype, kept);
        EXPECT_EQ(choice.wanted, kept);
      }
    }
  }
}

TEST(Recipe, TheOutputMatrixIsFinerTiedOrNot) {
  EXPECT_EQ(chosen("q4_0", "output.weight", {32000, 4096}), DType::Q6_K);
  EXPECT_EQ(chosen("q4_0", "token_embd.weight", {32000, 4096}), DType::Q4_0);
  EXPECT_EQ(chosen("q4_0", "token_embd.weight", {32000, 4096}, true), DType::Q6_K);
  EXPECT_EQ(chosen("q5_1", "output.weight", {32000, 4096}), DType::Q6_K);
  EXPECT_EQ(chosen("q8_0", "output.weight", {32000, 4096}), DType::Q8_0);
  EXPECT_EQ(chosen("bf16", "token_embd.weight", {32000, 4096}, true), DType::BF16);
}

// SmolLM2-135M: 576 columns are whole blocks of 32, not of 256.
TEST(Recipe, WidthsThatNoBlockDividesFallBackAndSaySo) {
  const FormatChoice tied = choice("q4_0", "token_embd.weight", {49152, 576}, true);
  EXPECT_EQ(tied.dtype, DType::Q8_0);
  EXPECT_EQ(tied.wanted, DType::Q6_K);
  const FormatChoice inner = choice("q4_0", "blk.0.ffn_up.weight", {1536, 576}, true);
  EXPECT_EQ(inner.dtype, DType::Q4_0);
  EXPECT_EQ(inner.wanted, DType::Q4_0);

  EXPECT_EQ(chosen("q6_k", "blk.0.ffn_up.weight", {1536, 576}), DType::Q8_0);
  EXPECT_EQ(chosen("q5_k_s", "blk.0.ffn_up.weight", {1536, 576}), DType::Q5_1);
  EXPECT_EQ(chosen("q4_k_s", "blk.9.ffn_up.weight", {1536, 576}), DType::Q5_0);
  EXPECT_EQ(chosen("q3_k_s", "blk.0.ffn_up.weight", {1536, 576}), DType::Q4_0);
  EXPECT_EQ(chosen("q2_k", "blk.0.ffn_up.weight", {1536, 576}), DType::Q4_0);
  EXPECT_EQ(chosen("iq4_xs", "blk.0.ffn_up.weight", {1536, 576}), DType::IQ4_NL);
  for (const Recipe& recipe : recipes()) {
    SCOPED_TRACE(recipe.name);
    const FormatChoice odd = choice(recipe.name, "output.weight", {10, 33});
    const bool fits = block_format(recipe.output).block_weights == 1;
    EXPECT_EQ(odd.dtype, fits ? recipe.output : DType::F16);
    EXPECT_EQ(odd.wanted, recipe.output);
  }
}

FormatOverrides wishes(std::initializer_list<std::string_view> texts) {
  FormatOverrides overrides;
  for (const std::string_view text : texts) overrides.tensors.push_back(parse_tensor_format(text));
  return overrides;
}

TEST(Recipe, TheFirstPatternThatFitsDecides) {
  const std::vector<Tensor> tensors = mistral_7b();
  const auto format_of = [&](const FormatOverrides& overrides, std::string_view name) {
    const std::vector<FormatChoice> choices = choose("q4_k_m", tensors, kMistral, overrides);
    for (size_t i = 0; i < tensors.size(); ++i)
      if (tensors[i].name == name) return choices[i].dtype;
    throw std::out_of_range(std::string(name));
  };
  const FormatOverrides two = wishes({"blk\\.[01]\\.ffn_down=IQ4_XS", "ffn_.*=q8_0"});
  EXPECT_EQ(format_of(two, "blk.0.ffn_down.weight"), DType::IQ4_XS);
  EXPECT_EQ(format_of(two, "blk.2.ffn_down.weight"), DType::Q8_0);
  EXPECT_EQ(format_of(two, "blk.2.attn_q.weight"), DType::Q4_K);
  EXPECT_EQ(format_of(two, "blk.2.ffn_norm.weight"), DType::F32) << "no matrix";

  FormatOverrides ends = wishes({"^output=q4_0", ".*=mxfp4"});
  EXPECT_EQ(format_of(ends, "output.weight"), DType::Q4_0);
  EXPECT_EQ(format_of(ends, "token_embd.weight"), DType::MXFP4);
  ends.output = DType::BF16;
  ends.embedding = DType::Q2_K;
  EXPECT_EQ(format_of(ends, "output.weight"), DType::BF16);
  EXPECT_EQ(format_of(ends, "token_embd.weight"), DType::Q2_K);

  EXPECT_EQ(format_of(wishes({"FFN_Down=q6_k"}), "blk.9.ffn_down.weight"), DType::Q6_K) << "in any case";
  EXPECT_EQ(format_of(wishes({"ATTN_\\D\\.=q6_k"}), "blk.2.attn_q.weight"), DType::Q6_K);

  FormatOverrides pure;
  pure.pure = true;
  for (const FormatChoice& one : choose("q4_k_m", tensors, kMistral, pure))
    EXPECT_TRUE(one.dtype == DType::Q4_K || one.dtype == DType::F32);
}

// As in llama-quantize.
TEST(Recipe, APatternGoesBeforeTheOutputTypeOfATiedEmbeddingAndTheEmbeddingTypeOfTheLayersOwn) {
  const std::vector<Tensor> tensors = {{"token_embd.weight", {1024, 256}},
                                       {"per_layer_token_embd.weight", {1024, 256}}};
  RecipeModel tied = kMistral;
  tied.tied = true;
  const auto formats_of = [&](const FormatOverrides& overrides) {
    const std::vector<FormatChoice> choices = choose("q4_k_m", tensors, tied, overrides);
    return std::pair(choices[0].dtype, choices[1].dtype);
  };
  FormatOverrides overrides;
  overrides.output = DType::Q8_0;
  EXPECT_EQ(formats_of(overrides), std::pair(DType::Q8_0, DType::Q8_0));
  overrides.tensors = wishes({"^token_embd=q4_0"}).tensors;
  EXPECT_EQ(formats_of(overrides), std::pair(DType::Q4_0, DType::Q8_0));
  overrides.tensors = wishes({"per_layer_token_embd=q5_0"}).tensors;
  overrides.embedding = DType::Q4_1;
  EXPECT_EQ(formats_of(overrides), std::pair(DType::Q4_1, DType::Q5_0));
  overrides.tensors = wishes({"token_embd=q5_0"}).tensors;
  EXPECT_EQ(formats_of(overrides), std::pair(DType::Q4_1, DType::Q5_0));
}

// They would take a matcher that goes back and forth longer than anybody waits.
TEST(Recipe, NoPatternTakesExponentialWork) {
  const std::vector<Tensor> tensors = {
      {"blk.0.a_name_as_long_as_a_file_may_hold_one.ffn_down.weight", {256, 256}}};
  for (const char* text : {"(.*)*\\d\\d\\d\\d=q8_0", "((.*)*)*Z=q8_0", "(.*.*.*.*)*Z=q8_0"})
    EXPECT_THROW(choose("q4_k_m", tensors, kMistral, wishes({text})), Error) << text;
  EXPECT_EQ(choose("q4_k_m", tensors, kMistral, wishes({"(.*)*WEIGHT=q8_0"})).front().dtype, DType::Q8_0);
}

// A tensor that the user chose a format for counts among no rule's places, as in llama-quantize.
TEST(Recipe, PlacesAreCountedAmongTheTensorsThatARuleMayDecide) {
  std::vector<Tensor> tensors;
  for (int i = 0; i < 6; ++i)
    tensors.push_back({"blk." + std::to_string(i) + ".attn_v.weight", {1024, 4096}});
  const auto formats_of = [&](const FormatOverrides& overrides) {
    std::vector<DType> formats;
    for (const FormatChoice& one : choose("q3_k_m", tensors, kMistral, overrides))
      formats.push_back(one.dtype);
    return formats;
  };
  constexpr DType kFive = DType::Q5_K, kFour = DType::Q4_K, kEight = DType::Q8_0;
  EXPECT_EQ(formats_of({}), (std::vector<DType>{kFive, kFive, kFour, kFour, kFour, kFour}));
  EXPECT_EQ(formats_of(wishes({"blk.0=q8_0"})),
            (std::vector<DType>{kEight, kFive, kFive, kFour, kFour, kFour}));
  std::swap(tensors[0], tensors[5]);
  EXPECT_EQ(formats_of({}), (std::vector<DType>{kFour, kFive, kFour, kFour, kFour, kFive}))
      << "in the order of layers";
}

TEST(Recipe, ExpertsAndFewHeadsOfKeysChangeTheMix) {
  const std::vector<Tensor> tensors = {{"blk.0.attn_k.weight", {1024, 4096}},
                                       {"blk.0.attn_output.weight", {4096, 4096}},
                                       {"blk.0.attn_v.weight", {1024, 4096}},
                                       {"blk.0.ffn_down_exps.weight", {8, 4096, 14336}}};
  const auto formats_of = [&](std::string_view recipe, const RecipeModel& model) {
    std::vector<DType> formats;
    for (const FormatChoice& one : choose(recipe, tensors, model)) formats.push_back(one.dtype);
    return formats;
  };
  RecipeModel mixtral = kMistral, wide = kMistral, llama_70b = kMistral;
  mixtral.n_experts = 8;
  wide.n_kv_heads = 32;
  llama_70b.n_layers = 80;
  using enum DType;
  EXPECT_EQ(formats_of("q4_k_m", mixtral), (std::vector<DType>{Q8_0, Q5_K, Q8_0, Q6_K}));
  EXPECT_EQ(formats_of("q3_k_l", mixtral), (std::vector<DType>{Q8_0, Q3_K, Q8_0, Q5_K}));
  EXPECT_EQ(formats_of("mxfp4_moe", mixtral), (std::vector<DType>{Q8_0, Q8_0, Q8_0, MXFP4}));
  EXPECT_EQ(formats_of("q2_k", kMistral), (std::vector<DType>{Q2_K, Q3_K, Q4_K, Q3_K}));
  EXPECT_EQ(formats_of("q2_k", wide), (std::vector<DType>{Q2_K, Q3_K, Q3_K, Q3_K}));
  EXPECT_EQ(formats_of("iq4_xs", kMistral), (std::vector<DType>{IQ4_XS, IQ4_XS, Q5_K, Q5_K}));
  EXPECT_EQ(formats_of("q3_k_s", llama_70b), (std::vector<DType>{Q3_K, Q3_K, Q5_K, Q3_K}));
  RecipeModel weighted = kMistral;
  weighted.has_importance = true;
  EXPECT_EQ(formats_of("iq4_xs", weighted), (std::vector<DType>{IQ4_XS, IQ4_XS, Q5_K, IQ4_XS}));
  EXPECT_EQ(formats_of("q4_0", weighted), (std::vector<DType>{Q4_0, Q4_0, Q4_0, Q4_1}));
}

TEST(Recipe, RefusesPatternsThatAreNoneOrFitNothing) {
  const auto usage_error = [](const auto& body) -> std::string {
    try {
      body();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage);
      return error.what();
    }
    return "no error";
  };
  for (const char* text : {"ffn_down", "=q4_0", ""})
    EXPECT_NE(usage_error([&] { parse_tensor_format(text); }).find("PATTERN=FORMAT"), std::string::npos);
  for (const char* text : {"a=", "a=q4", "a=iq2_xxs", "a=i32", "a=q4_k_m"})
    EXPECT_NE(usage_error([&] { parse_tensor_format(text); }).find("iq4_xs, bf16, mxfp4"), std::string::npos)
        << text;
  const std::vector<Tensor> tensors = {{"blk.0.attn_q.weight", {4096, 4096}}, {"output_norm.weight", {4096}}};
  for (const char* text : {"(=q4_0", "[z-a]=q4_0", "(a)\\1=q4_0", "attn_x=q4_0", "output_norm=q4_0"}) {
    const std::string error = usage_error([&] { choose("q4_k_m", tensors, kMistral, wishes({text})); });
    EXPECT_NE(error.find("--tensor-type"), std::string::npos) << text << ": " << error;
  }
}

}  // namespace
}  // namespace quern
