"""llama.cpp reads the vocabularies and the parts that `quern convert` writes: by hand, where llama-cpp-python is.

    llama_vocabularies_agree.py --quern BINARY --data tests/data --vocabularies FOLDER

FOLDER is what tests/fetch_vocabularies.sh fills. Of every tokenizer in it (rank files, tokenizer.json, tekken.json)
and of tests/data's Mistral tokenizer.model a checkpoint of random weights is made and converted; llama.cpp's ids of
the golden texts (ordinary text, no special tokens) in the converted file must be the golden ones, which quern's own
are (tests/runtime/tokenizer). What is cut with --split-size must load and give the logits of the whole file.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

import llama_cpp
import numpy as np

HIDDEN, INNER = 32, 32
# Family of the golden texts, file of FOLDER, what it is called in a checkpoint's folder, --pre, rows of the models'
# embeddings.
SOURCES = [
    ("llama3", "llama3/tokenizer.model", "tokenizer.model", "llama-bpe", 128256),
    ("llama4", "llama4/tokenizer.model", "tokenizer.model", "llama4", 202048),
    ("qwen2", "qwen.tiktoken", "qwen.tiktoken", "qwen2", 151936),
    ("deepseek", "deepseek/tokenizer.json", "tokenizer.json", None, 129280),
    ("tekken", "tekken_240718.json", "tekken.json", None, 131072),
    ("tekken", "tekken_240911.json", "tekken.json", None, 131072),
]
# llama.cpp's rewriting of two families' patterns takes no combining marks into words.
HELLO_IN_THAI = "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01"
DIFFERS_THERE = {("llama4", HELLO_IN_THAI), ("tekken", HELLO_IN_THAI)}


def quern(binary, *arguments):
    """A command that must succeed."""
    done = subprocess.run([binary, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        sys.exit(f"quern {' '.join(arguments)}: exit {done.returncode}\n{done.stderr.decode()}")


def write_checkpoint(folder, data, n_tokens):
    """A llama of one layer, as small as its vocabulary lets it be."""
    sys.path.insert(0, os.path.join(data, "tiny-mistral"))
    import hf_checkpoint
    rng = np.random.default_rng(0)
    shapes = {"model.embed_tokens.weight": (n_tokens, HIDDEN), "model.norm.weight": (HIDDEN,)}
    layer = "model.layers.0."
    shapes |= {layer + f"self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qkvo"}
    shapes |= {layer + f"mlp.{name}_proj.weight": (INNER, HIDDEN) for name in ("gate", "up")}
    shapes |= {layer + "mlp.down_proj.weight": (HIDDEN, INNER), layer + "input_layernorm.weight": (HIDDEN,),
               layer + "post_attention_layernorm.weight": (HIDDEN,)}
    tensors = {name: ("BF16", hf_checkpoint.to_bf16(rng.normal(0, 0.05, shape))) for name, shape in shapes.items()}
    hf_checkpoint.write_safetensors(os.path.join(folder, "model.safetensors"), tensors)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
                   "intermediate_size": INNER, "num_hidden_layers": 1, "num_attention_heads": 1,
                   "num_key_value_heads": 1, "vocab_size": n_tokens, "max_position_embeddings": 512,
                   "rms_norm_eps": 1e-5, "rope_theta": 1e4, "tie_word_embeddings": True}, file)


def check_vocabulary(binary, data, source, name, pre, n_tokens, texts):
    """Number of texts whose ids differ. texts: pairs of a text and its ids."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(source, os.path.join(folder, name))
        write_checkpoint(folder, data, n_tokens)
        model_path = os.path.join(folder, "model.gguf")
        quern(binary, "convert", folder, "-o", model_path, "--type", "f16", *(["--pre", pre] if pre else []))
        theirs = llama_cpp.Llama(model_path=model_path, vocab_only=True, verbose=False)
        wrong = 0
        for text, ids in texts:
            found = theirs.tokenize(text.encode(), add_bos=False, special=False) if text else []
            if found != ids:
                wrong += 1
                print(f"     {text[:60]!r}: llama.cpp {found[:20]}, golden {ids[:20]}")
        return wrong


def check_split(binary, data):
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(data, "tiny-mistral")
        whole, parts = os.path.join(folder, "whole.gguf"), os.path.join(folder, "parts.gguf")
        for path, more in ((whole, []), (parts, ["--split-size", "400K"])):
            quern(binary, "convert", source, "-o", path, "--type", "q4_0", *more)
        first = sorted(name for name in os.listdir(folder) if name.startswith("parts-"))
        logits = []
        for path in (whole, os.path.join(folder, first[0])):
            model = llama_cpp.Llama(model_path=path, n_ctx=64, n_threads=1, logits_all=True, verbose=False)
            model.eval(list(range(1, 33)))
            logits.append(np.array(model.scores[:32]))
        return len(first), bool(np.array_equal(*logits))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quern", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--vocabularies", required=True)
    arguments = parser.parse_args()
    golden = {}
    with open(os.path.join(arguments.data, "golden", "bpe_tokens.jsonl"), encoding="utf-8") as file:
        for line in map(json.loads, file):
            golden.setdefault(line["family"], []).append((line["text"], line["ids"]))
    with open(os.path.join(arguments.data, "golden", "mistral_v1_tokens.jsonl"), encoding="utf-8") as file:
        golden["mistral-v1"] = [(line["text"], line["ids"]) for line in map(json.loads, file) if line["kind"] == "text"]
    runs = [(family, os.path.join(arguments.vocabularies, path), *more) for family, path, *more in SOURCES]
    runs.append(("mistral-v1", os.path.join(arguments.data, "tokenizers", "mistral-v1.model"), "tokenizer.model", None, 32000))
    failed = False
    for family, source, *more in runs:
        texts = [pair for pair in golden[family] if (family, pair[0]) not in DIFFERS_THERE]
        wrong = check_vocabulary(arguments.quern, arguments.data, source, *more, texts)
        failed |= wrong > 0
        print(f"{'FAIL' if wrong else 'ok  '} {family}, {os.path.basename(source)}: {len(texts) - wrong} of"
              f" {len(texts)} texts", flush=True)
    n_parts, equal = check_split(arguments.quern, arguments.data)
    failed |= not equal
    print(f"{'ok  ' if equal else 'FAIL'} tiny-mistral in {n_parts} parts: llama.cpp's logits are the whole file's")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
