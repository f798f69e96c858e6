"""Sizes of grammars as Lark writes them, and their tokens by id: whatever looks into the text of one is here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from parrot_compat.core.errors import BadSchema

from .pattern import MOST_FORCED, MOST_PLACES, check_pattern, counts, forced_of, places_of
from .schema import check_schema, forced_of_schema
from .size import MOST_NESTED, All, One, Size, largest, refuse

__all__ = ["check_gbnf", "check_lark", "forced_of_lark", "with_ids"]

_MOST_RULES = 1000
"""The library follows chains of them on its stack, which some 3,000 overflow."""
# What does not end is read to the end of the grammar once and refused, and no blanks are read twice: `re` lets no other
# thread run meanwhile.
_TEXT = r'"(?:\\.|[^"\\\n])*"'
_PATTERN = r"/(?:\\.|[^/\\])+/"
_TOKEN = r"<[^<>\s]*+>"
_ATTRIBUTES = rf'\[(?:{_TEXT}|{_PATTERN}|{_TOKEN}|[^\[\]"/<#\n])*\]'
_NUMBER = r"\+?\d++"
_TOKENS = re.compile(
    "|".join(
        [
            r"(?://|#)[^\n]*+",
            rf"[?!]?[?!]?(?P<head>[A-Za-z_][\w-]*+)(?:\.-?\d++)?\s*+(?:{_ATTRIBUTES}\s*+)?:(?!:)",
            rf"(?P<text>{_TEXT}i?)",
            rf"(?P<pattern>{_PATTERN}[imslux]*+)",
            r'(?P<unclosed>["/])',
            r"(?P<directive>%\w++)\s*+(?P<inline>(?=\{))?",
            rf"(?P<token>{_TOKEN})",
            r"(?P<name>[A-Za-z_][\w-]*+)",
            r"(?P<parameter>::)",
            rf"(?:~\s*+(?=[+\d])|\{{\s*+(?=[+\d,]))(?P<low>{_NUMBER})?"
            rf"\s*+(?P<comma>,|\.\.)?\s*+(?P<high>{_NUMBER})?\s*+\}}?(?P<counted>)",
            r"(?P<mark>[()\[\]|?*+])",
            r".",
        ]
    ),
    re.DOTALL,
)
_NAMED = re.compile(rf"(?://|#)[^\n]*+|{_TEXT}|{_PATTERN}|(?P<token>{_TOKEN})", re.DOTALL)
_NOT_READ = {
    "unclosed": "a text or a pattern of the grammar does not end",
    "parameter": "rules with parameters (name::value) are not read; write them out",
}
_OPENS, _CLOSES = ("(", "["), (")", "]")


def check_lark(text: str) -> None:
    """Errors: `BadSchema`."""
    rules = _read(text)
    refuse(sum(not name.startswith("%") for name in rules), _MOST_RULES, "the grammar has {} rules")
    # a terminal is one regular expression to the library, with all that it refers to written out in it
    terminals = {name: rule.places() for name, rule in rules.items() if name.lstrip("_")[:1].isupper()}
    refuse(largest(terminals), MOST_PLACES, "the repetitions of a terminal come to {} places")
    refuse(_forced(rules), MOST_FORCED, "the grammar forces {} characters of text")


def check_gbnf(text: str) -> None:
    """What there is to say before it is written as Lark, which each of its rules makes slower for all the others.
    Errors: `BadSchema`."""
    refuse(text.count("::="), _MOST_RULES, "the grammar has {} rules")


def with_ids(text: str, ids: Mapping[str, int]) -> str:
    """The grammar with tokens by their ids, where it has them by their names. Errors: `BadSchema`."""

    def by_id(found: re.Match[str]) -> str:
        name = found["token"]
        if name is None or name.startswith("<["):
            return found[0]
        if name not in ids:
            raise BadSchema(f"the grammar has a token {name[:60]}, and the model has none that is called so")
        return f"<[{ids[name]}]>"

    return _NAMED.sub(by_id, text)


def forced_of_lark(text: str) -> int:
    """Characters at most that one rule may have to have. Errors: `BadSchema`."""
    return _forced(_read(text))


def _forced(rules: Mapping[str, _Alternatives]) -> int:
    return largest({name: rule.forced() for name, rule in rules.items()})


class _Item(NamedTuple):
    places: Size
    forced: Size
    low: int = 1
    high: int = 1


@dataclass(slots=True)
class _Alternatives:
    """What stands between brackets, or behind the name of a rule."""

    items: list[list[_Item]] = field(default_factory=lambda: [[]])

    def places(self) -> Size:
        return All([(item.places, max(1, item.high)) for items in self.items for item in items])

    def forced(self) -> Size:
        return One([All([(item.forced, item.low) for item in items]) for items in self.items])

    def repeat(self, low: int, high: int) -> None:
        if self.items[-1]:
            self.items[-1][-1] = self.items[-1][-1]._replace(low=low, high=high)


def _read(text: str) -> dict[str, _Alternatives]:
    """The rules by name; what belongs to none, as what is ignored, has a name that no rule has."""
    rules: dict[str, _Alternatives] = {}
    open = [rules.setdefault("%", _Alternatives())]
    for found in _tokens(text):
        kind, value = found.lastgroup, found[0]
        if kind in _NOT_READ:
            raise BadSchema(_NOT_READ[kind])
        if kind in ("head", "directive"):
            open = [rules.setdefault(found["head"] or f"%{found.start()}", _Alternatives())]
        elif kind == "counted":
            open[-1].repeat(*counts(found))
        elif value in _OPENS:
            open.append(_Alternatives())
            if len(open) > MOST_NESTED:
                raise BadSchema(f"the grammar is nested too deeply; at most {MOST_NESTED} levels are read")
        elif value in _CLOSES and len(open) > 1:
            group = open.pop()
            open[-1].items[-1].append(_Item(group.places(), group.forced(), low=int(value == ")")))
        elif value == "|":
            open[-1].items.append([])
        elif value in ("?", "*"):
            open[-1].repeat(0, 1)
        elif (item := _item(found)) is not None:
            open[-1].items[-1].append(item)
    return rules


def _tokens(text: str) -> Iterator[re.Match[str]]:
    at = 0
    while found := _TOKENS.match(text, at):
        yield found
        at = found.end()
        if found["inline"] is not None:
            at = _end_of_json(text, at)


def _end_of_json(text: str, at: int) -> int:
    try:
        return json.JSONDecoder().raw_decode(text, at)[1]
    except (ValueError, RecursionError):
        return at + 1


def _item(found: re.Match[str]) -> _Item | None:
    match found.lastgroup:
        case "text" | "token":
            return _Item(len(found[0]), len(found[0]))
        case "name":
            return _Item(found[0], found[0])
        case "pattern":
            pattern, _, flags = found[0][1:].rpartition("/")
            check_pattern(pattern, flags)
            return _Item(places_of(pattern), forced_of(pattern))
        case "inline":
            return _inline(found)
    return None


def _inline(found: re.Match[str]) -> _Item:
    """A part in another notation: `%json {...}`. Options of the library have no size."""
    directive = found["directive"]
    if directive == "%lark":
        raise BadSchema("%lark {...} is not read within a grammar; write its rules out")
    try:
        value = json.JSONDecoder().raw_decode(found.string, found.end())[0]
        size = len(json.dumps(value)) if directive == "%regex" else 0
        if directive == "%json":
            check_schema(value)
            size = forced_of_schema(value)
    except (ValueError, RecursionError):
        raise BadSchema(f"what follows {directive} is not JSON, or is nested too deeply") from None
    return _Item(size, size)
