#!/usr/bin/env python3
"""Checks which file includes which: the arrows between the rooms, no circle of modules (x.h with x.cc) but through
a table, outside packages kept to their files, and what newer versions of a package moved into another header.

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
    "sched.h": "quant/machine/",
    "sys/random.h": "quant/machine/",
    "sys/mman.h": ("quant/machine/", "quant/mapped_file.cc"),
    "sys/resource.h": "quant/machine/",
    "CLI/": "cli/arguments.cc",
    "dlfcn.h": ("kernels/cuda/driver.cc", "runtime/calibration/linear_algebra.cc"),
    "boost/": "cli/serve/http_message.cc",
    "xxhash.h": "quant/hash128.cc",
    "histedit.h": "cli/line_editor",
    "sentencepiece_processor.h": "runtime/tokenizer/",
}
# A name, and the header that it is in whatever the version: fmt moved join out of format.h.
HEADERS_OF = {"fmt::join(": "fmt/ranges.h"}
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


def read_sources(root, folders):
    """{path: text} of the sources in some folders; paths from the root."""
    files = [file for folder in folders for file in sorted((root / folder).rglob("*")) if file.suffix in (".h", ".cc")]
    return {str(file.relative_to(root)): file.read_text() for file in files}


def names_without_headers(sources):
    for path, text in sources.items():
        for name, header in HEADERS_OF.items():
            if name in text and header not in INCLUDE.findall(text):
                yield f"{path}: uses {name.rstrip('(')} without including {header}"


def wrong_arrows(includes):
    for path, included in includes.items():
        room = path.split("/")[0]
        for header in included:
            target = header.split("/")[0]
            if target in ROOMS and target != room and target not in ROOMS[room]:
                yield f"{path}: includes {header}, but {room} may include {', '.join([room] + ROOMS[room])} only"
            for package, places in KEPT_TO.items():
                if header.startswith(package) and not path.startswith(places):
                    named = places if isinstance(places, str) else " and ".join(places)
                    yield f"{path}: includes {header}, which stays in {named}"


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
    includes = {path: INCLUDE.findall(text) for path, text in read_sources(root, ROOMS).items()}
    problems = [*wrong_arrows(includes), *circles(includes),
                *names_without_headers(read_sources(root, [*ROOMS, "tests", "bench"]))]
    print("\n".join(problems) or f"{len(includes)} files include as they may")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
