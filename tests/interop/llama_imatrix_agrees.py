"""llama-imatrix and quern imatrix sum the same of the same model and text.

    llama_imatrix_agrees.py --quern BINARY --peer llama-imatrix [--model GGUF --text FILE] [--chunks N]

By hand, with a llama-imatrix of 2026 (built from llama-cpp-python 0.3.36's source, say). Default: tiny-mistral as an F32
file, 8 chunks of 512 tokens. Every tensor of one file is in the other, with the same counts; the sums of squares of a
matrix's inputs differ by no more than 1e-3, of a column's own sum or of their mean where that is more, and by 1e-4 in the
mean: rounding in another order. So the weights that a quantizer makes of both are the same to three digits.
"""
import argparse
import os
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, "..", "data")
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-2000:]}")
    return done.stdout


def read_gguf(path):
    """Keys and values, and {name: floats} of a GGUF file of F32 tensors."""
    with open(path, "rb") as file:
        data = file.read()
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

    def value(kind):
        if kind == 8:
            return text()
        if kind == 9:
            element, n = take("I"), take("Q")
            return [value(element) for _ in range(n)]
        return take(SCALARS[kind])

    take("I")
    n_tensors, n_keys = take("Q"), take("Q")
    keys = {}
    for _ in range(n_keys):
        name = text()
        keys[name] = value(take("I"))
    infos = []
    for _ in range(n_tensors):
        name = text()
        shape = [take("Q") for _ in range(take("I"))]
        if take("I") != 0:
            sys.exit(f"{path}: {name} is not F32")
        infos.append((name, shape, take("Q")))
    start = (place + 31) // 32 * 32
    tensors = {}
    for name, shape, offset in infos:
        n = 1
        for d in shape:
            n *= d
        tensors[name] = struct.unpack_from(f"<{n}f", data, start + offset)
    return keys, tensors


def compare(ours, theirs):
    """Failures of two files' tensors; prints the largest differences."""
    failures = []
    only = sorted(ours.keys() ^ theirs.keys())
    if only:
        failures.append(f"in one file only: {', '.join(only)}")
    largest_mean = largest_column = (0.0, "")
    n = 0
    for name in sorted(ours.keys() & theirs.keys()):
        a, b = ours[name], theirs[name]
        if name.endswith(".counts"):
            if a != b:
                failures.append(f"{name}: counts {a[:4]} here, {b[:4]} there")
            continue
        if len(a) != len(b):
            failures.append(f"{name}: {len(a)} columns here, {len(b)} there")
            continue
        n += 1
        mean = sum(b) / len(b)
        if mean <= 0:
            if any(a):
                failures.append(f"{name}: sums here, none there")
            continue
        largest_mean = max(largest_mean, (abs(sum(a) / len(a) - mean) / mean, name))
        largest_column = max(largest_column, (max(abs(x - y) / max(y, mean) for x, y in zip(a, b)), name))
    if largest_mean[0] > 1e-4:
        failures.append(f"{largest_mean[1]}: means differ by {largest_mean[0]:.2g}")
    if largest_column[0] > 1e-3:
        failures.append(f"{largest_column[1]}: a column differs by {largest_column[0]:.2g}")
    print(f"{n} matrices; largest difference of a mean {largest_mean[0]:.2g} ({largest_mean[1]}), of a column "
          f"{largest_column[0]:.2g} ({largest_column[1]})")
    return failures


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quern", required=True)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--model")
    parser.add_argument("--text", default=os.path.join(DATA, "tiny-mistral", "test.txt"))
    parser.add_argument("--chunks", default="8")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model
        if not model:
            model = os.path.join(folder, "f32.gguf")
            run(arguments.quern, "convert", os.path.join(DATA, "tiny-mistral"), "-o", model, "--type", "f32")
        ours, theirs = os.path.join(folder, "ours.gguf"), os.path.join(folder, "theirs.gguf")
        run(arguments.quern, "imatrix", model, "-f", arguments.text, "-o", ours, "--chunks", arguments.chunks)
        run(arguments.peer, "-m", model, "-f", arguments.text, "-o", theirs, "--chunks", arguments.chunks, "-t", "2",
            "-ctk", "f32", "-ctv", "f32", "-fa", "off", "--no-ppl")
        (our_keys, our_tensors), (their_keys, their_tensors) = read_gguf(ours), read_gguf(theirs)
        failures = compare(our_tensors, their_tensors)
        for key in ("general.type", "imatrix.chunk_count", "imatrix.chunk_size"):
            if our_keys.get(key) != their_keys.get(key):
                failures.append(f"{key}: {our_keys.get(key)} here, {their_keys.get(key)} there")
    for failure in failures:
        print(f"FAIL {failure}")
    print("all agrees" if not failures else f"{len(failures)} differences")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
