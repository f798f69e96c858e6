"""Tools and structured output in OpenAI's wire form, and what models answer to them.

It knows schemas and answers, and no client. The invariant: what a model wrote that is not what was asked for is told,
never made up for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatResponse, ToolCallBlock
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.llms.utils import parse_partial_json
from llama_index.core.tools.types import BaseTool
from pydantic import BaseModel

__all__ = ["response_format", "tool_arguments", "tool_selections"]

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
    """The calls in an answer. Arguments of a call that is still being streamed are those that are there so far."""
    return [
        ToolSelection(
            tool_id=block.tool_call_id or "", tool_name=block.tool_name, tool_kwargs=_arguments(block.tool_kwargs)
        )
        for block in response.message.blocks
        if isinstance(block, ToolCallBlock)
    ]


def _arguments(given: Mapping[str, Any] | str) -> dict[str, Any]:
    if not isinstance(given, str):
        return dict(given)
    try:
        arguments = json.loads(given)
    except ValueError:
        try:
            arguments = parse_partial_json(given)
        except ValueError:
            return {}  # nothing to be read yet; LlamaIndex calls the tool with nothing, and the tool says what it lacks
    return arguments if isinstance(arguments, dict) else {}


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
