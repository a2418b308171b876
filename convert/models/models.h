// The kinds of checkpoints, each described in a file of this folder.
#pragma once

namespace quern {

class ModelExport;

void describe_llama(ModelExport& out);
void describe_arcee(ModelExport& out);
void describe_mixtral(ModelExport& out);
void describe_ministral3(ModelExport& out);
void describe_granite(ModelExport& out);
void describe_smollm3(ModelExport& out);
void describe_ernie4_5(ModelExport& out);
void describe_seed_oss(ModelExport& out);
void describe_qwen2(ModelExport& out);
void describe_qwen3(ModelExport& out);
void describe_qwen2_moe(ModelExport& out);
void describe_qwen3_moe(ModelExport& out);
void describe_olmoe(ModelExport& out);
void describe_granite_moe(ModelExport& out);
void describe_qwen35(ModelExport& out);
void describe_qwen35_moe(ModelExport& out);
void describe_lfm2(ModelExport& out);
void describe_deepseek2(ModelExport& out);
void describe_deepseek3(ModelExport& out);
void describe_glm4_moe_lite(ModelExport& out);
void describe_gemma(ModelExport& out);
void describe_gemma2(ModelExport& out);
void describe_gemma3(ModelExport& out);
void describe_gemma4(ModelExport& out);
void describe_phi3(ModelExport& out);
void describe_olmo2(ModelExport& out);
void describe_exaone4(ModelExport& out);
void describe_glm4(ModelExport& out);
void describe_cohere2(ModelExport& out);
void describe_starcoder2(ModelExport& out);
void describe_stablelm(ModelExport& out);
void describe_nemotron(ModelExport& out);
void describe_gpt2(ModelExport& out);
void describe_gpt_oss(ModelExport& out);

}  // namespace quern
