"""The client side of a plan: calls that go to the server ahead of the app, and come back as they finish.

It knows one endpoint and the plans wire (`/parrot/graphs`), and no framework. `PlanClient.submit` returns at
once; a daemon thread per open plan sends it and reads the pushes. `OpenPlan.find` says which planned call a
request is, if any.

The invariant: a plan can never change an answer or hold one back. Whatever goes wrong with it, every call that
waits is told at once to ask by itself.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import openai

from parrot_compat.core.shown import shown_url
from parrot_compat.integrations import remote
from parrot_compat.integrations.remote import Endpoint
from parrot_compat.integrations.servers import plans_refused, remember_ours, remember_refusal

from .closing import close_later
from .ledger import CallAhead, Ending, Entry, Ledger, canonical
from .pushes import NotAPlan, Pushes
from .sessions import RunSession

__all__ = ["Match", "OpenPlan", "PlanClient"]

log = logging.getLogger(__name__)

TTL_S = 30.0
OUR_404S = frozenset({"model_not_found", "session_not_found", "variable_not_found"})


@dataclass(frozen=True, slots=True)
class PlanClient:
    """Plans for one server."""

    endpoint: Endpoint

    def submit(
        self,
        calls: Sequence[CallAhead],
        await_: Sequence[str] = (),
        width: int | None = None,
        session: RunSession | None = None,
    ) -> OpenPlan | None:
        """Send a plan in the background. `await_` names the calls whose text the app itself wants; at most `width` of
        them run at once. Without `session` it is a session of its own.
        `None` if this server is known to have no plans."""
        if plans_refused(self.endpoint):
            return None
        return OpenPlan(self.endpoint, calls, await_, width, session)


@dataclass(slots=True)
class _Times:
    """When what happened, in seconds of the monotonic clock."""

    opened: float = field(default_factory=time.monotonic)
    accepted: float | None = None
    settled: dict[str, float] = field(default_factory=dict)
    taken: dict[str, float] = field(default_factory=dict)


class OpenPlan:
    """One plan on its way. The app's thread finds and closes; the plan's own thread settles."""

    def __init__(
        self,
        endpoint: Endpoint,
        calls: Sequence[CallAhead],
        await_: Sequence[str],
        width: int | None,
        session: RunSession | None,
    ) -> None:
        self.endpoint = endpoint
        self.width = width
        self.calls = tuple(calls)
        self.nonce = uuid.uuid4().hex
        self.times = _Times()
        self.takers: dict[str, uuid.UUID] = {}
        """The app's own name of the run that took a call."""
        self.sources: dict[str, str] = {}
        """How the calls that were taken were answered: pushed, claimed or direct."""
        self._ledger = Ledger(calls)
        self._await = tuple(await_)
        self._process = os.getpid()
        self._graph: Future[str | None] = Future()
        self._graph.set_running_or_notify_cancel()
        self._lock = threading.RLock()  # the garbage collector ends a stream anywhere, in here too
        self._claims = 0
        self._closed = False
        self._is_ending = False
        self._session = session or RunSession()
        self._session.begin()
        self._session_name = None if session is None else session.tell(endpoint)
        threading.Thread(target=self._follow, name="parrot-plan", daemon=True).start()

    # ---- the app's side --------------------------------------------------------------------------

    def find(self, body: Mapping[str, Any]) -> Match | None:
        """The planned call that this request is; it is given out once. `body` is the request as it would be sent,
        without what only streams have. Never blocks."""
        if self._process != os.getpid():  # the thread that reads the pushes did not come along
            return None
        entry = self._ledger.take(canonical(body))
        if entry is None:
            return None
        self.times.taken[entry.call.id] = time.monotonic()
        return Match(self, entry)

    @property
    def was_accepted(self) -> bool:
        return self.times.accepted is not None

    @property
    def round_trip_s(self) -> float | None:
        """What it took the server to accept the plan."""
        accepted = self.times.accepted
        return None if accepted is None else accepted - self.times.opened

    def close(self) -> None:
        """The app's run is over: what it did not take is not wanted any more. Never blocks."""
        self._ledger.close()
        self._ledger.settle_rest(Ending.FAILED)  # a branch that outlives its run asks by itself
        with self._lock:
            self._closed = True
        self._end_if_last()

    @contextmanager
    def claiming(self) -> Iterator[None]:
        """A claim is on its way. The server hears of the plan's end only after it: a claim that came later would be
        refused, and what it asks for made again for nobody."""
        with self._lock:
            self._claims += 1
        try:
            yield
        finally:
            with self._lock:
                self._claims -= 1
            self._end_if_last()

    def _end_if_last(self) -> None:
        with self._lock:
            if not self._closed or self._claims or self._is_ending:
                return
            self._is_ending = True
        self._graph.add_done_callback(self._say_closed)

    def _say_closed(self, graph: Future[str | None]) -> None:
        if (identifier := graph.result()) is not None:
            close_later(self.endpoint, identifier, self.taken())
        self._session.end()  # behind the plan: what the plan was worth is counted when it is closed

    def taken(self) -> tuple[str, ...]:
        """The planned calls that have answered the app."""
        sources = self.sources.copy()  # a branch that outlives its run still adds to them
        return tuple(call for call, source in sources.items() if source in ("pushed", "claimed"))

    # ---- the plan's own thread -------------------------------------------------------------------

    def _follow(self) -> None:
        """Send the plan and settle its calls. This thread owns every failure of the plan."""
        try:
            with self._opened() as pushes:
                for push in pushes:  # to the end, also behind `parrot:done`: what is read out can be used again
                    self._handle(push)
        except NotAPlan as error:
            remember_refusal(self.endpoint)
            log.debug("%s has no plans: %s", shown_url(self.endpoint.base_url), error)
        except openai.APIStatusError as error:
            if error.status_code in (404, 405) and error.code not in OUR_404S:
                remember_refusal(self.endpoint)
            log.debug("the plan was refused: %s", error)
        except Exception as error:
            log.debug("the plan's line broke: %r", error)
        finally:
            accepted = self._graph.done()
            self._accept(None)
            # A plan that was never accepted has no calls to claim.
            self._ledger.settle_rest(Ending.LOST if accepted else Ending.FAILED)

    def _opened(self) -> Pushes:
        body: dict[str, Any] = {
            "nonce": self.nonce,
            "calls": [call.wire() for call in self.calls],
            "await": list(self._await),
            "stream": True,
            "ttl_s": TTL_S,
            **({"session": self._session_name} if self._session_name is not None else {}),
            **({"max_concurrency": self.width} if self.width is not None else {}),
        }
        # A long silence is no failure here: whoever waits for a push has a limit of their own.
        patience = openai.Timeout(None, connect=remote.CONNECT_TIMEOUT_S)
        return remote.client(self.endpoint).post(
            "/parrot/graphs",
            cast_to=object,
            body=body,
            options={"max_retries": 0, "timeout": patience},
            stream=True,
            stream_cls=Pushes,
        )

    def _handle(self, push: Mapping[str, Any]) -> None:
        match push.get("type"):
            case "parrot:accepted":
                self.times.accepted = time.monotonic()
                remember_ours(self.endpoint)
                self._accept(str(push["graph"]))
            case "parrot:call":
                self._settled(push["call"])
                self._ledger.push(push["call"], push["request"], push["completion"])
            case "parrot:failed":
                self._settled(push["call"])
                self._ledger.fail(push["call"])
            case "parrot:done":
                self._ledger.settle_rest(Ending.FAILED)

    def _settled(self, call: str) -> None:
        self.times.settled[call] = time.monotonic()

    def _accept(self, graph: str | None) -> None:
        with suppress(InvalidStateError):
            self._graph.set_result(graph)


class Match:
    """A planned call that one request of the app is. It is answered by its push, or claimed."""

    def __init__(self, plan: OpenPlan, entry: Entry) -> None:
        self.plan = plan
        self.outcome = entry.outcome
        self.call = entry.call.id

    @property
    def is_read(self) -> bool:
        """Its text goes into other planned calls, so the server is likely to be far ahead of the app."""
        return self.plan._ledger.is_read(self.call)

    @property
    def graph(self) -> Future[str | None]:
        """The plan's id on the server, once it is accepted; `None` if it was not."""
        return self.plan._graph

    def pushed(self) -> Mapping[str, Any] | None:
        """The answer, if it is here already."""
        if not self.outcome.done():
            return None
        return self.outcome.result().completion

    def claim(self) -> dict[str, Any] | None:
        """The `parrot` object with which an ordinary request takes this call over; `None` if there is nothing to
        claim. Ask after `graph` is known."""
        graph = self.graph.result() if self.graph.done() else None
        if graph is None or (self.outcome.done() and self.outcome.result().ending is Ending.FAILED):
            return None
        # One nonce per call: with it the SDK's second try gets the same output, and nobody else does.
        return {"v": 1, "claim": self.call, "graph": graph, "nonce": f"{self.plan.nonce}-{self.call}"}

    def answered(self, source: str, text: str | None = None) -> None:
        """How the request was answered in the end, and with which text if that is the planned call's own."""
        self.plan.sources[self.call] = source
        if text is not None:
            self.plan._ledger.learn(self.call, text)
