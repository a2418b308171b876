#include "convert/models/models.h"

#include "convert/model_export.h"

namespace quern {
namespace {

// transformers 5.24: configuration_*.py.
constexpr KeyDefault kMistral[] = {{"sliding_window", "4096"}};
constexpr KeyDefault kMixtral[] = {{"rope_theta", "1e6"}};
constexpr KeyDefault kMinistral3[] = {
    {"rope_parameters",
     R"({"rope_type": "yarn", "rope_theta": 1e6, "factor": 16, "original_max_position_embeddings": 16384,)"
     R"( "beta_fast": 32, "beta_slow": 1, "mscale": 1, "mscale_all_dim": 1, "llama_4_scaling_beta": 0.1})"}};
constexpr KeyDefault kLfm2[] = {{"rope_theta", "1e6"}};
constexpr KeyDefault kDeepseek2[] = {{"n_shared_experts", "2"}};
constexpr KeyDefault kDeepseek3[] = {
    {"routed_scaling_factor", "2.5"}, {"n_group", "8"}, {"topk_group", "4"}, {"n_shared_experts", "1"}};
constexpr KeyDefault kGlm4MoeLite[] = {{"routed_scaling_factor", "1.8"}, {"n_shared_experts", "1"}};
constexpr KeyDefault kGemma2[] = {{"sliding_window", "4096"},
                                  {"query_pre_attn_scalar", "256"},
                                  {"attn_logit_softcapping", "50"},
                                  {"final_logit_softcapping", "30"}};
// The published text_config name only what differs from these.
constexpr KeyDefault kGemma3[] = {
    {"vocab_size", "262208"},      {"hidden_size", "2304"},
    {"intermediate_size", "9216"}, {"num_hidden_layers", "26"},
    {"num_attention_heads", "8"},  {"num_key_value_heads", "4"},
    {"head_dim", "256"},           {"max_position_embeddings", "131072"},
    {"rms_norm_eps", "1e-6"},      {"rope_theta", "1e6"},
    {"sliding_window", "4096"},    {"query_pre_attn_scalar", "256"},
};
constexpr KeyDefault kGemma4[] = {{"sliding_window", "512"}, {"hidden_size_per_layer_input", "256"}};
constexpr KeyDefault kPhi3[] = {{"original_max_position_embeddings", "4096"}};
constexpr KeyDefault kGranite[] = {{"attention_multiplier", "1"}};
constexpr KeyDefault kSmolLm3[] = {{"rope_theta", "2e6"}};
constexpr KeyDefault kGptOss[] = {
    {"rope_theta", "150000"},
    {"sliding_window", "128"},
    {"rope_parameters",
     R"({"rope_type": "yarn", "rope_theta": 150000, "factor": 32, "beta_fast": 32, "beta_slow": 1,)"
     R"( "truncate": false, "original_max_position_embeddings": 4096})"}};
constexpr KeyDefault kExaone4[] = {{"sliding_window", "4096"}};
constexpr KeyDefault kCohere2[] = {{"sliding_window", "4096"}, {"logit_scale", "0.0625"}};
constexpr KeyDefault kErnie4_5[] = {{"rope_theta", "500000"}};

}  // namespace

std::span<const CheckpointModel> checkpoint_models() noexcept {
  static constexpr CheckpointModel kModels[] = {
      // architecture, model_type, has_window, tied_by_default, describe, defaults
      {"MistralForCausalLM", "mistral", true, false, describe_llama, kMistral},
      {"LlamaForCausalLM", "llama", false, false, describe_llama},
      {"MixtralForCausalLM", "mixtral", true, false, describe_mixtral, kMixtral},
      {"ArceeForCausalLM", "arcee", false, false, describe_arcee},
      {"Ministral3ForCausalLM", "ministral3", false, false, describe_ministral3, kMinistral3},
      {"Qwen2ForCausalLM", "qwen2", false, false, describe_qwen2},
      {"Qwen2MoeForCausalLM", "qwen2_moe", false, false, describe_qwen2_moe},
      {"Qwen3ForCausalLM", "qwen3", false, false, describe_qwen3},
      {"Qwen3MoeForCausalLM", "qwen3_moe", false, false, describe_qwen3_moe},
      {"Qwen3_5ForCausalLM", "qwen3_5_text", false, false, describe_qwen35},
      {"Qwen3_5MoeForCausalLM", "qwen3_5_moe_text", false, false, describe_qwen35_moe},
      {"Lfm2ForCausalLM", "lfm2", false, true, describe_lfm2, kLfm2},
      {"DeepseekV2ForCausalLM", "deepseek_v2", false, false, describe_deepseek2, kDeepseek2},
      {"DeepseekV3ForCausalLM", "deepseek_v3", false, false, describe_deepseek3, kDeepseek3},
      {"Glm4MoeLiteForCausalLM", "glm4_moe_lite", false, false, describe_glm4_moe_lite, kGlm4MoeLite},
      {"GemmaForCausalLM", "gemma", false, true, describe_gemma},
      {"Gemma2ForCausalLM", "gemma2", false, true, describe_gemma2, kGemma2},
      {"Gemma3ForCausalLM", "gemma3_text", false, true, describe_gemma3, kGemma3},
      {"Gemma4ForCausalLM", "gemma4_text", false, true, describe_gemma4, kGemma4},
      {"Phi3ForCausalLM", "phi3", true, false, describe_phi3, kPhi3},
      {"NemotronForCausalLM", "nemotron", false, false, describe_nemotron},
      {"GraniteForCausalLM", "granite", false, false, describe_granite, kGranite},
      {"GraniteMoeForCausalLM", "granitemoe", false, false, describe_granite_moe, kGranite},
      {"SmolLM3ForCausalLM", "smollm3", false, true, describe_smollm3, kSmolLm3},
      {"Olmo2ForCausalLM", "olmo2", false, false, describe_olmo2},
      {"OlmoeForCausalLM", "olmoe", false, false, describe_olmoe},
      {"GptOssForCausalLM", "gpt_oss", false, false, describe_gpt_oss, kGptOss},
      {"Glm4ForCausalLM", "glm4", false, false, describe_glm4},
      {"Exaone4ForCausalLM", "exaone4", false, false, describe_exaone4, kExaone4},
      {"Cohere2ForCausalLM", "cohere2", false, true, describe_cohere2, kCohere2},
      {"Starcoder2ForCausalLM", "starcoder2", true, true, describe_starcoder2},
      {"StableLmForCausalLM", "stablelm", false, false, describe_stablelm},
      {"GPT2LMHeadModel", "gpt2", false, true, describe_gpt2},
      {"SeedOssForCausalLM", "seed_oss", false, false, describe_seed_oss},
      {"Ernie4_5ForCausalLM", "ernie4_5", false, true, describe_ernie4_5, kErnie4_5},
  };
  return kModels;
}

}  // namespace quern
