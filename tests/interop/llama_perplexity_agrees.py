"""llama-perplexity --kl-divergence and quern perplexity --against say the same of the same files.

    llama_perplexity_agrees.py --quern BINARY --peer llama-perplexity --data tests/data

By hand, with a llama-perplexity of 2026 (built from llama-cpp-python 0.3.36's source, say). On tiny-mistral:

1. The statistics: quern saves a Q4_0 file's logits as the base, llama-perplexity reads them with the F32 file as the
   model, whose logits both programs agree on. Every figure of both, with --peer-storage, is the same within its last
   printed digit plus 1e-4.
2. End to end: each program's own logits of a Q4_0, Q8_0 or F16 file against its own of the BF16 one. Perplexities
   within 0.1 %, mean divergences within 5 % or 5e-4, whichever is more.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile

CHUNKS = "20"


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout + done.stderr  # llama.cpp's results go through its log


def figures(text):
    """{label: [(number, unit of its last printed digit)]} of the final blocks."""
    found = {}
    for line in text.splitlines():
        match = re.match(r"^(Mean|Maximum|Minimum|Median|Cor|RMS|Same top p| *[0-9.]+%)(.*?):(.*)$", line)
        if not match:
            continue
        label = " ".join((match[1] + match[2]).split())
        found[label] = [(float(number), 10.0 ** -len(number.partition(".")[2]))
                        for number in re.findall(r"-?\d+\.\d+", match[3])]
    return found


def compare(ours, theirs):
    failures = 0
    if ours.keys() != theirs.keys() or not ours:
        print(f"FAIL labels: {sorted(ours.keys() ^ theirs.keys())} of {len(ours)} and {len(theirs)}")
        failures += 1
    largest = 0.0
    for label in ours.keys() & theirs.keys():
        for (a, unit), (b, _) in zip(ours[label], theirs[label], strict=True):
            largest = max(largest, abs(a - b) - unit)
            if abs(a - b) > unit * 1.001 + 1e-4:
                print(f"FAIL {label}: ours {a}, llama-perplexity {b}")
                failures += 1
    print(f"{'ok  ' if not failures else 'FAIL'} {len(ours)} labels; largest difference beyond the last digit "
          f"{max(largest, 0):.2g}")
    return failures


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quern", required=True)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--data", required=True)
    arguments = parser.parse_args()
    text = os.path.join(arguments.data, "tiny-mistral", "test.txt")
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for dtype in ("f32", "bf16", "f16", "q4_0", "q8_0"):
            files[dtype] = os.path.join(folder, f"{dtype}.gguf")
            run([arguments.quern, "convert", os.path.join(arguments.data, "tiny-mistral"), "-o", files[dtype],
                 "--type", dtype])

        def ours(model, base, *more):
            return figures(run([arguments.quern, "perplexity", files[model], "--against", files[base], "-f", text,
                                "--chunks", CHUNKS, "--kv", "f32", *more]))

        def peer(model, *more):
            command = [arguments.peer, "-m", files[model], "-f", text, "--chunks", CHUNKS, "-ctk", "f32", "-ctv", "f32",
                       "-fa", "off", "-t", "2", *more]
            for _ in range(20):  # its log may lose its last lines when it ends
                output = run(command)
                if re.search(r"^Same top p:.*%|Final estimate: PPL", output, re.MULTILINE):
                    return output
            sys.exit(f"{' '.join(command)}: its log never came to its end")

        saved = os.path.join(folder, "saved")
        mine = ours("f32", "q4_0", "--peer-storage", "--save-logits", saved)
        failures += compare(mine, figures(peer("f32", "--kl-divergence-base", saved, "--kl-divergence")))

        peer("bf16", "--kl-divergence-base", saved)
        for dtype in ("f16", "q8_0", "q4_0"):
            mine = ours(dtype, "bf16", "--peer-storage")
            theirs = figures(peer(dtype, "--kl-divergence-base", saved, "--kl-divergence"))
            (ppl, _), (peer_ppl, _) = mine["Mean PPL(Q)"][0], theirs["Mean PPL(Q)"][0]
            (kl, _), (peer_kl, _) = mine["Mean KLD"][0], theirs["Mean KLD"][0]
            agrees = abs(ppl - peer_ppl) <= 0.001 * peer_ppl and abs(kl - peer_kl) <= max(0.05 * peer_kl, 5e-4)
            failures += not agrees
            print(f"{'ok  ' if agrees else 'FAIL'} {dtype} against bf16: perplexity {ppl}, llama-perplexity {peer_ppl}; "
                  f"mean divergence {kl}, llama-perplexity {peer_kl}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
