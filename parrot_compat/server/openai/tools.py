"""Tools: what a request says of them, and how a call is told.

It knows nothing of prompts, engines or streams, nor of how a model writes a call (`core.tool_calls`).

The invariant: whatever is wrong with tools and their choice is said by name, before anything runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from parrot_compat.core.call import Reading, Sampling
from parrot_compat.core.errors import BadSchema
from parrot_compat.core.output_format import AnyJson, JsonSchema, OutputFormat, ToolCalls, ToolStyle, size_of
from parrot_compat.core.tool_calls import CallPiece, ToolCall
from parrot_compat.core.tool_styles import TOOL_STYLES
from parrot_compat.server.bodies import Schema
from parrot_compat.server.errors import invalid

__all__ = [
    "Tool",
    "ToolFunction",
    "ToolUse",
    "calls_or_json",
    "reading_of",
    "tool_use",
    "wire_call",
    "wire_piece",
]

MOST_TOOLS = 1024
"""Agents with many servers of tools send some hundreds."""
_NO_ARGUMENTS: Mapping[str, Any] = {"type": "object", "properties": {}}


class ToolFunction(Schema):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Schema):
    type: Literal["function"]
    function: ToolFunction


@dataclass(frozen=True, slots=True)
class ToolUse:
    """How the answers of one request use tools."""

    style: ToolStyle
    functions: tuple[ToolFunction, ...]
    """That may be called."""
    format: ToolCalls | None
    """What holds the answer to calls, where one is required; where not, what holds calls of strict tools."""
    names: tuple[str, ...] | None
    """Of the tools that may be called; `None`: any of those told of."""
    is_parallel: bool
    """False: at most one call."""

    def may_call(self, name: str) -> bool:
        return self.names is None or name in self.names

    def held(self, sampling: Sampling, obeys_formats: bool) -> Sampling:
        """`obeys_formats`: engines can hold it to that. Where they cannot, what is not required is the model's own.

        An answer that may be calls and has a form of its own is one or the other, if they can be told apart. Errors:
        `BadSchema`."""
        if self.format is not None and self.format.is_required:
            return replace(sampling, format=self.format)
        own = sampling.format
        if not obeys_formats or (own is None and self.format is None):
            return sampling
        if own is None:
            return replace(sampling, format=self.format)
        if not isinstance(own, AnyJson | JsonSchema) or not _is_told_from_calls(own, self.style):
            return sampling
        either = _calls(self.functions, self.style, self.is_parallel, is_required=False, answer=own)
        try:
            size_of(either)
        except BadSchema:  # schemas that nobody has asked to be held to
            either = either.loosened() or either
        return replace(sampling, format=either)


def tool_use(tools: list[Tool] | None, choice: Any, is_parallel: bool, style: ToolStyle) -> ToolUse | None:
    """`None`: nothing is read out of the answer. Errors: `ApiError` 400, `BadSchema`."""
    if not tools:
        if choice not in (None, "none", "auto"):
            raise invalid("tool_choice", "only allowed when tools are specified")
        return None
    if len(tools) > MOST_TOOLS:
        raise invalid("tools", f"at most {MOST_TOOLS}, not {len(tools)}")
    if choice == "none":
        return None
    names, is_required = _choice(choice, [tool.function.name for tool in tools])
    may_call = tuple(tool.function for tool in tools if names is None or tool.function.name in names)
    # a call that has no mark cannot be told from text before it is whole
    is_held = is_required or (TOOL_STYLES[style].is_amid_text and any(function.strict for function in may_call))
    if not is_held:
        return ToolUse(style, may_call, None, names, is_parallel)
    is_named = isinstance(choice, dict) and choice.get("type") == "function"
    is_parallel = is_parallel and not is_named
    form = _calls(may_call, style, is_parallel, is_required=is_required)
    return ToolUse(style, may_call, form, names, is_parallel)


def _calls(functions: Sequence[ToolFunction], style: ToolStyle, is_parallel: bool, **rest: Any) -> ToolCalls:
    wanted = [(one.name, _NO_ARGUMENTS if one.parameters is None else one.parameters) for one in functions]
    strict = [function.name for function in functions if function.strict]
    return ToolCalls.of(wanted, style, is_parallel, strict=strict, **rest)


def calls_or_json(style: ToolStyle) -> bool:
    """An answer may be calls, or else a JSON object: a call does not begin as one."""
    return TOOL_STYLES[style].bare != "{"


def _is_told_from_calls(form: AnyJson | JsonSchema, style: ToolStyle) -> bool:
    """What has this form does not begin as a call does. Mistral's older calls are a list, with a mark or without."""
    if TOOL_STYLES[style].bare == "[" and isinstance(form, JsonSchema):
        schema = json.loads(form.schema)
        return isinstance(schema, dict) and schema.get("type") == "object"
    return calls_or_json(style)


def reading_of(use: ToolUse | None, format: OutputFormat | None) -> Reading:
    """What is read out of an answer that uses tools so (`None`: not at all) and has this form: one that is held to
    another form than that of calls has none, though it may look like one."""
    if use is None:
        return Reading()
    if format is not None and not isinstance(format, ToolCalls):
        return Reading(is_parallel=use.is_parallel)
    # beside JSON that may quote what looks like a call, one of a tool that there is not is none
    is_first = format is not None and format.answer is not None
    names = tuple(name for name, _ in format.tools) if format is not None and is_first else use.names
    # as they are, and not as canonical text: most answers call nothing
    schemas = {one.name: one.parameters or {} for one in use.functions if TOOL_STYLES[use.style].call_mark}
    return Reading(tools=use.style, names=names, is_parallel=use.is_parallel, is_first=is_first, schemas=schemas)


def _choice(choice: Any, names: list[str]) -> tuple[tuple[str, ...] | None, bool]:
    """The tools that may be called (`None`: any), and whether one has to be. Errors: `ApiError` 400."""
    match choice:
        case None | "auto":
            return None, False
        case "required":
            return None, True
        case {"type": "function", "function": {"name": str(name)}}:
            if name not in names:
                raise invalid("tool_choice", f"there is no tool {name[:128]!r}")
            return (name,), True
        case {"type": "allowed_tools", "allowed_tools": {"mode": "auto" | "required" as mode, "tools": list(allowed)}}:
            found = [_choice(tool, names)[0] for tool in allowed if isinstance(tool, dict)]
            if not found or len(found) < len(allowed) or any(one is None or len(one) != 1 for one in found):
                raise invalid("tool_choice", "allowed_tools lists functions by name")
            return tuple(name for one in found for name in one or ()), mode == "required"
    raise invalid("tool_choice", "should be none, auto, required, a function by name, or allowed_tools")


def wire_call(call: ToolCall) -> dict[str, Any]:
    """A call that a model has made, as OpenAI writes it."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def wire_piece(piece: CallPiece) -> dict[str, Any]:
    """What a stretch of output adds to a call, as OpenAI streams it."""
    told: dict[str, Any] = {"index": piece.index}
    if piece.name is None:
        return told | {"function": {"arguments": piece.arguments}}
    return told | {"id": piece.id, "type": "function", "function": {"name": piece.name, "arguments": piece.arguments}}
