"""Vectors of texts without a model, for scripted engines: every word has a direction, a text is the sum of its words.

They know no meaning: texts are near each other where they share words, which is enough to test a search.

The invariant: the same text has the same vector, in every process.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterator
from hashlib import blake2b

from ..errors import BadPrompt

__all__ = ["DIMENSIONS", "text_vector"]

DIMENSIONS = 64  # what one digest gives
_WORD = re.compile(r"\w+")


def text_vector(text: str, dimensions: int | None = None) -> array[float]:
    """The first `dimensions` numbers of it, scaled to length 1. Errors: `BadPrompt`."""
    if not text:
        raise BadPrompt("an input to embed is empty", param="input")
    if dimensions is not None and not 1 <= dimensions <= DIMENSIONS:
        raise BadPrompt(f"dimensions must be from 1 to {DIMENSIONS}, not {dimensions}", param="dimensions")
    words = _WORD.findall(text.lower()) or [text]
    summed = [math.fsum(column) for column in zip(*map(_direction, words), strict=True)][:dimensions]
    length = math.hypot(*summed) or 1.0
    return array("f", [number / length for number in summed])


def _direction(word: str) -> Iterator[float]:
    return (byte - 127.5 for byte in blake2b(word.encode("utf-8", "surrogatepass"), digest_size=DIMENSIONS).digest())
