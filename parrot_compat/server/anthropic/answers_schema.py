"""What /v1/messages answers, for /openapi.json and for tests: `answers` writes it by hand.

The invariant: an answer has no field that is not described here, and a field that has no default is always there.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import RootModel

from parrot_compat.server.openai.answers_schema import Answered

__all__ = [
    "AnthropicError",
    "AnthropicErrorAnswer",
    "BlockDelta",
    "BlockStart",
    "BlockStop",
    "InputDelta",
    "MessageAnswer",
    "MessageChange",
    "MessageDelta",
    "MessageEvent",
    "MessageStart",
    "MessageStop",
    "MessageUsage",
    "TextBlock",
    "TextDelta",
    "ThinkingBlock",
    "ThinkingDelta",
    "TokenCount",
    "ToolUseBlock",
]

_StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"]


class AnthropicError(Answered):
    type: str
    message: str


class AnthropicErrorAnswer(Answered):
    """Of every answer that is no success."""

    type: Literal["error"]
    error: AnthropicError


class TextBlock(Answered):
    type: Literal["text"]
    text: str


class ThinkingBlock(Answered):
    type: Literal["thinking"]
    thinking: str
    signature: str


class ToolUseBlock(Answered):
    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class MessageUsage(Answered):
    input_tokens: int
    """Of the prompt, without those that were cached."""
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int


class MessageAnswer(Answered):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[ThinkingBlock | TextBlock | ToolUseBlock]
    stop_reason: _StopReason | None
    stop_sequence: str | None
    usage: MessageUsage


class TokenCount(Answered):
    input_tokens: int


# ---- events ------------------------------------------------------------------------------------------------


class MessageStart(Answered):
    type: Literal["message_start"]
    message: MessageAnswer


class BlockStart(Answered):
    type: Literal["content_block_start"]
    index: int
    content_block: ThinkingBlock | TextBlock | ToolUseBlock


class TextDelta(Answered):
    type: Literal["text_delta"]
    text: str


class ThinkingDelta(Answered):
    type: Literal["thinking_delta"]
    thinking: str


class InputDelta(Answered):
    type: Literal["input_json_delta"]
    partial_json: str


class BlockDelta(Answered):
    type: Literal["content_block_delta"]
    index: int
    delta: TextDelta | ThinkingDelta | InputDelta


class BlockStop(Answered):
    type: Literal["content_block_stop"]
    index: int


class MessageChange(Answered):
    stop_reason: _StopReason
    stop_sequence: str | None


class MessageDelta(Answered):
    type: Literal["message_delta"]
    delta: MessageChange
    usage: MessageUsage


class MessageStop(Answered):
    type: Literal["message_stop"]


class MessageEvent(RootModel[MessageStart | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop]):
    """Each event of a stream."""
