"""Sizes that are put together of others, some of which have names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from parrot_compat.core.errors import BadSchema

__all__ = ["MANY", "MOST_NESTED", "All", "One", "Size", "largest", "names_in", "refuse", "sizes_of", "whole_number"]

MANY = 1 << 30
"""As good as endless; numbers are not counted beyond it."""
MOST_NESTED = 128
"""Levels of brackets: as many as the library reads."""


@dataclass(frozen=True, slots=True)
class All:
    """One after the other, each so many times. What comes no times is counted by itself."""

    parts: Sequence[tuple[Size, int]]


@dataclass(frozen=True, slots=True)
class One:
    """One of them: what they have in common is no more than the least. Each is counted by itself too."""

    parts: Sequence[Size]


Size = int | str | All | One
"""A number of characters, the name of another size, or what is put together of sizes."""


def largest(named: Mapping[str, Size]) -> int:
    """The largest of these sizes and of all that they are put together of."""
    return max((inner for _, inner in sizes_of(named).values()), default=0)


def sizes_of(named: Mapping[str, Size]) -> dict[str, tuple[int, int]]:
    """Each, and the largest in it. What refers back to itself goes round a loop of the grammar, which no text is forced
    to: there it counts nothing."""
    known: dict[str, tuple[int, int]] = {}
    for name in _after_their_parts({name: list(names_in(size)) for name, size in named.items()}):
        if name in named:
            known[name] = _weigh(named[name], known)
    return known


def names_in(size: Size) -> Iterator[str]:
    match size:
        case str():
            yield size
        case All(parts=parts):
            for part, _ in parts:
                yield from names_in(part)
        case One(parts=some):
            for part in some:
                yield from names_in(part)


def refuse(size: int, most: int, said: str) -> None:
    """Errors: `BadSchema` where it is more; `said` has a place for the number."""
    if size > most:
        raise BadSchema(f"{said.format(size if size < MANY else 'endlessly many')}; at most {most} are read")


def whole_number(digits: str) -> int:
    digits = digits.lstrip("+0") or "0"
    return int(digits) if len(digits) < 10 else MANY


def _weigh(size: Size, known: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    """The size, and the largest in it."""
    match size:
        case int():
            return size, size
        case str():
            return known.get(size, (0, 0))[0], 0
        case All(parts=parts):
            weighed = [(*_weigh(part, known), times) for part, times in parts]
            whole = min(MANY, sum(weight * times for weight, _, times in weighed))
            return whole, max([whole, *(max(weight, inner) for weight, inner, _ in weighed)])
        case One(parts=some):
            pairs = [_weigh(part, known) for part in some]
            whole = min((weight for weight, _ in pairs), default=0)
            return whole, max((max(pair) for pair in pairs), default=0)


def _after_their_parts(references: Mapping[str, Sequence[str]]) -> list[str]:
    """The names so that each comes behind those that it refers to, but for those that lead back to it."""
    order, seen = list[str](), set[str]()
    for first in references:
        waiting = [(first, iter(references[first]))] if first not in seen else []
        seen.add(first)
        while waiting:
            name, others = waiting[-1]
            other = next((other for other in others if other not in seen), None)
            if other is None:
                order.append(name)
                waiting.pop()
            else:
                seen.add(other)
                waiting.append((other, iter(references.get(other, ()))))
    return order
