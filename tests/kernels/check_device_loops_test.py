#!/usr/bin/env python3
"""check_device_loops.py finds inner loops, and what is wrong with them."""
import unittest

import check_device_loops as check

# An outer loop around two inner ones, of which the second multiplies with tensor cores.
TEXT = """
Fatbin elf code:
arch = sm_80
\t\tFunction : quern_many_q4_0
        /*0000*/                   MOV R1, c[0x0][0x28] ;      /* 0x00000a0000017a02 */
                                                               /* 0x000fe40000000f00 */
        /*0010*/                   FFMA R2, R3, R4, R2 ;       /* 0x0 */
        /*0020*/              @!P0 BRA 0x10 ;                  /* 0x0 */
        /*0030*/                   IMMA.16832.S8.S8 R4, R8.ROW, R2.COL, R4 ; /* 0x0 */
        /*0040*/                   IMMA.16816.S8.S8 R4, R8.ROW, R2.COL, R4 ; /* 0x0 */
        /*0050*/                   FFMA R2, R3, R4, R2 ;       /* 0x0 */
        /*0060*/                   {}                          /* 0x0 */
        /*0070*/               @P1 BRA 0x30 ;                  /* 0x0 */
        /*0080*/               @P2 BRA 0x0 ;                   /* 0x0 */
        /*0090*/                   EXIT ;                      /* 0x0 */
        /*00a0*/                   BRA 0xa0;                   /* 0x0 */
\t\tFunction : quern_add_values
        /*0000*/                   FADD R2, R3, R4 ;           /* 0x0 */
        /*0010*/               @P0 BRA 0x0 ;                   /* 0x0 */
"""
KEY = ("sm_80", "many_q4_0")


class Loops(unittest.TestCase):
    def setUp(self):
        self.loops = check.loops_of(TEXT.format("NOP ;"))

    def test_finds_the_loop_that_multiplies(self):
        self.assertEqual(self.loops, {KEY: check.Loop(4, 4096 + 2048, 0)})

    def test_takes_scalar_products_where_there_are_no_others(self):
        text = TEXT.format("NOP ;").replace("IMMA.16832.S8.S8", "IADD3").replace("IMMA.16816.S8.S8", "LDS")
        self.assertEqual(check.loops_of(text)[KEY].multiply_adds, 32)

    def test_a_table_is_what_was_written(self):
        self.assertEqual(check.read_table(check.write_table(self.loops, "13.0")), ("13.0", {KEY: 4}))

    def test_finds_longer_loops_and_local_memory(self):
        self.assertEqual(check.compare(self.loops, {KEY: 4}, 0.05), [])
        self.assertEqual(len(check.compare(self.loops, {KEY: 3}, 0.05)), 1)
        self.assertEqual(check.compare(self.loops, {KEY: 3}, 0.5), [])
        for spill in ("LDL R2, [R1] ;", "STL.64 [R1+0x8], R2 ;"):
            self.assertIn("local memory", check.compare(check.loops_of(TEXT.format(spill)), {KEY: 5}, 0.05)[0])

    def test_finds_what_only_one_side_has(self):
        self.assertEqual(len(check.compare(self.loops, {}, 0.05)), 1)
        self.assertEqual(len(check.compare(self.loops, {KEY: 4, ("sm_80", "few_1_q4_0"): 9}, 0.05)), 1)
        self.assertEqual(check.compare(self.loops, {KEY: 4, ("sm_90a", "few_1_q4_0"): 9}, 0.05), [])
        self.assertEqual(len(check.compare({}, {}, 0.05)), 1)


if __name__ == "__main__":
    unittest.main()
