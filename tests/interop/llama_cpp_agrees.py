"""llama.cpp, by way of llama-cpp-python, loads the files that quern converts and computes the same.

    llama_cpp_agrees.py --quern BINARY --data tests/data

For tiny-mistral and stories260k: the perplexity of the F32, Q8_0 and Q4_0 files over tiny-mistral's test.txt
agrees within 0.1 %, 0.5 % and 0.5 %; the first 32 greedy ids of the F32 file are equal. Exits with 77
(skipped) where llama-cpp-python is absent: `pip install llama-cpp-python` into a virtual environment, and name
its interpreter in QUERN_INTEROP_PYTHON.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

try:
    import llama_cpp
    import numpy as np
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

MODELS = {"tiny-mistral": 512, "stories260k": 128}  # model: n_ctx of its perplexity
TOLERANCES = {"f32": 0.001, "q8_0": 0.005, "q4_0": 0.005}
N_GREEDY = 32


def quern(binary, *arguments):
    """Standard output of a quern command that must succeed."""
    done = subprocess.run([binary, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"quern {' '.join(arguments)}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


def load(path, n_ctx):
    # One thread: the models are tiny, and other tests run beside this one.
    return llama_cpp.Llama(model_path=path, n_ctx=n_ctx, n_batch=n_ctx, n_threads=1, n_threads_batch=1,
                           logits_all=True, verbose=False)


def perplexity(model, text, n_ctx):
    """llama-perplexity's default mode (cli/conventions.md 4.2)."""
    ids = model.tokenize(text.removesuffix("\n").encode(), add_bos=True, special=False)
    nll = []
    for begin in range(0, len(ids) - n_ctx + 1, n_ctx):
        chunk = ids[begin:begin + n_ctx]
        chunk[0] = model.token_bos()
        model.reset()
        model.eval(chunk)
        positions = np.arange(n_ctx // 2, n_ctx - 1)
        logits = model.scores[positions].astype(np.float64)
        logits -= logits.max(-1, keepdims=True)
        log_sum = np.log(np.exp(logits).sum(-1))
        nll.extend(log_sum - logits[np.arange(len(positions)), np.array(chunk)[positions + 1]])
    return float(np.exp(np.mean(nll)))


def greedy(model, ids):
    model.reset()
    model.eval(ids)
    result = []
    for _ in range(N_GREEDY):
        result.append(int(np.argmax(model.scores[model.n_tokens - 1])))
        model.eval(result[-1:])
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quern", required=True)
    parser.add_argument("--data", required=True)
    arguments = parser.parse_args()
    text_path = os.path.join(arguments.data, "tiny-mistral", "test.txt")
    with open(text_path, encoding="utf-8") as file:
        text = file.read()
    with open(os.path.join(arguments.data, "golden", "logits.json"), encoding="utf-8") as file:
        prompts = {entry["model"]: entry["ids"] for entry in json.load(file)}

    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, n_ctx in MODELS.items():
            for dtype, tolerance in TOLERANCES.items():
                path = os.path.join(folder, f"{name}-{dtype}.gguf")
                quern(arguments.quern, "convert", os.path.join(arguments.data, name), "-o", path, "--type", dtype)
                report = quern(arguments.quern, "perplexity", path, "-f", text_path, "--ctx", str(n_ctx), "-t", "1",
                               "--json")
                ours = json.loads(report)["perplexity"]
                theirs = perplexity(load(path, n_ctx), text, n_ctx)
                difference = abs(ours - theirs) / theirs
                agrees = difference <= tolerance
                failures += not agrees
                print(f"{'ok  ' if agrees else 'FAIL'} {name} {dtype}: perplexity {ours:.5f}, llama.cpp {theirs:.5f},"
                      f" difference {100 * difference:.4f} % of {100 * tolerance:.1f} % allowed", flush=True)
            path = os.path.join(folder, f"{name}-f32.gguf")
            ids = prompts[name]
            out = quern(arguments.quern, "run", path, "--ids", ",".join(map(str, ids)), "-n", str(N_GREEDY),
                        "--temp", "0")
            ours = [int(word) for word in out.replace(",", " ").split()]
            theirs = greedy(load(path, 256), ids)
            agrees = ours == theirs
            failures += not agrees
            print(f"{'ok  ' if agrees else 'FAIL'} {name} f32: greedy ids {ours}, llama.cpp {theirs}", flush=True)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
