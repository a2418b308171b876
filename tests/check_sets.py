#!/usr/bin/env python3
"""Checks that the tests of every kernel set that this CPU has were run.

check_sets.py REPORT [CPUINFO]   REPORT: ctest --output-junit; CPUINFO: /proc/cpuinfo unless given

Prints what ran of each set and every other skipped test with its reason. Exit status 1 when a set that the CPU has
has a skipped test, or none at all.
"""
import re
import sys
import xml.etree.ElementTree as tree

# What each set needs, by the names of /proc/cpuinfo (kernels/dispatch.cc).
AVX2 = {"avx2", "fma", "f16c"}
NEEDS = {
    "scalar": set(),
    "avx2": AVX2,
    "avxvnni": AVX2 | {"avx_vnni"},
    "avx512": AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"},
}


def main():
    with open(sys.argv[2] if len(sys.argv) > 2 else "/proc/cpuinfo", encoding="ascii") as file:
        flags = set(re.search(r"^(?:flags|Features)\s*:(.*)$", file.read(), re.MULTILINE).group(1).split())
    run, skipped, others = {}, {}, []
    for case in tree.parse(sys.argv[1]).getroot().iter("testcase"):
        name = case.get("name")
        is_skipped = case.find("skipped") is not None or case.get("status") in ("notrun", "disabled")
        sets = [part for part in re.split(r"[/.]", name) if part in NEEDS]
        for kernels in sets:
            (skipped if is_skipped else run).setdefault(kernels, []).append(name)
        if is_skipped and not sets:
            others.append(name)
    wrong = []
    for kernels, needs in NEEDS.items():
        n_run, n_skipped = len(run.get(kernels, [])), len(skipped.get(kernels, []))
        state = "the CPU has it" if needs <= flags else f"the CPU lacks {', '.join(sorted(needs - flags))}"
        print(f"kernel set {kernels}: {n_run} tests run, {n_skipped} skipped; {state}")
        if needs <= flags and (n_skipped > 0 or n_run == 0):
            wrong.append(kernels)
            print("".join(f"  skipped: {name}\n" for name in skipped.get(kernels, [])), end="")
    for name in others:
        print(f"skipped: {name}")
    for kernels in wrong:
        print(f"error: this CPU has what {kernels} needs, and not all of its tests were run")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
