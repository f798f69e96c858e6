"""Prompts: what a call says to the model, as segments between variable boundaries.

A prompt knows nothing of tokens, engines or HTTP. It is immutable; binding its inputs gives the plain
content (`Chat`, `Text` or `Tokens`) that a tokenizer or a text engine takes.

The invariant: `prompt.bind(values)` is exactly what the app would have sent had it known the values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import TransformFailed

if TYPE_CHECKING:  # an input carries transforms and calls them; only who makes them needs their regex library
    from .transform import Transform

__all__ = [
    "Bound",
    "Chat",
    "ChatPrompt",
    "Constant",
    "Content",
    "Input",
    "Message",
    "Prompt",
    "Segment",
    "Text",
    "TextPrompt",
    "Tokens",
    "TokensPrompt",
    "segments_of",
]


@dataclass(frozen=True, slots=True)
class Constant:
    """Text that is known when the call is made."""

    text: str


@dataclass(frozen=True, slots=True)
class Input:
    """A hole that the value of `variable` fills, after `transforms`."""

    variable: str
    transforms: tuple[Transform, ...] = ()

    def fill(self, value: str) -> str:
        """Errors: `TransformFailed`."""
        try:
            for transform in self.transforms:
                value = transform.apply(value)
        except (ValueError, RecursionError) as error:  # half a surrogate pair, which no library of text takes
            raise TransformFailed(f"a transform cannot read {self.variable!r}: {error}") from error
        return value


Segment = Constant | Input
"""A stretch of prompt between variable boundaries. (`Output` segments belong to templates, which are
cut into one call per output before they come here.)"""


# ---- contents: what is left when every hole is filled ----------------------------------------------


@dataclass(frozen=True, slots=True)
class Chat:
    """Messages as the checkpoint's chat template takes them, and the tools offered (JSON schemas)."""

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    template: Mapping[str, Any] = field(default_factory=dict)
    """What else the template is told, by the names it has for it (`enable_thinking`)."""


@dataclass(frozen=True, slots=True)
class Text:
    """A raw prompt of /v1/completions: tokenised as Hugging Face does it, special tokens included."""

    text: str


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids, taken as they are."""

    ids: tuple[int, ...]


Content = Chat | Text | Tokens


# ---- prompts: contents with holes ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message. `content` is its text in segments, `None` where the role has no text (a tool call);
    `fields` holds everything else that the chat template may read (name, tool_calls, tool_call_id, …)."""

    role: str
    content: tuple[Segment, ...] | None
    fields: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, role: str, text: str, **fields: Any) -> Message:
        return cls(role, (Constant(text),), fields)


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    template: Mapping[str, Any] = field(default_factory=dict)

    def inputs(self) -> tuple[str, ...]:
        """Variables that must have a value before this prompt can run, in order of first use."""
        return _inputs(self)

    def bind(self, values: Mapping[str, str]) -> Chat:
        return Chat(
            tuple(
                {
                    "role": message.role,
                    "content": None if message.content is None else _fill(message.content, values),
                    **message.fields,
                }
                for message in self.messages
            ),
            self.tools,
            self.template,
        )


@dataclass(frozen=True, slots=True)
class TextPrompt:
    segments: tuple[Segment, ...]

    def inputs(self) -> tuple[str, ...]:
        return _inputs(self)

    def bind(self, values: Mapping[str, str]) -> Text:
        return Text(_fill(self.segments, values))


@dataclass(frozen=True, slots=True)
class TokensPrompt:
    ids: tuple[int, ...]

    def inputs(self) -> tuple[str, ...]:
        return ()

    def bind(self, values: Mapping[str, str]) -> Tokens:
        return Tokens(self.ids)


Prompt = ChatPrompt | TextPrompt | TokensPrompt


@dataclass(frozen=True, slots=True)
class Bound:
    """A prompt and the values of its inputs, before any text is put together."""

    prompt: Prompt
    values: Mapping[str, str]

    @property
    def characters(self) -> int:
        """That are read for it: of a value as often as it stands there, and as it is before its transforms."""
        return sum(
            len(segment.text if isinstance(segment, Constant) else self.values[segment.variable])
            for segment in segments_of(self.prompt)
        )

    def content(self) -> Content:
        """Errors: `TransformFailed`."""
        return self.prompt.bind(self.values)


def segments_of(prompt: Prompt) -> Iterator[Segment]:
    """In the order in which a model reads them. Ids are none."""
    match prompt:
        case TextPrompt(segments):
            yield from segments
        case ChatPrompt(messages):
            for message in messages:
                yield from message.content or ()


def _inputs(prompt: Prompt) -> tuple[str, ...]:
    return tuple(dict.fromkeys(segment.variable for segment in segments_of(prompt) if isinstance(segment, Input)))


def _fill(segments: Sequence[Segment], values: Mapping[str, str]) -> str:
    return "".join(
        segment.text if isinstance(segment, Constant) else segment.fill(values[segment.variable])
        for segment in segments
    )
