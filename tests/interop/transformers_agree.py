"""Random checkpoints of every architecture, in shapes that no golden has: quern computes what transformers does.

    transformers_agree.py --quern BINARY --goldens DIR [--only NAME,NAME] [--draws N] [--seed S] [--keep DIR]

DIR holds a folder with a config.json for each architecture (tests/data/architectures.tar.xz unpacked). Each
configuration is redrawn N times: other sizes, counts of heads, layers, experts, patterns of layers, rotations.
transformers makes random BF16 weights and the likelihoods of 48 and of 300 ids in float64, quern converts the
checkpoint to F32 and scores the same ids with a cache of F32. A difference above 3e-6 * max(1, spread) is a
mistake (WRONG), unless transformers' own float32 is half as far or farther (SHARP: deep models, wide heads whose
scores are large); a refusal is listed. By hand: needs torch and transformers.

    transformers_agree.py --goldens DIR --write OUT [--only NAME,NAME]

writes the checkpoints of VARIANTS, or some of them, with what transformers expects of them, as tests/data/architecture_variants.tar.xz
has them.
"""
import argparse
import copy
import csv
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile

import torch
import transformers

LIMIT = 3e-6
LENGTHS = (48, 300)
DIVIDES = ("llama", "gemma2", "gemma3_text", "mixtral")  # transformers wants so of the hidden size and the heads


def pick(rng, *values):
    return rng.choice(values)


def redraw_heads(rng, c):
    """Sizes of heads, of which some configurations state the width and others not."""
    ratio = pick(rng, 1, 2, 3, 4, 8)
    n_kv = pick(rng, 1, 2, 3) if ratio < 4 else 1
    if rng.random() < 0.2:
        ratio, n_kv = 1, 5
    n_heads = n_kv * ratio
    if "head_dim" in c:
        c["hidden_size"] = pick(rng, 36, 48, 72, 80, 128)
        if c["model_type"] in DIVIDES:
            c["hidden_size"] = n_heads * pick(rng, 8, 10, 24)
        c["head_dim"] = pick(rng, 8, 12, 16, 20, 32, 40, 64)
    else:
        c["hidden_size"] = n_heads * pick(rng, 8, 12, 16, 20, 24)
    c["num_attention_heads"], c["num_key_value_heads"] = n_heads, n_kv


def redraw_pattern(rng, c, *kinds):
    n = c["num_hidden_layers"]
    c["layer_types"] = [pick(rng, *kinds) for _ in range(n)]


def windows(rng, c, period=None):
    c["sliding_window"] = pick(rng, 1, 5, 16, 33, 64, 1000)
    if period and rng.random() < 0.5:
        c["layer_types"] = ["full_attention" if (i + 1) % period == 0 else "sliding_attention"
                            for i in range(c["num_hidden_layers"])]
    else:
        redraw_pattern(rng, c, "sliding_attention", "full_attention")


def experts(rng, c, key):
    c[key] = pick(rng, 2, 3, 5, 8, 17)
    c["num_experts_per_tok"] = rng.randint(1, min(c[key], 6))
    if "moe_intermediate_size" in c:
        c["moe_intermediate_size"] = pick(rng, 20, 32, 50, 96)
    if "shared_expert_intermediate_size" in c:
        c["shared_expert_intermediate_size"] = pick(rng, 24, 40, 96)


def rope(rng, c, partial=()):
    """One of the usual rotations; partial: the parts of a head that may be rotated."""
    head_dim = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    theta = pick(rng, 500.0, 10000.0, 1e6)
    kind = pick(rng, "default", "linear", "llama3", "yarn", "yarn2")
    parameters = {"rope_type": kind, "rope_theta": theta}
    if kind == "linear":
        parameters["factor"] = 2.5
    elif kind == "llama3":
        parameters.update(factor=16.0, low_freq_factor=1.0, high_freq_factor=3.0, original_max_position_embeddings=64)
    elif kind == "yarn":
        parameters.update(factor=6.0, original_max_position_embeddings=48)
    elif kind == "yarn2":
        parameters.update(rope_type="yarn", factor=3.0, original_max_position_embeddings=100, beta_fast=16.0, beta_slow=2.0,
                          attention_factor=1.25)
    if partial:
        fits = [p for p in partial if head_dim * p >= 2 and int(head_dim * p) % 2 == 0]
        parameters["partial_rotary_factor"] = pick(rng, *(fits or [1.0]))
    c["rope_parameters"] = parameters


def redraw(name, golden, rng):
    c = json.loads(json.dumps(golden))
    if name == "gpt2":
        heads = pick(rng, 1, 3, 5)
        c.update(n_embd=heads * pick(rng, 8, 20, 32), n_head=heads, n_inner=pick(rng, None, 100), n_layer=pick(rng, 1, 2, 5),
                 n_positions=pick(rng, 300, 512), vocab_size=pick(rng, 97, 257))
        return c
    c["num_hidden_layers"] = pick(rng, 1, 2, 4, 5, 6, 8)
    c["intermediate_size"] = pick(rng, 40, 77, 100, 160)
    c["vocab_size"] = pick(rng, 97, 131, 200, 333)
    for key in ("tie_word_embeddings", "attention_bias"):
        if key in c:
            c[key] = rng.random() < 0.5
    for key in ("rms_norm_eps", "layer_norm_eps", "norm_eps", "norm_epsilon"):
        if key in c:
            c[key] = pick(rng, 1e-5, 1e-6, 3e-3)
    redraw_heads(rng, c)
    n = c["num_hidden_layers"]
    if "layer_types" in c and set(c["layer_types"]) == {"full_attention"}:
        c["layer_types"] = ["full_attention"] * n
    SPECIAL.get(VARIANTS.get(name, (name,))[0], lambda rng, c: rope(rng, c))(rng, c)
    return c


def llama(rng, c):
    rope(rng, c)
    c["mlp_bias"] = rng.random() < 0.5


def mistral(rng, c):
    rope(rng, c)
    c["sliding_window"] = pick(rng, None, 1, 7, 40)


def mixtral(rng, c):
    mistral(rng, c)
    experts(rng, c, "num_local_experts")
    c["head_dim"] = c["hidden_size"] // c["num_attention_heads"]


def ministral3(rng, c):
    c["rope_parameters"].update(factor=pick(rng, 4.0, 16.0), original_max_position_embeddings=pick(rng, 16, 50),
                                llama_4_scaling_beta=pick(rng, 0.1, 0.3), mscale_all_dim=pick(rng, 0.0, 1.0, 0.7))


def qwen2(rng, c):
    rope(rng, c)
    if rng.random() < 0.4:
        c.update(use_sliding_window=True, sliding_window=pick(rng, 8, 40), max_window_layers=c["num_hidden_layers"] // 2)
        del c["layer_types"]


def qwen_moe(rng, c):
    rope(rng, c)
    experts(rng, c, "num_experts" if "num_experts" in c else "num_local_experts")
    c["norm_topk_prob"] = rng.random() < 0.5
    n = c["num_hidden_layers"]
    kind = pick(rng, "all", "all", "only", "step")
    if kind == "only" and n > 1:
        c["mlp_only_layers"] = sorted(rng.sample(range(n), rng.randint(1, n - 1)))
    if kind == "step":
        c["decoder_sparse_step"] = 2
    if "qkv_bias" in c:
        c["qkv_bias"] = rng.random() < 0.5


def qwen35(rng, c):
    c["rope_parameters"] = {"rope_type": "default", "rope_theta": pick(rng, 500.0, 1e6),
                            "partial_rotary_factor": pick(rng, 0.5, 1.0)}
    nk = pick(rng, 1, 2, 3)
    c.update(linear_conv_kernel_dim=pick(rng, 2, 3, 4), linear_key_head_dim=pick(rng, 8, 16, 24, 32),
             linear_value_head_dim=pick(rng, 8, 16, 20, 32), linear_num_key_heads=nk,
             linear_num_value_heads=nk * pick(rng, 1, 2, 4))
    if rng.random() < 0.5:
        del c["layer_types"]
    else:
        redraw_pattern(rng, c, "linear_attention", "full_attention")
        c["layer_types"][-1] = "full_attention"
    if "num_experts" in c:
        experts(rng, c, "num_experts")


def gemma2(rng, c):
    rope(rng, c)
    windows(rng, c, 2)
    c["tie_word_embeddings"] = True
    c["query_pre_attn_scalar"] = pick(rng, 16, 24, c["head_dim"])
    c["attn_logit_softcapping"] = pick(rng, None, 20.0, 50.0)
    c["final_logit_softcapping"] = pick(rng, None, 10.0, 30.0)


def gemma3(rng, c):
    gemma2(rng, c)
    c["attn_logit_softcapping"] = None
    windows(rng, c, 6)
    full = c["rope_parameters"]
    c["rope_parameters"] = {"full_attention": full, "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0}}


def gemma4(rng, c):
    c["tie_word_embeddings"] = True
    n = c["num_hidden_layers"]
    windows(rng, c, 6)
    c["layer_types"][-1] = "full_attention"
    dim = pick(rng, 16, 32, 64, 512)
    own = {"head_dim": dim}
    if rng.random() < 0.4:
        own["num_key_value_heads"] = pick(rng, *[k for k in range(1, 9) if c["num_attention_heads"] % k == 0])
    c["per_layer_config"] = {str(i): own for i in range(n) if c["layer_types"][i] == "full_attention"}
    c["attention_k_eq_v"] = rng.random() < 0.4
    if rng.random() < 0.4:
        c.update(enable_moe_block=True, num_experts=pick(rng, 2, 5, 8), moe_intermediate_size=pick(rng, 20, 32, 50))
        c["top_k_experts"] = rng.randint(1, min(c["num_experts"], 4))
    c["hidden_size_per_layer_input"] = pick(rng, 0, 8, 20)
    c["vocab_size_per_layer_input"] = c["vocab_size"]
    c["final_logit_softcapping"] = pick(rng, None, 30.0)
    c["rope_parameters"]["full_attention"]["partial_rotary_factor"] = pick(rng, 0.25, 0.5)
    if n > 2 and rng.random() < 0.4:
        shared = rng.randint(1, n - 2)
        kinds = c["layer_types"]
        if all(k in kinds[:n - shared] for k in kinds[n - shared:]):
            c["num_kv_shared_layers"] = shared
            c["use_double_wide_mlp"] = rng.random() < 0.5


def gpt_oss(rng, c):
    windows(rng, c, 2)
    experts(rng, c, "num_local_experts")
    c["attention_bias"] = True
    c["rope_parameters"].update(factor=pick(rng, 4.0, 32.0), original_max_position_embeddings=pick(rng, 16, 64))


def glm4(rng, c):
    rope(rng, c, (0.5, 0.25, 1.0))


def nemotron(rng, c):
    c["head_dim"] = pick(rng, 16, 32)
    rope(rng, c, (0.5, 0.25, 1.0))
    c["mlp_bias"] = rng.random() < 0.5


def stablelm(rng, c):
    rope(rng, c, (0.25, 0.5, 1.0))
    c["use_qkv_bias"] = rng.random() < 0.5
    c["use_parallel_residual"] = rng.random() < 0.3
    c["qk_layernorm"] = rng.random() < 0.3


def latents(rng, c):
    n = c["num_hidden_layers"]
    c["num_key_value_heads"] = c["num_attention_heads"]
    rotary, plain = pick(rng, 8, 12, 16), pick(rng, 8, 12, 32)
    c.update(kv_lora_rank=pick(rng, 16, 24, 40), q_lora_rank=pick(rng, None, 20, 48), qk_rope_head_dim=rotary,
             qk_nope_head_dim=plain, qk_head_dim=rotary + plain, v_head_dim=pick(rng, 8, 12, 24))
    if "head_dim" in c:
        c["head_dim"] = rotary
    experts(rng, c, "n_routed_experts")
    c["n_shared_experts"] = pick(rng, 1, 2)
    c["routed_scaling_factor"] = pick(rng, 1.0, 2.5)
    if c.get("mlp_layer_types"):
        dense = rng.randint(0, n)
        c["mlp_layer_types"] = ["dense"] * dense + ["sparse"] * (n - dense)
        c["norm_topk_prob"] = rng.random() < 0.5
        c["q_lora_rank"] = pick(rng, 20, 48)
        if rng.random() < 0.3:
            c.update(n_routed_experts=8, n_group=4, topk_group=2, num_experts_per_tok=3)
    elif c["model_type"] == "deepseek_v3":
        c["first_k_dense_replace"] = rng.randint(0, n)
        c["norm_topk_prob"] = rng.random() < 0.5
        c.update(n_group=1, topk_group=1)
        if c["n_routed_experts"] < 2:  # its router adds the best two of each group
            c["n_routed_experts"] = 2
        if rng.random() < 0.5:
            c.update(n_routed_experts=8, n_group=4, topk_group=2, num_experts_per_tok=3)
    else:
        c["first_k_dense_replace"] = rng.randint(0, n)
        c["hidden_size"] = 16 * c["num_attention_heads"]
        if rng.random() < 0.3:
            c.update(n_routed_experts=8, n_group=4, topk_group=2, num_experts_per_tok=3, topk_method="group_limited_greedy")
    if rng.random() < 0.5:
        c["rope_parameters"] = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "beta_fast": 32.0, "beta_slow": 1.0,
                                "original_max_position_embeddings": 40, "mscale": pick(rng, 0.707, 1.0),
                                "mscale_all_dim": pick(rng, 0.707, 1.0)}


def granite(rng, c):
    rope(rng, c)
    c.update(attention_multiplier=pick(rng, 0.02, 0.2), embedding_multiplier=pick(rng, 1.0, 3.0),
             residual_multiplier=pick(rng, 0.3, 1.0), logits_scaling=pick(rng, 1.0, 3.0))
    if "num_local_experts" in c:
        experts(rng, c, "num_local_experts")
    else:
        c["mlp_bias"] = rng.random() < 0.5


def smollm3(rng, c):
    rope(rng, c)
    if rng.random() < 0.5:
        c["no_rope_layers"] = [pick(rng, 0, 1) for _ in range(c["num_hidden_layers"])]
    else:
        del c["no_rope_layers"]
        c["no_rope_layer_interval"] = pick(rng, 2, 3, 4)
    c["mlp_bias"] = rng.random() < 0.5
    if rng.random() < 0.3:
        c.update(use_sliding_window=True, sliding_window=12)
        del c["layer_types"]


def olmoe(rng, c):
    rope(rng, c)
    experts(rng, c, "num_experts")
    c["norm_topk_prob"] = rng.random() < 0.5
    c["clip_qkv"] = pick(rng, None, None, 2.0)


def exaone4(rng, c):
    rope(rng, c)
    if rng.random() < 0.3:
        c.update(sliding_window=None, layer_types=["full_attention"] * c["num_hidden_layers"])
    else:
        windows(rng, c, 4)
    c.pop("sliding_window_pattern", None)


def cohere2(rng, c):
    rope(rng, c)
    windows(rng, c, 4)
    c["logit_scale"] = pick(rng, 0.0625, 0.25, 1.0)


def starcoder2(rng, c):
    rope(rng, c)
    c["use_bias"] = rng.random() < 0.5
    c["sliding_window"] = pick(rng, None, 9, 50)


def seed_oss(rng, c):
    rope(rng, c)
    c["attention_out_bias"] = rng.random() < 0.5
    c["mlp_bias"] = rng.random() < 0.5


def ernie4_5(rng, c):
    rope(rng, c)
    c["use_bias"] = rng.random() < 0.5


def lfm2(rng, c):
    rope(rng, c)
    redraw_pattern(rng, c, "conv", "full_attention")
    c["layer_types"][rng.randrange(len(c["layer_types"]))] = "full_attention"
    c["conv_L_cache"] = pick(rng, 2, 3, 4, 5)
    c["conv_bias"] = rng.random() < 0.3
    c["block_auto_adjust_ff_dim"] = rng.random() < 0.5
    c.update(block_ffn_dim_multiplier=pick(rng, 1.0, 1.7), block_multiple_of=pick(rng, 16, 48, 256))


def phi3(rng, c):
    head_dim = c["hidden_size"] // c["num_attention_heads"]
    c["rope_parameters"]["partial_rotary_factor"] = pick(rng, *[p for p in (1.0, 0.5) if int(head_dim * p) % 2 == 0])
    c["sliding_window"] = pick(rng, None, 9, 50)


def phi3_longrope(rng, c):
    head_dim = c["hidden_size"] // c["num_attention_heads"]
    part = pick(rng, *[p for p in (1.0, 0.5) if int(head_dim * p) % 2 == 0])
    half = int(head_dim * part) // 2
    context = pick(rng, 64, 256, 4096)
    c["original_max_position_embeddings"] = context
    c["rope_parameters"].update(partial_rotary_factor=part, original_max_position_embeddings=context,
                                long_factor=[1.25 + 0.375 * i for i in range(half)],
                                short_factor=[1.0 + 0.0625 * i for i in range(half)])


def olmo2(rng, c):
    rope(rng, c)


def gemma(rng, c):
    rope(rng, c)
    c["tie_word_embeddings"] = True


SPECIAL = {
    "llama-bias": llama, "llama-linear-rope": llama, "llama-tied": llama, "llama-yarn": llama, "llama3-rope": llama,
    "mistral-nemo": mistral, "mixtral": mixtral, "ministral3": ministral3, "qwen2": qwen2, "qwen3": qwen2,
    "qwen2-moe": qwen_moe, "qwen3-moe": qwen_moe, "qwen35": qwen35, "qwen35-moe": qwen35, "gemma": gemma, "gemma2": gemma2,
    "gemma3": gemma3, "gemma4": gemma4, "gpt-oss": gpt_oss, "glm4": glm4, "nemotron": nemotron, "stablelm": stablelm,
    "glm4-moe-lite": latents, "deepseek2-lite": latents, "granite": granite, "granite-moe": granite, "smollm3": smollm3,
    "olmoe": olmoe, "olmo2": olmo2, "exaone4": exaone4, "cohere2": cohere2, "starcoder2": starcoder2, "seed-oss": seed_oss,
    "ernie4_5": ernie4_5, "lfm2": lfm2, "phi3": phi3, "phi3-longrope": phi3_longrope,
}


# What the goldens have not, small: (golden, what differs).
SMALL = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 64, "vocab_size": 96, "num_attention_heads": 4,
         "num_key_value_heads": 1}
FOUR = {**SMALL, "num_hidden_layers": 4}
YARN_OF_LATENTS = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "beta_fast": 32.0, "beta_slow": 1.0,
                   "original_max_position_embeddings": 40, "mscale": 0.707, "mscale_all_dim": 0.707}
OF_LATENTS = {**SMALL, "num_key_value_heads": 4, "q_lora_rank": 32, "moe_intermediate_size": 32, "n_routed_experts": 4}
GROUPS = {"attention_bias": True, "n_routed_experts": 8, "num_experts_per_tok": 3, "n_group": 4, "topk_group": 2}
DEEPSEEK3 = {"model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"], "mlp_layer_types": None,
             "num_mtp_layers": 0}
VARIANTS = {
    "deepseek2-yarn": ("deepseek2-lite", {**OF_LATENTS, "first_k_dense_replace": 0, "rope_parameters": YARN_OF_LATENTS}),
    "glm4-moe-lite-yarn": ("glm4-moe-lite", {**OF_LATENTS, "rms_norm_eps": 1e-3, "mlp_layer_types": ["dense", "sparse"],
                                             "rope_parameters": {**YARN_OF_LATENTS, "mscale": 1.0}}),
    "gemma2-without-caps": ("gemma2", {**SMALL, "head_dim": 16, "layer_types": ["full_attention", "sliding_attention"],
                                       "attn_logit_softcapping": None, "final_logit_softcapping": None}),
    "gemma4-shared-kv": ("gemma4", {**FOUR, "head_dim": 16, "num_kv_shared_layers": 2, "use_double_wide_mlp": True,
                                    "layer_types": ["sliding_attention", "full_attention", "sliding_attention",
                                                    "full_attention"], "hidden_size_per_layer_input": 32,
                                    "vocab_size_per_layer_input": 96,
                                    "per_layer_config": {"1": {"head_dim": 32}, "3": {"head_dim": 32}}}),
    "lfm2-untied": ("lfm2", {**SMALL, "block_auto_adjust_ff_dim": True, "intermediate_size": 100, "block_multiple_of": 32,
                             "block_ffn_dim_multiplier": 1.3, "tie_word_embeddings": False, "conv_L_cache": 4,
                             "layer_types": ["full_attention", "conv"]}),
    "olmoe-normalised": ("olmoe", {**SMALL, "num_experts": 4, "norm_topk_prob": True}),
    "qwen2-window": ("qwen2", {**FOUR, "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 2,
                               "layer_types": ["full_attention"] * 2 + ["sliding_attention"] * 2}),
    "qwen2-moe-dense-layer": ("qwen2-moe", {**SMALL, "num_experts": 4, "moe_intermediate_size": 32, "mlp_only_layers": [0],
                                            "shared_expert_intermediate_size": 32, "layer_types": ["full_attention"] * 2}),
    "qwen3-moe-dense-layer": ("qwen3-moe", {**SMALL, "num_local_experts": 4, "moe_intermediate_size": 32, "head_dim": 16,
                                            "decoder_sparse_step": 2}),
    "stablelm-parallel": ("stablelm", {**SMALL, "use_parallel_residual": True}),
    "deepseek2-groups": ("deepseek2-lite", {**OF_LATENTS, **GROUPS, "first_k_dense_replace": 0,
                                            "topk_method": "group_limited_greedy"}),
    "glm4-moe-lite-groups": ("glm4-moe-lite", {**OF_LATENTS, **GROUPS, "mlp_layer_types": ["dense", "sparse"]}),
    "exaone4-without-windows": ("exaone4", {**SMALL, "head_dim": 16, "sliding_window": 9,
                                            "layer_types": ["full_attention"] * 2}),
    "stablelm-head-norms": ("stablelm", {**SMALL, "num_key_value_heads": 2, "qk_layernorm": True,
                                         "use_parallel_residual": True}),
    "olmoe-clamped": ("olmoe", {**SMALL, "num_experts": 4, "clip_qkv": 1.0}),
    "gemma4-experts": ("gemma4", {**SMALL, "num_key_value_heads": 2, "head_dim": 16, "attention_k_eq_v": True,
                                  "layer_types": ["sliding_attention", "full_attention"],
                                  "per_layer_config": {"1": {"head_dim": 32, "num_key_value_heads": 1}},
                                  "hidden_size_per_layer_input": 0, "enable_moe_block": True, "num_experts": 5,
                                  "top_k_experts": 2, "moe_intermediate_size": 40}),
    "deepseek3": ("glm4-moe-lite", {**OF_LATENTS, **GROUPS, **DEEPSEEK3, "attention_bias": False,
                                    "first_k_dense_replace": 1, "rope_parameters": YARN_OF_LATENTS}),
    "deepseek3-without-query-rank": ("glm4-moe-lite", {**OF_LATENTS, **DEEPSEEK3, "q_lora_rank": None,
                                                       "first_k_dense_replace": 0}),
    "arcee": ("llama-bias", {**SMALL, "architectures": ["ArceeForCausalLM"], "model_type": "arcee", "hidden_act": "relu2",
                             "head_dim": 16}),
    "qwen35-bias": ("qwen35", {**SMALL, "attention_bias": True, "layer_types": ["linear_attention", "full_attention"]}),
    "lfm2-bias": ("lfm2", {**SMALL, "conv_bias": True, "block_auto_adjust_ff_dim": False,
                           "layer_types": ["conv", "full_attention"]}),
}


def fill(model, seed):
    """Weights as the goldens have them: matrices of 1.5 / sqrt(columns), norms about their neutral value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64) if tensor.is_floating_point() else None
            if name.endswith("e_score_correction_bias"):
                tensor.copy_(0.3 * noise)
            elif name.endswith("layer_scalar"):
                tensor.copy_(1 + 0.1 * noise)
            elif "inv_freq" in name or noise is None or name not in dict(model.named_parameters()):
                continue
            elif "embed" in name and not model.config.tie_word_embeddings and tensor.dim() == 2:
                tensor.copy_(noise)
            elif tensor.dim() >= 2:
                tensor.copy_(noise * (1.5 / math.sqrt(tensor.shape[-1])))
            elif name.endswith("bias") and "norm" not in name:
                tensor.copy_(0.3 * noise)
            elif name.endswith("sinks") or name.endswith("A_log") or name.endswith("dt_bias"):
                tensor.copy_(noise)
            elif name.endswith("bias"):
                tensor.copy_(0.2 * noise)
            else:
                tensor.add_(0.2 * noise)
            tensor.copy_(tensor.to(torch.bfloat16))


def make_checkpoint(config, seed, folder):
    """Saves a checkpoint, and gives the model of the saved weights in float64."""
    kind = transformers.AutoConfig.for_model(config["model_type"])
    cls = type(kind)
    made = cls.from_dict(config)
    made._attn_implementation = "eager"
    made._experts_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(made, dtype=torch.float64)
    fill(model, seed)
    # A copy is saved: rotations' frequencies, too, would become BF16.
    saved = copy.deepcopy(model).to(torch.bfloat16)
    saved.config.dtype = "bfloat16"
    saved.save_pretrained(folder)
    return model.eval()


def likelihoods(model, ids):
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0].double()
    nll = -torch.log_softmax(logits, -1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
    return nll.tolist(), (logits.max() - logits.min()).item(), torch.isfinite(logits).all().item()


def compute_all_in_float64():
    """transformers asks for float32 in places: rotations, norms, softmax, routers."""
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    torch.float32 = torch.float = torch.float64


def run(binary, *arguments):
    done = subprocess.run([binary, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return done.returncode, done.stderr


def float32_difference(folder, seed):
    """How far transformers in float32 is from itself in float64, on the ids that check() takes."""
    done = subprocess.run([sys.executable, __file__, "--goldens", folder, "--in-float32", str(seed)],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    found = json.loads(done.stdout)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()
    worst = 0.0
    for ids, nll in found:
        expected, spread, _ = likelihoods(model, ids)
        worst = max(worst, max(abs(a - b) for a, b in zip(nll, expected)) / max(1, min(spread, 40.0)))
    return worst


def print_float32_likelihoods(folder, seed):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    rng = random.Random(seed)
    texts = [[rng.randrange(model.config.vocab_size) for _ in range(n)] for n in LENGTHS]
    print(json.dumps([[ids, likelihoods(model, ids)[0]] for ids in texts]))


def check(binary, name, config, seed, folder):
    """One line: agreed or not, and what was drawn."""
    model = make_checkpoint(config, seed, folder)
    gguf = os.path.join(folder, "model.gguf")
    code, said = run(binary, "convert", folder, "-o", gguf, "--type", "f32", "--no-tokenizer", "-t", "1", "-q")
    if code != 0:
        return "REFUSED", said.strip().splitlines()[-1].replace(folder, "")
    worst = 0.0
    rng = random.Random(seed)
    for n in LENGTHS:
        ids = [rng.randrange(config["vocab_size"]) for _ in range(n)]
        expected, spread, finite = likelihoods(model, ids)
        if not finite:
            return "SKIPPED", "transformers gives values that are not finite"
        spread = min(spread, 40.0)
        with open(os.path.join(folder, "ids.json"), "w") as f:
            json.dump(ids, f)
        out = os.path.join(folder, "nll.csv")
        code, said = run(binary, "perplexity", gguf, "--ids", f.name, "--kv", "f32", "-t", "1", "--per-token", out, "-q")
        if code != 0:
            return "FAILED", said.strip().splitlines()[-1].replace(folder, "")
        with open(out) as f:
            found = [float(row[3]) for row in csv.reader(f) if row[0].isdigit()]
        if len(found) != n - 1:
            return "FAILED", f"{len(found)} likelihoods of {n - 1}"
        differences = [abs(a - b) for a, b in zip(found, expected)]
        worst = max(worst, max(differences) / max(1, spread))
    if worst <= LIMIT:
        return "ok", f"{worst:.1e}"
    of_float32 = float32_difference(folder, seed)
    return ("SHARP" if worst <= 2 * of_float32 else "WRONG"), f"{worst:.1e}, float32 {of_float32:.1e}"


def write_variant(golden, changes, seed, folder):
    """A checkpoint and its expected.json and expected_long.json, as the goldens have them."""
    config = {**golden, **changes}
    model = make_checkpoint(config, seed, folder)
    rng = random.Random(seed)
    for name, n in (("expected", LENGTHS[0]), ("expected_long", LENGTHS[1])):
        ids = [rng.randrange(config["vocab_size"]) for _ in range(n)]
        nll, spread, _ = likelihoods(model, ids)
        expected = {"ids": ids, "nll": [round(x, 8) for x in nll]}
        if name == "expected":
            expected.update(architecture=config["model_type"], logits_spread=round(spread, 4))
            with torch.no_grad():
                for step in range(16):
                    logits = model(torch.tensor([ids + expected.setdefault("greedy", [])]), use_cache=False).logits[0, -1]
                    expected.setdefault("logits_last", [round(x, 8) for x in logits.tolist()])
                    expected["greedy"].append(int(logits.argmax()))
        with open(os.path.join(folder, name + ".json"), "w") as f:
            json.dump(expected, f)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quern")
    parser.add_argument("--write", help="write the goldens of VARIANTS here")
    parser.add_argument("--goldens", required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", help="keep the checkpoints of what did not agree here")
    parser.add_argument("--in-float32", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.in_float32 is not None:
        return print_float32_likelihoods(options.goldens, options.in_float32)
    compute_all_in_float64()
    transformers.logging.set_verbosity_error()
    if options.write:
        for seed, (name, (base, changes)) in enumerate(VARIANTS.items()):
            if options.only and name not in options.only.split(","):
                continue
            with open(os.path.join(options.goldens, base, "config.json")) as f:
                write_variant(json.load(f), changes, seed, os.path.join(options.write, name))
        return 0
    names = options.only.split(",") if options.only else sorted(os.listdir(options.goldens))
    bad = 0
    for name in names:
        with open(os.path.join(options.goldens, name, "config.json")) as f:
            golden = json.load(f)
        for draw in range(options.seed, options.seed + options.draws):
            rng = random.Random(f"{name} {draw}")
            config = redraw(name, golden, rng)
            folder = tempfile.mkdtemp(prefix=f"{name}-{draw}-", dir=options.keep)
            try:
                result, detail = check(options.quern, name, config, draw, folder)
            except Exception as problem:  # of transformers: a draw that it does not take
                result, detail = "SKIPPED", f"{type(problem).__name__}: {str(problem)[:200]}"
            good = result in ("ok", "SKIPPED", "SHARP")
            bad += not good
            changed = {k: v for k, v in config.items() if golden.get(k) != v}
            print(f"{result:8} {name} {draw}: {detail}" + ("" if result == "ok" else f"  {json.dumps(changed)}"), flush=True)
            if good or not options.keep:
                shutil.rmtree(folder)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
