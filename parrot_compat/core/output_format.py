"""Output formats: what form an answer must have. Schemas are kept as canonical JSON text, so that formats are equal
when they mean the same and can be keys.

They know nothing of how a form is enforced: an engine that `obeys_formats` does that.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from .errors import BadSchema

__all__ = [
    "AnyJson",
    "Choice",
    "Grammar",
    "JsonSchema",
    "OutputFormat",
    "ReasoningStyle",
    "Regex",
    "ToolCalls",
    "ToolStyle",
    "is_whole",
    "size_of",
]

MAX_CHARACTERS = 65_536
"""Of a schema, a regular expression, a grammar or all choices together. Longer ones are refused unread."""

_ANY_OBJECT = '{"type":"object"}'

ToolStyle = Literal["granite", "hermes", "llama3_json", "mistral", "mistral_args", "qwen3_coder"]
"""How a family of models writes that it calls a tool; `mistral_args`: Mistral's newer ones, as `name[ARGS]{}`;
`qwen3_coder`: Qwen's newer ones, whose arguments are plain text between tags."""

ReasoningStyle = Literal["think", "think_open", "mistral", "none"]
"""How a family of models writes what it thinks before it answers: between <think> and </think>, of which the first may
stand in the prompt (`think_open`), or between Mistral's [THINK] and [/THINK]; `none`: all that it writes is its
answer."""


@dataclass(frozen=True, slots=True)
class AnyJson:
    """Any JSON object."""


@dataclass(frozen=True, slots=True)
class JsonSchema:
    schema: str
    strict: bool = True
    """False: keywords that no engine can hold an answer to are passed over; they are an error where it is true."""

    @classmethod
    def of(cls, schema: Any, strict: bool = True) -> JsonSchema:
        """Errors: `BadSchema`, also where it is too large to be read: it would be kept until a call is refused."""
        format = cls(_canonical(schema), strict)
        size_of(format)
        return format


@dataclass(frozen=True, slots=True)
class Regex:
    pattern: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One of these texts."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Grammar:
    """A context-free grammar, as Lark (`start: …`) or GBNF (`root ::= …`) writes it."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCalls:
    """Calls of these tools, each with arguments that are valid against its schema."""

    tools: tuple[tuple[str, str], ...]
    """Name, and schema of the arguments as canonical JSON."""
    style: ToolStyle
    is_parallel: bool = True
    """False: not more than one call."""
    is_required: bool = True
    """Calls and nothing else; False: what `answer` says."""
    answer: AnyJson | JsonSchema | None = None
    """Where no call is required: calls, or JSON in this form; `None`: text, and calls anywhere in it, or none (not of
    styles without a mark)."""
    strict: frozenset[str] = frozenset()
    """Names of the tools in whose schemas a word that no engine can hold an answer to is an error; in those of the
    others it is passed over."""

    @classmethod
    def of(
        cls,
        tools: Sequence[tuple[str, Mapping[str, Any]]],
        style: ToolStyle,
        is_parallel: bool,
        is_required: bool = True,
        answer: AnyJson | JsonSchema | None = None,
        strict: Iterable[str] = (),
    ) -> ToolCalls:
        """Errors: `BadSchema`."""
        wanted = tuple((name, _canonical(schema)) for name, schema in tools)
        return cls(wanted, style, is_parallel, is_required, answer, frozenset(strict))

    @property
    def is_amid_text(self) -> bool:
        """The answer is free but for the calls in it; else it is held to this form from its first token on."""
        return not self.is_required and self.answer is None

    def loosened(self) -> ToolCalls | None:
        """Where no call is required: tools that are not strict take any object. `None`: that changes nothing."""
        loose = tuple((name, schema if name in self.strict else _ANY_OBJECT) for name, schema in self.tools)
        return None if self.is_required or loose == self.tools else replace(self, tools=loose)


OutputFormat = AnyJson | JsonSchema | Regex | Choice | Grammar | ToolCalls


def is_whole(format: OutputFormat | None) -> bool:
    """All of an answer is held to it, from the first character on."""
    return format is not None and not (isinstance(format, ToolCalls) and format.is_amid_text)


def size_of(format: OutputFormat) -> int:
    """Characters to read. Errors: `BadSchema` where they are too many."""
    match format:
        case AnyJson():
            size = 0
        case JsonSchema(schema=text) | Regex(pattern=text) | Grammar(text=text):
            size = len(text)
        case Choice(texts=texts):
            size = sum(map(len, texts))
        case ToolCalls(tools=tools, answer=answer):
            size = sum(len(name) + len(schema) for name, schema in tools) + (0 if answer is None else size_of(answer))
    if size > MAX_CHARACTERS:
        raise BadSchema(f"the output format has {size} characters; at most {MAX_CHARACTERS} are read")
    return size


def _canonical(schema: Any) -> str:
    """Members keep their order: it is the order in which the answer has them."""
    try:
        return json.dumps(schema, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadSchema(f"the schema is not JSON: {error}") from None
