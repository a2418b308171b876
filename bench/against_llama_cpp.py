#!/usr/bin/env python3
"""How fast quern is beside llama.cpp: the same file, the same threads, run in turns.

    bench/against_llama_cpp.py model.gguf --llama-bench ~/llama.cpp/build/bin/llama-bench

Runs `llama-bench`, then `quern bench`, then `llama-bench` ..., one test and one repetition (after a warm-up) a
process, and prints for each test both speeds, the ratio of every pair, and the ratios' median, lowest and highest.
A pair's two runs follow each other directly, so that what else the machine does meets both; a ratio of two numbers
that were taken at different times says little on a laptop, and nothing on a shared machine.

The tests are llama-bench's own: ppN evaluates a prompt of N random tokens, tgN generates N tokens one by one, from an
empty context or after DEPTH tokens. Both tools print the same JSON, which is all that is read.

Examples:
    against_llama_cpp.py m.gguf                                  pp512, pp32 and tg32, five pairs each
    against_llama_cpp.py m.gguf -p 512 -n 0 -d 0,8192 --pairs 7  prompts only, at two depths
    against_llama_cpp.py m.gguf --quern-model m-p16.gguf         quern maps its own layout of the same weights
    against_llama_cpp.py m.gguf --llama-args="-fa 1" --json

To build llama.cpp for this machine (tests need nothing else of it):
    cmake -B build -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF
    cmake --build build --target llama-bench

Needs Python 3.8 and nothing beside its standard library.
"""
import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys

# What of llama.cpp's CMake cache bears on speed.
BUILD_FLAGS = ("CMAKE_BUILD_TYPE", "CMAKE_C_FLAGS", "CMAKE_CXX_FLAGS", "GGML_NATIVE", "GGML_OPENMP", "GGML_LLAMAFILE",
               "GGML_CPU_REPACK", "GGML_BLAS", "GGML_BLAS_VENDOR", "GGML_LTO", "GGML_CUDA", "GGML_VULKAN")


class Failure(Exception):
    """What a user can do something about."""


def test_name(test):
    """(512, 0, 0) -> "pp512"; (0, 32, 8192) -> "tg32 @ d8192"."""
    prompt, generated, depth = test
    name = f"pp{prompt}" if prompt else f"tg{generated}"
    return name + (f" @ d{depth}" if depth else "")


def plan(prompts, generated, depths):
    """The tests as (n_prompt, n_gen, n_depth), depth by depth; zeros are left out."""
    return [test for depth in depths
            for test in [(n, 0, depth) for n in prompts if n] + [(0, n, depth) for n in generated if n]]


def parse_rows(text, tool):
    """The rows of a tool's `-o json`; whatever it prints before the list is skipped."""
    start = text.find("[\n") if not text.lstrip().startswith("[") else text.find("[")
    try:
        rows = json.loads(text[start:]) if start >= 0 else None
    except json.JSONDecodeError as error:
        raise Failure(f"{tool}: its output is not JSON: {error}") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise Failure(f"{tool}: its output has no results")
    return rows


def speed_of(rows, test, tool):
    """Tokens per second of a test: the median of its repetitions."""
    for row in rows:
        # llama-bench has n_depth since May 2025.
        if (row.get("n_prompt"), row.get("n_gen"), row.get("n_depth", 0)) == test:
            samples = row.get("samples_ts") or [row["avg_ts"]]
            if min(samples) <= 0:
                raise Failure(f"{tool}: {test_name(test)}: a speed of {min(samples)}")
            return statistics.median(samples)
    raise Failure(f"{tool}: no row for {test_name(test)}")


def summary(pairs):
    """pairs: (llama.cpp, quern) in tokens per second, in the order of the runs."""
    ratios = [quern / llama for llama, quern in pairs]
    return {"llama_cpp_ts": [llama for llama, _ in pairs], "quern_ts": [quern for _, quern in pairs],
            "ratios": ratios, "median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def build_flags(cache):
    """The lines of a CMakeCache.txt that bear on speed, as "NAME=VALUE"; empty and false ones are left out, but for
    those that are usually on."""
    flags = []
    for line in cache.splitlines():
        name, _, value = line.partition("=")
        name = name.partition(":")[0]
        usually_on = name in ("GGML_NATIVE", "GGML_OPENMP", "GGML_CPU_REPACK")
        if name in BUILD_FLAGS and value and (usually_on or value.upper() not in ("OFF", "GENERIC", "FALSE", "0")):
            flags.append(f"{name}={value}")
    return flags


def find_build_flags(binary):
    """build_flags() of the build folder that holds the binary; None when there is none."""
    folder = os.path.dirname(os.path.realpath(binary))
    for _ in range(3):
        cache = os.path.join(folder, "CMakeCache.txt")
        if os.path.exists(cache):
            with open(cache, encoding="utf-8", errors="replace") as file:
                return build_flags(file.read())
        folder = os.path.dirname(folder)
    return None


def run(command, timeout):
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout,
                              check=False)
    except OSError as error:
        raise Failure(f"{command[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise Failure(f"{shlex.join(command)}: no result after {timeout} s") from error
    if done.returncode != 0:
        raise Failure(f"{shlex.join(command)}: exit {done.returncode}\n{done.stderr.strip()[-2000:]}")
    return done


def llama_version(binary, rows):
    """What `--version` says, or the commit and the number in the rows where a build does not know that."""
    try:
        done = run([binary, "--version"], 60)
        for line in (done.stdout + done.stderr).splitlines():
            if line.startswith("version:"):
                return line.partition(":")[2].strip()
    except Failure:
        pass
    return f"build {rows[0].get('build_number')}, commit {rows[0].get('build_commit')}"


def find_binary(given, name, places):
    if given:
        return given
    for place in places:
        if os.access(place, os.X_OK):
            return place
    found = shutil.which(name)
    if found is None:
        raise Failure(f"{name} is neither in PATH nor beside this script; give --{name}")
    return found


class Peers:
    """The two tools, ready to run a test."""

    def __init__(self, options):
        here = os.path.dirname(os.path.abspath(__file__))
        self.options = options
        self.llama = find_binary(options.llama_bench, "llama-bench", [])
        self.quern = find_binary(options.quern, "quern", [
            os.path.join(here, "..", "build", kind, "cli", "quern") for kind in ("release", "")])
        self.threads = options.threads or json.loads(
            run([self.quern, "doctor", "--no-probe", "--json"], 60).stdout)["n_threads"]

    def arguments(self, test):
        prompt, generated, depth = test
        arguments = ["-p", str(prompt), "-n", str(generated), "-t", str(self.threads), "-r",
                     str(self.options.repetitions), "-o", "json"]
        return arguments + (["-d", str(depth)] if depth else [])

    def run_llama(self, test):
        command = [self.llama, "-m", self.options.model, *self.arguments(test), *shlex.split(self.options.llama_args)]
        return parse_rows(run(command, self.options.timeout).stdout, "llama-bench")

    def run_quern(self, test):
        model = self.options.quern_model or self.options.model
        command = [self.quern, "bench", model, *self.arguments(test), "--no-probe",
                   *shlex.split(self.options.quern_args)]
        return parse_rows(run(command, self.options.timeout).stdout, "quern")


def describe(peers, llama_rows, quern_rows):
    """What was compared, as (key, text)."""
    flags = find_build_flags(peers.llama)
    return [("cpu", llama_rows[0].get("cpu_info", "")), ("model", llama_rows[0].get("model_type", "")),
            ("threads", str(peers.threads)), ("llama.cpp", llama_version(peers.llama, llama_rows)),
            ("built with", "not known: no CMakeCache.txt beside it" if flags is None else " ".join(flags)),
            ("its options", peers.options.llama_args or "defaults"),
            ("quern", f"{quern_rows[0].get('build_commit')} {peers.options.quern_args}".strip())]


def spread(values):
    return f"{statistics.median(values):8.2f} ({min(values):.2f}-{max(values):.2f})"


def row_of(test, result):
    ratios = " ".join(f"{ratio:.2f}" for ratio in result["ratios"])
    return (f"{test_name(test):16} {spread(result['llama_cpp_ts']):>26} {spread(result['quern_ts']):>26}"
            f" {result['median']:7.2f} ({result['min']:.2f}-{result['max']:.2f})   {ratios}")


HEADER = (f"{'test':16} {'llama.cpp, tok/s':>26} {'quern, tok/s':>26} {'ratio':>7} (lowest-highest)   of each pair")


def compare(options, out):
    peers = Peers(options)
    tests = plan(options.prompts, options.generate, options.depths)
    if not tests:
        raise Failure("nothing to compare: no prompt and no generation")
    results = {}
    described = None
    for test in tests:
        pairs = []
        for i in range(options.pairs):
            llama_rows = peers.run_llama(test)
            quern_rows = peers.run_quern(test)
            pairs.append((speed_of(llama_rows, test, "llama-bench"), speed_of(quern_rows, test, "quern")))
            print(f"{test_name(test)}: pair {i + 1} of {options.pairs}: llama.cpp {pairs[-1][0]:.2f}, quern"
                  f" {pairs[-1][1]:.2f} tok/s", file=sys.stderr, flush=True)
            if described is None:
                described = describe(peers, llama_rows, quern_rows)
                if not options.json:
                    print("\n".join(f"{key}: {text}" for key, text in described), HEADER, sep="\n", file=out, flush=True)
        results[test_name(test)] = summary(pairs)
        if not options.json:
            print(row_of(test, results[test_name(test)]), file=out, flush=True)
    if options.json:
        json.dump({"about": dict(described), "tests": results}, out, indent=2)
        print(file=out)


def numbers(text):
    values = [int(part) for part in text.split(",")]
    if min(values) < 0:
        raise ValueError
    return values


def positive(text):
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a GGUF file that both can read")
    parser.add_argument("--llama-bench", help="the binary (default: the one in PATH)")
    parser.add_argument("--quern", help="the binary (default: ../build/release/cli/quern from here, or the one in PATH)")
    parser.add_argument("--quern-model", help="another file for quern: the same weights in its own layout")
    parser.add_argument("-t", "--threads", type=positive, help="of both (default: what quern chooses)")
    parser.add_argument("-p", "--prompts", type=numbers, default=[512, 32], help="prompt lengths (default 512,32)")
    parser.add_argument("-n", "--generate", type=numbers, default=[32], help="generated tokens (default 32)")
    parser.add_argument("-d", "--depths", type=numbers, default=[0],
                        help="tokens in the context before the test (default 0)")
    parser.add_argument("--pairs", type=positive, default=5, help="runs of each tool for each test (default 5)")
    parser.add_argument("-r", "--repetitions", type=positive, default=1,
                        help="repetitions within a run, whose median counts (default 1)")
    parser.add_argument("--llama-args", default="", help="more options for llama-bench, in one argument")
    parser.add_argument("--quern-args", default="", help="more options for quern bench, in one argument")
    parser.add_argument("--timeout", type=positive, default=3600, help="seconds that a run may take (default 3600)")
    parser.add_argument("--json", action="store_true", help="print one JSON object in the end")
    return parser.parse_args(arguments)


def main(arguments=None, out=None):
    try:
        compare(parse(arguments), out or sys.stdout)
    except Failure as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
