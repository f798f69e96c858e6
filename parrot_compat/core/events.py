"""Events: what happened to sessions, calls, embeddings and engines, told once to whoever listens.

The stream knows nothing of its listeners (journal, metrics, dashboard, a table of calls) and keeps nothing.

The invariant: a listener can be slow or wrong, but it can never change or break what is served.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from .call import CallId, Finish, Usage, VariableName
from .engine import EngineInfo
from .errors import ParrotError

__all__ = [
    "CallFailed",
    "CallFinished",
    "CallPlaced",
    "CallRetried",
    "CallSubmitted",
    "EngineGone",
    "EngineJoined",
    "Event",
    "EventStream",
    "FirstToken",
    "InputsEmbedded",
    "Listener",
    "PlanEnded",
    "SessionClosed",
    "SessionOpened",
]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOpened:
    at_s: float
    session: str
    tenant: str
    name: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionClosed:
    at_s: float
    session: str
    tenant: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSubmitted:
    """A call was accepted. It runs once its `inputs` have their values."""

    at_s: float
    session: str
    tenant: str
    call: CallId
    model: str
    function: str | None
    inputs: tuple[str, ...]
    output: VariableName


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPlaced:
    """An engine was chosen and the work starts. `reused_tokens` is what placement expects to find cached there."""

    at_s: float
    session: str
    call: CallId
    engine: str
    prompt_tokens: int
    reused_tokens: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstToken:
    """Told once of every call that has said anything, whatever becomes of it: how long it took to begin is to be known
    of calls that nobody waited for to the end, too. Where the first chunk was the whole answer, `CallFinished` is told
    before it."""

    at_s: float
    session: str
    call: CallId
    model: str
    engine: str
    submitted_s: float
    ready_s: float
    """When it had all that it reads."""
    started_s: float
    """When it was given to this engine; others may have been lost with it before."""
    waited_s: float
    """Since then, inside the engine, before the first step in which it took part; 0 where an engine does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRetried:
    """The engine was lost before it had said anything: the call goes back into the queue."""

    at_s: float
    session: str
    call: CallId
    engine: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFinished:
    """Everything a table of calls needs in one row."""

    at_s: float
    session: str
    tenant: str
    call: CallId
    function: str | None
    model: str
    engine: str
    finish: Finish
    usage: Usage
    submitted_s: float
    ready_s: float
    """When it had all that it reads."""
    started_s: float
    first_token_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFailed:
    """`error` is `Cancelled` where somebody asked for it and `UpstreamFailed` where an input will never come."""

    at_s: float
    session: str
    tenant: str
    call: CallId
    function: str | None
    model: str
    engine: str | None
    error: ParrotError
    usage: Usage
    """So far: its prompt, if an engine has been given it, and what was drawn. What of the prompt was cached is not in
    it; of a text engine the prompt is a guess, and what it drew is not known."""
    submitted_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class InputsEmbedded:
    """One request for vectors was answered, with one for each of its `inputs`."""

    at_s: float
    tenant: str
    model: str
    inputs: int
    prompt_tokens: int
    """Of all inputs together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanEnded:
    """Closed by the app, or expired. `wasted_tokens` were drawn for calls that nobody took."""

    at_s: float
    session: str
    tenant: str
    plan: str
    calls: int
    taken: int
    claimed: int
    cancelled: int
    wasted_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineJoined:
    at_s: float
    info: EngineInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineGone:
    at_s: float
    engine: str
    model: str
    reason: str
    is_restarting: bool


Event = (
    SessionOpened
    | SessionClosed
    | CallSubmitted
    | CallPlaced
    | FirstToken
    | CallRetried
    | CallFinished
    | CallFailed
    | InputsEmbedded
    | PlanEnded
    | EngineJoined
    | EngineGone
)

Listener = Callable[[Event], None]


class EventStream:
    """Tells every listener every event, in order, at once; one that fails hears the next all the same."""

    def __init__(self) -> None:
        self._listeners: dict[object, Listener] = {}
        self._failing: set[object] = set()
        """Subscriptions whose last event went wrong."""

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Returns the function that ends the subscription; calling it again does nothing."""
        subscription = object()
        self._listeners[subscription] = listener

        def unsubscribe() -> None:
            self._listeners.pop(subscription, None)
            self._failing.discard(subscription)

        return unsubscribe

    def emit(self, event: Event) -> None:
        for subscription, listener in tuple(self._listeners.items()):
            try:
                listener(event)
            except Exception:  # the stream is the owner of what listeners raise: serving must not stop for them
                if subscription not in self._failing:  # a full disk is told once, and not once for each event
                    self._failing.add(subscription)
                    _log.exception("listener %r failed on %s", listener, type(event).__name__)
            else:
                self._failing.discard(subscription)
