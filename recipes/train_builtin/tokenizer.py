"""Train the tokenizer of `builtin:tiny` on the text that every CPython carries.

    python -m recipes.train_builtin.tokenizer parrot_compat/gpu/models/builtin_tiny/tokenizer.json

A small model copies well where a text has the same tokens wherever it stands. So words are merged without their
leading blank first; that a blank joins the first piece of a word is learned last, and changes nothing behind it:
"zebra" and " zebra" differ in one token only. Digits stand alone, quotation marks too, and line ends join nothing.

The same CPython gives the same file (3.11.7 made the shipped one, from what is not held out).
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from recipes.train_builtin.corpus import load

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")
VOCABULARY = 4096
WITH_BLANK = 1300
"""Pieces that exist a second time, with a blank before them."""
WORDS = r""" ?\p{L}+|\p{N}| ?["'`]| ?[^\s\p{L}\p{N}"'`]+|\s*[\r\n]+|\s+(?!\S)|\s+"""
BLANK = "Ġ"


def corpus() -> Iterator[str]:
    """The language reference, docstrings and functions, always in the same order, without what is held out."""
    for document in load():
        if not document.is_held_out and document.kind != "more":
            yield document.text


def train(texts: Iterator[str], vocabulary: int = VOCABULARY, with_blank: int = WITH_BLANK) -> Tokenizer:
    seen = list(texts)
    words = _bpe(seen, vocabulary - with_blank)
    pieces = Counter[str]()
    for before, piece in _after_blanks(words, seen):
        if before == BLANK and not piece.startswith((BLANK, "Ċ", "ĉ")):
            pieces[piece] += 1
    described = json.loads(words.to_str())
    model = described["model"]
    for piece, _ in sorted(pieces.items(), key=lambda item: (-item[1], item[0])):
        if len(model["vocab"]) < vocabulary and BLANK + piece not in model["vocab"]:
            model["vocab"][BLANK + piece] = len(model["vocab"])
            model["merges"].append([BLANK, piece])
    described["pre_tokenizer"] = json.loads(_splitting(WORDS, Tokenizer(models.BPE())).to_str())["pre_tokenizer"]
    tokenizer: Tokenizer = Tokenizer.from_str(json.dumps(described))
    return tokenizer


def _bpe(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    """Pieces of words that stand without their blanks."""
    tokenizer = _splitting(WORDS.replace(" ?", ""), Tokenizer(models.BPE()))
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _splitting(pattern: str, tokenizer: Tokenizer) -> Tokenizer:
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    levels = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, levels])
    return tokenizer


def _after_blanks(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    for encoded in tokenizer.encode_batch(list(texts)):
        yield from zip(encoded.tokens, encoded.tokens[1:], strict=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output
    texts = list(corpus())
    tokenizer = train(iter(texts))
    tokenizer.save(str(output), pretty=False)
    sample = "\n".join(texts[:40])
    words = len(tokenizer.encode(sample).ids)
    print(f"{output}: {tokenizer.get_vocab_size()} tokens, {output.stat().st_size} bytes")
    print(f"{sum(map(len, texts))} characters of text; {len(sample) / words:.2f} characters a token")


if __name__ == "__main__":
    main()
