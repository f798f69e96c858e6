"""Loosening: the patterns that the library cannot read, left out of schemas that are not strict.

A schema that is not strict is held to as far as an answer can be, and the library knows neither look-ahead nor word
boundaries, which schemas that people generate are full of. Without them the rest holds.

It knows JSON schemas, and of the library only what it is told. The invariant: nothing but patterns is left out (and
what forbids all other names than theirs), and what is no schema (a constant, an example) stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from parrot_compat.core.output_format import JsonSchema, OutputFormat, ToolCalls

from .sizes.size import MOST_NESTED

__all__ = ["without_unreadable"]

_BY_NAME = {"properties", "$defs", "definitions", "dependentSchemas"}
"""Their members are schemas, whatever they are called."""
_NO_SCHEMAS = {"const", "enum", "default", "examples"}
_MOST_TRIED = 64
"""Patterns of a format. Each is compiled; of more nobody knows whether they can be read, and they are left out."""


def without_unreadable(format: OutputFormat, reads: Callable[[str], bool]) -> OutputFormat | None:
    """The format without the patterns that nobody `reads`, where it need not be held to them; `None`: it has none."""
    patterns = _Patterns(reads)
    match format:
        case JsonSchema(schema=schema, strict=False):
            loosened: OutputFormat = replace(format, schema=patterns.left_out_of(schema))
        case ToolCalls(tools=tools, answer=answer, strict=strict):
            kept = tuple((name, text if name in strict else patterns.left_out_of(text)) for name, text in tools)
            if isinstance(answer, JsonSchema) and not answer.strict:
                answer = replace(answer, schema=patterns.left_out_of(answer.schema))
            loosened = replace(format, tools=kept, answer=answer)
        case _:
            return None
    return loosened if patterns.are_left_out else None


class _Patterns:
    def __init__(self, reads: Callable[[str], bool]) -> None:
        self._reads = reads
        self._tried: dict[str, bool] = {}
        self.are_left_out = False

    def left_out_of(self, schema: str) -> str:
        return json.dumps(self._loosened(json.loads(schema)), separators=(",", ":"))

    def _loosened(self, schema: Any, depth: int = 0) -> Any:
        if depth > MOST_NESTED:
            return schema
        if isinstance(schema, list):
            return [self._loosened(one, depth + 1) for one in schema]
        if not isinstance(schema, dict):
            return schema
        kept, has_lost = dict[str, Any](), False
        for word, said in schema.items():
            match word, said:
                case "pattern", str():
                    if self._is_read(said):
                        kept[word] = said
                case "patternProperties", dict():
                    read = {name: one for name, one in said.items() if self._is_read(name)}
                    kept[word] = {name: self._loosened(one, depth + 1) for name, one in read.items()}
                    has_lost = len(read) < len(said)
                case _, dict() if word in _BY_NAME:
                    kept[word] = {name: self._loosened(one, depth + 1) for name, one in said.items()}
                case _:
                    kept[word] = said if word in _NO_SCHEMAS else self._loosened(said, depth + 1)
        if has_lost and kept.get("additionalProperties") is False:
            del kept["additionalProperties"]  # whose names they were cannot be told
        return kept

    def _is_read(self, pattern: str) -> bool:
        if pattern not in self._tried:
            self._tried[pattern] = len(self._tried) < _MOST_TRIED and self._reads(pattern)
        self.are_left_out = self.are_left_out or not self._tried[pattern]
        return self._tried[pattern]
