"""Parameters: the arguments of a call that a model writes as plain text each, and what JSON they are.

    kinds = kinds_of({"type": "integer"}, schema)     # {"integer"}
    json_of("5", kinds)                                # 5, and "5" where it may be a text

It knows the schemas of arguments, nothing of the tags around them (`tagged_call`) and of grammars, which ask it what a
text would be read as.

The invariant: whatever a model has written is JSON here, if only as a text; of a parameter that is a text nothing is
taken for anything else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

__all__ = ["TEXT", "Kind", "json_of", "kinds_of", "plain_schema", "schema_of", "written_as"]

Kind = Literal["string", "integer", "number", "boolean", "null", "array", "object"]
"""As schemas call them; whatever else one says is none of them."""

TEXT: frozenset[str] = frozenset({"string"})
_MOST_FOLLOWED = 16
"""References in a row, and schemas in schemas."""
_WORDS = {"true": "true", "false": "false", "null": "null", "none": "null"}
"""As Python's `str` writes them, too: so templates show models what they have written before."""


def schema_of(parameter: str, arguments: Any) -> Any:
    """What the schema of a tool's arguments says of one of them; {} where it says nothing."""
    arguments = plain_schema(arguments, arguments)
    listed = arguments.get("properties")
    if isinstance(listed, dict) and parameter in listed:
        return listed[parameter]
    more = arguments.get("additionalProperties")
    return more if isinstance(more, dict) else {}


def plain_schema(schema: Any, root: Any) -> Mapping[str, Any]:
    """The schema that this one stands for: references into `root`, and an `allOf` of one, are followed."""
    for _ in range(_MOST_FOLLOWED):
        match schema:
            case {"$ref": str(reference)}:
                schema = _at(reference, root)
            case {"allOf": [only]} if not schema.keys() & {"type", "enum", "const", "properties"}:
                schema = only
            case dict():
                return schema
            case _:
                break
    return {}


def kinds_of(schema: Any, root: Any) -> frozenset[str]:
    """What a value may be; a text where nothing is said of it."""
    return _said(schema, root, 0) or TEXT


def written_as(value: Any) -> str:
    """A value as the text of a parameter."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def json_of(text: str, kinds: frozenset[str]) -> str:
    """The JSON that the text of a parameter is. What may be a text is one, unless it is written as something else that
    it may be; what may be none and is no JSON is one all the same."""
    word = text.strip()
    word = _WORDS.get(word.lower(), word)
    kind = _kind_of_json(word)
    if kind is not None and (not kinds & TEXT or (kind != "string" and kinds & _names(kind))):
        return word
    return json.dumps(text, ensure_ascii=False)


def _said(schema: Any, root: Any, depth: int) -> frozenset[str]:
    if depth > _MOST_FOLLOWED:
        return frozenset()
    match plain_schema(schema, root):
        case {"enum": [*values]}:
            return frozenset(map(_kind, values))
        case {"const": value}:
            return frozenset({_kind(value)})
        case {"type": str(kind)}:
            return frozenset({kind})
        case {"type": [*kinds]}:
            return frozenset(kind for kind in kinds if isinstance(kind, str))
        case {"anyOf": [*parts]} | {"oneOf": [*parts]}:
            return frozenset().union(*(_said(part, root, depth + 1) or TEXT for part in parts))
        case {"allOf": [*parts]}:
            said = (_said(part, root, depth + 1) for part in parts)
            return next((kinds for kinds in said if kinds), frozenset())
        case {"properties": _}:
            return frozenset({"object"})
        case {"items": _}:
            return frozenset({"array"})
    return frozenset()


def _at(reference: str, root: Any) -> Any:
    """Where a reference into the same schema leads."""
    if not reference.startswith("#"):
        return None
    part = root
    for step in reference.removeprefix("#").removeprefix("/").split("/") if len(reference) > 1 else ():
        key = step.replace("~1", "/").replace("~0", "~")
        part = part.get(key) if isinstance(part, dict) else None
    return part


def _kind(value: Any) -> Kind:
    match value:
        case bool():
            return "boolean"
        case None:
            return "null"
        case str():
            return "string"
        case int():
            return "integer"
        case float():
            return "number"
        case list():
            return "array"
    return "object"


def _names(kind: Kind) -> frozenset[str]:
    """What a schema may call it."""
    return frozenset({"integer", "number"}) if kind == "integer" else frozenset({kind})


def _kind_of_json(text: str) -> Kind | None:
    """`None`: it is no JSON."""
    try:
        return _kind(json.loads(text, parse_constant=_refuse))
    except (ValueError, RecursionError):
        return None


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no JSON")
