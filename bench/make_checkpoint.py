#!/usr/bin/env python3
"""Random BF16 checkpoints of real models' shapes, in Hugging Face's layout: for speed, not for meaning.

    make_checkpoint.py OUT --preset qwen3-4b
    make_checkpoint.py OUT --preset qwen3-30b-a3b --layers 2      full width, few layers

Presets: mistral-7b (14.5 GB), 135m (SmolLM2-135M's shape), qwen3-4b (8 GB), gemma3-4b (7.8 GB), qwen3-30b-a3b (61 GB; take
few --layers). `quern convert OUT -o FILE --type T --no-tokenizer` makes a file of it that llama.cpp reads, too. Weights are
normal with a standard deviation of 0.02, taken from one pool from random places on, which a compressor could tell and a
kernel cannot. Needs numpy.
"""
import argparse
import json
import os
import struct

import numpy as np

SHARD_BYTES = 5_000_000_000
POOL = 1 << 24  # weights

COMMON = {"bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "torch_dtype": "bfloat16"}
PRESETS = {
    "mistral-7b": {**COMMON, "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_size": 4096,
                   "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
                   "head_dim": 128, "vocab_size": 32000, "max_position_embeddings": 32768, "rope_theta": 1e6,
                   "rms_norm_eps": 1e-5, "sliding_window": None, "tie_word_embeddings": False},
    "135m": {**COMMON, "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 576,
             "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
             "head_dim": 64, "vocab_size": 49152, "max_position_embeddings": 8192, "rope_theta": 1e5, "rms_norm_eps": 1e-5,
             "tie_word_embeddings": True},
    "qwen3-4b": {**COMMON, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 2560,
                 "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8,
                 "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 40960, "rope_theta": 1e6,
                 "rms_norm_eps": 1e-6, "tie_word_embeddings": True},
    "gemma3-4b": {**COMMON, "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "hidden_size": 2560,
                  "hidden_act": None, "hidden_activation": "gelu_pytorch_tanh", "intermediate_size": 10240,
                  "num_hidden_layers": 34, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
                  "vocab_size": 262208, "max_position_embeddings": 131072, "rope_theta": 1e6, "rope_local_base_freq": 1e4,
                  "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "query_pre_attn_scalar": 256,
                  "sliding_window": 1024, "rms_norm_eps": 1e-6, "tie_word_embeddings": True},
    "qwen3-30b-a3b": {**COMMON, "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 2048,
                      "intermediate_size": 6144, "moe_intermediate_size": 768, "num_experts": 128,
                      "num_experts_per_tok": 8, "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [],
                      "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
                      "vocab_size": 151936, "max_position_embeddings": 40960, "rope_theta": 1e6, "rms_norm_eps": 1e-6,
                      "tie_word_embeddings": False},
}


def gated(name, hidden, dim):
    return {f"{name}.gate_proj.weight": (hidden, dim), f"{name}.up_proj.weight": (hidden, dim),
            f"{name}.down_proj.weight": (dim, hidden)}


def tensor_shapes(c):
    """Names and shapes, in the order of a file."""
    dim, head_dim, kind = c["hidden_size"], c["head_dim"], c["model_type"]
    q, kv = c["num_attention_heads"] * head_dim, c["num_key_value_heads"] * head_dim
    shapes = {"model.embed_tokens.weight": (c["vocab_size"], dim)}
    for i in range(c["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        attention = layer + "self_attn."
        shapes.update({layer + "input_layernorm.weight": (dim,), attention + "q_proj.weight": (q, dim),
                       attention + "k_proj.weight": (kv, dim), attention + "v_proj.weight": (kv, dim),
                       attention + "o_proj.weight": (dim, q), layer + "post_attention_layernorm.weight": (dim,)})
        if kind in ("qwen3", "qwen3_moe", "gemma3_text"):
            shapes.update({attention + f"{x}_norm.weight": (head_dim,) for x in "qk"})
        if kind == "gemma3_text":
            shapes.update({layer + f"{x}_feedforward_layernorm.weight": (dim,) for x in ("pre", "post")})
        if kind == "qwen3_moe":
            shapes[layer + "mlp.gate.weight"] = (c["num_experts"], dim)
            for e in range(c["num_experts"]):
                shapes.update(gated(layer + f"mlp.experts.{e}", c["moe_intermediate_size"], dim))
        else:
            shapes.update(gated(layer + "mlp", c["intermediate_size"], dim))
    shapes["model.norm.weight"] = (dim,)
    if not c["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (c["vocab_size"], dim)
    return shapes


def to_bf16(values):
    """float32 to the upper halves of their bits, to nearest even."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write_weights(out, pool, rng, n):
    while n:
        start = int(rng.integers(0, POOL // 2))
        piece = pool[start:start + n]
        out.write(piece.tobytes())
        n -= len(piece)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--preset", choices=PRESETS, required=True)
    parser.add_argument("--layers", type=int, help="instead of the preset's number")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    config = {key: value for key, value in PRESETS[options.preset].items() if value is not None}
    config["num_hidden_layers"] = options.layers or config["num_hidden_layers"]
    shapes = tensor_shapes(config)
    os.makedirs(options.out, exist_ok=True)
    with open(os.path.join(options.out, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2)

    def size(name):
        return 2 * int(np.prod(shapes[name]))

    shards, room = [[]], SHARD_BYTES
    for name in shapes:
        if room < size(name):
            shards.append([])
            room = SHARD_BYTES
        shards[-1].append(name)
        room -= size(name)
    rng = np.random.default_rng(options.seed)
    pool = to_bf16(rng.normal(0, 0.02, POOL))
    norm = 0 if config["model_type"] == "gemma3_text" else 1  # stored less one
    weight_map = {}
    for number, names in enumerate(shards, 1):
        path = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        weight_map.update({name: path for name in names})
        header, offset = {"__metadata__": {"format": "pt"}}, 0
        for name in names:
            header[name] = {"dtype": "BF16", "shape": shapes[name], "data_offsets": [offset, offset + size(name)]}
            offset += size(name)
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(os.path.join(options.out, path), "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            for name in names:
                if len(shapes[name]) == 1:
                    out.write(to_bf16(np.full(shapes[name], norm)).tobytes())
                else:
                    write_weights(out, pool, rng, size(name) // 2)
    if len(shards) > 1:
        with open(os.path.join(options.out, "model.safetensors.index.json"), "w", encoding="utf-8") as file:
            json.dump({"metadata": {"total_size": sum(map(size, shapes))}, "weight_map": weight_map}, file, indent=1)


if __name__ == "__main__":
    main()
