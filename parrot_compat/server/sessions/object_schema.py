"""The `parrot` object of a request: what an app says about its call, and which planned call it takes over.

It knows nothing of sessions or of how calls are run. A field of the wrong JSON type is refused by name; a span that
does not lie where it says is found out by `wrong_spans`, and costs the call nothing.

The invariant: what is in the object never changes what the model is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from parrot_compat.core.call import ObjectiveKind, StageLabel
from parrot_compat.server.bodies import Items, Schema

__all__ = ["Name", "OutputName", "ParrotObject", "PathName", "Span", "StageObject", "unknown_fields", "wrong_spans"]

Name = Annotated[str, Field(min_length=1, max_length=256)]
"""Chosen by a client, for a session, a call, a variable or a function. Any characters will do."""

PathName = Annotated[Name, Field(pattern=r"^[^/\x00-\x1f\x7f]+$")]
"""The name becomes part of a path: no slash, no control character."""


class Span(Schema):
    """Where the value of one variable stands in the messages; offsets are code points."""

    name: Name
    message: int
    part: int | None = None
    """Which part of the message's content; `None` where the content is a string."""
    start: int
    end: int
    from_: Annotated[Name | None, Field(alias="from")] = None
    """The call or variable that the value came from."""


class OutputName(Schema):
    name: PathName


class StageObject(Schema):
    """Calls made in parallel whose answers are needed together."""

    kind: Name | None = None
    group: Name | None = None
    index: Annotated[int, Field(ge=0)] | None = None
    size: Annotated[int, Field(ge=1, lt=2**31)] | None = None

    def stage(self) -> StageLabel | None:
        """`None` where it names no group: then nothing says which calls belong together."""
        if self.group is None:
            return None
        return StageLabel(name=self.group if self.kind is None else f"{self.kind}:{self.group}", size=self.size)


class ParrotObject(Schema):
    v: Literal[1] = 1
    session: Name | None = None
    call: Name | None = None
    function: Name | None = None
    inputs: Annotated[Items[Span], Field(max_length=1024)] | None = None
    output: OutputName | None = None
    stage: StageObject | None = None
    objective: ObjectiveKind | None = None
    claim: Name | None = None
    graph: Name | None = None
    nonce: Name | None = None


def unknown_fields(schema: Schema, path: str) -> list[str]:
    """Names of the fields that this version does not know, also those further inside."""
    names = [f"{path}.{name}" for name in schema.model_extra or {}]
    for name in type(schema).model_fields:
        value = getattr(schema, name)
        for index, item in enumerate(value if isinstance(value, list) else ()):
            if isinstance(item, Schema):
                names += unknown_fields(item, f"{path}.{name}[{index}]")
        if isinstance(value, Schema):
            names += unknown_fields(value, f"{path}.{name}")
    return names


def wrong_spans(spans: Sequence[Span], texts: Sequence[Sequence[str | None] | str | None]) -> list[int]:
    """Which of the spans lie outside of what they name. `texts` has for each message its text or those of its parts;
    `None` where the text is not known yet, or is no text."""
    return [index for index, span in enumerate(spans) if not _lies_inside(span, texts)]


def _lies_inside(span: Span, texts: Sequence[Any]) -> bool:
    if not 0 <= span.message < len(texts):
        return False
    text = texts[span.message]
    if isinstance(text, str):
        inside = text if span.part in (None, 0) else None
    elif text is None:
        inside = None
    else:
        part = 0 if span.part is None and len(text) == 1 else span.part
        inside = text[part] if part is not None and 0 <= part < len(text) else None
    return inside is not None and 0 <= span.start <= span.end <= len(inside)
