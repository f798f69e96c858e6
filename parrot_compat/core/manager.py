"""The manager: what the rest of the world talks to. Sessions are opened here, models are listed, the end comes here.

It knows nothing of HTTP, frameworks or torch: it is the same inside a server, a notebook and a test.

    async with Manager(fleet) as manager:
        session = manager.open_session()
        task = await session.submit(Call(id=CallId("c1"), prompt=prompt, output=VariableName("answer")))
        print((await task.finished()).text)
        await session.close()

The invariant: a call that was accepted ends, with a result or an error, whatever happens to engines and readers; and
when the manager is closed nothing that it started still runs.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

from .admission import Admission, Limits
from .background import Background
from .clock import Clock
from .embedding import Embedder
from .engine import Embedded, Pooling
from .errors import QueueFull, UnknownSession
from .events import EventStream, SessionClosed, SessionOpened
from .fleet import Fleet
from .flow import Flow
from .intake import Machinery
from .lengths import Lengths
from .plan import Plan
from .plan_facts import PlannedCall, PlanReceipt
from .plans import Plans
from .policy import Policy
from .prompt import Content
from .rendering import Renderer
from .scheduler import Scheduler
from .session import Session
from .tokenizer import Tokenizer

__all__ = ["Limits", "Manager", "ModelCard"]

_LET_GO_S = 5.0
"""So long a manager that ends waits for engines to let go of what it has ended, and for prompts that are being made."""
CLOSING = "the server is shutting down and takes no new work"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """A served model. Engines of one model may differ in context; the largest counts."""

    name: str
    context_tokens: int
    engines: tuple[str, ...]
    """Empty while its engines are being started again."""
    obeys_formats: bool
    """Every engine of it holds answers to the form that is asked for: JSON of a schema, calls of tools."""


class Manager:
    """Owns the sessions, the scheduler, and the fleet it is given: closing the manager closes the engines."""

    def __init__(self, fleet: Fleet, *, limits: Limits | None = None, policy: Policy | None = None) -> None:
        self.fleet = fleet
        self.policy = policy or Policy()
        self._background = Background()
        self._machinery = Machinery(
            fleet=fleet,
            renderer=Renderer(fleet),
            scheduler=Scheduler(fleet, self._background),
            admission=Admission(limits or Limits()),
            background=self._background,
            lengths=Lengths(),
            policy=self.policy,
        )
        self._embedder = Embedder(fleet, self._machinery.renderer, self._machinery.admission)
        self._plans = Plans(self._machinery)
        self._sessions: dict[str, Session] = {}
        self._order = itertools.count()
        self._is_closed = False

    @property
    def events(self) -> EventStream:
        return self.fleet.events

    @property
    def clock(self) -> Clock:
        return self.fleet.clock

    @property
    def open_calls(self) -> int:
        """Accepted and not over."""
        return self._machinery.admission.open_calls

    def allowance(self, tenant: str) -> tuple[int, int]:
        """How many calls a tenant may have open, and how many more."""
        return self._machinery.admission.allowance(tenant)

    def has_room(self, tenant: str, *, without: int = 0) -> bool:
        """What its open sessions keep is within the limit: they may go on. Or would, `without` so many bytes of it."""
        admission = self._machinery.admission
        return admission.kept_bytes(tenant) - without < admission.limits.kept_bytes_per_tenant

    @property
    def queued_calls(self) -> int:
        """Ready and without an engine."""
        return self._machinery.scheduler.queued

    async def __aenter__(self) -> Manager:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # ---- models ----------------------------------------------------------------------------------------

    def models(self) -> tuple[ModelCard, ...]:
        """In the order in which their engines joined; the first serves calls that name no model."""
        cards: list[ModelCard] = []
        for model in self.fleet.models():
            infos = self.fleet.infos(model)
            engines = tuple(member.info.name for member in self.fleet.serving(model))
            context_tokens = max(info.context_tokens for info in self.fleet.counting(model))
            obeys = all(info.obeys_formats for info in infos)
            card = ModelCard(name=model, context_tokens=context_tokens, engines=engines, obeys_formats=obeys)
            cards.append(card)
        return tuple(cards)

    def tokenizer(self, model: str | None = None) -> Tokenizer | None:
        """`None` where only a text engine knows how it tokenises. Errors: `NoEngineForModel`."""
        return self.fleet.tokenizer(self.fleet.model(model))

    async def embed(
        self,
        inputs: Sequence[Content],
        *,
        model: str | None = None,
        tenant: str = "",
        pooling: Pooling | None = None,
        dimensions: int | None = None,
    ) -> Embedded:
        """One vector of length 1 for each of `inputs`, in their order; each counts as an open call.

        Errors: `NoEngineForModel`, `ModelAway`, `EngineLost`, `PromptTooLong`, `BadPrompt`, `TooManyCalls`,
        `QueueFull`.
        """
        if self._is_closed:
            raise QueueFull(CLOSING)
        return await self._embedder.embed(inputs, model, tenant, pooling, dimensions)

    # ---- sessions --------------------------------------------------------------------------------------

    def open_session(
        self, tenant: str = "", name: str | None = None, ttl_s: float | None = None, *, is_brief: bool = False
    ) -> Session:
        """`name` is a label for people; the id is drawn and cannot be guessed. With `ttl_s` the session closes by
        itself so long after its last sign of life. `is_brief`: it ends with the one request that it is opened for, and
        what it keeps until then is not measured. Errors: `QueueFull` when closing."""
        if self._is_closed:
            raise QueueFull(CLOSING)
        self._machinery.admission.check_name("tenant", tenant, least=0)
        self._machinery.admission.check_name("session", name or "", least=0)
        session_id = secrets.token_hex(16)
        session = self._sessions[session_id] = Session(
            session_id,
            flow=self._flow(tenant, session_id),
            name=name,
            machinery=self._machinery,
            on_close=self._session_closed,
        )
        session.kept.is_measured = not is_brief
        if ttl_s is not None:
            session.expire_after(ttl_s)
        self.events.emit(SessionOpened(at_s=self.clock.now(), session=session_id, tenant=tenant, name=name))
        return session

    def session(self, session_id: str, tenant: str = "") -> Session:
        """Errors: `UnknownSession`, the same whether it never was, has ended, or belongs to another tenant."""
        session = self._sessions.get(session_id)
        if session is None or session.tenant != tenant:
            raise UnknownSession(f"no session {session_id[:64]!r}: it has ended, or never was")
        session.life.sign()
        return session

    def sessions(self) -> tuple[Session, ...]:
        """Those open now, of every tenant, in the order in which they were opened."""
        return tuple(self._sessions.values())

    # ---- plans -----------------------------------------------------------------------------------------

    async def plan(
        self,
        session: Session,
        planned: Sequence[PlannedCall],
        *,
        awaited: Collection[str] = (),
        ttl_s: float = 30.0,
        width: int | None = None,
    ) -> Plan:
        """Submit calls ahead of the app that will make them. `awaited` are the calls whose answers the app is after; at
        most `width` of the calls run at once.

        Errors: those of `Session.submit_all`, `TooManyCalls`, `UnknownVariable`.
        """
        return await self._plans.open(session, planned, awaited=awaited, ttl_s=ttl_s, width=width)

    def find_plan(self, tenant: str, *, plan_id: str | None = None, call_id: str | None = None) -> Plan:
        """By its id, or the newest that has such a call. Errors: `UnknownPlan`."""
        return self._plans.find(tenant, plan_id=plan_id, call_id=call_id)

    def close_plan(self, tenant: str, plan_id: str, taken: Collection[str] = ()) -> PlanReceipt:
        """As `Plan.close`, by its id. Errors: `UnknownPlan`, also where it ended some time ago."""
        return self._plans.close(tenant, plan_id, taken)

    # ---- the end ---------------------------------------------------------------------------------------

    async def close(self, drain_s: float = 0.0) -> None:
        """Take no new sessions, let open calls run for up to `drain_s` seconds, end the rest, close the engines, those
        too that do not let go of what has ended."""
        self._is_closed = True
        if drain_s > 0 and self.open_calls:
            await self._drain(drain_s)
        ending = [self._background.spawn(session.close(), f"close session {session.id}") for session in self.sessions()]
        if ending:
            await asyncio.wait(ending, timeout=_LET_GO_S)
        await self._background.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LET_GO_S):
                await self._machinery.renderer.close(CLOSING)
        await self.fleet.close()

    def check(self) -> None:
        """The invariants of everything under the manager. Meant for tests and for idle moments."""
        self.fleet.check()
        self._machinery.admission.check()
        self._machinery.scheduler.check()
        self._machinery.lengths.check()
        self._embedder.check()
        self._plans.check()
        for session in self._sessions.values():
            session.check()
        tasks = [task for session in self.sessions() for task in session.tasks() if not task.is_over]
        open_calls = len(tasks) + self._embedder.open
        assert open_calls == self.open_calls, f"{open_calls} calls are open, {self.open_calls} are counted"
        kept = Counter[str]()
        for session in self.sessions():
            kept[session.tenant] += session.kept.size
        assert all(size == self._machinery.admission.kept_bytes(tenant) for tenant, size in kept.items())
        charged_tokens = sum(task.charged_tokens for task in tasks)
        assert charged_tokens <= self._machinery.admission.prompt_tokens
        assert charged_tokens == self._machinery.admission.prompt_tokens or self._embedder.open

    # ---- inside ----------------------------------------------------------------------------------------

    def _flow(self, tenant: str, session: str) -> Flow:
        by_age = self.policy.app_order
        return Flow(
            tenant=tenant,
            session=session,
            order=next(self._order) if by_age else 0,
            began_s=self.clock.now() if by_age else None,
            takes_turns=self.policy.turns,
        )

    async def _drain(self, drain_s: float) -> None:
        idle = asyncio.ensure_future(self._machinery.admission.idle())
        patience = asyncio.ensure_future(self.clock.sleep(drain_s))
        try:
            await asyncio.wait((idle, patience), return_when=asyncio.FIRST_COMPLETED)
        finally:
            idle.cancel()
            patience.cancel()

    def _session_closed(self, session: Session) -> None:
        self._sessions.pop(session.id, None)
        self.events.emit(SessionClosed(at_s=self.clock.now(), session=session.id, tenant=session.tenant))
