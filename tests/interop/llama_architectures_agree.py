"""llama.cpp computes what quern does on every architecture's small random checkpoint, by way of llama-cpp-python.

    llama_architectures_agree.py --quern BINARY --write-logits BINARY --goldens DIR [--only NAME,NAME]

DIR holds a folder for each checkpoint (tests/data/architectures.tar.xz and architecture_variants.tar.xz unpacked);
--write-logits is tests/support's quern_write_logits. Each is converted to F32 and Q8_0. On the 48 ids of its
expected.json, with a cache of F32 and without flash attention:

- F32: every logit is within 1e-3 of llama.cpp's, of the logits' spread;
- Q8_0: the mean likelihood is within 0.5 %.

A file that llama.cpp refuses is listed and not counted. Where a configuration asks for what its format cannot say, the same
weights are compared under another one (CANNOT_SAY). Exits with 77 where llama-cpp-python is absent.
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

CONTEXT = 256  # of both: LongRoPE's factors go by it
SPREAD_LIMIT, LIKELIHOOD_LIMIT = 1e-3, 5e-3
# What llama.cpp cannot be told of a checkpoint, and a configuration without that: (why, what differs).
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
CANNOT_SAY = {
    "exaone4": ("windows, and layers without positions, below 64 layers",
                {"sliding_window": None, "layer_types": ["full_attention"] * 3}),
    "exaone4-without-windows": ("layers without positions below 64 layers", {"sliding_window": None}),
    "gemma2": ("a scale of queries", {"query_pre_attn_scalar": 32}),
    "gemma2-without-caps": ("no caps", {"query_pre_attn_scalar": 16, "attn_logit_softcapping": 50.0,
                                        "final_logit_softcapping": 30.0}),
    "gemma3": ("a scale of queries", {"query_pre_attn_scalar": 32}),
    "glm4-moe-lite-yarn": ("mscale beside another mscale_all_dim", {"rope_parameters": PLAIN_ROPE}),
    "gpt-oss": ("YaRN without rounding", {"rope_parameters": PLAIN_ROPE}),
    "qwen2-window": ("windows", {"use_sliding_window": False, "layer_types": ["full_attention"] * 4}),
    "smollm3": ("which layers have no positions, but every fourth", {"no_rope_layers": [1, 1, 1]}),
}


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{os.path.basename(command[0])} {command[1]}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def print_peers_logits(path, ids_path, out_path):
    """Runs in a process of its own, which llama.cpp may end."""
    with open(ids_path, encoding="utf-8") as file:
        ids = json.load(file)["ids"]
    llama_cpp.llama_backend_init()
    parameters = llama_cpp.llama_model_default_params()
    parameters.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(path.encode(), parameters)
    if not model:
        sys.exit("the model is refused")
    options = llama_cpp.llama_context_default_params()
    options.n_ctx = options.n_batch = options.n_ubatch = CONTEXT
    options.n_threads = options.n_threads_batch = 1
    options.type_k = options.type_v = llama_cpp.GGML_TYPE_F32
    options.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama_cpp.llama_init_from_model(model, options)
    if not context:
        sys.exit("no context")
    n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for i, token in enumerate(ids):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, True
        batch.seq_id[i][0] = 0
    if llama_cpp.llama_decode(context, batch) != 0:
        sys.exit("llama_decode fails")
    rows = [np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, i), (n_vocab,)).copy() for i in range(len(ids))]
    np.stack(rows).astype(np.float32).tofile(out_path)


def logits_of(arguments, path, ids_path, folder, n_vocab):
    """(ours, theirs), or why there are none of llama.cpp."""
    ours, theirs = os.path.join(folder, "ours"), os.path.join(folder, "theirs")
    run(arguments.write_logits, path, ids_path, str(CONTEXT), ours)
    done = subprocess.run([sys.executable, __file__, "--peer", path, ids_path, theirs], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace")
    if done.returncode != 0:
        lines = [line for line in done.stdout.splitlines() if "error" in line.lower() or "assert" in line.lower()]
        return None, (lines or done.stdout.splitlines() or ["no reason given"])[0].strip()
    read = lambda name: np.fromfile(name, np.float32).reshape(-1, n_vocab).astype(np.float64)
    return (read(ours), read(theirs)), None


def mean_likelihood(logits, ids):
    logits = logits[:-1] - logits[:-1].max(-1, keepdims=True)
    nll = np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(ids) - 1), ids[1:]]
    return float(nll.mean())


def check(arguments, name):
    """(what is printed, failed or not, counted or not)."""
    source = os.path.join(arguments.goldens, name)
    ids_path = os.path.join(source, "expected.json")
    with open(ids_path, encoding="utf-8") as file:
        expected = json.load(file)
    ids, n_vocab = expected["ids"], len(expected["logits_last"])
    with tempfile.TemporaryDirectory() as folder:
        why = ""
        if name in CANNOT_SAY:
            why, changes = CANNOT_SAY[name]
            why = f" (llama.cpp cannot be told of: {why})"
            with open(os.path.join(source, "config.json"), encoding="utf-8") as file:
                config = {**json.load(file), **changes}
            weights = os.path.abspath(os.path.join(source, "model.safetensors"))
            source = os.path.join(folder, "changed")
            os.mkdir(source)
            os.symlink(weights, os.path.join(source, "model.safetensors"))
            with open(os.path.join(source, "config.json"), "w", encoding="utf-8") as file:
                json.dump(config, file)
        files = {}
        for dtype in ("f32", "q8_0"):
            files[dtype] = os.path.join(folder, dtype + ".gguf")
            run(arguments.quern, "convert", source, "-o", files[dtype], "--type", dtype, "--no-tokenizer", "-q")
        found, refusal = logits_of(arguments, files["f32"], ids_path, folder, n_vocab)
        if found is None:
            return f"refused by llama.cpp: {refusal}", False, False
        ours, theirs = found
        spread = ours.max() - ours.min()
        of_spread = float(np.abs(ours - theirs).max() / spread)
        found, refusal = logits_of(arguments, files["q8_0"], ids_path, folder, n_vocab)
        if found is None:
            return f"F32 {of_spread:.1e} of the spread; Q8_0 refused by llama.cpp: {refusal}", True, True
        a, b = (mean_likelihood(logits, ids) for logits in found)
        of_likelihood = abs(a - b) / b
    good = of_spread <= SPREAD_LIMIT and of_likelihood <= LIKELIHOOD_LIMIT
    return f"F32 {of_spread:.1e} of the spread, Q8_0 {100 * of_likelihood:.3f} %{why}", not good, True


def main():
    if len(sys.argv) == 5 and sys.argv[1] == "--peer":
        return print_peers_logits(*sys.argv[2:])
    parser = argparse.ArgumentParser()
    for name in ("--quern", "--write-logits", "--goldens"):
        parser.add_argument(name, required=True)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    names = arguments.only.split(",") if arguments.only else sorted(os.listdir(arguments.goldens))
    n_counted = n_failed = 0
    for name in names:
        words, failed, counted = check(arguments, name)
        n_counted += counted
        n_failed += failed
        print(f"{'FAIL' if failed else 'ok  ' if counted else '--  '} {name}: {words}", flush=True)
    print(f"{n_counted - n_failed} of {n_counted} agree; {len(names) - n_counted} are listed and not counted")
    return 1 if n_failed else 0


if __name__ == "__main__":
    sys.exit(main())
