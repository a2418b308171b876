#include "convert/hf_config.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace quern {
namespace {

const std::string kConfig =
    R"("architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_act": "silu",)"
    R"( "hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 6,)"
    R"( "num_key_value_heads": 2, "vocab_size": 320, "max_position_embeddings": 256,)"
    R"( "rms_norm_eps": 1e-05, "rope_theta": 500000.0)";
const std::string kParams =
    R"("dim": 4096, "n_layers": 32, "head_dim": 128, "hidden_dim": 14336, "n_heads": 32, "n_kv_heads": 8,)"
    R"( "norm_eps": 1e-05, "vocab_size": 32000)";

// `members` with those of `changes` replaced or added; "" as a value removes.
ModelConfig read(std::string members, ConfigDialect dialect,
                 const std::vector<std::pair<std::string, std::string>>& changes = {}) {
  const Json base = parse_json("{" + members + "}", "base");
  for (const auto& [key, value] : changes) {
    const size_t at = members.find("\"" + key + "\": ");
    if (at != std::string::npos) {
      size_t end = members.find(", \"", at);
      end = end == std::string::npos ? members.size() : end + 2;
      members.erase(at, end - at);
      if (members.ends_with(", ")) members.resize(members.size() - 2);
    }
    if (!value.empty()) members += ", \"" + key + "\": " + value;
  }
  return read_model_config(parse_json("{" + members + "}", "f.json"), dialect, "f.json");
}

ModelConfig hugging_face(const std::vector<std::pair<std::string, std::string>>& changes = {}) {
  return read(kConfig, ConfigDialect::kHuggingFace, changes);
}

ModelConfig mistral(const std::vector<std::pair<std::string, std::string>>& changes = {}) {
  return read(kParams, ConfigDialect::kMistral, changes);
}

TEST(HfConfig, ReadsHuggingFaceConfig) {
  const ModelConfig c = hugging_face();
  EXPECT_EQ(c.dim, 96u);
  EXPECT_EQ(c.hidden_dim, 160u);
  EXPECT_EQ(c.n_layers, 3u);
  EXPECT_EQ(c.n_heads, 6u);
  EXPECT_EQ(c.n_kv_heads, 2u);
  EXPECT_EQ(c.head_dim, 16u);
  EXPECT_FALSE(c.head_dim_given);
  EXPECT_EQ(c.vocab_size, 320u);
  EXPECT_EQ(c.context_length, 256u);
  EXPECT_EQ(c.rms_norm_eps, 1e-5);
  EXPECT_EQ(c.rope_theta, 500000.0);
  EXPECT_FALSE(c.sliding_window);
  EXPECT_FALSE(c.tied);
}

TEST(HfConfig, HeadDimIsIndependentOfDim) {
  const ModelConfig c = hugging_face({{"head_dim", "32"}});
  EXPECT_EQ(c.head_dim, 32u);
  EXPECT_TRUE(c.head_dim_given);
  EXPECT_EQ(hugging_face({{"head_dim", "null"}}).head_dim, 16u);
}

TEST(HfConfig, DefaultsAreThoseOfTransformers) {
  EXPECT_EQ(hugging_face({{"rope_theta", ""}}).rope_theta, 10000.0);
  EXPECT_EQ(hugging_face({{"num_key_value_heads", ""}}).n_kv_heads, 6u);
  EXPECT_EQ(hugging_face({{"sliding_window", "4096"}}).sliding_window, 4096u);
  EXPECT_TRUE(hugging_face({{"tie_word_embeddings", "true"}}).tied);
}

TEST(HfConfig, ReadsRopeParametersOfTransformers5) {
  const ModelConfig c = hugging_face(
      {{"rope_theta", ""}, {"rope_parameters", R"({"rope_type": "default", "rope_theta": 1000000.0})"}});
  EXPECT_EQ(c.rope_theta, 1e6);
}

TEST(HfConfig, PaddingIdIsKeptWhenATokenHasIt) {
  EXPECT_EQ(hugging_face({{"pad_token_id", "2"}}).pad_token_id, 2u);
  EXPECT_FALSE(hugging_face({{"pad_token_id", "-1"}}).pad_token_id);
  EXPECT_FALSE(hugging_face({{"pad_token_id", "320"}}).pad_token_id);
}

TEST(HfConfig, ReadsMistralParams) {
  const ModelConfig c = mistral();
  EXPECT_EQ(c.dim, 4096u);
  EXPECT_EQ(c.hidden_dim, 14336u);
  EXPECT_EQ(c.head_dim, 128u);
  EXPECT_EQ(c.context_length, 32768u);
  EXPECT_EQ(c.rope_theta, 1e6);
  const ModelConfig window = mistral({{"sliding_window", "4096"}});
  EXPECT_EQ(window.rope_theta, 1e4);
  EXPECT_EQ(window.sliding_window, 4096u);
  EXPECT_EQ(mistral({{"rope_theta", "20000.0"}}).rope_theta, 20000.0);
}

TEST(HfConfig, RefusesValuesOutOfRangeByKey) {
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"hidden_size", "0"},
      {"hidden_size", "-32"},
      {"hidden_size", "32.5"},
      {"hidden_size", "1099511627776"},
      {"hidden_size", "\"96\""},
      {"hidden_size", ""},
      {"intermediate_size", "0"},
      {"num_hidden_layers", "0"},
      {"num_hidden_layers", "513"},
      {"num_attention_heads", "5"},
      {"num_attention_heads", "0"},
      {"num_key_value_heads", "0"},
      {"num_key_value_heads", "4"},
      {"head_dim", "0"},
      {"head_dim", "31"},
      {"vocab_size", "0"},
      {"vocab_size", "99999999999"},
      {"max_position_embeddings", "0"},
      {"max_position_embeddings", ""},
      {"rms_norm_eps", ""},
      {"rms_norm_eps", "0"},
      {"rms_norm_eps", "-1e-5"},
      {"rms_norm_eps", "1e-300"},
      {"rope_theta", "0.0"},
      {"rope_theta", "0.5"},
      {"head_dim", "2048"},
      {"rope_theta", "\"1e6\""},
      {"sliding_window", "0"},
      {"sliding_window", "-1"},
      {"tie_word_embeddings", "1"},
  };
  for (const auto& [key, value] : bad) {
    try {
      hugging_face({{key, value}});
      ADD_FAILURE() << key << " = " << value;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kMalformed);
      EXPECT_NE(std::string(e.what()).find("f.json: " + key), std::string::npos) << e.what();
    }
  }
}

TEST(HfConfig, RefusesWhatChangesTheMathematicsByKey) {
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"architectures", R"(["BertModel"])"},
      {"architectures", R"(["MixtralForCausalLM"])"},
      {"model_type", "\"qwen2\""},
      {"hidden_act", "\"gelu\""},
      {"rope_scaling", R"({"type": "yarn", "factor": 4.0})"},
      {"rope_scaling", R"({"rope_type": "llama3", "factor": 8.0})"},
      {"rope_scaling", R"({"factor": 4.0})"},
      {"rope_parameters", R"({"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6})"},
      {"rope_parameters", R"({"rope_type": "default", "partial_rotary_factor": 0.5})"},
      {"rope_parameters", R"({"full_attention": {"rope_type": "linear", "factor": 4.0}})"},
      {"rope_scaling", R"({"attention_factor": 2.0})"},
      {"quantization_config", R"({"quant_method": "gptq"})"},
      {"attention_bias", "true"},
      {"mlp_bias", "true"},
      {"num_local_experts", "8"},
      {"partial_rotary_factor", "0.5"},
      {"layer_types", R"(["sliding_attention", "full_attention"])"},
  };
  for (const auto& [key, value] : bad) {
    try {
      hugging_face({{key, value}});
      ADD_FAILURE() << key << " = " << value;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kMalformed);
      EXPECT_NE(std::string(e.what()).find("f.json: " + key), std::string::npos) << e.what();
    }
  }
  for (const char* key : {"moe", "yarn", "quantization"}) {
    EXPECT_THROW(mistral({{key, "{\"a\": 1}"}}), Error) << key;
  }
}

TEST(HfConfig, AcceptsTheSameKeysWhereTheyChangeNothing) {
  EXPECT_NO_THROW(hugging_face({{"rope_scaling", "null"},
                                {"attention_bias", "false"},
                                {"mlp_bias", "false"},
                                {"num_local_experts", "0"},
                                {"partial_rotary_factor", "1.0"},
                                {"quantization_config", "null"},
                                {"layer_types", R"(["full_attention", "full_attention"])"}}));
  EXPECT_NO_THROW(hugging_face({{"rope_scaling", R"({"type": "default"})"}}));
  EXPECT_NO_THROW(hugging_face({{"architectures", R"(["LlamaForCausalLM"])"}, {"model_type", "\"llama\""}}));
}

}  // namespace
}  // namespace quern
