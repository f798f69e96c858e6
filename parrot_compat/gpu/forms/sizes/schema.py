"""Sizes of JSON schemas."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from parrot_compat.core.errors import BadSchema

from .pattern import MOST_FORCED, check_pattern, forced_of
from .size import MANY, MOST_NESTED, All, One, Size, largest, names_in, refuse, sizes_of
from .targets import Targets, objects_in

__all__ = ["check_schema", "forced_of_schema"]

_QUOTES = 6
"""Characters around a key: quotes, a colon, a comma and blanks."""
_REFERENCE = "$ref "
"""Begins the name of the size of a reference."""
_COMBINING = {"$ref", "allOf", "anyOf", "oneOf"}
_OF_ITS_OWN = {"properties", "required", "items", "minItems", "prefixItems"}
_KINDS: Mapping[str, Any] = {
    "string": str,
    "integer": int | float,
    "number": int | float,
    "boolean": bool,
    "null": type(None),
    "array": list,
    "object": dict,
}


def check_schema(schema: Any) -> None:
    """Errors: `BadSchema`."""
    refuse(largest(_named_sizes(schema)), MOST_FORCED, "the schema forces {} characters of text")


def forced_of_schema(schema: Any) -> int:
    """Characters at most that a text which is valid against it may have to have. Errors: `BadSchema`."""
    return sizes_of(_named_sizes(schema))["#"][0]


def _named_sizes(root: Any) -> dict[str, Size]:
    """Of the schema, "#", of its references, and of all parts that they may lead to."""
    reader = _Reader(root)
    named: dict[str, Size] = {}
    waiting = ["#"]
    while waiting:
        name = waiting.pop()
        if name not in named:
            named[name] = reader.named(name)
            waiting += names_in(named[name])
    return named


class _Reader:
    def __init__(self, root: Any) -> None:
        self._targets = Targets(root)
        parts = list(objects_in(root))
        # where parts are merged into one, one of them says what of another's must be there
        merged = parts if any(map(_is_merged, parts)) else []
        self._required = frozenset(name for part in merged for name in _required(part))
        self._least = max(map(_least_items, merged), default=0)

    def named(self, name: str) -> Size:
        if name.startswith(_REFERENCE):
            return All([(part, 1) for part in self._targets.names(name.removeprefix(_REFERENCE))])
        return self.size(self._targets.part(name))

    def size(self, schema: Any, depth: int = 0) -> Size:
        if depth > MOST_NESTED:
            raise BadSchema(f"the schema is nested too deeply; at most {MOST_NESTED} levels are read")
        if not isinstance(schema, dict):
            return 0
        return All([part for key, value in schema.items() for part in self._parts(key, value, schema, depth + 1)])

    def _parts(self, key: str, value: Any, schema: Mapping[str, Any], depth: int) -> Iterator[tuple[Size, int]]:
        """What a keyword adds, and how many times at least."""
        match key, value:
            case "$ref", str():
                yield _REFERENCE + value, 1
            case "const", _:
                yield len(json.dumps(value)), 1
            case "enum", list():
                yield One([len(json.dumps(one)) for one in value]), 1
            case "pattern", str():
                check_pattern(value)
                yield max(forced_of(value), _number(schema.get("minLength"))), 1
            case "properties", dict():
                required = self._required.union(_required(schema))
                for name, member in value.items():
                    yield All([(len(name) + _QUOTES, 1), (self.size(member, depth), 1)]), int(name in required)
            case "patternProperties", dict():
                for pattern, member in value.items():
                    check_pattern(pattern)
                    yield self.size(member, depth), 0
            case "items", dict():
                least = max(self._least, _least_items(schema))
                yield All([(2, 1), (self.size(value, depth), 1)]), least
            case "prefixItems" | "items" | "allOf", list():
                for one in value:
                    yield self.size(one, depth), 1
            case "anyOf" | "oneOf", list():
                yield One([self.size(one, depth) for one in value if not _is_nothing(one)]), 1
            case _, dict():  # what other words say is not forced before it is begun
                yield self.size(value, depth), 0


def _is_merged(part: Mapping[str, Any]) -> bool:
    """It is one schema with others that it names, and not just one of them."""
    combining, several = part.keys() & _COMBINING, part.get("allOf")
    if len(combining) > 1 or (isinstance(several, list) and len(several) > 1):
        return True
    return bool(combining and part.keys() & _OF_ITS_OWN)


def _is_nothing(alternative: Any) -> bool:
    """No value is valid against it: the library leaves it out, and what is left may be forced."""
    match alternative:
        case False | {"enum": []} | {"not": {} | True}:
            return True
        case {"type": str(kind), "const": value}:
            return not isinstance(value, _KINDS.get(kind, object))
        case {"type": str(kind), "enum": list(values)}:
            return not any(isinstance(value, _KINDS.get(kind, object)) for value in values)
    return False


def _required(part: Mapping[str, Any]) -> list[str]:
    names = part.get("required")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _least_items(part: Mapping[str, Any]) -> int:
    return _number(part.get("minItems"))


def _number(value: Any) -> int:
    return int(max(0, min(MANY, value))) if isinstance(value, int | float) else 0
