"""Grammars of tagged calls, whose arguments are plain text: each is held to what its schema says of it.

It knows schemas and what a text is read as (`core.parameters`); nothing of the marks around calls or of tokens.

The invariant: what a grammar accepts is read as arguments that are valid against their schema. What of it no text can
be held to is refused for a strict tool, and passed over for any other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from parrot_compat.core.errors import BadSchema
from parrot_compat.core.parameters import TEXT, json_of, kinds_of, plain_schema, schema_of, written_as

__all__ = ["CLOSING_TEXTS", "SHARED_RULES", "tagged_rules"]

_END = "\n</parameter>"
CLOSING_TEXTS = (_END, "</function>", "/function>")
"""What ends a value, and a call; the last where what both have in common has been written."""
_NONE_OF_A_TEXT = (r"<\/parameter>", r"<\/function>[ \t\r\n]*<\/tool_call>")
"""Would be read as its end."""
_ENDS = re.compile("|".join(_NONE_OF_A_TEXT))
_WITHOUT_ENDS = " & ".join(f"~/(?s:.*){end}(?s:.*)/" for end in _NONE_OF_A_TEXT)
SHARED_RULES = (
    f"text[lazy]: PLAIN {json.dumps(_END)}",
    f"PLAIN: /(?s:.*)/ & {_WITHOUT_ENDS}",
    r"PARAMETER: /[^<>\n]+/",
)
_SAID = frozenset({"description", "title", "$comment", "default", "examples", "deprecated", "readOnly", "writeOnly"})
_SAID_OF_ALL = frozenset({"type", "properties", "required", "additionalProperties", "$defs", "definitions", "$schema"})
_LENGTHS = frozenset({"minLength", "maxLength"})
_LONGEST = 200
"""Of a text that is held to a length: each character more is a state more of the library's automaton."""
_SCALARS = frozenset({"string", "null", "boolean", "integer", "number"})
"""A text that is read as one of these is valid where nothing more is said of it."""
_MOST_NESTED = 16
_WHOLE = "arguments"
"""Of a value's own schema: the definition that holds all of the tool's."""


def tagged_rules(number: int, name: str, schema: Mapping[str, Any], guidance: Mapping[str, Any]) -> list[str]:
    """The rule `tool_{number}` of a call from its name on, and those that it needs beside `SHARED_RULES`.

    `guidance`: what the library is told beside a schema. Errors: `BadSchema`."""
    tool = _Tool(name, schema, guidance)
    rules, parts = list[str](), list[str]()
    for at, (parameter, is_required) in enumerate(tool.parameters()):
        rule = f"value_{number}_{at}"
        rules += tool.value(rule, parameter, schema_of(parameter, schema))
        part = f"{json.dumps(f'<parameter={parameter}>' + chr(10), ensure_ascii=False)} {rule}"
        parts.append(part if is_required else f"({part})?")
    if tool.takes_any:
        rules += tool.value(f"value_{number}", "any", schema_of("", schema))
        parts.append(rf'("<parameter=" PARAMETER ">\n" value_{number})*')
    return [f'tool_{number}: {json.dumps(name + ">" + chr(10))} {" ".join(parts)} "</function>"', *rules]


class _Tool:
    def __init__(self, name: str, schema: Mapping[str, Any], guidance: Mapping[str, Any]) -> None:
        self._name = name
        self._root = schema
        self._guidance = guidance
        self._is_strict = not guidance["lenient"]
        self._top = plain_schema(schema, schema)
        self._hold(self._top, _SAID | _SAID_OF_ALL, "its arguments")

    @property
    def takes_any(self) -> bool:
        """It takes the arguments that it names, and any where it names none."""
        return "properties" not in self._top and self._top.get("additionalProperties") is not False

    def parameters(self) -> Iterator[tuple[str, bool]]:
        """With whether they are required, which come first."""
        listed = self._top.get("properties")
        listed = listed if isinstance(listed, dict) else {}
        wanted = self._top.get("required")
        wanted = [name for name in wanted if isinstance(name, str)] if isinstance(wanted, list) else []
        required = [name for name in listed if name in wanted] + [name for name in wanted if name not in listed]
        for parameter in dict.fromkeys(required):
            if not _can_be_named(parameter):
                raise BadSchema(f"tool {self._name!r}: {parameter!r} cannot stand in a tag, where this model writes it")
            yield parameter, True
        for parameter, schema in listed.items():
            if parameter not in required and _can_be_named(parameter) and schema is not False:
                yield parameter, False

    def value(self, rule: str, parameter: str, schema: Any) -> list[str]:
        """The rule of a value with its end, and those that it needs."""
        kinds = kinds_of(schema, self._root)
        choices = _choices(schema, self._root)
        if choices is not None:
            texts = [written_as(value) for value in choices if _is_read(value, kinds)]
            if not texts:
                raise BadSchema(f"tool {self._name!r}: none of the values of {parameter!r} can be written between tags")
            return [f"{rule}: ({' | '.join(map(_literal, texts))}) {_literal(_END + chr(10))}"]
        if not kinds & TEXT:
            held = {**self._standing_alone(schema), "x-guidance": self._guidance}
            return [f"{rule}: {rule}_json {_literal(_END + chr(10))}", f"{rule}_json: %json {json.dumps(held)}"]
        return self._text(rule, parameter, schema, kinds)

    def _text(self, rule: str, parameter: str, schema: Any, kinds: frozenset[str]) -> list[str]:
        parts = list(_parts(schema, self._root))
        bounds = _bounds(parts[0]) if len(parts) == 1 and kinds == TEXT else None
        for part in parts:
            self._hold(part, _SAID | {"type"} | (_LENGTHS if bounds else frozenset()), repr(parameter))
        if self._is_strict and not kinds <= _SCALARS:
            raise BadSchema(f"tool {self._name!r}: {parameter!r} may be a text or JSON, which this model writes alike")
        if bounds is None:
            return [rf'{rule}: text "\n"']
        lexeme = f"PLAIN_{rule.removeprefix('value_')}"
        return [
            rf'{rule}: {rule}_text "\n"',
            f"{rule}_text[lazy]: {lexeme} {_literal(_END)}",
            f"{lexeme}: /(?s:.{bounds})/ & {_WITHOUT_ENDS}",
        ]

    def _hold(self, schema: Mapping[str, Any], held: frozenset[str], what: str) -> None:
        """Errors: `BadSchema` where a strict tool says more than it can be held to."""
        more = sorted(schema.keys() - held)
        if self._is_strict and more:
            raise BadSchema(f"tool {self._name!r}, {what}: {more[0]!r} is not enforced where a model writes plain text")

    def _standing_alone(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """The schema by itself: what references lead to is among its definitions, with all that it stands in."""
        if '"$ref"' not in json.dumps(schema):
            return dict(schema)
        return {**_moved(schema), "$defs": {_WHOLE: _moved(self._root)}}


def _moved(schema: Any) -> Any:
    """With its references led into the definition `_WHOLE`."""
    if isinstance(schema, list):
        return [_moved(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {word: _moved(each) for word, each in schema.items()}
    if isinstance(reference := schema.get("$ref"), str) and reference.startswith("#"):
        moved["$ref"] = f"#/$defs/{_WHOLE}{reference[1:]}"
    return moved


def _parts(schema: Any, root: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """What it may be."""
    plain = plain_schema(schema, root)
    parts = plain.get("anyOf", plain.get("oneOf"))
    if not isinstance(parts, list) or not parts or depth > _MOST_NESTED:
        yield plain
        return
    for part in parts:
        yield from _parts(part, root, depth + 1)


def _choices(schema: Any, root: Any) -> list[Any] | None:
    """All values that there are, where they are counted."""
    found = []
    for part in _parts(schema, root):
        match part:
            case {"enum": [*values]}:
                found += values
            case {"const": value}:
                found.append(value)
            case {"type": "null"}:
                found.append(None)
            case {"type": "boolean"}:
                found += [True, False]
            case _:
                return None
    return found


def _is_read(value: Any, kinds: frozenset[str]) -> bool:
    """As what it is."""
    text = written_as(value)
    return json_of(text, kinds) == json.dumps(value, ensure_ascii=False) and not _ENDS.search(text)


def _bounds(schema: Mapping[str, Any]) -> str | None:
    """Its lengths as a pattern counts them; `None` where it has none, or too great ones to be held to."""
    if not schema.keys() & _LENGTHS:
        return None
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    if not isinstance(least, int) or not 0 <= least <= _LONGEST:
        return None
    if most is None:
        return f"{{{least},}}"
    return f"{{{least},{most}}}" if isinstance(most, int) and least <= most <= _LONGEST else None


def _can_be_named(parameter: str) -> bool:
    return re.fullmatch(r"[^<>\n]+", parameter) is not None


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
