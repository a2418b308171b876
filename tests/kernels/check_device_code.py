#!/usr/bin/env python3
"""Checks what nvcc makes of the kernels of the GPU.

check_device_code.py NVCC ROOT CHIP...   compiles kernels/cuda/kernels.cu of the tree ROOT to PTX and, for each chip
("80", "90a"), to code; prints what is wrong, a line each, and what was counted; exit status 1 if anything is wrong.

Rules: floating point is add, sub, mul, fma, div and sqrt of f32, each rounded to nearest even (kernels/arithmetic.md,
rules 1 and 2): nothing flushed, approximated, saturated or fused by the compiler; conversions are the exact ones and the
two that round to nearest. Every row of kernel_list.h is an entry. No kernel spills registers.
"""
import collections
import pathlib
import re
import subprocess
import sys
import tempfile

FLAGS = ["-std=c++20", "-O3", "-fmad=false", "-ftz=false", "-prec-div=true", "-prec-sqrt=true",
         "--expt-relaxed-constexpr"]
ALLOWED = {"add.rn.f32", "sub.rn.f32", "mul.rn.f32", "fma.rn.f32", "div.rn.f32", "sqrt.rn.f32"}
# Neither rounds: neg and abs move the sign; selections, comparisons, moves.
EXACT = {"neg", "abs", "selp", "setp", "mov", "ld", "st", "min", "max", "mma", "ldmatrix", "atom", "shfl", "cvta"}
CONVERSIONS = {"cvt.f32.f16", "cvt.rn.f16.f32", "cvt.rni.s32.f32", "cvt.rn.f32.s32"}
OPCODE = re.compile(r"^\s*(?:@!?%p\d+\s+)?([a-z][a-z0-9_]*(?:\.[A-Za-z0-9_:]+)+)\s")


def lint(ptx):
    """(lines of what is wrong, {operation: number}) of a PTX text."""
    problems, counts = [], collections.Counter()
    for number, line in enumerate(ptx.splitlines(), 1):
        match = OPCODE.match(line)
        if not match:
            continue
        opcode = match[1]
        parts = opcode.split(".")
        if not {"f16", "f16x2", "bf16", "bf16x2", "f32", "f64"} & set(parts):
            continue
        if {"ftz", "approx", "full", "sat"} & set(parts):
            problems.append(f"line {number}: {opcode} is flushed, approximated or saturated")
        elif opcode in ALLOWED or opcode in CONVERSIONS:
            counts[opcode] += 1
        elif parts[0] not in EXACT or parts[0] in ("min", "max"):
            problems.append(f"line {number}: {opcode} is no operation of arithmetic.md")
    return problems, counts


def missing_entries(ptx, names):
    entries = set(re.findall(r"\.entry (\w+)", ptx))
    return [f"no entry quern_{name}" for name in names if f"quern_{name}" not in entries]


def spills(text):
    """(what spills, {entry: registers}) of what ptxas -v says."""
    problems, registers = [], {}
    for entry, stores, loads, used in re.findall(
            r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers",
            text, re.DOTALL):
        registers[entry] = int(used)
        if int(stores) or int(loads):
            problems.append(f"{entry} spills: {stores} bytes stored, {loads} loaded")
    if not registers:
        problems.append("ptxas names no kernel")
    return problems, registers


def names_of(root):
    """Names of kernel_list.h, as the preprocessor gives them."""
    text = '#include "kernels/cuda/kernel_list.h"\n#define NAME(name, Args, threads, function) @name\nQUERN_CUDA_KERNELS(NAME)\n'
    out = subprocess.run(["g++", "-std=c++20", "-E", "-P", "-x", "c++", "-I", root, "-"], input=text, text=True,
                         capture_output=True, check=True).stdout
    return re.findall(r"@(\w+)", out)


def main():
    nvcc, root, *chips = sys.argv[1:]
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        ptx_file = pathlib.Path(folder) / "kernels.ptx"
        subprocess.run([nvcc, *FLAGS, "-I", root, "-arch=compute_80", "--ptx", "-o", ptx_file,
                        f"{root}/kernels/cuda/kernels.cu"], check=True)
        ptx = ptx_file.read_text()
        found, counts = lint(ptx)
        problems += found + missing_entries(ptx, names_of(root))
        for opcode, n in sorted(counts.items()):
            print(f"{n:6} {opcode}")
        for chip in chips:
            done = subprocess.run([pathlib.Path(nvcc).resolve().with_name("ptxas"), "-v", f"-arch=sm_{chip}", "-O3", "-o",
                                   pathlib.Path(folder) / "code", ptx_file], capture_output=True, text=True, check=True)
            found, registers = spills(done.stderr + done.stdout)
            problems += [f"sm_{chip}: {line}" for line in found]
            print(f"sm_{chip}: {len(registers)} kernels, {max(registers.values(), default=0)} registers at most")
    print("\n".join(problems) or "all is as it should be")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
