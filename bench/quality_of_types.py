#!/usr/bin/env python3
"""What each type loses: a row a type of models.md's table of quality.

    bench/quality_of_types.py MODEL TEXT [--quern PROGRAM] [--chunks N] [--imatrix FILE] [--types q4_0,q4_k_m,...]

MODEL: a checkpoint folder or GGUF; it is the base, in the numbers that it holds. Each file is made in a temporary folder,
measured by `quern perplexity --against MODEL`, and removed. --imatrix weighs the types that have a weighted search.
"""
import argparse
import json
import os
import subprocess
import tempfile

TYPES = ("f16 q8_0 q6_k q5_k_m q5_k_s q5_1 q5_0 q4_k_m q4_k_s q4_1 q4_0 iq4_nl iq4_xs q3_k_l q3_k_m q3_k_s q2_k").split()

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model")
parser.add_argument("text")
parser.add_argument("--quern", default="build/release/cli/quern")
parser.add_argument("--chunks")
parser.add_argument("--imatrix")
parser.add_argument("--types", default=",".join(TYPES))
args = parser.parse_args()


def report(*command):
    done = subprocess.run([args.quern, *command, "--json"], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


def plus_minus(figure, digits):
    return f"{figure['value']:.{digits}f} ± {figure['error']:.{digits}f}"


print("| type | tensor bytes | bits per weight | perplexity | of the base's | mean KL divergence, nats | "
      "its 99th percentile | RMS Δp | same top token |\n" + "|---" * 9 + "|")
with tempfile.TemporaryDirectory() as folder:
    for name in args.types.split(","):
        file = os.path.join(folder, name + ".gguf")
        weighted = ["--imatrix", args.imatrix] if args.imatrix else []
        made = report("convert", args.model, "-o", file, "--type", name, *weighted)
        chunks = ["--chunks", args.chunks] if args.chunks else []
        lost = report("perplexity", file, "--against", args.model, "-f", args.text, *chunks)
        os.remove(file)
        kl = lost["kl_divergence"]
        print(f"| {name} | {made['tensor_bytes']:,} | {made['bits_per_weight']:.2f} | {plus_minus(lost['perplexity'], 4)} | "
              f"{plus_minus(lost['ratio'], 4)} | {kl['mean']:.6f} ± {kl['error']:.6f} | {kl['percentiles']['99']:.4f} | "
              f"{100 * lost['p_difference']['rms']['value']:.2f} % | {100 * lost['same_top']['value']:.2f} % |", flush=True)
