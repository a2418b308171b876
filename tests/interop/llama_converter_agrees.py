"""Names, keys, shapes and values of our F32 files are those of llama.cpp's converter. By hand: needs torch and transformers.

    llama_converter_agrees.py --quern BINARY --goldens DIR --llama-cpp FOLDER [--only NAME,NAME]

DIR holds a folder for each checkpoint (tests/data/architectures.tar.xz and architecture_variants.tar.xz unpacked);
FOLDER is llama.cpp's source (vendor/llama.cpp of llama-cpp-python 0.3.36's source package). Each checkpoint is
converted to F32 by both, the converter's step for vocabularies left out. Compared are all keys of the architecture and
all tensors: names, types and shapes, and whether every value has the same bits. Other differences than those below fail.
"""
import argparse
import json
import logging
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

# Keys that may stand in our files alone.
ONLY_OURS = {
    "vocab_size": "the tensor says it, too",
    "attention.head_count_kv": "as many as heads, which is the default (GPT-2)",
    "rope.dimension_count": "that of a whole head, which is the default",
    "rope.freq_base": "10000, which is the default",
    "expert_gating_func": "which llama.cpp guesses from other keys",
    "expert_weights_norm": "false, or not known to the converter (OLMoE)",
    "leading_dense_block_count": "the converter reads old configurations alone",
    "attention.clamp_kqv": "not known to the converter (OLMoE)",
    "attention.scale": "not known to the converter (Gemma 2)",
    "attention.rope_pattern": "not known to the converter (SmolLM3)",
    "attention.sliding_window": "not known to the converter (Qwen2)",
    "attention.sliding_window_pattern": "not known to the converter (Qwen2)",
    "rope.scaling.yarn_attn_factor": "not known to the converter (mscale beside another mscale_all_dim)",
}
# Keys that may stand in the converter's alone, with values that say nothing.
ONLY_THEIRS = {
    "expert_group_count": 1,
    "expert_group_used_count": 1,
    "attention.sliding_window": 0,
    "rope.scaling.type": "none",
    "rope.scaling.original_context_length": None,  # without a scaling
    "attention.layer_norm_rms_epsilon": None,      # of a model with LayerNorm
}
ROUNDED = {"rope_freqs.weight": 1e-6}  # computed in float32 there
# Members of config.json that the converter wants and transformers does not write; Gemma's want a vocabulary's size.
MISSING = {"cohere2": {"rotary_pct": 1.0}, "gpt2": {"n_ctx": 1024}, "gemma3": {}, "gemma4": {}, "gemma4-experts": {},
           "gemma4-shared-kv": {}}


def read(gguf, path, architecture):
    reader = gguf.GGUFReader(path)
    keys = {}
    for key, field in reader.fields.items():
        if key.startswith(architecture + "."):
            value = field.contents()
            keys[key[len(architecture) + 1:]] = value
    tensors = {t.name: (t.tensor_type.name, [int(n) for n in t.shape], np.array(t.data)) for t in reader.tensors}
    name = reader.fields["general.architecture"].contents()
    return name, keys, tensors


def same(a, b):
    if isinstance(a, list) or isinstance(b, list):
        return isinstance(a, list) and isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) or isinstance(b, float):
        return abs(a - b) <= 1e-6 * max(abs(a), abs(b))
    return a == b


def without_layer(name):
    parts = name.split(".")
    return ".".join(parts[2:]) if parts[0] == "blk" else name


def compare(ours, theirs):
    """Lines of differences."""
    lines = []
    for key in sorted(ours[1].keys() | theirs[1].keys()):
        a, b = ours[1].get(key), theirs[1].get(key)
        if b is None:
            accepted = key in ONLY_OURS
        elif a is None:
            accepted = key in ONLY_THEIRS and ONLY_THEIRS[key] in (None, b)
        else:
            accepted = same(a, b) or key == "leading_dense_block_count" and b == 0
        if not accepted:
            lines.append(f"key {key}: ours {a}, the converter's {b}")
    for name in sorted(ours[2].keys() | theirs[2].keys()):
        a, b = ours[2].get(name), theirs[2].get(name)
        if a is None or b is None:
            lines.append(f"tensor {name}: {'only ours' if b is None else 'only in the converter file'}")
        elif a[:2] != b[:2]:
            lines.append(f"tensor {name}: ours {a[:2]}, the converter's {b[:2]}")
        elif not np.array_equal(a[2].view(np.uint8), b[2].view(np.uint8)):
            largest = np.abs(a[2].astype(np.float64) - b[2].astype(np.float64)).max()
            if largest <= ROUNDED.get(without_layer(name), 0) * np.abs(b[2]).max():
                continue
            lines.append(f"tensor {name}: values differ by up to {largest:.2g}")
    return lines


def with_members(source, members, folder):
    """The same checkpoint with more in its config.json, and a tokenizer.json that is no more than a size."""
    folder.mkdir()
    os.symlink(os.path.abspath(source / "model.safetensors"), folder / "model.safetensors")
    config = {**json.loads((source / "config.json").read_text(encoding="utf-8")), **members}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    vocabulary = {str(i): i for i in range(config["vocab_size"])}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": []}),
                                           encoding="utf-8")
    return folder


def main():
    parser = argparse.ArgumentParser()
    for name in ("--quern", "--goldens", "--llama-cpp"):
        parser.add_argument(name, required=True)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    sys.path[:0] = [arguments.llama_cpp, os.path.join(arguments.llama_cpp, "gguf-py")]
    import gguf
    import torch
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class
    logging.disable(logging.CRITICAL)
    n_same = n_other = 0
    names = arguments.only.split(",") if arguments.only else sorted(os.listdir(arguments.goldens))
    for name in names:
        source = pathlib.Path(arguments.goldens, name)
        with tempfile.TemporaryDirectory() as folder:
            our_path, their_path = os.path.join(folder, "ours.gguf"), os.path.join(folder, "theirs.gguf")
            subprocess.run([arguments.quern, "convert", source, "-o", our_path, "--type", "f32", "--no-tokenizer", "-q"],
                           check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if name in MISSING:
                source = with_members(source, MISSING[name], pathlib.Path(folder, "source"))
            try:
                with torch.inference_mode():
                    hparams = ModelBase.load_hparams(source, False)
                    kind = get_model_class(get_model_architecture(hparams, ModelType.TEXT))
                    without_vocabulary = type(kind.__name__, (kind,), {"set_vocab": lambda self: None, "no_mtp": True,
                                                                       "model_arch": kind.model_arch})
                    without_vocabulary(source, gguf.LlamaFileType.ALL_F32, pathlib.Path(their_path), eager=True).write()
                architecture = gguf.GGUFReader(our_path).fields["general.architecture"].contents()
                ours, theirs = (read(gguf, path, architecture) for path in (our_path, their_path))
            except Exception as problem:  # of the converter
                print(f"--   {name}: the converter fails: {type(problem).__name__}: {str(problem)[:200]}", flush=True)
                continue
            lines = [] if ours[0] == theirs[0] else [f"architecture: ours {ours[0]}, the converter's {theirs[0]}"]
            lines += compare(ours, theirs)
        n_same += not lines
        n_other += bool(lines)
        print(f"{'FAIL' if lines else 'ok  '} {name}: {len(ours[1])} keys, {len(ours[2])} tensors"
              + "".join(f"\n       {line}" for line in lines), flush=True)
    print(f"{n_same} of {n_same + n_other} are the same; the converter fails on {len(names) - n_same - n_other}")
    return 1 if n_other else 0


if __name__ == "__main__":
    sys.exit(main())
