#!/usr/bin/env python3
"""Tests that check_includes.py accepts what is right and finds each thing that is not."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).with_name("check_includes.py")


class CheckIncludes(unittest.TestCase):
    def check(self, files):
        """(exit status, printed) for a tree {path: [included header or line, ...]}."""
        with tempfile.TemporaryDirectory() as root:
            for path, included in files.items():
                file = pathlib.Path(root, path)
                file.parent.mkdir(parents=True, exist_ok=True)
                outside = ("fmt/", "nlohmann/", "sys/")
                lines = [line if not line.endswith((".h", ".hpp")) else
                         f"#include <{line}>" if line.startswith(outside) else f'#include "{line}"' for line in included]
                file.write_text("\n".join(lines) + "\n")
            done = subprocess.run([sys.executable, SCRIPT, root], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def rejects(self, files, reason):
        status, printed = self.check(files)
        self.assertEqual(status, 1, printed)
        self.assertIn(reason, printed)

    def test_accepts_arrows_between_rooms_and_a_table_with_its_rows(self):
        status, printed = self.check({
            "quant/a.h": [], "kernels/a.h": ["quant/a.h"], "runtime/a.cc": ["kernels/a.h", "quant/a.h"],
            "convert/a.h": ["quant/a.h"], "cli/a.cc": ["convert/a.h", "kernels/a.h"], "tests/quant/a.cc": ["kernels/a.h"],
            "quant/block_format.h": [], "quant/block_format.cc": ["quant/block_format.h", "quant/row.h"],
            "quant/row.h": ["quant/block_format.h"], "quant/json/json.cc": ["nlohmann/json.hpp"],
        })
        self.assertEqual(status, 0, printed)

    def test_finds_arrows_that_run_back(self):
        self.rejects({"quant/a.cc": ["kernels/a.h"], "kernels/a.h": []}, "quant/a.cc: includes kernels/a.h")
        self.rejects({"convert/a.h": ["runtime/a.h"], "runtime/a.h": []}, "convert may include convert, quant only")
        self.rejects({"kernels/deep/a.h": ["cli/a.h"], "cli/a.h": []}, "kernels/deep/a.h: includes cli/a.h")

    def test_finds_circles_of_headers_and_through_a_source(self):
        self.rejects({"quant/a.h": ["quant/b.h"], "quant/b.h": ["quant/a.h"]}, "quant/a -> quant/b -> quant/a")
        self.rejects({"cli/a.h": [], "cli/a.cc": ["cli/a.h", "cli/b.h"], "cli/b.h": ["cli/a.h"]}, "in a circle")

    def test_finds_packages_outside_their_files(self):
        self.rejects({"cli/a.cc": ["nlohmann/json.hpp"]}, "which stays in quant/json/json.cc")
        self.rejects({"runtime/a.cc": ["sys/resource.h"]}, "which stays in quant/machine/")
        self.rejects({"convert/a.cc": ["sys/mman.h"]}, "which stays in quant/machine/ and quant/mapped_file.cc")
        self.assertEqual(self.check({"quant/mapped_file.cc": ["sys/mman.h"]})[0], 0)

    def test_finds_paths_that_are_not_from_the_root(self):
        self.rejects({"quant/a.cc": ["../runtime/a.h"]}, 'quant/a.cc: includes "../runtime/a.h": a path from the root')
        self.rejects({"cli/a.cc": ["report.h"]}, 'includes "report.h"')
        self.rejects({"tests/a_test.cc": ["support/paths.h"]}, 'includes "support/paths.h"')
        self.rejects({"kernels/a.cc": ["kernels/../cli/a.h"]}, 'includes "kernels/../cli/a.h"')

    def test_finds_files_of_the_system_read_elsewhere(self):
        self.rejects({"runtime/a.cc": ['const char* path = "/proc/meminfo";']}, 'runtime/a.cc: has "/proc/..., which stays in')
        self.assertEqual(self.check({"quant/machine/a.cc": ['const char* path = "/sys/fs";']})[0], 0)

    def test_finds_names_whose_header_is_not_included(self):
        join = "const auto text = fmt::join(words, \", \");"
        self.rejects({"tests/cli/a.cc": ["fmt/format.h", join]}, "tests/cli/a.cc: uses fmt::join without")
        self.assertEqual(self.check({"cli/a.cc": ["fmt/ranges.h", join]})[0], 0)


if __name__ == "__main__":
    unittest.main()
