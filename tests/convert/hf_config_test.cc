#include "convert/hf_config.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "convert/model_export.h"

namespace quern {
namespace {

const std::string kConfig =
    R"("architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_act": "silu",)"
    R"( "hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 6,)"
    R"( "num_key_value_heads": 2, "vocab_size": 320, "max_position_embeddings": 256,)"
    R"( "rms_norm_eps": 1e-05, "sliding_window": null, "rope_theta": 500000.0)";
const std::string kParams =
    R"("dim": 4096, "n_layers": 32, "head_dim": 128, "hidden_dim": 14336, "n_heads": 32, "n_kv_heads": 8,)"
    R"( "norm_eps": 1e-05, "vocab_size": 32000)";

std::vector<std::string> notices;  // of the last read

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
  notices.clear();
  return read_model_config(parse_json("{" + members + "}", "f.json"), dialect, "f.json",
                           [](std::string_view line) { notices.emplace_back(line); });
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

TEST(HfConfig, BaseInsideOfRopeParametersWins) {
  const std::string inner = R"({"rope_type": "default", "rope_theta": 1000000.0})";
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    EXPECT_EQ(hugging_face({{"rope_theta", "10000.0"}, {key, inner}}).rope_theta, 1e6) << key;
    ASSERT_EQ(notices.size(), 1u);
    EXPECT_NE(notices[0].find("rope_theta"), std::string::npos) << notices[0];
    EXPECT_EQ(hugging_face({{"rope_theta", "1000000"}, {key, inner}}).rope_theta, 1e6) << key;
    EXPECT_TRUE(notices.empty());
  }
}

// Who extends a context adds rope_scaling to a file that may have rope_parameters already; transformers 5
// takes that. The base stays.
TEST(HfConfig, RopeScalingWinsOverRopeParameters) {
  const std::string parameters = R"({"rope_type": "default", "rope_theta": 500000.0})";
  const ModelConfig both = hugging_face({{"rope_theta", ""},
                                         {"rope_parameters", parameters},
                                         {"rope_scaling", R"({"type": "linear", "factor": 2.0})"}});
  ASSERT_TRUE(both.metadata.find("llama.rope.scaling.factor"));
  EXPECT_EQ(both.metadata.find("llama.rope.scaling.factor")->as_float(), 2.0);
  EXPECT_EQ(both.metadata.find("llama.rope.freq_base")->as_float(), 500000.0);
  ASSERT_EQ(notices.size(), 1u);
  EXPECT_NE(notices[0].find("rope_scaling counts"), std::string::npos) << notices[0];
  // The same said twice needs no notice.
  hugging_face({{"rope_theta", ""},
                {"rope_parameters", R"({"rope_type": "linear", "factor": 2.0, "rope_theta": 500000.0})"},
                {"rope_scaling", R"({"type": "linear", "factor": 2.0})"}});
  EXPECT_TRUE(notices.empty()) << notices[0];
  hugging_face({{"rope_theta", "500000.0"}, {"rope_parameters", parameters}, {"rope_scaling", "{}"}});
  EXPECT_TRUE(notices.empty()) << notices[0];
}

TEST(HfConfig, ContradictionsWithinARotationAreNamed) {
  const ModelConfig config =
      hugging_face({{"rope_scaling", R"({"rope_type": "linear", "type": "yarn", "factor": 2.0})"}});
  EXPECT_EQ(config.metadata.find("llama.rope.scaling.type")->as_string(), "linear");
  ASSERT_EQ(notices.size(), 1u);
  EXPECT_NE(notices[0].find("rope_type counts"), std::string::npos) << notices[0];
  hugging_face({{"rope_scaling", R"({"rope_type": "linear", "type": "linear", "factor": 2.0})"}});
  EXPECT_TRUE(notices.empty());
}

TEST(HfConfig, LlamaHasNoSlidingWindow) {
  const std::vector<std::pair<std::string, std::string>> llama = {
      {"architectures", R"(["LlamaForCausalLM"])"}, {"model_type", "\"llama\""}};
  auto with_window = llama;
  with_window.emplace_back("sliding_window", "64");
  EXPECT_FALSE(hugging_face(with_window).sliding_window);
  ASSERT_EQ(notices.size(), 1u);
  EXPECT_NE(notices[0].find("sliding_window = 64 is ignored"), std::string::npos) << notices[0];
  with_window.emplace_back("layer_types", R"(["full_attention"])");
  EXPECT_FALSE(hugging_face(with_window).sliding_window);
  EXPECT_FALSE(hugging_face({{"sliding_window", "0"}}).sliding_window);
  EXPECT_TRUE(notices.empty());
  EXPECT_FALSE(mistral({{"sliding_window", "0"}}).sliding_window);
}

TEST(HfConfig, ArchitecturesWinsOverModelType) {
  EXPECT_EQ(hugging_face({{"model_type", "\"llama\""}, {"sliding_window", "64"}}).sliding_window, 64u);
  ASSERT_EQ(notices.size(), 1u);
  EXPECT_NE(notices[0].find("architectures counts"), std::string::npos) << notices[0];
}

TEST(HfConfig, NamesMayBeSpelledAsOthersSpellThem) {
  EXPECT_NO_THROW(hugging_face({{"architectures", R"(["LLaMAForCausalLM"])"}, {"model_type", "\"llama\""}}));
  EXPECT_NO_THROW(hugging_face({{"architectures", "[]"}, {"model_type", "\"llama\""}}));
  EXPECT_NO_THROW(hugging_face({{"hidden_act", "\"swish\""}}));
  EXPECT_EQ(hugging_face({{"max_position_embeddings", "256.0"}}).context_length, 256u);
  EXPECT_TRUE(notices.empty());
  EXPECT_EQ(hugging_face({{"max_position_embeddings", ""}, {"max_sequence_length", "99"}}).context_length,
            99u);
  ASSERT_EQ(notices.size(), 1u);
  EXPECT_NE(notices[0].find("max_sequence_length = 99 stands for it"), std::string::npos) << notices[0];
  EXPECT_EQ(
      hugging_face({{"max_position_embeddings", ""}, {"n_ctx", "9"}, {"n_positions", "99"}}).context_length,
      99u);
}

TEST(HfConfig, ScalingByOneIsNone) {
  for (const char* scaling : {R"({"type": "linear", "factor": 1.0})", R"({"rope_type": "yarn", "factor": 1})",
                              R"({"rope_type": "llama3", "factor": 1.0, "low_freq_factor": 1.0,)"
                              R"( "high_freq_factor": 4.0, "original_max_position_embeddings": 8192})"}) {
    EXPECT_EQ(hugging_face({{"rope_scaling", scaling}}).rope_theta, 500000.0);
    ASSERT_EQ(notices.size(), 1u) << scaling;
    EXPECT_NE(notices[0].find("changes nothing"), std::string::npos);
  }
  for (const char* scaling : {R"({"type": "dynamic", "factor": 1.0})",
                              R"({"type": "longrope", "factor": 1.0})", R"({"type": "linear"})"})
    EXPECT_THROW(hugging_face({{"rope_scaling", scaling}}), Error) << scaling;
}

TEST(HfConfig, KeysThatSayBiasesAreRemembered) {
  EXPECT_EQ(hugging_face({{"attention_bias", "true"}}).bias_key, "attention_bias");
  EXPECT_EQ(hugging_face({{"mlp_bias", "true"}}).bias_key, "mlp_bias");
  EXPECT_EQ(hugging_face({{"attention_bias", "false"}}).bias_key, "");
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
      {"hidden_act", "\"gelu\""},
      {"model_type", "\"t5\""},
      {"rope_scaling", R"({"type": "dynamic", "factor": 4.0})"},
      {"rope_scaling", R"({"type": "yarn", "factor": 4.0, "mscale": 0.7})"},
      {"rope_scaling", R"({"factor": 4.0})"},
      {"rope_parameters", R"({"rope_type": "default", "partial_rotary_factor": 0.5})"},
      {"rope_parameters", R"({"full_attention": {"rope_type": "linear", "factor": 4.0}})"},
      {"rope_scaling", R"({"attention_factor": 2.0})"},
      {"quantization_config", R"({"quant_method": "gptq"})"},
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

TEST(HfConfig, ScalingsOfRopeBecomeKeysAndFactors) {
  const ModelConfig linear = hugging_face({{"rope_scaling", R"({"type": "linear", "factor": 4.0})"}});
  EXPECT_EQ(linear.metadata.find("llama.rope.scaling.type")->as_string(), "linear");
  EXPECT_EQ(linear.metadata.find("llama.rope.scaling.factor")->as_float(), 4.0);
  const ModelConfig yarn =
      hugging_face({{"rope_parameters",
                     R"({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64})"}});
  EXPECT_EQ(yarn.metadata.find("llama.rope.scaling.original_context_length")->as_uint(), 64u);
  const ModelConfig llama3 = hugging_face({{"rope_scaling", R"({"rope_type": "llama3", "factor": 8.0})"}});
  const auto freqs = std::find_if(llama3.tensors.begin(), llama3.tensors.end(),
                                  [](const DeclaredTensor& t) { return t.gguf == "rope_freqs.weight"; });
  ASSERT_NE(freqs, llama3.tensors.end());
  EXPECT_EQ(freqs->shape, Shape{8});
}

TEST(HfConfig, EveryKindOfCheckpointIsFoundByItsName) {
  for (const CheckpointModel& model : checkpoint_models()) {
    if (std::any_of(model.defaults.begin(), model.defaults.end(),
                    [](const KeyDefault& given) { return given.key == "hidden_size"; }))
      continue;  // Gemma 3: PublishedConfig has it
    try {
      read("\"architectures\": [\"" + std::string(model.architecture) + "\"], \"model_type\": \"" +
               std::string(model.model_type) + "\"",
           ConfigDialect::kHuggingFace);
      ADD_FAILURE() << model.architecture;
    } catch (const Error& e) {  // its sizes are what is missing
      EXPECT_NE(std::string(e.what()).find("is missing"), std::string::npos) << e.what();
      EXPECT_EQ(std::string(e.what()).find("architectures"), std::string::npos) << e.what();
    }
  }
}

TEST(HfConfig, AcceptsTheSameKeysWhereTheyChangeNothing) {
  EXPECT_NO_THROW(hugging_face({{"rope_scaling", "null"},
                                {"attention_bias", "false"},
                                {"mlp_bias", "false"},
                                {"num_local_experts", "0"},
                                {"partial_rotary_factor", "1.0"},
                                {"quantization_config", "{}"},
                                {"layer_types", R"(["full_attention", "full_attention"])"}}));
  EXPECT_NO_THROW(hugging_face({{"rope_scaling", R"({"type": "default"})"}}));
  EXPECT_NO_THROW(hugging_face({{"architectures", R"(["LlamaForCausalLM"])"}, {"model_type", "\"llama\""}}));
}

}  // namespace
}  // namespace quern
