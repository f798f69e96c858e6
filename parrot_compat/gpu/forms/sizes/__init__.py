"""Sizes of grammars: how much an engine would have to look at, told from its text before a library reads it.

A library that is asked what may come next first writes out all text that is forced, in one go that nothing interrupts:
an array that must have 10,000 items, each such an array, is a hundred million of them. Two sizes are counted here: the
*places* of a pattern, its counted repetitions written out to the most they allow, and the *forced* text, which is that
of the least they allow. Alternatives have no more text in common than the shortest has; beyond that none is forced
before it has been begun, and each is counted by itself, as is what stands in a loop or may be left out.

It knows texts and numbers; nothing of libraries, tokens or formats. It errs on the side of more, but for alternatives
that contradict themselves in ways that it does not see.
"""

from __future__ import annotations

from .lark import check_gbnf, check_lark, with_ids
from .pattern import check_pattern
from .schema import check_schema

__all__ = ["check_gbnf", "check_lark", "check_pattern", "check_schema", "with_ids"]
