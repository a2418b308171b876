#!/usr/bin/env python3
"""quern's tokenizer beside tiktoken and Hugging Face's tokenizers: one vocabulary, one text, one thread, in turn.

    bench/against_tokenizers.py BENCH_TOKENIZER qwen.tiktoken TEXT [ROUNDS]

Needs the packages tiktoken and tokenizers. Processor time of each, so that other processes cost little; ratios are medians
over the rounds with the lowest and the highest, and ids are compared. The vocabulary is Qwen's list of ranks; tokenizers
gets it as its own converter would (every way to cut a token into two is a merge).
"""
import base64
import json
import os
import statistics
import subprocess
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
import tiktoken  # noqa: E402
from tokenizers import Regex, Tokenizer, models, pre_tokenizers  # noqa: E402

PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
           r"\s+(?!\S)|\s+")


def spelling():
    printable = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    others = [b for b in range(256) if b not in printable]
    return dict([(b, chr(b)) for b in printable] + [(b, chr(256 + i)) for i, b in enumerate(others)])


def hugging_face(ranks):
    letters = spelling()

    def spell(token):
        return "".join(letters[b] for b in token)

    merges = []
    for token, rank in ranks.items():
        cuts = [(ranks[token[:i]], ranks[token[i:]], token[:i], token[i:]) for i in range(1, len(token))
                if token[:i] in ranks and token[i:] in ranks]
        merges += [(rank, i, left, right) for i, (_, _, left, right) in enumerate(sorted(cuts))]
    merges = [(spell(left), spell(right)) for _, _, left, right in sorted(merges, key=lambda m: (m[0], m[1]))]
    tokenizer = Tokenizer(models.BPE({spell(token): rank for token, rank in ranks.items()}, merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PATTERN), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)])
    return tokenizer


def seconds(encode):
    begin = time.process_time()
    encode()
    return time.process_time() - begin


def quern_result(bench, ranks, text):
    command = [bench, ranks + ":qwen2", text, "--benchmark_filter=text/", "--benchmark_format=json",
               "--benchmark_min_time=0.5"]
    result = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["benchmarks"][0]
    return result["cpu_time"] * 1e-9, int(result["ids"])


def main():
    bench, rank_file, text_file = sys.argv[1:4]
    n_rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 7
    with open(rank_file, encoding="ascii") as file:
        ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in file if line.strip())}
    with open(text_file, encoding="utf-8", newline="") as file:
        text = file.read()
    n_bytes = len(text.encode())
    tik = tiktoken.Encoding("qwen", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    hugging = hugging_face(ranks)
    n_ids = len(tik.encode_ordinary(text))
    assert hugging.encode(text, add_special_tokens=False).ids == tik.encode_ordinary(text)
    times = {"quern": [], "tiktoken": [], "tokenizers": []}
    for _ in range(n_rounds):
        ours, n_ours = quern_result(bench, rank_file, text_file)
        assert n_ours == n_ids, (n_ours, n_ids)
        times["quern"].append(ours)
        times["tiktoken"].append(seconds(lambda: tik.encode_ordinary(text)))
        times["tokenizers"].append(seconds(lambda: hugging.encode(text, add_special_tokens=False)))
    for name, all_times in times.items():
        print(f"{name:11} {n_bytes / statistics.median(all_times) / 1e6:7.2f} MB/s")
    for name in ("tiktoken", "tokenizers"):
        ratios = sorted(theirs / ours for theirs, ours in zip(times[name], times["quern"]))
        print(f"{name} / quern {statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})")


main()
