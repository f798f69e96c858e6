"""What /v1/responses answers, for /openapi.json and for tests: `answers` writes it by hand.

The invariant: an answer has no field that is not described here, and a field that has no default is always there.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import RootModel

from parrot_compat.server.openai.answers_schema import Answered, CachedTokens, ChatToken, ReasoningTokens, Receipt

__all__ = [
    "ArgumentsDelta",
    "ArgumentsDone",
    "FunctionCallItem",
    "IncompleteDetails",
    "ItemEvent",
    "MessageItem",
    "OutputText",
    "PartEvent",
    "ReasoningEcho",
    "ReasoningItem",
    "ReasoningText",
    "ReasoningTextDelta",
    "ReasoningTextDone",
    "RefusalDelta",
    "RefusalDone",
    "RefusalPart",
    "ResponseAnswer",
    "ResponseEvent",
    "ResponseFailure",
    "ResponseUsage",
    "ResponsesErrorEvent",
    "StatusEvent",
    "TextDeltaEvent",
    "TextDoneEvent",
    "TextEcho",
    "WrittenTokens",
]

_Status = Literal["in_progress", "completed", "incomplete"]


# ---- items -------------------------------------------------------------------------------------------------


class OutputText(Answered):
    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    """Always empty."""
    logprobs: list[ChatToken]
    """Where `include` asks for them: one for each token drawn for the text, that which ended it too."""


class RefusalPart(Answered):
    type: Literal["refusal"]
    refusal: str


class ReasoningText(Answered):
    type: Literal["reasoning_text"]
    text: str


class MessageItem(Answered):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    status: _Status
    content: list[OutputText | RefusalPart]


class ReasoningItem(Answered):
    id: str
    type: Literal["reasoning"]
    status: _Status
    summary: list[Any]
    """Always empty: the thoughts themselves are told."""
    content: list[ReasoningText]


class FunctionCallItem(Answered):
    id: str
    type: Literal["function_call"]
    status: _Status
    call_id: str
    name: str
    arguments: str
    """JSON; of a call that was cut off its beginning."""


# ---- responses ---------------------------------------------------------------------------------------------


class WrittenTokens(CachedTokens):
    cache_write_tokens: int
    """Always 0: the cache keeps what is computed, and that costs nothing."""


class ResponseUsage(Answered):
    input_tokens: int
    input_tokens_details: WrittenTokens
    output_tokens: int
    output_tokens_details: ReasoningTokens
    total_tokens: int


class IncompleteDetails(Answered):
    reason: Literal["max_output_tokens", "content_filter"]


class ResponseFailure(Answered):
    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str


class ReasoningEcho(Answered):
    effort: str | None
    summary: None


class TextEcho(Answered):
    format: dict[str, Any]
    verbosity: str | None


class ResponseAnswer(Answered):
    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    model: str
    output: list[ReasoningItem | MessageItem | FunctionCallItem]
    usage: ResponseUsage | None
    """`None` before the end."""
    error: ResponseFailure | None
    incomplete_details: IncompleteDetails | None
    # what the request said, as it was followed
    instructions: str | None
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    parallel_tool_calls: bool
    text: TextEcho
    reasoning: ReasoningEcho
    temperature: float | None
    """`None`: the checkpoint's own."""
    top_p: float | None
    top_logprobs: int
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    truncation: Literal["disabled"]
    store: Literal[False]
    background: Literal[False]
    previous_response_id: None
    service_tier: Literal["default", "flex", "priority"] | None
    user: str | None
    safety_identifier: str | None
    prompt_cache_key: str | None
    prompt_cache_retention: str | None
    parrot: Receipt | None = None


# ---- events ------------------------------------------------------------------------------------------------


class _Numbered(Answered):
    sequence_number: int


class StatusEvent(_Numbered):
    """The first two and the last of a stream."""

    type: Literal[
        "response.created",
        "response.in_progress",
        "response.completed",
        "response.incomplete",
        "response.failed",
    ]
    response: ResponseAnswer


class ItemEvent(_Numbered):
    type: Literal["response.output_item.added", "response.output_item.done"]
    output_index: int
    item: ReasoningItem | MessageItem | FunctionCallItem


class _OfItem(_Numbered):
    item_id: str
    output_index: int


class _OfPart(_OfItem):
    content_index: int


class PartEvent(_OfPart):
    type: Literal["response.content_part.added", "response.content_part.done"]
    part: ReasoningText | OutputText | RefusalPart


class TextDeltaEvent(_OfPart):
    type: Literal["response.output_text.delta"]
    delta: str
    logprobs: list[ChatToken]


class TextDoneEvent(_OfPart):
    type: Literal["response.output_text.done"]
    text: str
    logprobs: list[ChatToken]


class RefusalDelta(_OfPart):
    type: Literal["response.refusal.delta"]
    delta: str


class RefusalDone(_OfPart):
    type: Literal["response.refusal.done"]
    refusal: str


class ReasoningTextDelta(_OfPart):
    type: Literal["response.reasoning_text.delta"]
    delta: str


class ReasoningTextDone(_OfPart):
    type: Literal["response.reasoning_text.done"]
    text: str


class ArgumentsDelta(_OfItem):
    type: Literal["response.function_call_arguments.delta"]
    delta: str


class ArgumentsDone(_OfItem):
    type: Literal["response.function_call_arguments.done"]
    name: str
    arguments: str


class ResponsesErrorEvent(_Numbered):
    """Before `response.failed`."""

    type: Literal["error"]
    code: str | None
    message: str
    param: str | None
    error: dict[str, Any]
    """The same as every other error has it; SDKs raise it."""


class ResponseEvent(
    RootModel[
        StatusEvent
        | ItemEvent
        | PartEvent
        | TextDeltaEvent
        | TextDoneEvent
        | RefusalDelta
        | RefusalDone
        | ReasoningTextDelta
        | ReasoningTextDone
        | ArgumentsDelta
        | ArgumentsDone
        | ResponsesErrorEvent
    ]
):
    """Each event of a stream."""
