#include "convert/models/models.h"

#include "convert/model_export.h"

namespace quern {

std::span<const CheckpointModel> checkpoint_models() noexcept {
  static constexpr CheckpointModel kModels[] = {
      // architecture, model_type, has_window, tied_by_default, describe
      {"MistralForCausalLM", "mistral", true, false, describe_llama},
      {"LlamaForCausalLM", "llama", false, false, describe_llama},
      {"MixtralForCausalLM", "mixtral", true, false, describe_mixtral},
      {"ArceeForCausalLM", "arcee", false, false, describe_arcee},
      {"Ministral3ForCausalLM", "ministral3", false, false, describe_ministral3},
      {"Qwen2ForCausalLM", "qwen2", false, false, describe_qwen2},
      {"Qwen2MoeForCausalLM", "qwen2_moe", false, false, describe_qwen2_moe},
      {"Qwen3ForCausalLM", "qwen3", false, false, describe_qwen3},
      {"Qwen3MoeForCausalLM", "qwen3_moe", false, false, describe_qwen3_moe},
      {"Qwen3_5ForCausalLM", "qwen3_5_text", false, false, describe_qwen35},
      {"Qwen3_5MoeForCausalLM", "qwen3_5_moe_text", false, false, describe_qwen35_moe},
      {"Lfm2ForCausalLM", "lfm2", false, true, describe_lfm2},
      {"DeepseekV2ForCausalLM", "deepseek_v2", false, false, describe_deepseek2},
      {"DeepseekV3ForCausalLM", "deepseek_v3", false, false, describe_deepseek3},
      {"Glm4MoeLiteForCausalLM", "glm4_moe_lite", false, false, describe_glm4_moe_lite},
      {"GemmaForCausalLM", "gemma", false, true, describe_gemma},
      {"Gemma2ForCausalLM", "gemma2", false, true, describe_gemma2},
      {"Gemma3ForCausalLM", "gemma3_text", false, true, describe_gemma3},
      {"Gemma4ForCausalLM", "gemma4_text", false, true, describe_gemma4},
      {"Phi3ForCausalLM", "phi3", true, false, describe_phi3},
      {"NemotronForCausalLM", "nemotron", false, false, describe_nemotron},
      {"GraniteForCausalLM", "granite", false, false, describe_granite},
      {"GraniteMoeForCausalLM", "granitemoe", false, false, describe_granite_moe},
      {"SmolLM3ForCausalLM", "smollm3", false, true, describe_smollm3},
      {"Olmo2ForCausalLM", "olmo2", false, false, describe_olmo2},
      {"OlmoeForCausalLM", "olmoe", false, false, describe_olmoe},
      {"GptOssForCausalLM", "gpt_oss", false, false, describe_gpt_oss},
      {"Glm4ForCausalLM", "glm4", false, false, describe_glm4},
      {"Exaone4ForCausalLM", "exaone4", false, false, describe_exaone4},
      {"Cohere2ForCausalLM", "cohere2", false, true, describe_cohere2},
      {"Starcoder2ForCausalLM", "starcoder2", true, true, describe_starcoder2},
      {"StableLmForCausalLM", "stablelm", false, false, describe_stablelm},
      {"GPT2LMHeadModel", "gpt2", false, true, describe_gpt2},
      {"SeedOssForCausalLM", "seed_oss", false, false, describe_seed_oss},
      {"Ernie4_5ForCausalLM", "ernie4_5", false, true, describe_ernie4_5},
  };
  return kModels;
}

}  // namespace quern
