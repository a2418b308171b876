"""llama-quantize makes the same bytes of every tensor, for every type name, without and with importance.

    llama_quantize_agrees.py --quern BINARY --llama-quantize BINARY [--source FOLDER] [--types a,b] [--write FILE]

FOLDER: a checkpoint (default: tests/data/tiny-mistral). Both programs start from quern's BF16 file of it; the
importance is a formula of a tensor's name and column (importance_of), written here in llama.cpp's format. Exit 0:
all is equal. --write: the formats and checksums (CRC-32) of llama-quantize's tensors, for
tests/convert/reference_files_test.cc. By hand: llama-quantize is not part of this tree.
"""
import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
TYPES = ("q4_0 q4_1 q5_0 q5_1 q8_0 q2_k q3_k_s q3_k_m q3_k_l q4_k_s q4_k_m q5_k_s q5_k_m q6_k iq4_nl iq4_xs "
         "mxfp4_moe f16 bf16 f32").split()
# ggml's ids: name, weights and bytes of a block
FORMATS = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
           7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
           12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 20: ("IQ4_NL", 32, 18),
           23: ("IQ4_XS", 256, 136), 30: ("BF16", 1, 2), 39: ("MXFP4", 32, 17)}
SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-2000:]}")


def read_tensors(path):
    """{name: (format, shape, bytes)} of a GGUF file."""
    data = open(path, "rb").read()
    place = 4

    def take(code):
        nonlocal place
        (value,) = struct.unpack_from("<" + code, data, place)
        place += struct.calcsize(code)
        return value

    def text():
        nonlocal place
        n = take("Q")
        place += n
        return data[place - n:place].decode()

    def skip(kind):
        nonlocal place
        if kind == 8:
            text()
        elif kind == 9:
            element, n = take("I"), take("Q")
            for _ in range(n) if element in (8, 9) else ():
                skip(element)
            place += 0 if element in (8, 9) else n * SCALARS[element]
        else:
            place += SCALARS[kind]

    take("I")
    n_tensors, n_keys = take("Q"), take("Q")
    for _ in range(n_keys):
        text()
        skip(take("I"))
    infos = []
    for _ in range(n_tensors):
        name = text()
        shape = [take("Q") for _ in range(take("I"))]
        infos.append((name, shape, take("I"), take("Q")))
    start = (place + 31) // 32 * 32
    tensors = {}
    for name, shape, kind, offset in infos:
        format_name, weights, size = FORMATS[kind]
        n = 1
        for d in shape:
            n *= d
        begin = start + offset
        tensors[name] = (format_name, shape, data[begin:begin + n // weights * size])
    return tensors


def importance_of(name, columns):
    """Sums of columns that 16 tokens were counted for."""
    seed = zlib.crc32(name.encode())
    return [((seed + j * 2654435761) % (1 << 32) >> 12) % 4093 / 256 for j in range(columns)]


def write_importance(path, tensors):
    """A GGUF as llama-imatrix writes it."""
    def text(s):
        return struct.pack("<Q", len(s)) + s.encode()
    entries = []
    for name in sorted(tensors):
        _, shape, _ = tensors[name]
        if len(shape) < 2 or not name.startswith("blk.") or "_norm" in name:
            continue
        n_matrices = shape[2] if len(shape) > 2 else 1
        sums = [x for m in range(n_matrices) for x in importance_of(f"{name}.{m}", shape[0])]
        entries.append((name + ".in_sum2", [shape[0], n_matrices], sums))
        entries.append((name + ".counts", [1, n_matrices], [16.0] * n_matrices))
    keys = [text("general.type") + struct.pack("<I", 8) + text("imatrix"),
            text("imatrix.datasets") + struct.pack("<IIQ", 9, 8, 1) + text("formula"),
            text("imatrix.chunk_count") + struct.pack("<II", 4, 1),
            text("imatrix.chunk_size") + struct.pack("<II", 4, 16)]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(entries), len(keys)) + b"".join(keys)
    body = b""
    for name, shape, values in entries:
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, len(body))
        body += struct.pack(f"<{len(values)}f", *values)
        body += bytes(-len(body) % 32)
    head += bytes(-len(head) % 32)
    with open(path, "wb") as file:
        file.write(head + body)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quern", required=True)
    parser.add_argument("--llama-quantize", required=True)
    parser.add_argument("--source", default=os.path.join(HERE, "..", "data", "tiny-mistral"))
    parser.add_argument("--types", default=",".join(TYPES))
    parser.add_argument("--write")
    options = parser.parse_args()
    golden, n_bad = [], 0
    with tempfile.TemporaryDirectory() as folder:
        base, ours, theirs, importance = (os.path.join(folder, name) for name in
                                          ("base.gguf", "a.gguf", "b.gguf", "imatrix.gguf"))
        run(options.quern, "convert", options.source, "-o", base, "--type", "bf16", "--no-tokenizer")
        write_importance(importance, read_tensors(base))
        for kind in options.types.split(","):
            for weighted in ([], ["--imatrix", importance]):
                run(options.quern, "convert", base, "-o", ours, "--type", kind, "--force", *weighted)
                run(options.llama_quantize, *weighted, base, theirs, kind.upper())
                mine, reference = read_tensors(ours), read_tensors(theirs)
                bad = [f"{name} ({reference[name][0]})" for name in reference if mine.get(name) != reference[name]]
                print(f"{kind}{' with importance' if weighted else ''}: {len(reference)} tensors, "
                      f"{'all equal' if not bad else 'differ: ' + ', '.join(bad)}", flush=True)
                n_bad += len(bad)
                golden.append({"type": kind, "importance": bool(weighted),
                               "tensors": {name: [format_name, zlib.crc32(data)]
                                           for name, (format_name, _, data) in sorted(reference.items())}})
    if options.write:
        with open(options.write, "w") as file:
            file.write("".join(json.dumps(entry) + "\n" for entry in golden))
    return 1 if n_bad else 0


if __name__ == "__main__":
    sys.exit(main())
