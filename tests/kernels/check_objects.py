#!/usr/bin/env python3
"""Checks what the compiler made of one file of an instruction set's kernels.

check_objects.py visible SET OBJECT HEADER...
    Nothing can be linked in by mistake: every visible symbol lies in namespace quern::SET, is declared in one
    of the headers, and is no weak copy of code that other objects have too (the linker could give such a copy,
    compiled for SET, to code that runs on any CPU). Nothing runs before main().
check_objects.py instructions SET OBJECT
    Every instruction is one of SET's, and none is an estimate, a bfloat16 dot product or a change of the
    rounding or flushing mode (kernels/arithmetic.md, rules 1 and 2).
check_objects.py registers SET OBJECT
    The innermost loops that multiply, in functions named tile..., score... or weigh..., keep their vectors
    in registers: none is loaded from or stored to the stack. There is at least one such loop.

Exit status: 0 all is well, 1 not (what and where is printed), 2 arguments or tools are unusable.
Needs nm, objdump and as (binutils).
"""

import collections
import os
import re
import subprocess
import sys
import tempfile

# The assembler knows which instruction belongs to which extension. The extensions are those that the set's
# files are compiled for (kernels/CMakeLists.txt).
MARCH = {
    "avx2": "generic64+avx2+fma+f16c",
    "avxvnni": "generic64+avx2+fma+f16c+avx_vnni",
    "avx512": "generic64+avx2+fma+f16c+avx512f+avx512bw+avx512dq+avx512vl+avx512_vnni",
}
EVEX_SETS = {"avx512"}

# Vector accesses to the stack that an inner loop may have: (set, compiler or "", pattern of the function's
# name, how many, why).
ALLOWED_STACK_ACCESSES = [
    # clang 14 moves broadcasts ahead of their use and runs out of 32 registers from 12 tokens on; g++ does not.
    ("avx512", "clang", r"::tile<.*1[26]>", 16, "wide tiles"),
    # The same where groups with two sums each come out together, for one or two tokens. What that costs a build by
    # clang is not measured.
    ("avx512", "clang", r"::tile_together<.*::Q2_K<", 32, "groups of two sums together"),
    ("avx512", "clang", r"::tile_together<.*::Q3_K<", 44, "groups of two sums together"),
    ("avx512", "clang", r"::tile_together<.*::Q6_K<", 26, "groups of two sums together"),
    # clang 14 keeps one mask of the fifth bits in memory and reads it twice in 848 instructions; g++ does not.
    ("avx2", "clang", r"::tile_loop_packed<.*::Q5_K<.*, 2ul, 2ul>", 2, "two tokens and two panels of Q5_K"),
]

# The functions whose inner loops must be fast: tiles of products, attention's scores and weighted sums.
MARKED = re.compile(r"tile|score|weigh")
FORBIDDEN = re.compile(r"v?rcp|v?rsqrt|vdpbf16ps|v?ldmxcsr|fxrstor|xrstor")
MULTIPLY = re.compile(r"vpmaddubsw|vpmaddwd|vpdpbusd|vfn?madd")
# Control flow and padding: their operands are addresses, and every CPU has them.
EVERYWHERE = re.compile(r"(notrack |bnd |rep[zn]? |data16 |cs )*(j|call|ret|nop|xchg +%ax,%ax|ud2)")
# What g++ and clang put beside noexcept functions, the same for every instruction set: a pointer to the unwinder,
# and two calls that end the program.
HARMLESS_SYMBOLS = {"DW.ref.__gxx_personality_v0", "__clang_call_terminate"}

Instruction = collections.namedtuple("Instruction", "address bytes text")


class Unusable(Exception):
    """A tool is missing or does not understand the file."""


def run(*command, check=True):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise Unusable(f"{command[0]}: {error.strerror}") from error
    if check and done.returncode != 0:
        raise Unusable(f"{' '.join(command)}: {done.stderr.strip()}")
    return done


def functions_of(path):
    """{demangled name: [Instruction]} of all code in an object."""
    functions = {}
    body = []
    for line in run("objdump", "-dCw", path).stdout.splitlines():
        header = re.fullmatch(r"[0-9a-f]+ <(.*)>:", line)
        if header:
            body = functions.setdefault(header[1], [])
            continue
        fields = line.split("\t")
        if len(fields) < 3 or not fields[0].strip().endswith(":"):
            continue
        text = re.sub(r"\s*(#|<).*", "", fields[2]).strip()
        body.append(Instruction(int(fields[0].strip()[:-1], 16), fields[1].strip(), text))
    return functions


def check_visible(isa, path, headers):
    problems = []
    declared = set()
    for header in headers:
        with open(header, encoding="utf-8") as file:
            declared.update(re.findall(r"\w+", re.sub(r"//.*", "", file.read())))
    for line in run("nm", "-C", "--defined-only", path).stdout.splitlines():
        _, kind, name = line.split(" ", 2)
        if kind not in "uvVwWi" and not kind.isupper() or name in HARMLESS_SYMBOLS:
            continue
        if kind in "uvVwWi":
            problems.append(f"{name}: may be linked to code outside the set (nm: {kind})")
            continue
        plain = re.fullmatch(rf"quern::{isa}::(\w+)(\(.*\))?", name)
        if plain is None:
            problems.append(f"{name}: visible outside quern::{isa}")
        elif plain[1] not in declared:
            problems.append(f"{name}: visible, but declared in none of {', '.join(headers)}")
    for line in run("objdump", "-h", path).stdout.splitlines():
        section = re.match(r"\s*\d+ (\.(preinit_array|init_array|ctors)\S*)", line)
        if section:
            problems.append(f"{section[1]}: code that runs before main()")
    return problems


def check_instructions(isa, path):
    problems = []
    where = collections.defaultdict(list)  # text: functions
    for function, body in functions_of(path).items():
        for instruction in body:
            text = instruction.text
            mnemonic = text.replace("{vex} ", "").replace("{evex} ", "")
            if FORBIDDEN.match(mnemonic):
                problems.append(f"{text}: forbidden by arithmetic.md; in {function}")
            # 64-bit code has the byte 62 at the front of EVEX instructions only.
            if isa not in EVEX_SETS and re.match(r"((26|2e|36|3e|64|65|67) )*62 ", instruction.bytes):
                problems.append(f"{text}: EVEX encoding; in {function}")
            if "(bad)" in text:
                problems.append(f"{instruction.bytes}: no instruction; in {function}")
            elif text and not EVERYWHERE.match(text):
                where[text].append(function)
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "all.s")
        texts = list(where)
        with open(source, "w", encoding="ascii") as file:
            file.write("\n".join(texts) + "\n")
        done = run("as", f"-march={MARCH[isa]}", "-o", os.devnull, source, check=False)
    if done.returncode == 0:
        return problems
    for line in done.stderr.splitlines():
        error = re.match(r".*?:(\d+): Error: (.*)", line)
        if error:
            text = texts[int(error[1]) - 1]
            problems.append(f"{text}: {error[2]}; in {where[text][0]}")
    if not problems:
        raise Unusable(f"as: {done.stderr.strip()}")
    return problems


def inner_loops(body):
    """The (first, last) indices of the loops that multiply and hold no other such loop."""
    at = {instruction.address: i for i, instruction in enumerate(body)}
    loops = set()
    for last, instruction in enumerate(body):
        jump = re.match(r"j\w+ +([0-9a-f]+)$", instruction.text)
        first = at.get(int(jump[1], 16)) if jump else None
        if first is not None and first <= last:
            if any(MULTIPLY.match(i.text.replace("{vex} ", "")) for i in body[first : last + 1]):
                loops.add((first, last))
    return sorted(
        loop
        for loop in loops
        if not any(loop[0] <= other[0] and other[1] <= loop[1] for other in loops if other != loop)
    )


def stack_pointers(body, first):
    """Registers that hold an address of the stack where the loop at index `first` begins."""
    pointers = {"rsp"}
    for instruction in body[:first]:
        # AT&T order: the register that is written comes last.
        written = re.match(r"(?!cmp|test|push|v)\w+ .*%(r\w+)$", instruction.text)
        if written is None or written[1] == "rsp":
            continue
        copied = re.match(r"mov +%(r\w+),", instruction.text)
        address = re.match(r"lea +\S*\(%(r\w+)", instruction.text)
        source = copied or address
        if source and source[1] in pointers:
            pointers.add(written[1])
        elif not re.match(r"(add|sub|and) ", instruction.text):
            pointers.discard(written[1])
    return pointers


def stack_accesses(body, first, last):
    pointers = stack_pointers(body, first)
    for instruction in body[first : last + 1]:
        memory = re.search(r"\((%\w+)?(?:,%(\w+))?", instruction.text)
        if memory and re.search(r"%[xyz]mm", instruction.text):
            if {(memory[1] or "")[1:], memory[2]} & pointers:
                yield instruction


def own_name(function):
    """tile_loop of "void quern::avx2::(anonymous namespace)::tile_loop<Format, 4>(float*)"."""
    name = function.replace("(anonymous namespace)", "")
    while True:
        shorter = re.sub(r"<[^<>]*>", "", name)
        if shorter == name:
            break
        name = shorter
    return re.split(r"[ :]", name.split("(")[0])[-1]


def check_registers(isa, path):
    problems = []
    n_loops = 0
    comment = run("objdump", "-sj", ".comment", path, check=False).stdout
    compiler = "clang" if "clang" in comment.replace("\n", "") else "g++"
    for function, body in functions_of(path).items():
        if not MARKED.match(own_name(function)):
            continue
        for first, last in inner_loops(body):
            n_loops += 1
            accesses = list(stack_accesses(body, first, last))
            allowed = max(
                (
                    count
                    for row_isa, row_compiler, pattern, count, _ in ALLOWED_STACK_ACCESSES
                    if row_isa == isa and row_compiler in ("", compiler) and re.search(pattern, function)
                ),
                default=0,
            )
            if len(accesses) > allowed:
                problems.append(
                    f"{function}: the loop at {body[first].address:x} of {last - first + 1} instructions touches the"
                    f" stack {len(accesses)} times, {allowed} allowed; first: {accesses[0].text}"
                )
    if n_loops == 0:
        problems.append("no marked function has a loop that multiplies")
    return problems


def main(arguments):
    if len(arguments) < 3 or arguments[0] not in ("visible", "instructions", "registers"):
        print(__doc__, file=sys.stderr)
        return 2
    rule, isa, path = arguments[:3]
    if isa not in MARCH:
        print(f"error: unknown set '{isa}'", file=sys.stderr)
        return 2
    try:
        if rule == "visible":
            problems = check_visible(isa, path, arguments[3:])
        elif rule == "instructions":
            problems = check_instructions(isa, path)
        else:
            problems = check_registers(isa, path)
    except (Unusable, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for problem in dict.fromkeys(problems):
        print(f"{path}: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
