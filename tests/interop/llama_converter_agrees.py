"""Names, keys, shapes and values of our F32 files are those of llama.cpp's converter. By hand: needs torch and transformers.

    llama_converter_agrees.py --quern BINARY --goldens DIR --llama-cpp FOLDER [--only NAME,NAME]

DIR holds a folder for each checkpoint (tests/data/architectures.tar.xz and architecture_variants.tar.xz unpacked);
FOLDER is llama.cpp's source (vendor/llama.cpp of llama-cpp-python 0.3.36's source package). Each checkpoint is
converted to F32 by both, the converter's step for vocabularies left out. Compared are all keys of the architecture and
all tensors: names, types and shapes, and whether every value has the same bits. Differences are printed; those of ACCEPTED are known.
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

# Key or tensor (without the architecture or "blk.N."): why the files may differ there.
ACCEPTED = {}


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
        if (a is None or b is None or not same(a, b)) and key not in ACCEPTED:
            lines.append(f"key {key}: ours {a}, the converter's {b}")
    for name in sorted(ours[2].keys() | theirs[2].keys()):
        a, b = ours[2].get(name), theirs[2].get(name)
        if without_layer(name) in ACCEPTED:
            continue
        if a is None or b is None:
            lines.append(f"tensor {name}: {'only ours' if b is None else 'only in the converter file'}")
        elif a[:2] != b[:2]:
            lines.append(f"tensor {name}: ours {a[:2]}, the converter's {b[:2]}")
        elif not np.array_equal(a[2].view(np.uint8), b[2].view(np.uint8)):
            largest = np.abs(a[2].astype(np.float64) - b[2].astype(np.float64)).max()
            lines.append(f"tensor {name}: values differ by up to {largest:.2g}")
    return lines


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
                           check=True)
            try:
                with torch.inference_mode():
                    hparams = ModelBase.load_hparams(source, False)
                    kind = get_model_class(get_model_architecture(hparams, ModelType.TEXT))
                    without_vocabulary = type(kind.__name__, (kind,), {"set_vocab": lambda self: None,
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
    print(f"{n_same} of {n_same + n_other} are the same")
    return 1 if n_other else 0


if __name__ == "__main__":
    sys.exit(main())
