"""Sizes of JSON schemas."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from parrot_compat.core.errors import BadSchema

from .pattern import MOST_FORCED, check_pattern, forced_of
from .size import MANY, MOST_NESTED, All, One, Size, largest, names_in, refuse, sizes_of

__all__ = ["check_schema", "forced_of_schema"]

_QUOTES = 6
"""Characters around a key: quotes, a colon, a comma and blanks."""


def check_schema(schema: Any) -> None:
    """Errors: `BadSchema`."""
    refuse(largest(_named_sizes(schema)), MOST_FORCED, "the schema forces {} characters of text")


def forced_of_schema(schema: Any) -> int:
    """Characters at most that a text which is valid against it may have to have. Errors: `BadSchema`."""
    return sizes_of(_named_sizes(schema))["#"][0]


def _named_sizes(root: Any) -> dict[str, Size]:
    """Of the schema and of all that it refers to, by pointer."""
    pointers = _Pointers(root)
    named: dict[str, Size] = {}
    waiting = ["#"]
    while waiting:
        pointer = waiting.pop()
        if pointer not in named:
            named[pointer] = _size(pointers.at(pointer))
            waiting += names_in(named[pointer])
    return named


def _size(schema: Any, depth: int = 0) -> Size:
    if depth > MOST_NESTED:
        raise BadSchema(f"the schema is nested too deeply; at most {MOST_NESTED} levels are read")
    if not isinstance(schema, dict):
        return 0
    return All([part for key, value in schema.items() for part in _parts(key, value, schema, depth + 1)])


def _parts(key: str, value: Any, schema: Mapping[str, Any], depth: int) -> Iterator[tuple[Size, int]]:
    """What a keyword adds, and how many times at least."""
    match key, value:
        case "$ref", str():
            yield value, 1
        case "const", _:
            yield len(json.dumps(value)), 1
        case "enum", list():
            yield max((len(json.dumps(one)) for one in value), default=0), 1
        case "pattern", str():
            check_pattern(value)
            yield forced_of(value), 1
        case "properties", dict():
            required = schema.get("required")
            for name, member in value.items():
                is_required = isinstance(required, list) and name in required
                yield All([(len(name) + _QUOTES, 1), (_size(member, depth), 1)]), int(is_required)
        case "patternProperties", dict():
            for pattern, member in value.items():
                check_pattern(pattern)
                yield _size(member, depth), 0
        case "items", dict():
            least = schema.get("minItems")
            least = max(0, min(MANY, int(least))) if isinstance(least, int | float) else 0
            yield All([(2, 1), (_size(value, depth), 1)]), least
        case "prefixItems" | "items" | "allOf", list():
            for one in value:
                yield _size(one, depth), 1
        case "anyOf" | "oneOf", list():
            yield One([_size(one, depth) for one in value]), 1
        case _, dict():  # what other words say is not forced before it is begun
            yield _size(value, depth), 0


class _Pointers:
    def __init__(self, root: Any) -> None:
        self._root = root
        self._named = {name: part for part in _objects(root) for name in _own_names(part)} | {"#": root}

    def at(self, pointer: str) -> Any:
        """What it points at; `None` where that is nothing."""
        if pointer in self._named or not pointer.startswith("#/"):
            return self._named.get(pointer)
        found = self._root
        for step in pointer[2:].split("/"):
            step = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict):
                found = found.get(step)
            elif isinstance(found, list) and step.isdecimal() and len(step) < 10 and int(step) < len(found):
                found = found[int(step)]
            else:
                return None
        return found


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    waiting = [value]
    while waiting:
        match waiting.pop():
            case dict() as members:
                yield members
                waiting += members.values()
            case list() as items:
                waiting += items


def _own_names(part: Mapping[str, Any]) -> Iterator[str]:
    match part:
        case {"$id": str(name)}:
            yield name
    match part:
        case {"$anchor": str(name)}:
            yield "#" + name
