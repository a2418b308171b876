#include "quant/recipe.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

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

Totals totals(std::string_view recipe_name, const std::vector<Tensor>& tensors, bool tied) {
  Totals sum;
  for (const auto& [name, shape] : tensors) {
    const DType dtype = choose_format(*find_recipe(recipe_name), name, shape, tied).dtype;
    uint64_t rows = 1;
    for (size_t d = 0; d + 1 < shape.size(); ++d) rows *= shape[d];
    sum.bytes += rows * block_format(dtype).row_bytes(shape.back());
    ++sum.n_tensors[dtype];
  }
  return sum;
}

DType chosen(std::string_view recipe, std::string_view tensor, const Shape& shape, bool tied = false) {
  return choose_format(*find_recipe(recipe), tensor, shape, tied).dtype;
}

TEST(Recipe, Mistral7BHasTheSizeThatLlamaQuantizeGivesIt) {
  const std::vector<Tensor> tensors = mistral_7b();
  const Totals q4_0 = totals("q4_0", tensors, false);
  EXPECT_EQ(q4_0.bytes, 4'108'181'504u);
  EXPECT_EQ(q4_0.n_tensors, (std::map<DType, int>{{DType::Q4_0, 225}, {DType::Q6_K, 1}, {DType::F32, 65}}));
  EXPECT_EQ(totals("q8_0", tensors, false).bytes, 7'695'122'432u);
  EXPECT_EQ(totals("q6_k", tensors, false).bytes, 5'941'329'920u);
}

TEST(Recipe, FileTypesAreThoseOfTheSpecification) {
  const std::map<std::string_view, uint32_t> kExpected = {
      {"f32", 0},  {"f16", 1},  {"q4_0", 2},  {"q4_1", 3},  {"q8_0", 7},
      {"q5_0", 8}, {"q5_1", 9}, {"q6_k", 18}, {"bf16", 32},
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
  EXPECT_EQ(find_recipe("q4_k_m"), nullptr);
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
    EXPECT_EQ(chosen(recipe.name, "blk.0.attn_q.weight", {4096, 4096}), recipe.base);
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
  const Recipe& q4_0 = *find_recipe("q4_0");
  const FormatChoice tied = choose_format(q4_0, "token_embd.weight", {49152, 576}, true);
  EXPECT_EQ(tied.dtype, DType::Q8_0);
  EXPECT_EQ(tied.wanted, DType::Q6_K);
  const FormatChoice inner = choose_format(q4_0, "blk.0.ffn_up.weight", {1536, 576}, true);
  EXPECT_EQ(inner.dtype, DType::Q4_0);
  EXPECT_EQ(inner.wanted, DType::Q4_0);

  EXPECT_EQ(chosen("q6_k", "blk.0.ffn_up.weight", {1536, 576}), DType::Q8_0);
  for (const Recipe& recipe : recipes()) {
    SCOPED_TRACE(recipe.name);
    const FormatChoice odd = choose_format(recipe, "output.weight", {10, 33}, false);
    const bool fits = block_format(recipe.output).block_weights == 1;
    EXPECT_EQ(odd.dtype, fits ? recipe.output : DType::F16);
    EXPECT_EQ(odd.wanted, recipe.output);
  }
}

}  // namespace
}  // namespace quern
