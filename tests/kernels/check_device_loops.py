#!/usr/bin/env python3
"""Counts the instructions of the GPU kernels' inner loops, and checks that they are as many as they were.

check_device_loops.py CUOBJDUMP FATBIN TABLE NVCC           prints what differs, a line each; exit status 1 if anything does
check_device_loops.py CUOBJDUMP FATBIN TABLE NVCC --write   writes the table anew

A kernel's inner loop is, of its loops without a loop in them, the one that multiplies most with tensor cores (IMMA), else the
one that does so with most of its instructions (FFMA, IDP). Rules: it reads and writes no local memory (a spill, or an array that is not in registers), and has at most
5 % more instructions than the table says; 25 % where another nvcc (NVCC: its version) than the table's compiled it. Kernels that the table
does not name, and names without a kernel, are errors. Needs cuobjdump and, beside it, nvdisasm.
"""
import collections
import pathlib
import re
import subprocess
import sys

INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_.]+)([^;]*);")
# Multiply-adds of one instruction of a warp.
TENSOR = {"IMMA.16832": 16 * 8 * 32, "IMMA.16816": 16 * 8 * 16}
SCALAR = {"FFMA": 32, "IDP": 4 * 32}
LOCAL = {"LDL", "STL"}

Instruction = collections.namedtuple("Instruction", "address opcode operands")
Loop = collections.namedtuple("Loop", "instructions multiply_adds local")


def kernels_of(text):
    """{(chip, kernel): [Instruction]} of what `cuobjdump -sass` prints."""
    kernels, chip, body = {}, None, None
    for line in text.splitlines():
        if line.startswith("arch = "):
            chip = line[len("arch = "):].strip()
        elif "Function : " in line:
            body = kernels.setdefault((chip, line.split("Function : ")[1].strip().removeprefix("quern_")), [])
        elif body is not None and (match := INSTRUCTION.match(line)):
            body.append(Instruction(int(match[1], 16), match[2], match[3]))
    return kernels


def innermost_loops(body):
    """The instructions from the target of each jump back to the jump, where no other such run lies within."""
    jumps = set()
    for at in body:
        target = re.search(r"0x([0-9a-f]+)", at.operands) if at.opcode.split(".")[0] == "BRA" else None
        if target and int(target[1], 16) < at.address:
            jumps.add((int(target[1], 16), at.address))
    return [[i for i in body if begin <= i.address <= end and i.opcode != "NOP"] for begin, end in sorted(jumps)
            if not any(other != (begin, end) and begin <= other[0] and other[1] <= end for other in jumps)]


def multiply_adds(loop):
    """(of tensor cores, of others)"""
    tensor = sum(n for i in loop for name, n in TENSOR.items() if i.opcode.startswith(name))
    return tensor, sum(SCALAR.get(i.opcode.split(".")[0], 0) for i in loop)


def inner_loop(body):
    """The Loop of a kernel; None where no loop multiplies."""
    loops = [(*multiply_adds(loop), loop) for loop in innermost_loops(body)]
    if not loops:
        return None
    tensor, scalar, loop = max(loops, key=lambda row: (row[0], row[1] / len(row[2])))
    if tensor + scalar == 0:
        return None
    return Loop(len(loop), tensor or scalar, sum(i.opcode.split(".")[0] in LOCAL for i in loop))


def loops_of(text):
    found = {key: inner_loop(body) for key, body in kernels_of(text).items()}
    return {key: loop for key, loop in found.items() if loop}


def read_table(text):
    """(nvcc's version, {(chip, kernel): instructions})"""
    compiler, table = None, {}
    for line in text.splitlines():
        words = line.split()
        if line.startswith("# nvcc "):
            compiler = words[2]
        elif words and not line.startswith("#"):
            table[words[0], words[1]] = int(words[2])
    return compiler, table


def write_table(loops, compiler):
    lines = ["# Instructions of the kernels' inner loops, and their multiply-adds, of a warp (check_device_loops.py).",
             f"# nvcc {compiler}"]
    lines += [f"{chip} {kernel} {loop.instructions} {loop.multiply_adds}" for (chip, kernel), loop in sorted(loops.items())]
    return "\n".join(lines) + "\n"


def compare(loops, table, slack):
    problems = []
    for (chip, kernel), loop in sorted(loops.items()):
        if loop.local:
            problems.append(f"{chip} {kernel}: {loop.local} accesses of local memory in its inner loop")
        known = table.get((chip, kernel))
        if known is None:
            problems.append(f"{chip} {kernel}: not in the table")
        elif loop.instructions > known * (1 + slack):
            problems.append(f"{chip} {kernel}: {loop.instructions} instructions in its inner loop, {known} in the table")
    chips = {chip for chip, _ in loops}
    problems += [f"{chip} {kernel}: in the table, not in the code" for chip, kernel in sorted(table)
                 if chip in chips and (chip, kernel) not in loops]
    if not loops:
        problems.append("no kernel has a loop that multiplies")
    return problems


def main():
    cuobjdump, fatbin, path, compiler = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), sys.argv[4]
    done = subprocess.run([cuobjdump, "-sass", fatbin], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(f"{cuobjdump}: {done.stderr.strip()}", file=sys.stderr)
        return 2
    loops = loops_of(done.stdout)
    if "--write" in sys.argv:
        path.write_text(write_table(loops, compiler))
        return 0
    known_compiler, table = read_table(path.read_text())
    problems = compare(loops, table, 0.05 if compiler == known_compiler else 0.25)
    print(f"{len(loops)} inner loops")
    print("\n".join(problems) or "all is as it should be")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
