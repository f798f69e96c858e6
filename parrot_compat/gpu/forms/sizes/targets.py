"""Targets of references: the parts of a JSON schema that a `$ref` in it may lead to.

It knows nothing of sizes, nor what an URL is relative to: whatever ends as it does may be meant.

The invariant: what the library finds under a reference is among what is found here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

from .size import refuse

__all__ = ["Targets", "objects_in"]

Part = dict[str, Any]

_MOST_NAMED = 255
"""Each of them is looked at for each reference."""


class Targets:
    def __init__(self, root: Any) -> None:
        """Errors: `BadSchema`."""
        self._named: dict[str, Any] = {"#": root}
        self._names = {id(root): "#"}
        self._begun: list[tuple[str, Any]] = [("", root)]  # with the ends of their URLs
        self._anchored: dict[str, list[Part]] = {}
        for part in objects_in(root):
            for url, anchor in _own_names(part):
                if url:
                    self._begun.append((_end(url), part))
                if anchor:
                    self._anchored.setdefault(anchor, []).append(part)
        named = len(self._begun) - 1 + sum(map(len, self._anchored.values()))
        refuse(named, _MOST_NAMED, "the schema gives {} parts a name of their own ($id, $anchor)")

    def part(self, name: str) -> Any:
        return self._named[name]

    def names(self, reference: str) -> list[str]:
        """Of all that it may lead to, one for each part."""
        url, _, fragment = reference.partition("#")
        fragment = unquote(fragment)
        if fragment and not fragment.startswith("/"):
            return self._names_of(self._anchored.get(fragment, ()))
        wanted, steps = _end(url), fragment.split("/")[1:]
        found = [_follow(part, steps) for end, part in self._begun if not url or end == wanted]
        return self._names_of(part for part in found if isinstance(part, dict))

    def _names_of(self, parts: Iterable[Part]) -> list[str]:
        named = {self._names.setdefault(id(part), str(id(part))): part for part in parts}
        self._named |= named
        return list(named)


def objects_in(value: Any) -> Iterator[Part]:
    waiting = [value]
    while waiting:
        match waiting.pop():
            case dict() as members:
                yield members
                waiting += members.values()
            case list() as items:
                waiting += items


def _own_names(part: Part) -> Iterator[tuple[str, str]]:
    """The URLs and the anchors that it gives itself."""
    for word in ("$id", "id"):
        if isinstance(name := part.get(word), str):
            url, _, anchor = name.partition("#")
            yield url, anchor
    if isinstance(name := part.get("$anchor"), str):
        yield "", name


def _end(url: str) -> str:
    """What is left of it whatever it is relative to."""
    try:
        end = unquote(urlsplit(url).path).rpartition("/")[2]
    except ValueError:  # no URL to the library either
        return ""
    return "" if end in (".", "..") else end


def _follow(part: Any, steps: Iterable[str]) -> Any:
    """What a pointer leads to; `None` where that is nothing."""
    for step in steps:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(part, dict):
            part = part.get(name)
        elif isinstance(part, list) and name.isdecimal() and len(name) < 10 and int(name) < len(part):
            part = part[int(name)]
        else:
            return None
    return part
