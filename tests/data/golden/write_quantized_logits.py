#!/usr/bin/env python3
"""Logits of quantized files from a float64 forward pass: writes quantized_logits.json.

    write_quantized_logits.py QUERN [OUT]        (needs numpy; QUERN: the built program, which converts the checkpoints)

Weights are decoded exactly from the blocks of the GGUF. What a quantized matrix is multiplied with goes through the activation quantizer of
kernels/arithmetic.md first, in float32 as there; everything else is float64: so what is left between these logits and quern's is the rounding
of float32, and the codes that such a rounding turns over. The reading of GGUF, the decoders and the forward pass are written from quant/formats.md
and kernels/arithmetic.md, not from quern's code.
"""
import json
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
CASES = [
    ("random-window", "q4_0"),
    ("random-window", "q8_0"),
    ("stories260k", "q4_0"),
    ("stories260k", "q8_0"),
    ("tiny-mistral", "q4_0"),
    ("tiny-mistral", "q8_0"),
    ("tiny-mistral", "q6_k"),
]


# --- GGUF ---


class Reader:
    SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

    def __init__(self, data):
        self.data, self.at = data, 0

    def number(self, code):
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def text(self):
        n = self.number("Q")
        self.at += n
        return self.data[self.at - n : self.at].decode("utf-8", "replace")

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            element, count = self.number("I"), self.number("Q")
            return [self.value(element) for _ in range(count)]
        return self.number(self.SCALARS[kind])


def halves(blocks, offset):
    """The f16 at `offset` of each block, as a column of float64."""
    return blocks[:, offset : offset + 2].copy().view(np.float16).astype(np.float64)


def decode_q4_0(blocks):
    codes = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], 1).astype(np.float64) - 8
    return codes * halves(blocks, 0)


def decode_q8_0(blocks):
    return blocks[:, 2:].view(np.int8).astype(np.float64) * halves(blocks, 0)


def decode_q6_k(blocks):
    out = np.empty((len(blocks), 256))
    for e in range(256):
        n, r = divmod(e, 128)
        k, l = divmod(r, 32)
        low = blocks[:, 64 * n + l + (32 if k & 1 else 0)]
        low = low & 15 if k < 2 else low >> 4
        high = blocks[:, 128 + 32 * n + l] >> (2 * k) & 3
        scale = blocks[:, 192 + 8 * n + r // 16].view(np.int8).astype(np.float64)
        out[:, e] = scale * ((low | high << 4).astype(np.float64) - 32)
    return out * halves(blocks, 208)


FORMATS = {  # type id: weights and bytes of a block, decoder
    0: (1, 4, lambda b: b.view("<f4").astype(np.float64)),
    1: (1, 2, lambda b: b.view("<f2").astype(np.float64)),
    2: (32, 18, decode_q4_0),
    8: (32, 34, decode_q8_0),
    14: (256, 210, decode_q6_k),
}


class Matrix:
    def __init__(self, type_id, shape, data):
        weights, n_bytes, decode = FORMATS[type_id]
        blocks = np.frombuffer(data, np.uint8).reshape(-1, n_bytes)
        self.values = decode(blocks).reshape(shape)
        self.is_quantized = weights > 1

    def times(self, x):
        """x [tokens, columns] times the transpose."""
        return (quantize(x) if self.is_quantized else x) @ self.values.T


def read_gguf(path):
    r = Reader(open(path, "rb").read())
    assert r.data[:4] == b"GGUF"
    r.at = 8
    n_tensors, n_keys = r.number("Q"), r.number("Q")
    meta = {}
    for _ in range(n_keys):
        key = r.text()
        meta[key] = r.value(r.number("I"))
    infos = []
    for _ in range(n_tensors):
        name = r.text()
        shape = [r.number("Q") for _ in range(r.number("I"))][::-1]
        infos.append((name, shape, r.number("I"), r.number("Q")))
    start = -(-r.at // 32) * 32
    tensors = {}
    for name, shape, type_id, offset in infos:
        weights, n_bytes, _ = FORMATS[type_id]
        size = int(np.prod(shape)) // weights * n_bytes
        tensors[name] = Matrix(type_id, shape, r.data[start + offset : start + offset + size])
    return meta, tensors


# --- arithmetic ---


def quantize(x):
    """kernels/arithmetic.md "Activation quantizer": the values that the codes stand for, per token and 32 of them."""
    groups = x.astype(np.float32).reshape(len(x), -1, 32)
    amax = np.abs(groups).max(-1, keepdims=True)
    small = amax < np.float32(2.0**-100)
    safe = np.where(small, np.float32(1), amax)
    codes = np.rint(groups * (np.float32(127) / safe))
    scale = np.where(small, np.float32(0), safe / np.float32(127))
    return (codes.astype(np.float64) * scale.astype(np.float64)).reshape(x.shape)


def rms_norm(x, w, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w.values


def rope(x, base):
    """x: [tokens, heads, head_dim]; pairs are neighbours."""
    half = x.shape[-1] // 2
    angle = np.arange(len(x))[:, None] * base ** (-np.arange(half) / half)
    c, s = np.cos(angle)[:, None], np.sin(angle)[:, None]
    out = np.empty_like(x)
    out[..., 0::2] = x[..., 0::2] * c - x[..., 1::2] * s
    out[..., 1::2] = x[..., 0::2] * s + x[..., 1::2] * c
    return out


def forward(meta, t, ids):
    """Logits of every token: [tokens, vocabulary]."""
    key = lambda name, default=None: meta.get("llama." + name, default)
    n_heads, dim = key("attention.head_count"), key("embedding_length")
    n_kv = key("attention.head_count_kv", n_heads)
    head_dim = key("attention.key_length", dim // n_heads)
    eps, base = key("attention.layer_norm_rms_epsilon"), key("rope.freq_base", 10000.0)
    window = key("attention.sliding_window", 0)
    n = len(ids)
    position = np.arange(n)
    hidden = position[None, :] > position[:, None]
    if window:
        hidden |= position[None, :] <= position[:, None] - window
    x = t["token_embd.weight"].values[ids]
    for i in range(key("block_count")):
        w = lambda name: t[f"blk.{i}.{name}.weight"]
        h = rms_norm(x, w("attn_norm"), eps)
        q = rope(w("attn_q").times(h).reshape(n, n_heads, head_dim), base)
        k = rope(w("attn_k").times(h).reshape(n, n_kv, head_dim), base)
        v = w("attn_v").times(h).reshape(n, n_kv, head_dim)
        k, v = (np.repeat(a, n_heads // n_kv, axis=1) for a in (k, v))
        s = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(head_dim)
        s[:, hidden] = -np.inf
        s = np.exp(s - s.max(-1, keepdims=True))
        s /= s.sum(-1, keepdims=True)
        x = x + w("attn_output").times(np.einsum("hqk,khd->qhd", s, v).reshape(n, -1))
        h = rms_norm(x, w("ffn_norm"), eps)
        gate = w("ffn_gate").times(h)
        x = x + w("ffn_down").times(gate / (1 + np.exp(-gate)) * w("ffn_up").times(h))
    x = rms_norm(x, t["output_norm.weight"], eps)
    return t["output.weight" if "output.weight" in t else "token_embd.weight"].times(x)


def main():
    quern, out = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else os.path.join(HERE, "quantized_logits.json")
    with open(os.path.join(HERE, "logits.json")) as file:
        ids_of = {entry["model"]: entry["ids"] for entry in json.load(file)}
    entries = []
    for model, kind in CASES:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.gguf")
            source = os.path.join(HERE, "..", model)
            tokenizer = [] if os.path.exists(os.path.join(source, "tokenizer.model")) else ["--no-tokenizer"]
            subprocess.run([quern, "convert", source, "-o", path, "--type", kind, *tokenizer], check=True, stderr=subprocess.DEVNULL)
            meta, tensors = read_gguf(path)
        ids = ids_of[model]
        logits = forward(meta, tensors, np.array(ids))
        positions = sorted({len(ids) // 4, len(ids) // 2, len(ids) - 1})
        rows = [[round(float(v), 4) for v in logits[p]] for p in positions]
        entries.append({"model": model, "type": kind, "ids": ids, "positions": positions, "logits": rows})
        print(model, kind, "spread", round(float(np.ptp(logits[-1])), 3))
    with open(out, "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(e) for e in entries) + "\n]\n")


if __name__ == "__main__":
    main()
