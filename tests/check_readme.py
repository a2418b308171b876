#!/usr/bin/env python3
"""Checks that what README.md's table "Where do I find" names is there.

check_readme.py ROOT   prints what is not, a line each; exit status 1 if anything is, or nothing is named.

A name is a path from the root, or from the folder of the last one of its row that was: `a/b.h`, `c.h`. It may have stars.
"""
import pathlib
import re
import sys


def rows(text):
    """The right cells of the table under the heading."""
    table = text.partition("\n## Where do I find")[2].partition("\n## ")[0]
    cells = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
    return [row[1] for row in cells[2:]]


def names_of(cell):
    return [code or link for code, link in re.findall(r"`([^`]+)`|\]\(([^)#]+)", cell)]


def missing(root, cell):
    folder = root
    for name in names_of(cell):
        if any(root.glob(name.rstrip("/"))):
            path = root / name
            folder = path if name.endswith("/") else path.parent
        elif not any(folder.glob(name.rstrip("/"))):
            yield name


def main():
    root = pathlib.Path(sys.argv[1])
    cells = rows((root / "README.md").read_text(encoding="utf-8"))
    problems = [f"README.md, Where do I find: there is no {name}" for cell in cells for name in missing(root, cell)]
    n = sum(len(names_of(cell)) for cell in cells)
    print("\n".join(problems) or f"{n} files and folders are there")
    return 1 if problems or n == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
