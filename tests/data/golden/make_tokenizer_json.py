#!/usr/bin/env python3
"""Writes tokenizer_json.jsonl (to stdout): small tokenizers of Hugging Face's library and the ids that it gives with them.

    make_tokenizer_json.py TRAINING_TEXT     (needs the package tokenizers)
"""
import json
import random
import sys

from make_word_splits import CL100K, CONTRACTIONS, O200K, random_text
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BYTES_ONLY = dict(GPT2, use_regex=False)


def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def added(token_id, content, **flags):
    entry = {"id": token_id, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": False}
    entry.update(flags)
    return entry


def train(path):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=360, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False)
    lines = open(path, encoding="utf-8").read(400_000).splitlines(keepends=True)
    tokenizer.train_from_iterator(lines, trainer)
    return json.loads(tokenizer.to_str())


def variants(base):
    size = len(base["model"]["vocab"])
    special = [added(size, "<s>", special=True), added(size + 1, "</s>", special=True), added(size + 2, "<think>"),
               added(size + 3, "<left>", lstrip=True, special=True), added(size + 4, "<right>", rstrip=True),
               added(size + 5, "one", single_word=True)]
    around = {"type": "TemplateProcessing",
              "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                         {"SpecialToken": {"id": "</s>", "type_id": 0}}],
              "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
              "special_tokens": {"<s>": {"id": "<s>", "ids": [size], "tokens": ["<s>"]},
                                 "</s>": {"id": "</s>", "ids": [size + 1], "tokens": ["</s>"]}}}

    def variant(name, row, pre_tokenizer, normalizer=None, post_processor=None, **model):
        out = dict(base, added_tokens=special, pre_tokenizer=pre_tokenizer, normalizer=normalizer,
                   post_processor=post_processor, decoder=GPT2, model=dict(base["model"], **model))
        return name, row, out

    merges_as_text = [" ".join(pair) for pair in base["model"]["merges"]]
    yield variant("gpt2", "gpt-2", GPT2)
    yield variant("gpt2_with_prefix", "gpt-2", dict(GPT2, add_prefix_space=True), merges=merges_as_text)
    yield variant("smollm_with_nfc", "smollm", sequence({"type": "Digits", "individual_digits": True}, GPT2),
                  normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}]})
    yield variant("llama3", "llama-bpe", sequence(split(CL100K % r"\p{N}{1,3}"), BYTES_ONLY), ignore_merges=True,
                  post_processor={"type": "Sequence", "processors": [GPT2, around]})
    # As converted from tiktoken: what does not match is thrown away, and everything matches.
    yield variant("qwen2_ignoring_merges", "qwen2", sequence(split(CL100K % r"\p{N}", "Removed", True), BYTES_ONLY),
                  ignore_merges=True, post_processor=around)
    yield variant("gpt4o", "gpt-4o", sequence(split(O200K % (CONTRACTIONS + "?", CONTRACTIONS + "?", r"\p{N}{1,3}")),
                                              BYTES_ONLY))
    yield variant("falcon", "falcon", sequence({"type": "Punctuation", "behavior": "Contiguous"}, GPT2,
                                               {"type": "Digits", "individual_digits": False},
                                               split("[0-9][0-9][0-9]")))


def main():
    rng = random.Random(5)
    tokens = ["<s>", "</s>", "<think>", " <left> ", " <right> ", "one", " one ", "bone"]
    texts = ["".join(random_text(rng) + (rng.choice(tokens) if rng.random() < 0.5 else "") for _ in range(2))
             for _ in range(30)]
    for name, row, document in variants(train(sys.argv[1])):
        tokenizer = Tokenizer.from_str(json.dumps(document))
        ids = [{"text": text, "ids": tokenizer.encode(text).ids} for text in texts]
        print(json.dumps({"name": name, "pre": row, "tokenizer": document, "texts": ids}, ensure_ascii=False))


if __name__ == "__main__":
    main()
