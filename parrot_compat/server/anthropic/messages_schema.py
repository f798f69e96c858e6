"""The bodies of POST /v1/messages and /v1/messages/count_tokens.

It knows nothing of prompts or of OpenAI's API: `translation` says the same in its words.

The invariant: what cannot be served (images, documents, tools that Anthropic runs by itself, an answer whose beginning
is given) is refused by name; what has no effect is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from parrot_compat.server.bodies import Items, Schema
from parrot_compat.server.errors import invalid, not_supported_yet
from parrot_compat.server.openai.format_schema import unknown_members
from parrot_compat.server.openai.sampling_schema import one_of
from parrot_compat.server.openai.tools import MOST_TOOLS

__all__ = [
    "Block",
    "CountTokensRequest",
    "InputMessage",
    "MessagesRequest",
    "OutputConfig",
    "OutputFormat",
    "ThinkingConfig",
    "ToolDefinition",
    "ToolSelection",
]

Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]


class Block(Schema):
    """A stretch of a message. Which of the fields it has, its type says."""

    type: Annotated[str, Field(max_length=64)]
    text: str | None = None
    # tool_use
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    # tool_result
    tool_use_id: str | None = None
    content: Annotated[str | Items[Block] | None, one_of("a string or a list of blocks")] = None
    is_error: bool | None = None
    # thinking
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    # anywhere
    cache_control: Any = None


Content = Annotated[str | Items[Block], one_of("a string or a list of blocks")]


class InputMessage(Schema):
    role: Literal["user", "assistant", "system"]
    content: Content


class ToolDefinition(Schema):
    name: Name
    type: str | None = None
    """Left out or "custom": a function of the client. Any other is one that Anthropic's servers run."""
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None
    cache_control: Any = None


class ToolSelection(Schema):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingConfig(Schema):
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = None


class OutputFormat(Schema):
    type: Literal["json_schema"]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class OutputConfig(Schema):
    effort: Annotated[str, Field(max_length=32)] | None = None
    format: OutputFormat | None = None


class CountTokensRequest(Schema):
    model: Annotated[str, Field(max_length=512)]
    messages: Annotated[Items[InputMessage], Field(min_length=1)]
    system: Content | None = None
    tools: Annotated[Items[ToolDefinition], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: ToolSelection | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None

    def check(self) -> None:
        """What no single field can know. Errors: `ApiError` 400."""
        for index, tool in enumerate(self.tools or ()):
            if tool.type not in (None, "custom"):
                raise not_supported_yet(f"tools[{index}].type", "tools that a server runs by itself")
            if tool.input_schema is None:
                raise invalid(f"tools[{index}].input_schema", "missing", "missing_required_parameter")
        if self.tool_choice is not None and self.tool_choice.type == "tool" and self.tool_choice.name is None:
            raise invalid("tool_choice.name", "missing", "missing_required_parameter")
        if self.messages[-1].role == "assistant":
            raise not_supported_yet("messages", "an answer whose beginning is given (a last message of the assistant)")

    def ignored(self) -> list[str]:
        """Fields without effect."""
        fields = unknown_members(self, "")
        for name in ("tool_choice", "thinking", "output_config"):
            if (said := getattr(self, name)) is not None:
                fields += unknown_members(said, f"{name}.")
        if self.output_config is not None and self.output_config.format is not None:
            fields += unknown_members(self.output_config.format, "output_config.format.")
        if self.thinking is not None and self.thinking.budget_tokens is not None:
            fields.append("thinking.budget_tokens")
        parts: list[tuple[Block | ToolDefinition, str]] = [
            *self.blocks(),
            *((tool, f"tools[{index}]") for index, tool in enumerate(self.tools or ())),
        ]
        for part, path in parts:
            fields += unknown_members(part, f"{path}.")
            # what is computed is kept by itself, wherever the client would cut
            fields += [] if part.cache_control is None else ["cache_control"]
            if isinstance(part, Block) and part.is_error:
                fields.append(f"{path}.is_error")
        return fields

    def blocks(self) -> Iterator[tuple[Block, str]]:
        """All there are, with their paths."""
        if isinstance(self.system, list):
            yield from ((block, f"system[{place}]") for place, block in enumerate(self.system))
        for index, message in enumerate(self.messages):
            if isinstance(message.content, list):
                for place, block in enumerate(message.content):
                    path = f"messages[{index}].content[{place}]"
                    yield block, path
                    if isinstance(block.content, list):
                        yield from ((inner, f"{path}.content[{n}]") for n, inner in enumerate(block.content))


class MessagesRequest(CountTokensRequest):
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)]
    stream: bool | None = None
    stop_sequences: Items[str] | None = None
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    metadata: Any = None
    """Whose it is, for logs; nothing is kept of it."""

    def ignored(self) -> list[str]:
        own = [name for name in ("metadata", "service_tier") if getattr(self, name) is not None]
        return CountTokensRequest.ignored(self) + own
