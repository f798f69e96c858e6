"""Fixtures of core's tests: a manager over scripted engines, in simulated time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from parrot_compat.core.call import Call, CallId, Sampling, VariableName
from parrot_compat.core.clock import SimulatedClock
from parrot_compat.core.engine import EngineInfo
from parrot_compat.core.engines.scripted import Script, ScriptedEngine, Speed
from parrot_compat.core.events import Event
from parrot_compat.core.fleet import Fleet
from parrot_compat.core.manager import Limits, Manager
from parrot_compat.core.plan import Plan
from parrot_compat.core.plan_facts import PlannedCall
from parrot_compat.core.policy import Policy
from parrot_compat.core.prompt import Constant, Input, TextPrompt

SPEED = Speed(prefill_tokens_s=1000.0, step_s=0.01, row_share=0.02, chunk_tokens=4)


def echo(prompt: str) -> str:
    """Long enough to be caught in the middle."""
    return f"<{prompt}>"


class World:
    """Engines, a manager over them, and everything that happened."""

    def __init__(self) -> None:
        self.clock = SimulatedClock()
        self.fleet = Fleet(clock=self.clock)
        self.events: list[Event] = []
        self.fleet.events.subscribe(self.events.append)
        self.manager = Manager(self.fleet)

    def limit(self, limits: Limits) -> None:
        self.manager = Manager(self.fleet, limits=limits)

    def use(self, policy: Policy) -> None:
        self.manager = Manager(self.fleet, policy=policy)

    def engine(
        self,
        name: str = "a",
        script: Script = echo,
        *,
        model: str = "m",
        context_tokens: int = 4096,
        max_rows: int | None = None,
        capacity_tokens: int | None = None,
        returns: bool = False,
    ) -> ScriptedEngine:
        """A scripted engine joins; with `returns` it is replaced by one like it when it is lost."""
        info = EngineInfo(
            name=name,
            model=model,
            context_tokens=context_tokens,
            max_rows=max_rows,
            capacity_tokens=capacity_tokens,
        )

        async def restart() -> ScriptedEngine:
            return ScriptedEngine(script, info, speed=SPEED, clock=self.clock)

        engine = ScriptedEngine(script, info, speed=SPEED, clock=self.clock)
        self.fleet.add(engine, engine.tokenizer, restart=restart if returns else None)
        return engine

    async def plan(
        self, planned: Sequence[PlannedCall], *, tenant: str = "t", ttl_s: float = 30.0, **options: Any
    ) -> Plan:
        """In a session of its own, which lives as long."""
        session = self.manager.open_session(tenant, ttl_s=ttl_s)
        return await self.manager.plan(session, planned, ttl_s=ttl_s, **options)

    def of(self, *kinds: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kinds)]


MakeCall = Callable[..., Call]


def make_call(id: str, text: str = "", *inputs: str, output: str | None = None, **sampling: object) -> Call:
    """`text`, then each of the inputs after a space; the output is `out-ID`."""
    segments = [Constant(text or id), *(part for name in inputs for part in (Constant(" "), Input(name)))]
    return Call(
        id=CallId(id),
        prompt=TextPrompt(tuple(segments)),
        output=VariableName(output or f"out-{id}"),
        sampling=Sampling(**sampling),  # type: ignore[arg-type]
    )


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    for engine in [member.engine for member in world.fleet]:
        assert isinstance(engine, ScriptedEngine)
        engine.resume()
    await world.manager.close()
    world.manager.check()
    assert world.manager.open_calls == 0 and world.manager.queued_calls == 0
