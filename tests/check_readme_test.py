#!/usr/bin/env python3
"""Tests that check_readme.py finds what README.md names and is not there."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).with_name("check_readme.py")
ROW = "| a format | `quant/formats/`, table in `quant/table.h`, `row.h`; all `cli/cmd_*.cc`; [prose](quant/text.md#2) |"


class CheckReadme(unittest.TestCase):
    def check(self, files, row=ROW, heading="## Where do I find ..."):
        """(exit status, printed) for a README with a row, beside some files."""
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            (root / "README.md").write_text(f"# x\n\n{heading}\n\n| what | where |\n|---|---|\n{row}\n\n`no/where.h`\n", encoding="utf-8")
            for file in files:
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                (root / file).touch()
            done = subprocess.run([sys.executable, SCRIPT, root], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def test_finds_each_thing_that_is_not_there(self):
        files = ["quant/formats/q4_0.cc", "quant/table.h", "quant/row.h", "cli/cmd_run.cc", "quant/text.md"]
        self.assertEqual(self.check(files), (0, "5 files and folders are there\n"))
        for file, name in zip(files, ["quant/formats/", "quant/table.h", "row.h", "cli/cmd_*.cc", "quant/text.md"], strict=True):
            status, printed = self.check([other for other in files if other != file])
            self.assertEqual(status, 1, printed)
            self.assertIn(f"README.md, Where do I find: there is no {name}\n", printed)

    def test_refuses_a_readme_without_the_table(self):
        self.assertEqual(self.check([], heading="## Others")[0], 1)


if __name__ == "__main__":
    unittest.main()
