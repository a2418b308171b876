#!/usr/bin/env python3
"""Tests that scripts of .ci/ fail when they should."""
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

CI = pathlib.Path(__file__).resolve().parent.parent / ".ci"


def write_program(path, *lines):
    path.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
    path.chmod(0o755)


class Tests(unittest.TestCase):
    """.ci/tests: which tests have a second try."""

    def run_tests(self, first, again=""):
        """(exit status, calls of ctest) where a ctest fails in these tests, separated by spaces, and then in those. None:
        ctest itself fails."""
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            write_program(root / "ctest", f'echo "$@" >> {root}/calls', f"log={root}/Testing/Temporary/LastTestsFailed.log",
                          f'case "$*" in *--rerun-failed*) failed="{again}" ;; *) failed="{first or ""}" ;; esac',
                          *(["exit 8"] if first is None else []),
                          '[ -n "$failed" ] || exit 0', "mkdir -p \"${log%/*}\"", 'for name in $failed; do echo "7:$name"; done > "$log"',
                          "exit 8")
            environment = dict(os.environ, PATH=f"{root}:{os.environ['PATH']}")
            done = subprocess.run([CI / "tests", root], capture_output=True, text=True, check=False, env=environment)
            return done.returncode, (root / "calls").read_text().splitlines()

    def test_what_passes_runs_once_and_something_has_to_run(self):
        status, calls = self.run_tests("")
        self.assertEqual((status, len(calls)), (0, 1))
        self.assertIn("--no-tests=error", calls[0])

    def test_what_depends_on_the_machine_has_a_second_try(self):
        status, calls = self.run_tests("Serve.StopsAtOnce Ways/ThreadPool.Waits/2")
        self.assertEqual((status, len(calls)), (0, 2))
        self.assertEqual(self.run_tests("Serve.StopsAtOnce", again="Serve.StopsAtOnce")[0], 8)

    def test_bits_have_one(self):
        for failed in ("Session.HasTheBits", "Serve.StopsAtOnce Session.HasTheBits", "MyServe.StopsAtOnce"):
            status, calls = self.run_tests(failed)
            self.assertEqual((status, len(calls)), (1, 1), failed)

    def test_a_ctest_that_fails_by_itself_is_an_error(self):
        self.assertEqual(self.run_tests(None)[0], 1)


class Tidy(unittest.TestCase):
    """.ci/tidy: what it reads, in a clone of its own."""

    def read(self, *changed):
        """(exit status, files that clang-tidy was given) where these files differ from main and one has a finding."""
        with tempfile.TemporaryDirectory() as folder:
            root, programs = pathlib.Path(folder, "tree"), pathlib.Path(folder, "programs")
            files = ["quant/a.cc", "quant/a.h", "quant/alone.h", "quant/user.cc", "cli/b.cc", "tests/c_test.cc"]
            for file in files:
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                (root / file).write_text("// first\n")
            (root / "quant/user.cc").write_text('#include "quant/alone.h"\n')
            for room in ("kernels", "runtime", "convert", "bench", ".ci"):
                (root / room).mkdir()
            shutil.copy(CI / "tidy", root / ".ci")
            programs.mkdir()
            sources = "".join(f'  "file": "{root}/{file}"\n' for file in files if file.endswith(".cc"))
            write_program(programs / "cmake", "mkdir -p build/tidy", f"cat > build/tidy/compile_commands.json <<'END'\n{sources}\nEND")
            write_program(programs / "clang-tidy-14", f'for last; do :; done; echo "$last" >> {folder}/read', 'case $last in */b.cc) exit 1 ;; esac')
            git = ["git", "-C", root, "-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
            for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"], ["switch", "-qc", "branch"]):
                subprocess.run([*git, *command], check=True)
            for file in changed:
                with (root / file).open("a") as out:
                    out.write("// second\n")
            environment = dict(os.environ, PATH=f"{programs}:{os.environ['PATH']}")
            done = subprocess.run([root / ".ci/tidy"], capture_output=True, text=True, check=False, env=environment)
            read = pathlib.Path(folder, "read")
            found = sorted(line.removeprefix(f"{root}/") for line in read.read_text().splitlines()) if read.exists() else []
            return done.returncode != 0, found

    def test_reads_what_differs_and_fails_where_something_is_found(self):
        self.assertEqual(self.read(), (False, []))
        self.assertEqual(self.read("quant/a.cc", "tests/c_test.cc"), (False, ["quant/a.cc", "tests/c_test.cc"]))
        self.assertEqual(self.read("quant/a.cc", "cli/b.cc"), (True, ["cli/b.cc", "quant/a.cc"]))

    def test_reads_a_header_where_a_source_includes_it(self):
        self.assertEqual(self.read("quant/a.h"), (False, ["quant/a.cc"]))
        self.assertEqual(self.read("quant/alone.h"), (False, ["quant/user.cc"]))


class Selected(unittest.TestCase):
    """.ci/selected: a filter whose patterns all select something."""

    def run_selected(self, pattern, status=0):
        with tempfile.TemporaryDirectory() as folder:
            program = pathlib.Path(folder, "test_some")
            write_program(program, 'case "$*" in', "*--gtest_list_tests*) printf 'Main.\\n  Works\\nWays/Deep.\\n  Bits/0  # 5\\n' ;;",
                          f'*) echo "$@"; exit {status} ;;', "esac")
            done = subprocess.run([CI / "selected", program, pattern, "env"], capture_output=True, text=True, check=False)
            return done.returncode, done.stdout + done.stderr

    def test_runs_what_is_there(self):
        for pattern in ("*", "Main.*", "Main.Works:*Deep.Bits*", "*:-Ways/Deep.Bits/?"):
            status, printed = self.run_selected(pattern)
            self.assertEqual((status, printed), (0, f"--gtest_brief=1 --gtest_filter={pattern}\n"))
        self.assertEqual(self.run_selected("Main.*", status=1)[0], 1)

    def test_refuses_patterns_that_select_nothing(self):
        for pattern in ("Main.Works:Main.Worked", "Deep.*", "*:-Main.Worked"):
            status, printed = self.run_selected(pattern)
            self.assertEqual(status, 1, printed)
            self.assertIn("has no test", printed)


if __name__ == "__main__":
    unittest.main()
