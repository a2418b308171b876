"""Writes kl_statistics.json: rows of logits of two models, and the statistics of cli/conventions.md 4.3 over them.

    write_kl_statistics.py > kl_statistics.json

Everything in float64 with numpy, from the definitions and not from the code under test; with "stored", the base's rows
first go through llama-perplexity's 16-bit storage (its float32 steps as 4.3 describes them). Logits are given in
64ths, so that they are the same in every precision.
"""
import json

import numpy as np

VOCAB, TOKENS = 33, 120  # an odd vocabulary: a stored row has a word of padding
KL = [0.999, 0.99, 0.95, 0.9, 0.1, 0.05, 0.01, 0.001]
DIFF = [0.999, 0.99, 0.95, 0.9, 0.75, 0.25, 0.1, 0.05, 0.01, 0.001]


def rows():
    random = np.random.default_rng(20261130)
    base = random.normal(0, 4, (TOKENS, VOCAB))
    logits = base + random.normal(0, 0.5, (TOKENS, VOCAB))
    base[0] = 1.5                                 # all equal: a scale of 0
    base[1], logits[1] = base[2], base[2]         # two rows that agree
    base[3, :20] -= 40                            # beyond what the storage holds
    base[4, 5] = base[4, 9] = base[4].max() + 1   # two likeliest: the first counts
    logits[4, 9] = logits[4].max() + 2
    logits[5] *= 3
    targets = random.integers(0, VOCAB, TOKENS)
    return np.rint(base * 64).astype(int), np.rint(logits * 64).astype(int), targets


def log_softmax(z):
    top = z.max(-1, keepdims=True)
    return z - top - np.log(np.exp(z - top).sum(-1, keepdims=True))


def store(z):
    """A row as float32 log-probabilities that have been 16-bit codes."""
    z = z.astype(np.float32)
    top = z.max()
    low = max(z.min(), np.float32(top - np.float32(16)))
    log_sum = np.float32(np.log(np.exp((z - top).astype(np.float64)).sum()))
    scale, least = np.float32((top - low) / np.float32(65535)), np.float32(low - top - log_sum)
    codes = np.zeros(len(z), np.float32)
    if scale:
        codes = np.where(z > low, np.rint(np.float32(1) / scale * (z - low)), 0).astype(np.float32)
    return (scale * codes + least).astype(np.float64)


def error(values):
    return np.sqrt(values.var() / (len(values) - 1))


def statistics(base, logits, targets, stored):
    log_q = log_softmax(logits)
    log_p = np.array([store(row) for row in base]) if stored else log_softmax(base)
    counts = log_p > -16 if stored else np.full(log_p.shape, True)
    kl = np.where(counts, np.exp(log_p) * (log_p - log_q), 0).sum(-1)
    at = np.arange(len(targets))
    nll, nll_base = -log_q[at, targets], -log_p[at, targets]
    diff = np.exp(-nll) - np.exp(-nll_base)
    same = log_p.argmax(-1) == log_q.argmax(-1)
    n = len(targets)
    covariance = ((nll - nll.mean()) * (nll_base - nll_base.mean())).mean() / (n - 1)
    ppl, ppl_base = np.exp(nll.mean()), np.exp(nll_base.mean())
    ratio_error = np.sqrt(error(nll) ** 2 + error(nll_base) ** 2 - 2 * covariance)
    squares = diff ** 2
    return {
        "perplexity": [ppl, ppl * error(nll)],
        "perplexity_base": [ppl_base, ppl_base * error(nll_base)],
        "correlation": covariance / error(nll) / error(nll_base),
        "log_ratio": [nll.mean() - nll_base.mean(), ratio_error],
        "ratio": [ppl / ppl_base, ppl / ppl_base * ratio_error],
        "difference": [ppl - ppl_base, np.sqrt((ppl * error(nll)) ** 2 + (ppl_base * error(nll_base)) ** 2
                                               - 2 * ppl * ppl_base * covariance)],
        "kl": [kl.mean(), error(kl)],
        "kl_ordered": [kl.max(), np.median(kl), kl.min(), *np.quantile(kl, KL)],
        "p_diff": [diff.mean(), error(diff)],
        "p_diff_rms": [np.sqrt(squares.mean()), 0.5 / np.sqrt(squares.mean()) * error(squares)],
        "p_diff_ordered": [diff.max(), np.median(diff), diff.min(), *np.quantile(diff, DIFF)],
        "same_top": [same.mean(), np.sqrt(same.mean() * (1 - same.mean()) / (n - 1))],
    }


def main():
    base, logits, targets = rows()
    result = {"base": base.tolist(), "logits": logits.tolist(), "targets": targets.tolist()}
    for name, stored in (("exact", False), ("stored", True)):
        result[name] = statistics(base / 64, logits / 64, targets, stored)
    print(json.dumps(result, separators=(",", ":")))


if __name__ == "__main__":
    main()
