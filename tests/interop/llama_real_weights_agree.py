"""llama.cpp and quern on trained weights: the same perplexity and the same greedy ids. By way of llama-cpp-python.

    llama_real_weights_agree.py --quern BINARY --text FILE MODEL.gguf...

The first 2,048 ids that llama.cpp makes of the text, in one chunk, with a cache of F32 and without flash attention: the
perplexities are within 0.3 %. Then 64 greedy ids after the first 48 of them, equal up to a tie: where they part, llama.cpp's
two logits are within 6e-3 of the spread. (Both programs multiply activations of 8 bits, each rounded in its own way; on
SmolLM2 that moves their logits by 3e-3 of the spread from those of the same weights in F32, quern's by 3.0e-3, llama.cpp's
by 3.4e-3, root mean square.) Exits with 77 where llama-cpp-python is absent.
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

N_IDS, N_PROMPT, N_GREEDY = 2048, 48, 64
TIE = 6e-3


def quern(binary, *arguments):
    done = subprocess.run([binary, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"quern {' '.join(arguments)}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


def check(binary, path, text):
    peer = llama_cpp.Llama(model_path=path, n_ctx=N_IDS, n_batch=512, n_threads=2, n_threads_batch=2, logits_all=True,
                           type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32, flash_attn=False,
                           verbose=False)
    ids = peer.tokenize(text[:40 * N_IDS], add_bos=True, special=False)[:N_IDS]
    peer.eval(ids)
    nll = []
    for row, target in zip(peer.scores, ids[1:]):  # one by one: all of Gemma's take gigabytes in float64
        z = row.astype(np.float64)
        z -= z.max()
        nll.append(np.log(np.exp(z).sum()) - z[target])
    theirs = float(np.exp(np.mean(nll)))
    with tempfile.TemporaryDirectory() as folder:
        ids_path = os.path.join(folder, "ids.json")
        with open(ids_path, "w", encoding="utf-8") as file:
            json.dump(ids, file)
        report = json.loads(quern(binary, "perplexity", path, "--ids", ids_path, "--kv", "f32", "--json", "-q"))
        ours = report["perplexity"]
    prompt = ",".join(map(str, ids[:N_PROMPT]))
    out = quern(binary, "run", path, "--ids", prompt, "-n", str(N_GREEDY), "--temp", "0", "--kv", "f32", "--ignore-eos",
                "-q")
    our_ids = [int(word) for word in out.replace(",", " ").split()]
    peer.reset()
    peer.eval(ids[:N_PROMPT])
    good = len(our_ids) == N_GREEDY
    parts = "equal"
    for step, ours_here in enumerate(our_ids):
        row = peer.scores[peer.n_tokens - 1].astype(np.float64)
        best = int(row.argmax())
        if best != ours_here:
            tie = float((row[best] - row[ours_here]) / (row.max() - row.min()))
            parts = f"equal up to id {step}, there {tie:.1e} of the spread apart"
            good = good and tie <= TIE
            break
        peer.eval([best])
    difference = abs(ours - theirs) / theirs
    good = good and difference <= 3e-3
    print(f"{'ok  ' if good else 'FAIL'} {os.path.basename(path)}: perplexity {ours:.4f}, llama.cpp {theirs:.4f} "
          f"({100 * difference:.3f} %); {N_GREEDY} greedy ids {parts}", flush=True)
    return good


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quern", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("models", nargs="+")
    arguments = parser.parse_args()
    with open(arguments.text, "rb") as file:
        text = file.read()
    return 0 if all([check(arguments.quern, path, text) for path in arguments.models]) else 1


if __name__ == "__main__":
    sys.exit(main())
