"""The input of POST /v1/responses: items, of which each is a turn of the conversation or a part of one.

It knows nothing of prompts: `history` makes messages of items.

The invariant: an item has what its type needs, or is refused by the name of what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, GetJsonSchemaHandler, Tag
from pydantic_core import CoreSchema

from parrot_compat.server.bodies import Items, Schema
from parrot_compat.server.openai.format_schema import unknown_members

__all__ = [
    "AnyItem",
    "AnyOf",
    "CallItem",
    "CallOutputItem",
    "InputItem",
    "ItemContent",
    "ItemPart",
    "OtherItem",
    "SaidItem",
    "ThoughtItem",
    "members_without_effect",
    "text_or_list",
    "which_of_them",
]


def text_or_list(value: Any) -> Any:
    """A validator, before any other."""
    if not isinstance(value, str | list):
        raise ValueError("should be a string or a list")
    return value


def which_of_them(value: Any) -> str:
    """A discriminator: an error in a list names its place there."""
    return "[text]" if isinstance(value, str) else "[items]"


class AnyOf:
    """Describes a union that has a discriminator by `anyOf`, as the others are: what has an unknown type is an
    `OtherItem`, but all that is known has the form of one, too."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        described = handler(core)
        return {"anyOf" if name == "oneOf" else name: value for name, value in described.items()}


class ItemPart(Schema):
    """A stretch of an item's content. Which of the fields it has, its type says."""

    type: Annotated[str, Field(max_length=64)]
    text: str | None = None
    refusal: str | None = None
    # of what an answer has said; nothing here reads it
    annotations: Any = None
    logprobs: Any = None
    # of a reference:
    call: str | None = None
    variable: str | None = None
    response_id: str | None = None
    transform: Any = None


ItemContent = Annotated[
    Annotated[str, Tag("[text]")] | Annotated[Items[ItemPart], Tag("[items]")],
    Discriminator(which_of_them),
    BeforeValidator(text_or_list),
    AnyOf(),
]


class _Item(Schema):
    id: str | None = None
    """Of an answer's item. It changes nothing: no item is kept here."""
    status: str | None = None


class SaidItem(_Item):
    """A message. An assistant's may be one that an answer told."""

    type: Literal["message"] | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: ItemContent
    phase: str | None = None


class CallItem(_Item):
    """A call of a tool that an answer told."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    """JSON."""


class CallOutputItem(_Item):
    """What the tool has said."""

    type: Literal["function_call_output"]
    call_id: str
    output: ItemContent


class ThoughtItem(_Item):
    """What an answer thought before."""

    type: Literal["reasoning"]
    content: Items[ItemPart] | None = None
    summary: Items[ItemPart] | None = None
    """Read where there is no `content`."""
    encrypted_content: str | None = None
    """Nothing here has written it, and nothing can read it."""


class OtherItem(_Item):
    """Refused by its type."""

    type: str | None = None


_TYPES = {"message", "function_call", "function_call_output", "reasoning"}


def _item_type(value: Any) -> str:
    """A discriminator. A message need not say that it is one."""
    kind = value.get("type") if isinstance(value, dict) else None
    if kind is None:
        return "[message]" if isinstance(value, dict) and "role" in value else "[other]"
    return f"[{kind}]" if isinstance(kind, str) and kind in _TYPES else "[other]"


InputItem = Annotated[
    Annotated[SaidItem, Tag("[message]")]
    | Annotated[CallItem, Tag("[function_call]")]
    | Annotated[CallOutputItem, Tag("[function_call_output]")]
    | Annotated[ThoughtItem, Tag("[reasoning]")]
    | Annotated[OtherItem, Tag("[other]")],
    Discriminator(_item_type),
    AnyOf(),
]
AnyItem = SaidItem | CallItem | CallOutputItem | ThoughtItem | OtherItem


def members_without_effect(items: Sequence[AnyItem]) -> Iterator[str]:
    """What is in them and not read, by name."""
    for index, item in enumerate(items):
        place = f"input[{index}]"
        yield from unknown_members(item, f"{place}.")
        match item:
            case SaidItem(content=list(parts)):
                yield from _of_parts(parts, f"{place}.content")
            case CallOutputItem(output=list(parts)):
                yield from _of_parts(parts, f"{place}.output")
            case ThoughtItem(encrypted_content=str()):
                yield f"{place}.encrypted_content"


def _of_parts(parts: Sequence[ItemPart], path: str) -> Iterator[str]:
    for place, part in enumerate(parts):
        yield from unknown_members(part, f"{path}[{place}].")
