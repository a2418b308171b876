"""Trains the small SentencePiece models of this folder on tiny-mistral's test text, with sentencepiece 0.2.3.

One for each way of reading a text that Mistral's model does not have: unigram with byte fallback and without,
characters mapped by a table, no space prefix with runs of spaces and line ends as pieces (as Gemma's).
"""
import os
import pathlib

import sentencepiece

RULES = ["FB01\t66 69", "FF21\t41", "FF22\t42", "3000\t20", "A0\t20", "2026\t2E 2E 2E", "41 30A\tC5"]


def train(name, vocab_size, **options):
    sentencepiece.SentencePieceTrainer.train(
        input="../tiny-mistral/test.txt", model_prefix=name, vocab_size=vocab_size, character_coverage=1.0,
        num_threads=1, max_sentence_length=20000, hard_vocab_limit=False, minloglevel=2, **options)
    pathlib.Path(f"{name}.vocab").unlink()


def main():
    os.chdir(pathlib.Path(__file__).resolve().parent)  # the files hold the paths that they are given
    rules = pathlib.Path("rules.tsv")
    rules.write_text("\n".join(RULES) + "\n", encoding="utf-8")
    train("unigram", 620, model_type="unigram", byte_fallback=True, normalization_rule_name="identity",
          remove_extra_whitespaces=False, user_defined_symbols=["<|im_start|>", "\n", "\n\n", "<table>"])
    train("unigram-mapped", 420, model_type="unigram", byte_fallback=False, normalization_rule_tsv="rules.tsv",
          remove_extra_whitespaces=True, user_defined_symbols=["<sep>"])
    train("bpe-mapped", 620, model_type="bpe", byte_fallback=True, normalization_rule_tsv="rules.tsv",
          remove_extra_whitespaces=False)
    train("bpe-gemma", 700, model_type="bpe", byte_fallback=True, normalization_rule_name="identity",
          remove_extra_whitespaces=False, add_dummy_prefix=False, pad_id=0, eos_id=1, bos_id=2, unk_id=3,
          user_defined_symbols=["<start_of_turn>", "<end_of_turn>", "\n", "\n\n", "\n\n\n", "\u2581\u2581",
                                "\u2581\u2581\u2581", "\u2581\u2581\u2581\u2581", "<table>", "</table>"])
    rules.unlink()


if __name__ == "__main__":
    main()
