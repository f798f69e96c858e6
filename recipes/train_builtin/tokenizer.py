"""Train the tokenizer of `builtin:tiny` on the text that every CPython carries.

    python recipes/train_builtin/tokenizer.py parrot_compat/gpu/models/builtin_tiny/tokenizer.json

The text is the language reference (`pydoc_data.topics`) and the docstrings of the standard library, read from their
sources: nothing is downloaded or imported. The same CPython gives the same file (3.11.7 made the shipped one).
"""

from __future__ import annotations

import argparse
import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from pydoc_data import topics

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")
VOCABULARY = 4096
# Words with their leading blank, numbers by single digits, runs of punctuation and of blanks (as in Qwen2).
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LEFT_OUT = {"test", "tests", "idlelib", "lib2to3", "site-packages", "encodings", "turtledemo"}


def corpus() -> Iterator[str]:
    """The language reference, then every docstring of the standard library, always in the same order."""
    for name in sorted(topics.topics):
        yield topics.topics[name]
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        if not LEFT_OUT & set(path.relative_to(library).parts):
            yield from docstrings(path)


def docstrings(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # a file that is broken on purpose, or in another encoding, has nothing for us
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text:
                yield text


def train(texts: Iterator[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


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
