#!/usr/bin/env python3
"""Tests that check_objects.py accepts what is right and finds each thing that is not."""

import os
import subprocess
import sys
import tempfile
import unittest

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "check_objects.py")
HEADER = "namespace quern::avx2 {\nvoid run();  // not: other\n}\n"

# quern::avx2::run()
RUN = ".text\n.globl _ZN5quern4avx23runEv\n.type _ZN5quern4avx23runEv,@function\n_ZN5quern4avx23runEv:\n"
# A function called tile with one loop around a body.
TILE = """.text
.type _ZN5quern4avx2L4tileEv,@function
_ZN5quern4avx2L4tileEv:
{before}
1:
{body}
  subq $1, %rcx
  jne 1b
{after}
  ret
"""
MULTIPLY = "  vpmaddubsw (%rdi), %ymm0, %ymm1\n"


def tile(body, before="", after=""):
    return TILE.format(body=body, before=before, after=after)


class CheckObjects(unittest.TestCase):
    def check(self, rule, assembly, isa="avx2"):
        """(exit status, printed) for an object made of the assembly."""
        with tempfile.TemporaryDirectory() as folder:
            source, header, made = (os.path.join(folder, name) for name in ("x.s", "x.h", "x.o"))
            with open(source, "w", encoding="ascii") as file:
                file.write(assembly)
            with open(header, "w", encoding="ascii") as file:
                file.write(HEADER)
            subprocess.run(["as", "-o", made, source], check=True)
            headers = [header] if rule == "visible" else []
            done = subprocess.run(
                [sys.executable, SCRIPT, rule, isa, made, *headers], capture_output=True, text=True, check=False
            )
        return done.returncode, done.stdout + done.stderr

    def accepts(self, rule, assembly, isa="avx2"):
        status, printed = self.check(rule, assembly, isa)
        self.assertEqual(status, 0, printed)

    def rejects(self, rule, assembly, reason, isa="avx2"):
        status, printed = self.check(rule, assembly, isa)
        self.assertEqual(status, 1, printed)
        self.assertIn(reason, printed)

    def test_visible_accepts_declared_functions_of_the_set_and_hidden_ones(self):
        self.accepts("visible", RUN + "ret\nhidden: ret\n")

    def test_visible_rejects_other_namespaces(self):
        self.rejects("visible", ".globl _ZN5quern3runEv\n_ZN5quern3runEv: ret\n", "visible outside")
        self.rejects("visible", RUN.replace("4avx2", "6avx512") + "ret\n", "visible outside")
        self.rejects("visible", ".globl run\nrun: ret\n", "visible outside")

    def test_visible_rejects_what_no_header_declares(self):
        self.rejects("visible", RUN.replace("3run", "5other") + "ret\n", "declared in none")

    def test_visible_rejects_inline_functions_that_the_linker_may_share(self):
        self.rejects("visible", ".weak _ZSt3minIfERKT_S2_S2_\n_ZSt3minIfERKT_S2_S2_: ret\n", "std::min")
        self.rejects("visible", RUN.replace(".globl", ".weak") + "ret\n", "may be linked")

    def test_visible_rejects_static_constructors(self):
        self.rejects("visible", '.section .init_array,"aw"\n.quad 0\n', "before main")

    def test_instructions_accepts_each_set(self):
        avx2 = "vpaddd %ymm1, %ymm2, %ymm3\nvfmadd231ps (%rax), %ymm2, %ymm3\nvcvtph2ps (%rsi), %ymm1\njmp run\n"
        self.accepts("instructions", RUN + "run: " + avx2)
        self.accepts("instructions", avx2.replace("jmp", "{vex} vpdpbusd %ymm1, %ymm2, %ymm3\nrun: jmp"), "avxvnni")
        self.accepts(
            "instructions", "vpdpbusd (%rax){1to16}, %zmm20, %zmm31\nvpaddb %zmm1, %zmm2, %zmm3{%k1}\n", "avx512"
        )

    def test_instructions_rejects_other_extensions(self):
        for text in ("{vex} vpdpbusd %ymm1, %ymm2, %ymm3", "vpaddd %zmm1, %zmm2, %zmm3", "kmovw %eax, %k1",
                     "andn %eax, %ebx, %ecx", "vaesenc %ymm1, %ymm2, %ymm3", "vpaddd %ymm16, %ymm2, %ymm3"):
            with self.subTest(text):
                self.rejects("instructions", RUN + text + "\n", "; in quern::avx2::run()")
        for text in ("vpermb %zmm1, %zmm2, %zmm3", "vpopcntd %zmm1, %zmm2", "vcvtneps2bf16 %zmm1, %ymm2",
                     "vpmadd52luq %zmm1, %zmm2, %zmm3", "{vex} vpdpbusd %ymm1, %ymm2, %ymm3"):
            with self.subTest(text):
                self.rejects("instructions", text + "\n", "support", "avx512")

    def test_instructions_rejects_evex_encodings_outside_avx512(self):
        for text in ("{evex} vpaddd %ymm1, %ymm2, %ymm3", "{evex} vpdpbusd %ymm1, %ymm2, %ymm3"):
            with self.subTest(text):
                self.rejects("instructions", text + "\n", "EVEX", "avxvnni")

    def test_instructions_rejects_estimates_and_changes_of_the_mode(self):
        for text in ("vrsqrtps %ymm1, %ymm2", "rcpss %xmm1, %xmm2", "ldmxcsr (%rsp)", "vldmxcsr (%rax)",
                     "vrcpps %ymm1, %ymm2"):
            with self.subTest(text):
                self.rejects("instructions", text + "\n", "forbidden")
        for text in ("vrsqrt14ps %zmm1, %zmm2", "vrcp14ss %xmm1, %xmm2, %xmm3", "vdpbf16ps %zmm1, %zmm2, %zmm3"):
            with self.subTest(text):
                self.rejects("instructions", text + "\n", "forbidden", "avx512")

    def test_registers_accepts_loops_without_the_stack(self):
        self.accepts("registers", tile(MULTIPLY + "  movq %rax, (%rsp)\n", before="  vmovdqa %ymm1, (%rsp)\n"))

    def test_registers_rejects_spills(self):
        for spill in ("vmovdqa %ymm3, -0x20(%rsp)", "vpaddd 0x40(%rsp), %ymm1, %ymm2", "vbroadcastss (%rsp), %ymm1",
                      "vmovups (%rsp,%rdx), %xmm1"):
            with self.subTest(spill):
                self.rejects("registers", tile(MULTIPLY + spill + "\n"), "touches the stack 1 times")

    def test_registers_follows_copies_of_the_stack_pointer(self):
        for copy in ("movq %rsp, %rbp", "leaq 0x20(%rsp), %rbp", "movq %rsp, %rax\nleaq 8(%rax), %rbp"):
            with self.subTest(copy):
                spill = MULTIPLY + "vmovdqa %ymm3, -0x20(%rbp)\n"
                self.rejects("registers", tile(spill, before=copy), "touches the stack")
                self.accepts("registers", tile(spill, before=copy + "\nmovq %rdi, %rbp"))

    def test_registers_looks_at_the_innermost_loop_only(self):
        outer = "  vmovdqa %ymm1, (%rsp)\n2:\n" + MULTIPLY + "  decq %rax\n  jne 2b\n"
        self.accepts("registers", tile(outer))
        inner = "2:\n" + MULTIPLY + "  vmovdqa %ymm1, (%rsp)\n  decq %rax\n  jne 2b\n"
        self.rejects("registers", tile(inner), "touches the stack")

    def test_registers_rejects_objects_without_a_loop_to_look_at(self):
        self.rejects("registers", tile("  vpaddd %ymm1, %ymm2, %ymm3\n"), "no marked function")
        self.rejects("registers", RUN + "ret\n", "no marked function")

    def test_registers_tells_a_functions_own_name_from_what_it_takes(self):
        spill = tile(MULTIPLY + "vmovdqa %ymm3, (%rsp)\n")
        for name, marked in (
            ("_ZN5quern4avx212_GLOBAL__N_110tile_loopsINS1_4Q4_0ELi4EEEvPKhm", True),
            ("_ZN5quern4avx212_GLOBAL__N_15scoreI3F16Li4EEEvv", True),
            ("_ZN5quern4avx212_GLOBAL__N_16KernelINS1_4Q4_0EE4tileILi4EEEvPKhm", True),
            ("_ZN5quern4avx212_GLOBAL__N_16kernelIXadL_Z4tilevEEEEvv", False),
            ("_ZN5quern4avx212_GLOBAL__N_16kernelEN3foo4tileE", False),
        ):
            with self.subTest(name):
                reason = "touches the stack" if marked else "no marked function"
                self.rejects("registers", spill.replace("_ZN5quern4avx2L4tileEv", name), reason)

    def test_unusable_arguments_are_an_error_of_their_own(self):
        for arguments in ([], ["visible", "sse9", "x.o"], ["nonsense", "avx2", "x.o"],
                          ["registers", "avx2", "/nonexistent/x.o"]):
            done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, check=False)
            self.assertEqual(done.returncode, 2, arguments)


if __name__ == "__main__":
    unittest.main()
