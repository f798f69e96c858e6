"""What OpenAI's endpoints and the probes answer, for /openapi.json and for tests: the endpoints write these by hand.

They know nothing of how answers come about. The invariant: an answer has no field that is not described here, and a
field that has no default is always there.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "AlternativeToken",
    "Answered",
    "CachedTokens",
    "CallDelta",
    "CalledFunction",
    "ChatChoice",
    "ChatChunkChoice",
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChatDelta",
    "ChatLogprobs",
    "ChatMessageAnswer",
    "ChatToken",
    "CompletionUsage",
    "Detokenized",
    "ErrorAnswer",
    "ErrorObject",
    "FunctionDelta",
    "Health",
    "MadeCall",
    "ModelCapabilities",
    "ModelDescription",
    "ModelList",
    "PromptToken",
    "ReasoningTokens",
    "Receipt",
    "TextChoice",
    "TextCompletion",
    "TokenLogprobLists",
    "Tokenized",
    "Version",
]


class Answered(BaseModel):
    """Root of every answer."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), use_attribute_docstrings=True)


# ---- errors ------------------------------------------------------------------------------------------


class ErrorObject(Answered):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(Answered):
    """Of every answer that is no success."""

    error: ErrorObject


# ---- what completions share ----------------------------------------------------------------------------


class CachedTokens(Answered):
    cached_tokens: int


class ReasoningTokens(Answered):
    reasoning_tokens: int


class CompletionUsage(Answered):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens
    completion_tokens_details: ReasoningTokens | None = None
    """Of models that think before they answer."""


class Receipt(Answered):
    """What became of the request's `parrot` object."""

    session: str
    """As the client calls it."""
    session_id: str
    """Its drawn id, for paths: a label may hold what a path cannot."""
    call: str
    claimed: bool | None = Field(default=None)
    reason: str | None = None
    hints: dict[str, Literal["applied", "clipped", "ignored"]]
    cached_tokens: int
    queue_ms: float
    objective: str


# ---- chat ----------------------------------------------------------------------------------------------


class AlternativeToken(Answered):
    token: str
    logprob: float
    bytes: list[int]


class ChatToken(AlternativeToken):
    top_logprobs: list[AlternativeToken]


class ChatLogprobs(Answered):
    content: list[ChatToken]
    refusal: None


class CalledFunction(Answered):
    name: str
    arguments: str


class MadeCall(Answered):
    id: str
    type: Literal["function"]
    function: CalledFunction


class ChatMessageAnswer(Answered):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    reasoning_content: str | None = None
    tool_calls: list[MadeCall] | None = None


class ChatChoice(Answered):
    index: int
    message: ChatMessageAnswer
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]
    token_ids: list[int] | None = None


class ChatCompletion(Answered):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    prompt_token_ids: list[int] | None = None
    usage: CompletionUsage
    service_tier: Literal["default", "flex", "priority"] | None = None
    parrot: Receipt | None = None


class FunctionDelta(Answered):
    name: str | None = None
    arguments: str


class CallDelta(Answered):
    """The first of a call has its id, type and name; each has the next stretch of its arguments."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta


class ChatDelta(Answered):
    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[CallDelta] | None = None


class ChatChunkChoice(Answered):
    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"] | None
    token_ids: list[int] | None = None


class ChatCompletionChunk(Answered):
    """Each event of a stream, but for the last, which is `[DONE]`."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    prompt_token_ids: list[int] | None = None
    usage: CompletionUsage | None = None
    service_tier: Literal["default", "flex", "priority"] | None = None
    parrot: Receipt | None = None


# ---- texts -----------------------------------------------------------------------------------------------


class TokenLogprobLists(Answered):
    tokens: list[str]
    token_logprobs: list[float | None]
    """`None` for the first token of an echoed prompt, which nothing comes before."""
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class PromptToken(Answered):
    logprob: float
    rank: int | None
    decoded_token: str


class TextChoice(Answered):
    index: int
    text: str
    logprobs: TokenLogprobLists | None
    finish_reason: Literal["stop", "length", "content_filter"] | None
    prompt_token_ids: list[int] | None = None
    token_ids: list[int] | None = None
    prompt_logprobs: list[dict[str, PromptToken] | None] | None = None
    """For each token of the prompt, by token id."""


class TextCompletion(Answered):
    """Whole, or each event of a stream but for the last, which is `[DONE]`."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: CompletionUsage | None = None
    parrot: Receipt | None = None


# ---- the others ------------------------------------------------------------------------------------------


class ModelCapabilities(Answered):
    structured_output: bool
    tool_calling: bool
    structured_output_with_tools: bool


class ModelDescription(Answered):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int | None
    capabilities: ModelCapabilities


class ModelList(Answered):
    object: Literal["list"]
    data: list[ModelDescription]


class Tokenized(Answered):
    count: int
    max_model_len: int
    tokens: list[int] | list[list[int]]
    """Of each text, where the prompt was a list of them."""


class Detokenized(Answered):
    prompt: str


class Health(Answered):
    status: Literal["ok", "no engine"]
    """`ok` where any model can be answered for; `no engine` comes with status 503."""
    models: list[str]
    """Those that have an engine now. One whose engines are all being started again is in /v1/models and not here."""


class Version(Answered):
    version: str
