// Configurations as they are published, with small sizes: what is read of them, and what stands for a key
// that they leave out. That the models then compute what transformers' do, architectures_test.cc shows.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "convert/hf_config.h"
#include "convert/model_export.h"

namespace quern {
namespace {

const std::string kSizes =
    R"("hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,)"
    R"( "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 160, "max_position_embeddings": 1024,)"
    R"( "rms_norm_eps": 1e-06)";

std::vector<std::string> remarks;  // of the last one read

ModelConfig of_kind(std::string_view model_type, const std::string& members) {
  remarks.clear();
  const std::string text = R"({"model_type": ")" + std::string(model_type) + R"(", )" + kSizes +
                           (members.empty() ? "" : ", " + members) + "}";
  return read_model_config(parse_json(text, "f.json"), ConfigDialect::kHuggingFace, "f.json",
                           [](std::string_view line) { remarks.emplace_back(line); });
}

// The message, or "accepted".
std::string refusal(std::string_view model_type, const std::string& members) {
  try {
    of_kind(model_type, members);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kMalformed);
    return e.what();
  }
  return "accepted";
}

bool remarked(std::string_view text) {
  return std::any_of(remarks.begin(), remarks.end(),
                     [&](const std::string& line) { return line.find(text) != std::string::npos; });
}

double number_in(const ModelConfig& config, const std::string& key) {
  const auto value = config.metadata.find(config.architecture + "." + key);
  if (!value) return -1;
  return value->as_float() ? *value->as_float() : static_cast<double>(value->as_uint().value_or(0));
}

std::vector<bool> flags_in(const ModelConfig& config, const std::string& key) {
  const auto value = config.metadata.find(config.architecture + "." + key);
  return value ? value->as_bools().value_or(std::vector<bool>{}) : std::vector<bool>{};
}

std::vector<float> computed_tensor(const ModelConfig& config, std::string_view name) {
  for (const DeclaredTensor& tensor : config.tensors) {
    if (tensor.gguf != name) continue;
    std::vector<float> values(tensor.shape[0]);
    tensor.make({}, 0, 1, values.size(), values.data());
    return values;
  }
  return {};
}

using Ints = std::vector<int32_t>;
using Bools = std::vector<bool>;

const std::string kLinear =
    R"("linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,)"
    R"( "linear_value_head_dim": 16, "linear_conv_kernel_dim": 4, "attn_output_gate": true,)"
    R"( "mamba_ssm_dtype": "float32", "mtp_num_hidden_layers": 1, "full_attention_interval": 4,)"
    R"( "rope_parameters": {"mrope_interleaved": true, "mrope_section": )";

TEST(PublishedConfig, SectionsOfQwen35ChangeNothingForText) {
  const auto with = [](const std::string& sections) {
    return kLinear + sections +
           R"(, "partial_rotary_factor": 0.5, "rope_theta": 10000000,)"
           R"( "rope_type": "default"})";
  };
  const ModelConfig config = of_kind("qwen3_5_text", with("[2, 1, 1]"));
  EXPECT_EQ(config.metadata.find("qwen35.rope.dimension_sections")->as_int32s(), (Ints{2, 1, 1, 0}));
  EXPECT_EQ(number_in(config, "rope.dimension_count"), 8);
  EXPECT_EQ(number_in(config, "rope.freq_base"), 1e7);
  for (const char* wrong : {"[2, 1]", "[2, 2, 1]", "[2, 1, \"1\"]", "4"})
    EXPECT_NE(refusal("qwen3_5_text", with(wrong)).find("mrope_section"), std::string::npos) << wrong;
  EXPECT_NE(refusal("qwen3_5_text", with("[2, 1, 1]") + R"(, "layer_types": ["full_attention"])")
                .find("layer_types must be"),
            std::string::npos);
  // Of others they do.
  EXPECT_NE(refusal("qwen2", R"("rope_parameters": {"mrope_section": [2, 3, 3]})").find("mrope_section"),
            std::string::npos);
}

TEST(PublishedConfig, OnlyImagesOfGemma4SeeOneAnother) {
  for (const char* value : {"null", "false", "\"vision\""})
    EXPECT_NO_THROW(of_kind("gemma4_text", R"("use_bidirectional_attention": )" + std::string(value)));
  EXPECT_NE(refusal("gemma4_text", R"("use_bidirectional_attention": "all")")
                .find("use_bidirectional_attention = \"all\" is not supported"),
            std::string::npos);
}

TEST(PublishedConfig, TheLastLayerOfGemma4HasNoWindow) {
  EXPECT_EQ(flags_in(of_kind("gemma4_text", ""), "attention.sliding_window_pattern"),
            (Bools{true, true, true, false}));
}

std::string gemma4_rotations(const std::string& full, const std::string& window) {
  return R"("global_head_dim": 32, "rope_parameters": {"full_attention": {"rope_type": "proportional",)"
         R"( "rope_theta": 1000000.0)" +
         full + R"(}, "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0)" + window + "}}";
}

TEST(PublishedConfig, RotationsOfGemma4AreReadWhole) {
  const auto factors = [](const std::string& full) {
    return computed_tensor(of_kind("gemma4_text", gemma4_rotations(full, "")), "rope_freqs.weight");
  };
  const std::vector<float> quarter = factors(R"(, "partial_rotary_factor": 0.25)"),
                           slower = factors(R"(, "partial_rotary_factor": 0.25, "factor": 8.0)");
  ASSERT_EQ(quarter.size(), 16u);
  ASSERT_EQ(slower.size(), 16u);
  for (size_t i = 0; i < 16; ++i) {
    EXPECT_EQ(quarter[i], i < 4 ? 1.0f : 1e30f);
    EXPECT_EQ(slower[i], i < 4 ? 8.0f : 1e30f);
  }
  EXPECT_EQ(factors(""), std::vector<float>(16, 1.0f));  // a map that says nothing of a part turns all
  EXPECT_NE(refusal("gemma4_text", gemma4_rotations(R"(, "beta_fast": 32)", "")).find("beta_fast"),
            std::string::npos);
  EXPECT_NE(refusal("gemma4_text", gemma4_rotations("", R"(, "partial_rotary_factor": 0.5)"))
                .find("rope_parameters"),
            std::string::npos);
  EXPECT_NE(
      refusal("gemma4_text", gemma4_rotations("", R"(, "attention_factor": 2)")).find("attention_factor"),
      std::string::npos);
}

TEST(PublishedConfig, RotationsOfMinistral3SayTheContextOnceMore) {
  const std::string yarn =
      R"("rope_parameters": {"type": "yarn", "rope_theta": 1000000.0, "factor": 16.0, "beta_fast": 32.0,)"
      R"( "original_max_position_embeddings": 64, "max_position_embeddings": 1024, "beta_slow": 1.0,)"
      R"( "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1, "rope_type": "yarn"})";
  const ModelConfig config = of_kind("ministral3", yarn);
  EXPECT_EQ(number_in(config, "rope.scaling.original_context_length"), 64);
  EXPECT_NE(refusal("qwen2", R"("rope_scaling": {"type": "yarn", "factor": 4, "max_position_embeddings": 9})")
                .find("max_position_embeddings"),
            std::string::npos);
  // Without, it is the class's own.
  const ModelConfig bare = of_kind("ministral3", "");
  EXPECT_EQ(number_in(bare, "rope.scaling.original_context_length"), 16384);
  EXPECT_EQ(number_in(bare, "rope.scaling.factor"), 16);
  EXPECT_EQ(number_in(bare, "rope.freq_base"), 1e6);
  EXPECT_EQ(number_in(bare, "attention.temperature_scale"), 0.1f);
  EXPECT_TRUE(remarked("rope_parameters = ")) << remarks.size();
}

TEST(PublishedConfig, OfOldLfm2SpelledItsSizesOtherwise) {
  const std::string rest = R"("conv_L_cache": 3, "norm_eps": 1e-05, "block_multiple_of": 16, )";
  const ModelConfig config = of_kind(
      "lfm2", rest + R"("block_ff_dim": 192, "block_auto_adjust_ff_dim": true, "full_attn_idxs": [1, 3])");
  EXPECT_EQ(number_in(config, "feed_forward_length"), 128);  // two thirds of block_ff_dim
  EXPECT_EQ(config.metadata.find("lfm2.attention.head_count_kv")->as_int32s(), (Ints{0, 2, 0, 2}));
  EXPECT_NE(refusal("lfm2", rest + R"("full_attn_idxs": [4])").find("full_attn_idxs"), std::string::npos);
  // With nothing else to go by.
  const std::string text = R"({"model_type": "lfm2", "hidden_size": 64, "num_hidden_layers": 2,)"
                           R"( "num_attention_heads": 4, "vocab_size": 160, "max_position_embeddings": 64,)"
                           R"( "norm_eps": 1e-05, "conv_L_cache": 3, "block_ff_dim": 96,)"
                           R"( "block_auto_adjust_ff_dim": false})";
  const ModelConfig bare =
      read_model_config(parse_json(text, "f.json"), ConfigDialect::kHuggingFace, "f.json");
  EXPECT_EQ(number_in(bare, "feed_forward_length"), 96);
  EXPECT_EQ(bare.metadata.find("lfm2.attention.head_count_kv")->as_int32s(), (Ints{4, 4}));
}

TEST(PublishedConfig, APeriodStandsForTheListOfLayers) {
  const Bools every_other = {true, false, true, false};
  for (const char* kind : {"gemma3_text", "cohere2", "exaone4"}) {
    const std::string epsilon = R"("layer_norm_eps": 1e-05, "sliding_window": 8, )";
    const ModelConfig config = of_kind(kind, epsilon + R"("sliding_window_pattern": 2)");
    EXPECT_EQ(flags_in(config, "attention.sliding_window_pattern"), every_other) << kind;
    EXPECT_NE(refusal(kind, epsilon + R"("sliding_window_pattern": "LG")").find("sliding_window_pattern"),
              std::string::npos)
        << kind;
    // A list says all there is to say.
    EXPECT_NO_THROW(of_kind(kind, epsilon + R"("sliding_window_pattern": "LG", "layer_types":)"
                                            R"( ["full_attention", "full_attention", "full_attention",)"
                                            R"( "full_attention"])"));
  }
  EXPECT_EQ(flags_in(of_kind("smollm3", R"("no_rope_layer_interval": 2)"), "attention.rope_pattern"),
            every_other);
  EXPECT_NE(refusal("smollm3", R"("no_rope_layer_interval": "2")").find("no_rope_layer_interval"),
            std::string::npos);
}

TEST(PublishedConfig, TheContextBeforeScalingIsTheTrainedOneWhereNothingSaysIt) {
  const ModelConfig yarn = of_kind("llama", R"("rope_scaling": {"type": "yarn", "factor": 4.0})");
  EXPECT_EQ(number_in(yarn, "rope.scaling.original_context_length"), 1024);
  const auto llama3 = [](const std::string& more) {
    return computed_tensor(of_kind("llama", R"("rope_scaling": {"rope_type": "llama3", "factor": 4.0,)"
                                            R"( "low_freq_factor": 1.0, "high_freq_factor": 4.0)" +
                                                more + "}"),
                           "rope_freqs.weight");
  };
  EXPECT_EQ(llama3(""), llama3(R"(, "original_max_position_embeddings": 1024)"));
  EXPECT_NE(llama3(""), llama3(R"(, "original_max_position_embeddings": 8192)"));
}

std::string longrope(const std::string& inner, const std::string& outer) {
  return outer +
         R"("rope_parameters": {"rope_type": "longrope", "short_factor": [1, 1, 1, 1, 1, 1, 1, 1],)"
         R"( "long_factor": [2, 2, 2, 2, 2, 2, 2, 2])" +
         inner + "}";
}

TEST(PublishedConfig, LongRopeTakesTheOuterContextAndTheFactorThatIsStated) {
  const std::string in64 = R"(, "original_max_position_embeddings": 64)",
                    out256 = R"("original_max_position_embeddings": 256, )";
  const auto context = [](const ModelConfig& config) {
    return number_in(config, "rope.scaling.original_context_length");
  };
  EXPECT_EQ(context(of_kind("phi3", longrope(in64, out256))), 256);
  EXPECT_TRUE(remarked("256 counts"));
  EXPECT_EQ(context(of_kind("phi3", longrope(in64, ""))), 4096);
  EXPECT_TRUE(remarked("original_max_position_embeddings = 4096 stand for missing keys"));
  EXPECT_EQ(context(of_kind("phi3", longrope("", out256))), 256);
  EXPECT_TRUE(remarks.empty());
  // sqrt(1 + ln(factor) / ln(original)): 1024 / 256 is 4.
  const double of_ratio = number_in(of_kind("phi3", longrope("", out256)), "rope.scaling.attn_factor"),
               of_two = number_in(of_kind("phi3", longrope(R"(, "factor": 2.0)", out256)),
                                  "rope.scaling.attn_factor");
  EXPECT_NEAR(of_ratio, std::sqrt(1 + 2.0 / 8), 1e-6);
  EXPECT_NEAR(of_two, std::sqrt(1 + 1.0 / 8), 1e-6);
}

TEST(PublishedConfig, WhatIsMissingIsWhatTheKindOfModelHasThen) {
  struct Case {
    const char *kind, *members, *key;
    double value;
  };
  const std::string latents =
      R"("kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,)"
      R"( "n_routed_experts": 16, "num_experts_per_tok": 2, "moe_intermediate_size": 32)";
  const std::string experts = R"("num_local_experts": 4, "num_experts_per_tok": 2)";
  const std::string layer_norm = R"("layer_norm_eps": 1e-05)";
  const Case cases[] = {
      {"mistral", "", "attention.sliding_window", 4096},
      {"mixtral", experts.c_str(), "rope.freq_base", 1e6},
      {"lfm2", R"("conv_L_cache": 3)", "rope.freq_base", 1e6},
      {"deepseek_v3", latents.c_str(), "expert_weights_scale", 2.5},
      {"deepseek_v3", latents.c_str(), "expert_group_count", 8},
      {"deepseek_v3", latents.c_str(), "expert_group_used_count", 4},
      {"glm4_moe_lite", latents.c_str(), "expert_weights_scale", 1.8f},
      {"gemma2", "", "attention.sliding_window", 4096},
      {"gemma2", "", "attn_logit_softcapping", 50},
      {"gemma2", "", "final_logit_softcapping", 30},
      {"gemma2", "", "attention.scale", 1.0 / 16},
      {"gemma2", R"("attn_logit_softcapping": null)", "attn_logit_softcapping", 0},
      {"gemma3_text", "", "rope.freq_base", 1e6},
      {"gemma3_text", "", "attention.scale", 1.0 / 16},
      {"granite", "", "attention.scale", 1},
      {"granitemoe", experts.c_str(), "attention.scale", 1},
      {"smollm3", "", "rope.freq_base", 2e6},
      {"gpt_oss", experts.c_str(), "rope.freq_base", 150000},
      {"gpt_oss", experts.c_str(), "rope.scaling.factor", 32},
      {"gpt_oss", experts.c_str(), "attention.sliding_window", 128},
      {"cohere2", layer_norm.c_str(), "logit_scale", 0.0625},
      {"exaone4", "", "attention.sliding_window", 4096},
      {"ernie4_5", "", "rope.freq_base", 500000},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(number_in(of_kind(c.kind, c.members), c.key), c.value) << c.kind << " " << c.key;
    EXPECT_TRUE(remarked("stand for missing keys") ||
                std::string(c.members).find("null") != std::string::npos)
        << c.kind;
  }
  // A base that a description of the rotation has is none of the missing ones, nor is null a missing window.
  EXPECT_EQ(number_in(of_kind("ernie4_5", R"("rope_parameters": {"rope_theta": 20000.0})"), "rope.freq_base"),
            20000);
  EXPECT_TRUE(remarks.empty());
  EXPECT_EQ(number_in(of_kind("mistral", R"("sliding_window": null)"), "attention.sliding_window"), -1);
  EXPECT_TRUE(remarks.empty());
}

TEST(PublishedConfig, Gemma3NamesOnlyWhatDiffersFromItsClass) {
  const ModelConfig config =
      read_model_config(parse_json(R"({"model_type": "gemma3_text", "hidden_size": 2560,)"
                                   R"( "intermediate_size": 10240, "num_hidden_layers": 34,)"
                                   R"( "sliding_window": 1024,)"
                                   R"( "rope_scaling": {"factor": 8.0, "rope_type": "linear"}})",
                                   "f.json"),
                        ConfigDialect::kHuggingFace, "f.json");
  EXPECT_EQ(config.vocab_size, 262208u);
  EXPECT_EQ(config.n_heads, 8u);
  EXPECT_EQ(config.head_dim, 256u);
  EXPECT_EQ(config.context_length, 131072u);
  EXPECT_EQ(number_in(config, "rope.freq_base"), 1e6);
  EXPECT_EQ(number_in(config, "rope.scaling.factor"), 8);
  EXPECT_EQ(number_in(config, "attention.sliding_window"), 1024);
}

TEST(PublishedConfig, DeepSeek2DoesNotNormaliseTheWeightsOfExperts) {
  const std::string latents =
      R"("kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,)"
      R"( "n_routed_experts": 16, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": )";
  EXPECT_NO_THROW(of_kind("deepseek_v2", latents + "false"));
  EXPECT_NE(refusal("deepseek_v2", latents + "true").find("norm_topk_prob"), std::string::npos);
}

}  // namespace
}  // namespace quern
