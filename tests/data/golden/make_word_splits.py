#!/usr/bin/env python3
"""Writes word_splits.jsonl (to stdout): random texts and the words that Hugging Face's tokenizers cut them into.

Needs the package tokenizers. Characters are limited to those assigned in Unicode 14, which is what PCRE2 10.42 knows.
"""
import json
import random

from tokenizers import Regex, pre_tokenizers

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
CL100K = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K = (r"[^\r\n\p{L}\p{N}]?" + UPPER + "*" + LOWER + "+%s|" + r"[^\r\n\p{L}\p{N}]?" + UPPER + "+" + LOWER + "*%s|"
         r"%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def byte_level(use_regex):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def digits(individual):
    return pre_tokenizers.Digits(individual_digits=individual)


def chain(*steps):
    return pre_tokenizers.Sequence(list(steps))


def of_pattern(*patterns):
    return chain(*[split(pattern) for pattern in patterns], byte_level(False))


# Letters of scripts with two cases, as deepseek-llm's tokenizer.json has them.
LETTERS = r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+"
FAMILIES = {
    "gpt-2": byte_level(True),
    "smollm": chain(digits(True), byte_level(True)),
    "llama-bpe": of_pattern(CL100K % r"\p{N}{1,3}"),
    "qwen2": of_pattern(CL100K % r"\p{N}"),
    "qwen35": of_pattern((CL100K % r"\p{N}").replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(
        r"[^\s\p{L}\p{N}]+", r"[^\s\p{L}\p{M}\p{N}]+")),
    "gpt-4o": of_pattern(O200K % (CONTRACTIONS + "?", CONTRACTIONS + "?", r"\p{N}{1,3}")),
    "tekken": of_pattern(O200K % ("", "", r"\p{N}")),
    "deepseek-v3": of_pattern(r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+",
                              "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
                              " ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"),
    "deepseek-coder": chain(split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[一-龥ࠀ-一가-퟿]+"),
                            digits(True), byte_level(False)),
    "deepseek-llm": chain(split("[\r\n]"), split(LETTERS), split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"), split(r"\s+$"),
                          split("[一-龥ࠀ-一가-퟿]+"), digits(True), byte_level(False)),
    "falcon": chain(pre_tokenizers.Punctuation("contiguous"), byte_level(True), digits(False), split("[0-9][0-9][0-9]")),
    "seed-coder": of_pattern(CONTRACTIONS + "|[^\r\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\r\n]+|\\s*[\r\n]+|"
                             "\\s+(?!\\S)|\\s+"),
}

BYTES = {}
printable = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
others = [b for b in range(256) if b not in printable]
for b in printable:
    BYTES[chr(b)] = b
for i, b in enumerate(others):
    BYTES[chr(256 + i)] = b

ALPHABETS = [
    "abcxyzABCXYZ",
    "sStTmMdDlLvVrReE'''\u2019\u017f",
    "0123456789\u00b2\u00bd\u0661\u0967\u2163\uff13",
    "     \t\t\n\n\r\u00a0\u2003\u3000\u0085\u2028\u200b\u180e\u1680\x1c\x0b",
    "!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~\\",
    "äöüßÄÖÉñøŁąǅʰªµ",
    "αβγΩΣςПриветЖЁ",
    "漢字かなカナー한국々〆〇。、「」！？～",
    "שלוםمرحبا\u064b\u0301\u0308\u0483नमस्ते\u094d\u0e01\u0e34",
    "😀🦙👨\u200d👩\ufe0f🇫🇷\U0001f1e9∀∑±×÷€£¢\u20ac©®™",
    "\x00\x01\x07\x1b\x7f\ufeff\ufffd\ue000\U0010ffff",
]


def random_text(rng):
    parts = []
    for _ in range(rng.randrange(1, 16)):
        alphabet = rng.choice(ALPHABETS)
        run = rng.choice([1, 1, 2, 3, 5, 8])
        parts.append("".join(rng.choice(alphabet) for _ in range(run)))
    return "".join(parts)


def words_of(pre_tokenizer, text):
    words = [bytes(BYTES[c] for c in word) for word, _ in pre_tokenizer.pre_tokenize_str(text)]
    assert b"".join(words) == text.encode()
    return words


def main():
    rng = random.Random(13)
    for _ in range(250):
        text = random_text(rng)
        words = {name: [len(word) for word in words_of(family, text)] for name, family in FAMILIES.items()}
        print(json.dumps({"text": text, "word_bytes": words}, ensure_ascii=False))


if __name__ == "__main__":
    main()
