"""Tools and structured output in OpenAI's wire form, and what models answer to them.

It knows schemas and answers, and no client. The invariant: what a model wrote that is not what was asked for is told,
never made up for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import aclosing, closing
from typing import Any

from llama_index.core.base.llms.types import ChatResponse, ChatResponseAsyncGen, ChatResponseGen, ToolCallBlock
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.llms.utils import parse_partial_json
from llama_index.core.tools.types import BaseTool
from pydantic import BaseModel

__all__ = [
    "as_many",
    "atool_stream",
    "refuse_cut",
    "response_format",
    "tool_arguments",
    "tool_selections",
    "tool_stream",
]

TOOL_CHOICES = ("none", "auto", "required")
NOT_OF_THE_REQUEST = ("tool_choice", "tool_required", "allow_parallel_tool_calls")


def tool_arguments(
    tools: Sequence[BaseTool],
    tool_choice: str | Mapping[str, Any] | None,
    *,
    required: bool,
    parallel: bool,
) -> dict[str, Any]:
    """The members of a request that offer tools. A tool's own name chooses it."""
    if not tools:
        return {}
    choice: Any = tool_choice or ("required" if required else "auto")
    if isinstance(choice, str) and choice not in TOOL_CHOICES:
        choice = {"type": "function", "function": {"name": choice}}
    return {
        "tools": [tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools],
        "tool_choice": choice,
        "parallel_tool_calls": parallel,
    }


def tool_selections(response: ChatResponse) -> list[ToolSelection]:
    """The calls in an answer. Arguments of a call that is still being streamed are those that are there so far.

    Errors: `ValueError` where the answer is over and what a call is to be made with is no JSON object: it was cut off,
    for one. What can be made of its beginning is not what the model was about to say.
    """
    finish_reason = response.additional_kwargs.get("finish_reason")
    return [
        ToolSelection(
            tool_id=block.tool_call_id or "", tool_name=block.tool_name, tool_kwargs=_arguments(block, finish_reason)
        )
        for block in response.message.blocks
        if isinstance(block, ToolCallBlock)
    ]


def _arguments(block: ToolCallBlock, finish_reason: str | None) -> dict[str, Any]:
    given = block.tool_kwargs
    if not isinstance(given, str):
        return dict(given)
    try:
        # nothing is no arguments; models write line breaks in strings as they are
        arguments = json.loads(given or "{}", strict=False)
    except ValueError:
        arguments = given if finish_reason else _so_far(given)
    if arguments is None or isinstance(arguments, dict):
        return arguments or {}
    if not finish_reason:
        return {}
    wrong = "was cut off" if finish_reason == "length" else "cannot be read"
    raise ValueError(f"the call of {block.tool_name!r} {wrong} (finish_reason: {finish_reason}): it says {given!r}")


def _so_far(text: str) -> Any:
    try:
        return parse_partial_json(text)
    except ValueError:
        return None  # nothing to be read yet


def as_many(response: ChatResponse, *, parallel: bool | None) -> ChatResponse:
    """An answer with as many calls as were asked for. Where one was (`parallel` is false) and the server has not kept
    to it, that is the first; `None` asks for nothing."""
    message = response.message
    calls = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    if parallel is not False or len(calls) < 2:
        return response
    blocks = [block for block in message.blocks if block is calls[0] or not isinstance(block, ToolCallBlock)]
    more = {**message.additional_kwargs, "tool_calls": message.additional_kwargs.get("tool_calls", [])[:1]}
    first = message.model_copy(update={"blocks": blocks, "additional_kwargs": more})
    return response.model_copy(update={"message": first})


def tool_stream(responses: ChatResponseGen, *, parallel: bool | None) -> ChatResponseGen:
    """Responses to a request that offers tools.

    Errors: `ValueError` behind the last of them if a call in it was cut off. LlamaIndex's programs pass over what they
    cannot read, and would end with what they made of the call before it was over.
    """
    response: ChatResponse | None = None
    with closing(responses):
        for response in responses:
            response = as_many(response, parallel=parallel)
            yield response
    if response is not None:
        tool_selections(response)


async def atool_stream(responses: ChatResponseAsyncGen, *, parallel: bool | None) -> ChatResponseAsyncGen:
    """As `tool_stream`."""
    response: ChatResponse | None = None
    async with aclosing(responses):
        async for response in responses:
            response = as_many(response, parallel=parallel)
            yield response
    if response is not None:
        tool_selections(response)


def refuse_cut(response: ChatResponse | None) -> None:
    """Errors: `ValueError` where the JSON of an answer was cut off."""
    if response is None or response.additional_kwargs.get("finish_reason") != "length":
        return
    text = response.message.content or ""
    try:
        json.loads(text)
    except ValueError as error:
        raise ValueError(f"the answer was cut off (finish_reason: length): it says {text!r}") from error


def response_format(output_cls: type[BaseModel], given: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a call is given so that its answer is an `output_cls` in JSON."""
    described: dict[str, Any] = {
        "name": re.sub(r"[^A-Za-z0-9_-]", "_", output_cls.__name__)[:64],
        "schema": output_cls.model_json_schema(),
    }
    if output_cls.__doc__:
        described["description"] = output_cls.__doc__.strip()
    rest = {name: value for name, value in (given or {}).items() if name not in NOT_OF_THE_REQUEST}
    return {**rest, "response_format": {"type": "json_schema", "json_schema": described}}
