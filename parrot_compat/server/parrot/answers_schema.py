"""What the endpoints under /v1/parrot answer, for /openapi.json and for tests: the endpoints write these by hand.

They know nothing of how answers come about. The invariant: that of `openai.answers_schema`.
"""

from __future__ import annotations

from typing import Any, Literal

from parrot_compat.server.openai.answers_schema import Answered, ErrorObject

__all__ = [
    "CallDescription",
    "CallMade",
    "CallsAnswer",
    "Capabilities",
    "GraphAnswer",
    "GraphCall",
    "GraphClosed",
    "SessionAnswer",
    "SessionDeleted",
    "SessionDescription",
    "StreamEvent",
    "VariableAnswer",
    "VariableDescription",
]


class Capabilities(Answered):
    object: Literal["parrot.capabilities"]
    v: int
    version: str
    levels: list[str]
    transforms: list[str]


class SessionAnswer(Answered):
    object: Literal["parrot.session"]
    id: str
    name: str | None


class SessionDeleted(Answered):
    object: Literal["parrot.session.deleted"]
    id: str
    deleted: bool


class CallDescription(Answered):
    id: str
    function: str | None
    model: str
    state: Literal["waiting", "ready", "running", "finished", "failed", "cancelled"]
    objective: str
    group: str | None
    slack_s: float
    engine: str | None
    inputs: list[str]
    missing: list[str]
    output: str
    submitted_s: float
    ready_s: float | None
    started_s: float | None
    first_token_s: float | None
    finished_s: float | None
    queue_s: float | None
    prompt_tokens: int | None
    output_tokens: int
    cached_tokens: int | None
    error: dict[str, Any] | None
    spans: list[dict[str, Any]] | None = None
    stage: dict[str, Any] | None = None


class VariableDescription(Answered):
    id: str
    state: Literal["pending", "ready", "failed"]
    producer: str | None
    consumers: list[str]
    characters: int
    error: dict[str, Any] | None


class SessionDescription(SessionAnswer):
    calls: list[CallDescription]
    variables: list[VariableDescription]


class VariableAnswer(Answered):
    object: Literal["parrot.variable"]
    id: str
    name: str | None = None
    state: Literal["pending", "ready", "failed"] | None = None
    text: str | None = None
    error: ErrorObject | None = None


class CallMade(Answered):
    id: str
    output: str
    variable: str


class CallsAnswer(Answered):
    object: Literal["parrot.call"]
    calls: list[CallMade]
    variables: dict[str, str] | list[dict[str, str]]


class GraphCall(Answered):
    id: str
    variable: str


class GraphAnswer(Answered):
    object: Literal["parrot.graph"]
    id: str
    session: str
    """As the client calls it."""
    session_id: str
    """Its drawn id, for paths: a label may hold what a path cannot."""
    calls: list[GraphCall]


class GraphClosed(Answered):
    object: Literal["parrot.graph.closed"]
    id: str
    taken: int
    claimed: int
    cancelled: int
    wasted_tokens: int


class StreamEvent(Answered):
    """Of a graph or a variable: `parrot:accepted`, `parrot:call`, `parrot:chunk`, `parrot:failed`, `parrot:done`."""

    type: str
    sequence_number: int
    graph: str | None = None
    session: str | None = None
    session_id: str | None = None
    calls: list[GraphCall] | None = None
    call: str | None = None
    request: dict[str, Any] | None = None
    completion: dict[str, Any] | None = None
    text: str | None = None
    error: ErrorObject | None = None
    wasted_tokens: int | None = None
