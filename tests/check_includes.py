#!/usr/bin/env python3
"""Checks which file includes which, by paths from the root: the arrows between the rooms, no circle of modules (x.h
with x.cc) but through a table, outside packages and the system kept to their files, and what newer versions of a
package moved into another header.

check_includes.py ROOT   prints what is wrong, a line each; exit status 1 if anything is.
"""
import pathlib
import re
import sys

# What a room may include beside itself.
ROOMS = {
    "quant": [],
    "kernels": ["quant"],
    "runtime": ["quant", "kernels"],
    "convert": ["quant"],
    "cli": ["quant", "kernels", "runtime", "convert"],
}
# Headers of the outside that stay in one file or folder, or in few, so that they can be exchanged and cost compile time
# once.
KEPT_TO = {
    "nlohmann/": "quant/json/json.cc",
    "omp.h": "quant/parallel.cc",
    "cpuid.h": "quant/machine/",
    "malloc.h": "quant/machine/",
    "sched.h": "quant/machine/",
    "signal.h": ("quant/machine/", "cli/line_editor.cc"),
    "csignal": "cli/cmd_chat.cc",  # a signal's number
    "sys/random.h": "quant/machine/",
    "sys/mman.h": ("quant/machine/", "quant/mapped_file.cc"),
    "sys/resource.h": "quant/machine/",
    "sys/ioctl.h": "cli/report.cc",
    "termios.h": ("quant/machine/", "cli/line_reader.cc"),
    "poll.h": "cli/serve/",
    "sys/socket.h": "cli/serve/",
    "pcre2.h": "runtime/tokenizer/pattern.cc",
    "CLI/": "cli/arguments.cc",
    "dlfcn.h": ("kernels/cuda/driver.cc", "runtime/calibration/linear_algebra.cc"),
    "boost/": "cli/serve/http_message.cc",
    "xxhash.h": "quant/hash128.cc",
    "histedit.h": "cli/line_editor",
    "sentencepiece_processor.h": "runtime/tokenizer/",
}
# A name, and the header that it is in whatever the version: fmt moved join out of format.h.
HEADERS_OF = {"fmt::join(": "fmt/ranges.h"}
# What the system says in files is asked in one place, which tests can give another root.
TEXTS_KEPT_TO = {
    '"/proc/': ("quant/machine/", "quant/output_file.cc"),  # there: a descriptor's name
    '"/sys/': "quant/machine/",
}
# Sources that know what stands on their own header: tables their rows, names of tensors the configuration that says
# which there are.
TABLES = [
    "convert/hf_config.cc",
    "convert/tensor_names.cc",
    "quant/block_format.cc",
    "quant/vocabulary.cc",
    "runtime/architecture.cc",
    "runtime/chat_format.cc",
    "runtime/template/builtins.cc",
    "runtime/template/formatting.cc",
    "runtime/template/objects.cc",
    "runtime/template/print.cc",
    "runtime/template/value.cc",
    "runtime/tokenizer/tokenizer.cc",
]
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)
OWN_INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


def read_sources(root, folders):
    """{path: text} of the sources in some folders; paths from the root."""
    files = [file for folder in folders for file in sorted((root / folder).rglob("*")) if file.suffix in (".h", ".cc")]
    return {str(file.relative_to(root)): file.read_text() for file in files}


def named(places):
    return places if isinstance(places, str) else " and ".join(places)


def names_without_headers(sources):
    for path, text in sources.items():
        for name, header in HEADERS_OF.items():
            if name in text and header not in INCLUDE.findall(text):
                yield f"{path}: uses {name.rstrip('(')} without including {header}"


def paths_not_from_the_root(sources):
    """Which no other check would see."""
    for path, text in sources.items():
        for header in OWN_INCLUDE.findall(text):
            if header.split("/")[0] not in [*ROOMS, "tests", "bench"] or ".." in header:
                yield f"{path}: includes \"{header}\": a path from the root is expected"


def texts_outside_their_place(sources):
    for path, text in sources.items():
        for words, places in TEXTS_KEPT_TO.items():
            if words in text and not path.startswith(places):
                yield f"{path}: has {words}..., which stays in {named(places)}"


def wrong_arrows(includes):
    for path, included in includes.items():
        room = path.split("/")[0]
        for header in included:
            target = header.split("/")[0]
            if target in ROOMS and target != room and target not in ROOMS[room]:
                yield f"{path}: includes {header}, but {room} may include {', '.join([room] + ROOMS[room])} only"
            for package, places in KEPT_TO.items():
                if header.startswith(package) and not path.startswith(places):
                    yield f"{path}: includes {header}, which stays in {named(places)}"


def circles(includes):
    targets = {}  # module -> modules whose headers it includes
    for path, included in includes.items():
        if path in TABLES:
            continue
        module = path.rsplit(".", 1)[0]
        own = [header.rsplit(".", 1)[0] for header in included if header in includes]
        targets.setdefault(module, []).extend(target for target in own if target != module)
    done, trail = set(), []

    def visit(module):
        if module in trail:
            yield "modules include each other in a circle: " + " -> ".join(trail[trail.index(module):] + [module])
        elif module not in done:
            trail.append(module)
            for target in targets.get(module, []):
                yield from visit(target)
            trail.pop()
            done.add(module)

    for module in targets:
        yield from visit(module)


def main():
    root = pathlib.Path(sys.argv[1])
    sources = read_sources(root, ROOMS)
    everything = sources | read_sources(root, ["tests", "bench"])
    includes = {path: INCLUDE.findall(text) for path, text in sources.items()}
    problems = [*wrong_arrows(includes), *circles(includes), *names_without_headers(everything),
                *paths_not_from_the_root(everything), *texts_outside_their_place(sources)]
    print("\n".join(problems) or f"{len(includes)} files include as they may")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
