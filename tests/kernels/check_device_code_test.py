#!/usr/bin/env python3
"""check_device_code.py finds what is wrong, and nothing in what is right."""
import unittest

import check_device_code as check

GOOD = """
.visible .entry quern_add_values(
\tld.global.f32 \t%f1, [%rd1];
\tfma.rn.f32 \t%f2, %f1, %f1, 0f3F800000;
\tdiv.rn.f32 \t%f3, %f2, %f1;
\t@%p1 sqrt.rn.f32 \t%f4, %f3;
\tcvt.rni.s32.f32 \t%r1, %f4;
\tneg.f32 \t%f5, %f4;
\tadd.s32 \t%r2, %r1, 1;
\tmma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%r3}, {%r4}, {%r5}, {%r6};
"""


class Lint(unittest.TestCase):
    def test_accepts_what_is_defined(self):
        problems, counts = check.lint(GOOD)
        self.assertEqual(problems, [])
        self.assertEqual(counts["fma.rn.f32"], 1)
        self.assertEqual(counts["sqrt.rn.f32"], 1)

    def test_finds_each_kind_of_fault(self):
        for bad in ("fma.rn.ftz.f32 %f1, %f2, %f3, %f4;", "div.approx.f32 %f1, %f2, %f3;", "div.full.f32 %f1, %f2, %f3;",
                    "mad.f32 %f1, %f2, %f3, %f4;", "add.f32 %f1, %f2, %f3;", "add.rz.f32 %f1, %f2, %f3;",
                    "ex2.approx.f32 %f1, %f2;", "rsqrt.approx.ftz.f32 %f1, %f2;", "add.sat.f32 %f1, %f2, %f3;",
                    "max.f32 %f1, %f2, %f3;", "cvt.rz.f16.f32 %h1, %f1;", "fma.rn.f16x2 %r1, %r2, %r3, %r4;",
                    "@%p3 mul.f32 %f1, %f2, %f3;", "add.f64 %d1, %d2, %d3;"):
            self.assertEqual(len(check.lint("\t" + bad)[0]), 1, bad)

    def test_finds_a_kernel_that_is_not_there(self):
        self.assertEqual(check.missing_entries(GOOD, ["add_values"]), [])
        self.assertEqual(check.missing_entries(GOOD, ["add_values", "quantize"]), ["no entry quern_quantize"])

    def test_finds_spills(self):
        text = """ptxas info    : Compiling entry function 'quern_a' for 'sm_80'
    {} bytes stack frame, {} bytes spill stores, {} bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers"""
        self.assertEqual(check.spills(text.format(0, 0, 0)), ([], {"quern_a": 40}))
        self.assertEqual(check.spills(text.format(16, 8, 4))[0], ["quern_a spills: 8 bytes stored, 4 loaded"])
        self.assertEqual(check.spills("")[0], ["ptxas names no kernel"])


if __name__ == "__main__":
    unittest.main()
