"""The items of a response's input as the messages of a chat.

It knows nothing of what else is asked. A chat has one message for each turn: what the assistant has thought, said and
called between two of the others' is one, and so are the system texts that come first.

The invariant: the messages say what the items said, in their order; no part of them is dropped in silence, and of each
part it is known where the client wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from parrot_compat.server.errors import invalid, not_supported_yet
from parrot_compat.server.openai.chat_schema import REF

from .items_schema import AnyItem, CallItem, CallOutputItem, ItemPart, OtherItem, SaidItem, ThoughtItem

__all__ = ["Turn", "turns_of"]

_TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
"""Types of parts, and what a chat calls them. Some clients leave its own word for a text."""
_MEDIA = frozenset({"input_image", "input_file", "input_audio", "computer_screenshot"})
_INSTRUCTING = ("system", "developer")
_Part = dict[str, Any]


@dataclass(slots=True)
class Turn:
    """A message of the chat, and where the client wrote it."""

    role: str
    path: str
    """Of the item; of the first of several."""
    content_path: str
    content: str | list[_Part] = ""
    parts: list[str] = field(default_factory=list)
    """The path of each part of the content."""
    thoughts: list[str] = field(default_factory=list)
    calls: list[_Part] = field(default_factory=list)
    call_paths: list[str] = field(default_factory=list)
    of_call: str | None = None
    """The call that it is the result of."""

    def say(self, content: str | list[_Part], path: str) -> None:
        """More of it. A text alone stays one."""
        if not self.parts and isinstance(content, str):
            self.content, self.parts = content, [path]
            return
        if isinstance(self.content, str):
            self.content = [{"type": "text", "text": self.content}] if self.parts else []
        if isinstance(content, str):
            self.content.append({"type": "text", "text": content})
            self.parts.append(path)
        else:
            self.content += content
            self.parts += [f"{path}[{place}]" for place in range(len(content))]

    def message(self) -> dict[str, Any]:
        """An assistant may have called and said nothing, or thought and nothing else."""
        message: dict[str, Any] = {"role": self.role}
        if self.parts or self.role != "assistant" or not self.calls:
            message["content"] = self.content or "" if self.role != "user" else self.content
        if self.thoughts:
            message["reasoning_content"] = "".join(self.thoughts)
        if self.calls:
            message["tool_calls"] = self.calls
        return message if self.of_call is None else message | {"tool_call_id": self.of_call}


def turns_of(instructions: str | None, said: str | Sequence[AnyItem]) -> list[Turn]:
    """Errors: `ApiError` 400."""
    turns: list[Turn] = []
    if instructions:
        turns.append(Turn("system", "instructions", "instructions", instructions, ["instructions"]))
    if isinstance(said, str):
        return [*turns, Turn("user", "input", "input", said, ["input"])]
    called: set[str] = set()
    for index, item in enumerate(said):
        path = f"input[{index}]"
        match item:
            case SaidItem():
                content = _content(item.content, f"{path}.content")
                _turn(turns, item.role, path).say(content, f"{path}.content")
            case ThoughtItem():
                _turn(turns, "assistant", path).thoughts.append(_thoughts(item, path))
            case CallItem():
                called.add(item.call_id)
                function = {"name": item.name, "arguments": item.arguments}
                turn = _turn(turns, "assistant", path)
                turn.calls.append({"id": item.call_id, "type": "function", "function": function})
                turn.call_paths.append(path)
            case CallOutputItem():
                if item.call_id not in called:
                    missing = "no function_call before it has this call_id; send that item too, nothing is kept here"
                    raise invalid(f"{path}.call_id", missing)
                turn = Turn("tool", path, f"{path}.output", of_call=item.call_id)
                turn.say(_content(item.output, f"{path}.output"), f"{path}.output")
                turns.append(turn)
            case OtherItem():
                _refuse(item, path)
    return turns


def _turn(turns: list[Turn], role: str, path: str) -> Turn:
    """The one that goes on, or a new one."""
    if turns:
        last = turns[-1]
        if role == last.role == "assistant":
            return last
        # many chat templates refuse a second system text
        if len(turns) == 1 and role in _INSTRUCTING and last.role in _INSTRUCTING:
            last.role = role if last.role == role else "system"
            return last
    turn = Turn(role, path, f"{path}.content")
    turns.append(turn)
    return turn


def _thoughts(item: ThoughtItem, path: str) -> str:
    """Themselves, or else what is told of them."""
    if item.content:
        return "".join(_texts(item.content, f"{path}.content", "reasoning_text"))
    return "\n\n".join(_texts(item.summary or (), f"{path}.summary", "summary_text"))


def _texts(parts: Sequence[ItemPart], path: str, kind: str) -> Iterator[str]:
    for place, part in enumerate(parts):
        if part.type not in (kind, "text"):
            raise invalid(f"{path}[{place}].type", f"a {part.type!r} part cannot stand here")
        yield _text(part, f"{path}[{place}]", "text")


def _content(content: str | Sequence[ItemPart], path: str) -> str | list[_Part]:
    if isinstance(content, str):
        return content
    return [_part(part, f"{path}[{place}]") for place, part in enumerate(content)]


def _part(part: ItemPart, path: str) -> _Part:
    if part.type == REF:
        return part.model_dump(exclude_none=True)
    if part.type in _MEDIA:
        raise not_supported_yet(f"{path}.type", f"{part.type} parts cannot be shown to this model")
    if part.type not in _TEXTS:
        raise invalid(f"{path}.type", f"unknown part type {part.type!r}")
    field = _TEXTS[part.type]
    return {"type": field, field: _text(part, path, field)}


def _text(part: ItemPart, path: str, name: str) -> str:
    text: str | None = getattr(part, name)
    if text is None:
        raise invalid(f"{path}.{name}", f"a {part.type} part needs it", "missing_required_parameter")
    return text


def _refuse(item: OtherItem, path: str) -> None:
    """Errors: `ApiError` 400."""
    if item.type == "item_reference" or (item.type is None and item.id is not None):
        kept = "this server keeps no items that could be referred to; send the item itself"
        raise invalid(path, kept, "unsupported_parameter")
    if item.type is None:
        raise invalid(f"{path}.type", "missing", "missing_required_parameter")
    raise not_supported_yet(f"{path}.type", f"items of type {item.type[:64]!r}")
