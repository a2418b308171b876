"""bench/against_llama_cpp.py on canned outputs of both tools.

    against_llama_cpp_test.py BENCH_FOLDER
"""
import io
import json
import os
import sys
import tempfile
import unittest

sys.path.insert(0, sys.argv.pop(1))
sys.dont_write_bytecode = True
import against_llama_cpp as script  # noqa: E402

# A stand-in for either tool: appends its arguments to a log, prints rows whose speed it takes from its own file.
TOOL = """#!/bin/sh
echo "$0 $*" >> "$(dirname "$0")/log"
case "$*" in
  *--version*) echo "version: 1.2.3 (build 45, commit abc)"; exit 0 ;;
  doctor*) echo '{"n_threads": 3}'; exit 0 ;;
esac
n=$(cat "$0.count" 2>/dev/null || echo 0); n=$((n + 1)); echo $n > "$0.count"
echo "warming up"
printf '[\\n  {"build_commit": "abc", "build_number": 45, "cpu_info": "A CPU", "model_type": "llama 7B Q4_0",'
printf ' "n_prompt": 32, "n_gen": 0, "avg_ts": 1.0, "samples_ts": [ %s ]}\\n]\\n' "$(sed -n ${n}p "$0.speeds")"
"""


def rows(text):
    return script.parse_rows(text, "tool")


class Parsing(unittest.TestCase):
    TWO = """[
  { "n_prompt": 512, "n_gen": 0, "n_depth": 0, "avg_ts": 8.5, "samples_ts": [ 8.0, 8.4, 9.1 ] },
  { "n_prompt": 0, "n_gen": 32, "n_depth": 8192, "avg_ts": 4.25, "samples_ts": [ 4.25 ] }
]
"""

    def test_finds_a_test_by_its_numbers_and_takes_the_median(self):
        self.assertEqual(script.speed_of(rows(self.TWO), (512, 0, 0), "tool"), 8.4)
        self.assertEqual(script.speed_of(rows(self.TWO), (0, 32, 8192), "tool"), 4.25)

    def test_skips_what_stands_before_the_list(self):
        self.assertEqual(len(rows("register_backend: [CPU]\n" + self.TWO)), 2)

    def test_reads_rows_of_tools_that_know_no_depth_and_no_samples(self):
        old = rows('[{"n_prompt": 32, "n_gen": 0, "avg_ts": 7.5}]')
        self.assertEqual(script.speed_of(old, (32, 0, 0), "tool"), 7.5)
        with self.assertRaises(script.Failure):
            script.speed_of(old, (32, 0, 512), "tool")

    def test_refuses_what_is_no_result(self):
        for text in ("", "error: no such model", "[]", "{}", "[1]", '[{"n_prompt": 512', "[\n"):
            with self.assertRaises(script.Failure, msg=text):
                rows(text)
        with self.assertRaises(script.Failure):
            script.speed_of(rows('[{"n_prompt": 32, "n_gen": 0, "avg_ts": 0.0}]'), (32, 0, 0), "tool")

    def test_ratios_are_of_each_pair(self):
        result = script.summary([(4.0, 8.0), (2.0, 6.0), (5.0, 5.0)])
        self.assertEqual(result["ratios"], [2.0, 3.0, 1.0])
        self.assertEqual((result["median"], result["min"], result["max"]), (2.0, 1.0, 3.0))

    def test_plans_prompts_before_generations_at_every_depth(self):
        self.assertEqual([script.test_name(test) for test in script.plan([512, 32], [32, 0], [0, 8192])],
                         ["pp512", "pp32", "tg32", "pp512 @ d8192", "pp32 @ d8192", "tg32 @ d8192"])

    def test_shows_build_flags_that_bear_on_speed(self):
        cache = ("# comment\nCMAKE_BUILD_TYPE:STRING=Release\nCMAKE_CXX_FLAGS:STRING=\nGGML_NATIVE:BOOL=OFF\n"
                 "GGML_BLAS:BOOL=OFF\nGGML_CUDA:BOOL=ON\nGGML_WHATEVER:BOOL=ON\n")
        self.assertEqual(script.build_flags(cache), ["CMAKE_BUILD_TYPE=Release", "GGML_NATIVE=OFF", "GGML_CUDA=ON"])


class Running(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        for name, speeds in (("llama-bench", "4\n5\n2\n"), ("quern", "8\n20\n5\n")):
            with open(self.path(name), "w", encoding="utf-8") as file:
                file.write(TOOL)
            os.chmod(self.path(name), 0o755)
            with open(self.path(name + ".speeds"), "w", encoding="utf-8") as file:
                file.write(speeds)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def compare(self, *more):
        out = io.StringIO()
        status = script.main(["m.gguf", "--llama-bench", self.path("llama-bench"), "--quern", self.path("quern"), "-p",
                              "32", "-n", "0", *more], out)
        return status, out.getvalue()

    def test_takes_turns_with_the_same_arguments(self):
        status, out = self.compare("--pairs", "3", "--quern-model", "p16.gguf", "--llama-args", "-fa 1")
        self.assertEqual(status, 0)
        with open(self.path("log"), encoding="utf-8") as file:
            log = [line.replace(self.folder.name + "/", "").strip() for line in file if "--version" not in line]
        shared = "-p 32 -n 0 -t 3 -r 1 -o json"
        self.assertEqual(log, ["quern doctor --no-probe --json"] +
                         [f"llama-bench -m m.gguf {shared} -fa 1", f"quern bench p16.gguf {shared} --no-probe"] * 3)
        self.assertIn("llama.cpp: 1.2.3 (build 45, commit abc)\n", out)
        self.assertIn("built with: not known", out)
        self.assertIn("  2.50 (2.00-4.00)   2.00 4.00 2.50\n", out)

    def test_prints_json(self):
        status, out = self.compare("--pairs", "2", "--json", "-t", "1")
        self.assertEqual(status, 0)
        result = json.loads(out)
        self.assertEqual(result["about"]["threads"], "1")
        self.assertEqual(result["tests"]["pp32"]["ratios"], [2.0, 4.0])
        self.assertEqual(result["tests"]["pp32"]["median"], 3.0)

    def test_says_what_failed(self):
        self.assertEqual(self.compare("--pairs", "1", "-d", "64")[0], 1)  # no row of that depth
        os.remove(self.path("llama-bench"))
        self.assertEqual(self.compare("--pairs", "1")[0], 1)


if __name__ == "__main__":
    unittest.main()
