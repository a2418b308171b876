#!/usr/bin/env python3
"""Writes nfc_tables.inc (to stdout) from Python's copy of the Unicode Character Database."""
import unicodedata


def pack(items, width=118):
    line = ""
    for item in items:
        if len(line) + len(item) > width:
            yield line.rstrip()
            line = ""
        line += item + " "
    yield line.rstrip()


def main():
    decompositions, classes = [], []
    for code in range(0x110000):
        if 0xD800 <= code < 0xE000 or 0xAC00 <= code < 0xAC00 + 11172:
            continue  # surrogates; syllables of Hangul, which have a rule
        character = chr(code)
        text = unicodedata.decomposition(character)
        if text and not text.startswith("<"):
            parts = [int(part, 16) for part in text.split()]
            composes = len(parts) == 2 and unicodedata.normalize("NFC", "".join(map(chr, parts))) == character
            decompositions.append((code, parts[0], parts[1] if len(parts) == 2 else 0, int(composes)))
        combining = unicodedata.combining(character)
        if combining and classes and classes[-1][1] == code - 1 and classes[-1][2] == combining:
            classes[-1][1] = code
        elif combining:
            classes.append([code, code, combining])
    print(f"// Unicode {unicodedata.unidata_version}, written by make_nfc_tables.py.")
    print("// character, its canonical decomposition (0: one character), whether that composes again")
    print("constexpr Decomposition kDecompositions[] = {")
    print("\n".join(pack("{0x%X,0x%X,0x%X,%d}," % entry for entry in decompositions)))
    print("};")
    print("// first, last, canonical combining class")
    print("constexpr CombiningRange kCombiningRanges[] = {")
    print("\n".join(pack("{0x%X,0x%X,%d}," % tuple(entry) for entry in classes)))
    print("};")


main()
