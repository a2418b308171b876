#!/usr/bin/env python3
"""Tests that check_sets.py finds a set that this CPU has and whose tests were skipped."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).with_name("check_sets.py")
AVX2 = "avx2 fma f16c"
AVX512 = AVX2 + " avx512f avx512bw avx512dq avx512vl avx512_vnni"


class CheckSets(unittest.TestCase):
    def check(self, flags, cases):
        """(exit status, printed) for cases {name: was it run}."""
        with tempfile.TemporaryDirectory() as folder:
            report, cpuinfo = pathlib.Path(folder, "report.xml"), pathlib.Path(folder, "cpuinfo")
            cpuinfo.write_text(f"processor : 0\nflags\t\t: fpu {flags} sse\n")
            rows = "".join(f'<testcase name="{name}" status="{"run" if run else "notrun"}">'
                           f'{"" if run else "<skipped/>"}</testcase>' for name, run in cases.items())
            report.write_text(f"<testsuite>{rows}</testsuite>")
            done = subprocess.run([sys.executable, SCRIPT, report, cpuinfo], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def test_accepts_skipped_sets_that_the_cpu_lacks(self):
        status, printed = self.check(AVX2, {"Sets/A.B/scalar": True, "Sets/A.B/avx2": True, "Sets/A.B/avx512": False,
                                            "Interop.LlamaCppAgrees": False})
        self.assertEqual(status, 0, printed)
        self.assertIn("skipped: Interop.LlamaCppAgrees", printed)
        self.assertIn("kernel set avx512: 0 tests run, 1 skipped; the CPU lacks avx512_vnni", printed)

    def test_refuses_skipped_tests_of_a_set_that_the_cpu_has(self):
        cases = {"Sets/A.B/scalar": True, "Sets/A.B/avx2": True, "Sets/A.B/avx512": True, "Sets/A.C/avx512": False}
        status, printed = self.check(AVX512, cases)
        self.assertEqual(status, 1, printed)
        self.assertIn("skipped: Sets/A.C/avx512", printed)
        self.assertEqual(self.check(AVX2, cases)[0], 0)

    def test_refuses_a_set_without_any_test(self):
        status, printed = self.check(AVX512, {"Sets/A.B/scalar": True, "Sets/A.B/avx2": True})
        self.assertEqual(status, 1, printed)
        self.assertIn("error: this CPU has what avx512 needs", printed)


if __name__ == "__main__":
    unittest.main()
