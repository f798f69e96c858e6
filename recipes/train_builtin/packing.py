"""Packing: examples become tokens, and tokens become segments: rows of one length, so that no row sees another.

It knows the tokenizer and examples; nothing of tasks or torch. Prompt and answer are encoded apart, as a server does
it: what the model reads and then writes.

The invariant: all segments have `SEGMENT` tokens, whatever the length of their rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from recipes.train_builtin.example import Example

SEGMENT = 3 * 2**12
COUNTED = SEGMENT // 2
"""So many tokens of a segment count: those of answers, then others at random."""
WIDTHS = (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
"""Lengths of rows; each divides `SEGMENT`."""
END, PAD = 2, 3
IN_PROMPT = 6
"""The weight of a prompt's token in the loss, of 64. A model that can nearly all it is asked has losses of a hundredth
in its answers and of two in its prompts, which nobody can foretell: then 0 leaves the gradient to the answers."""
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Segment:
    width: int
    ids: npt.NDArray[np.uint16]
    """[SEGMENT]"""
    places: npt.NDArray[np.uint16]
    """[COUNTED]: tokens after which the next one is foretold, and counts."""
    weights: npt.NDArray[np.uint8]
    """[COUNTED]: how much, in parts of 64; 0 for padding."""


Row = tuple[list[int], list[int]]
"""Ids, and their weights."""


def row(parts: Sequence[tuple[list[int], list[int]]], in_prompt: int = IN_PROMPT) -> Row:
    """Of prompts and their answers. Answers count by the root of their length: an example is right as a whole, but a
    long copy is harder."""
    ids: list[int] = []
    weights: list[int] = []
    for prompt, answer in parts:
        counted = len(answer) + 1
        each = max(8, round(64 * min(1.0, (24 / counted) ** 0.5)))
        ids += [*prompt, *answer, END]
        weights += [in_prompt] * len(prompt) + [each] * counted
    return ids, weights


def rows(tokenizer: Tokenizer, examples: Iterator[Example], in_prompt: int = IN_PROMPT) -> Iterator[Row]:
    while True:
        some = [next(examples).parts() for _ in range(_BATCH)]
        texts = [text for parts in some for part in parts for text in part]
        encoded = iter(tokenizer.encode_batch_fast(texts, add_special_tokens=False))
        for parts in some:
            yield row([(next(encoded).ids, next(encoded).ids) for _ in parts], in_prompt)


def segments(made: Iterator[Row], generator: np.random.Generator) -> Iterator[Segment]:
    """Each row goes to the narrowest width that holds it; a width's segment is given when it is full."""
    waiting: dict[int, list[Row]] = {width: [] for width in WIDTHS}
    for ids, weights in made:
        width = next((width for width in WIDTHS if len(ids) <= width), None)
        if width is None:
            continue
        waiting[width].append((ids, weights))
        if len(waiting[width]) == SEGMENT // width:
            yield _segment(width, waiting[width], generator)
            waiting[width] = []


def _segment(width: int, made: list[Row], generator: np.random.Generator) -> Segment:
    ids = np.full((len(made), width), PAD, np.uint16)
    weights = np.zeros((len(made), width), np.uint8)
    for at, (some, counted) in enumerate(made):
        ids[at, : len(some)] = some
        weights[at, : len(counted) - 1] = counted[1:]  # it counts where it is foretold
    return counted_most(ids, weights, generator)


def counted_most(
    ids: npt.NDArray[np.uint16], weights: npt.NDArray[np.uint8], generator: np.random.Generator
) -> Segment:
    """Rows as a segment: ids and weights [rows, width], a token's weight that of the one behind it."""
    counts = weights.reshape(-1)
    order = counts + generator.random(SEGMENT, np.float32) * (counts > 0)
    places = np.sort(np.argpartition(-order, COUNTED - 1)[:COUNTED]).astype(np.uint16)
    return Segment(ids.shape[1], ids.reshape(-1), places, counts[places])
