"""The mixture: how often each task is drawn, and how long its texts are, by how far the training has come.

First short copies, from which the rest grows; then all tasks; long texts come in slowly. It knows tasks; nothing of
tokens. The same seed, part of the corpus and progress give the same examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from recipes.train_builtin.corpus import Document
from recipes.train_builtin.example import Example
from recipes.train_builtin.source import Source

from .tasks import coding, copying, editing, extraction, reading, talking, tools

Task = Callable[[Source, int], Example]

TASKS: dict[str, tuple[Task, float]] = {
    "copy": (copying.repeat, 22.0),
    "drill": (copying.drill, 6.0),
    "quote": (copying.quote_part, 4.0),
    "quotes": (copying.quote_parts, 6.0),
    "recall": (copying.said_before, 1.5),
    "raw": (copying.raw_repeat, 1.5),
    "continue": (copying.going_on, 1.0),
    "summary": (reading.summary, 5.0),
    "docstring": (reading.first_line, 1.5),
    "merge": (reading.merge, 3.0),
    "refine": (reading.refine, 3.5),
    "question": (reading.question, 6.0),
    "lookup": (reading.lookup, 5.0),
    "edit": (editing.edit, 9.0),
    "extract": (extraction.extraction, 15.0),
    "nested": (extraction.nested, 2.0),
    "made": (extraction.made, 2.0),
    "tool": (tools.call, 9.0),
    "calls": (tools.calls, 7.0),
    "tool result": (tools.answered, 2.5),
    "no tool": (tools.no_call, 1.0),
    "talk": (talking.talk, 1.2),
    "debate": (talking.speech, 1.2),
    "title": (talking.notes, 0.8),
    "code": (coding.write, 1.0),
    "code test": (coding.test, 1.0),
    "team": (coding.team, 1.8),
}
"""Name, maker, and how often it is drawn among the others."""
_BEGINNING = frozenset({"copy", "drill", "quote", "quotes", "recall", "raw"})
_TWICE = frozenset({"copy", "drill", "raw", "edit"})
"""Question and answer have the whole text each."""
_MOST_TWICE = 6500
_FIRST = 0.08
"""The share of the training in which nearly all is copying."""


def weights(progress: float, drawn: Mapping[str, float]) -> list[float]:
    """Of each task, at this share of the training; `drawn` says otherwise of some."""
    elsewhere = min(1.0, 0.1 + 0.9 * progress / _FIRST)
    wanted = {name: weight for name, (_, weight) in TASKS.items()} | dict(drawn)
    return [weight if name in _BEGINNING else weight * elsewhere for name, weight in wanted.items()]


def characters(rng: Random, progress: float, long: float = 0.025) -> int:
    """How long a text is, log-uniformly; a few in a hundred are long once half of the way is done."""
    if progress > 0.35 and rng.random() < long:
        return int(math.exp(rng.uniform(math.log(2000), math.log(9000))))
    most = 300 + 2200 * min(1.0, progress / 0.3)
    return int(math.exp(rng.uniform(math.log(30), math.log(most))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How a run's mixture differs from the usual one."""

    drawn: Mapping[str, float] = field(default_factory=dict)
    """How often these tasks are drawn."""
    noise: float = 0.35
    """The share of passages in which words are replaced."""
    long: float = 0.025
    """The share of long texts, once half of the way is done."""
    more: float = 0.0
    """The share of passages taken from comments and strings."""


USUAL = Wish()


def examples(
    documents: Sequence[Document], seed: int, progress: Callable[[], float], wish: Wish = USUAL
) -> Iterator[Example]:
    """Without end."""
    rng = Random(seed)
    source = Source(documents, rng, wish.noise, wish.more)
    names = list(TASKS)
    while True:
        done = progress()
        (name,) = rng.choices(names, weights(done, wish.drawn))
        size = characters(rng, done, wish.long)
        yield TASKS[name][0](source, min(size, _MOST_TWICE) if name in _TWICE else size)
