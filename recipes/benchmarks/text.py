"""Fresh text of any length in tokens, the same for the same seed, from what every CPython carries.

It knows a tokenizer and nothing of apps. Sentences of the language reference (`pydoc_data.topics`) are drawn in an
order of the seed's own.

The invariant: two seeds share no prefix, not even one token: every passage opens with a number drawn from the
seed. So whatever a server has cached of another round or another lane is of no use to this one.
"""

from __future__ import annotations

import hashlib
import random
import re
from functools import cache
from pathlib import Path
from pydoc_data.topics import topics

from tokenizers import Tokenizer

__all__ = ["FreshText", "open_tokenizer"]

CHARACTERS_PER_TOKEN = 6
"""More than a token of this text ever has on average; what is too much is cut off."""
SHORTEST_OPENED = 8
"""A passage shorter than this is all text: it never opens a prompt."""


@cache
def open_tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


class FreshText:
    """Passages of exactly so many tokens (one more or less where a word is cut), never the same one twice."""

    def __init__(self, tokenizer: Tokenizer, seed: str) -> None:
        self._tokenizer = tokenizer
        self._random = random.Random(hashlib.sha256(seed.encode()).digest())

    def passage(self, tokens: int) -> str:
        opening = f"{self._random.getrandbits(32):08x} " if tokens >= SHORTEST_OPENED else ""
        sentences = [opening]
        length = 0
        while length < CHARACTERS_PER_TOKEN * tokens + 80:
            sentence = self._random.choice(_sentences())
            sentences.append(sentence)
            length += len(sentence) + 1
        text = opening + " ".join(sentences[1:])
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        assert len(encoding.ids) >= tokens, (len(encoding.ids), tokens)
        end: int = encoding.offsets[tokens - 1][1]
        return text[:end]

    def ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def count(self, text: str) -> int:
        return len(self.ids(text))


@cache
def _sentences() -> tuple[str, ...]:
    prose = " ".join(" ".join(topics[name].split()) for name in sorted(topics))
    plain = re.sub(r"[^\x20-\x7e]", "", prose)  # ASCII: a cut never falls inside a character
    return tuple(part for part in re.split(r"(?<=[.:]) ", plain) if 20 <= len(part) <= 400)
