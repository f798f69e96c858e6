"""Random apps through the manager, with trouble, against one plain loop: same texts, same causes, nothing hangs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from parrot_compat.core.clock import SimulatedClock
from parrot_compat.core.engine import EngineInfo
from parrot_compat.core.engines.scripted import INSTANT, ScriptedEngine, Speed
from parrot_compat.core.errors import (
    Cancelled,
    EngineError,
    EngineLost,
    NoEngineForModel,
    ParrotError,
    TransformFailed,
    UpstreamFailed,
)
from parrot_compat.core.fleet import Fleet
from parrot_compat.core.manager import Manager
from parrot_compat.core.plan_facts import PlannedCall
from parrot_compat.core.task import Task
from parrot_compat.core.template import Template

from .plain import App, Outcome, Part, Step, plain_outcomes, random_app, script

GRAPHS = 1_000
SOONER, LATER = Speed(prefill_tokens_s=20_000.0, step_s=0.001, chunk_tokens=16), Speed(step_s=0.01, chunk_tokens=64)


class Run:
    """One random app in the manager."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.app = random_app(self.rng)
        self.clock = SimulatedClock()
        self.fleet = Fleet(clock=self.clock)
        self.manager = Manager(self.fleet)
        self.tasks: dict[str, Task] = {}
        self.refused: dict[str, ParrotError] = {}
        self.reads: dict[str, asyncio.Task[str | None]] = {}
        for number in range(self.rng.choice([1, 1, 2, 3])):
            self.join(f"e{number}")
        self.session = self.manager.open_session("t", ttl_s=self.rng.choice([None, 1e9]))

    def join(self, name: str) -> None:
        speed, rows = self.rng.choice([INSTANT, SOONER, LATER]), self.rng.choice([None, 1, 2, 8])
        info = EngineInfo(name=name, model="m", context_tokens=8192, max_rows=rows)

        async def start() -> ScriptedEngine:
            return ScriptedEngine(script, info, speed=speed, clock=self.clock)

        engine = ScriptedEngine(script, info, speed=speed, clock=self.clock)
        self.fleet.add(engine, engine.tokenizer, restart=start if self.rng.random() < 0.7 else None)

    async def live(self) -> None:
        """Everything that an app and its surroundings do, in a random order."""
        trouble = [asyncio.create_task(self.trouble()) for _ in range(self.rng.choice([0, 0, 1, 2]))]
        for name in self.app.outside:
            self.session.declare(name)
        writers = [asyncio.create_task(self.write(name, text)) for name, text in self.app.outside.items()]
        await self.submit()
        for name in self.rng.sample(list(self.tasks), min(len(self.tasks), 3)):
            objective = self.rng.choice([None, "latency", "throughput", "background"])
            self.reads[name] = asyncio.create_task(
                self.session.read(self.tasks[name].output.name, objective=objective)  # type: ignore[arg-type]
            )
        await asyncio.gather(*writers, *trouble)
        await asyncio.gather(*(task.output.get() for task in self.tasks.values()), return_exceptions=True)
        await asyncio.gather(*self.reads.values(), return_exceptions=True)

    async def write(self, name: str, text: str | None) -> None:
        await self.clock.sleep(self.rng.choice([0.0, 0.0, 0.01, 0.2]))
        if text is None:
            self.session.fail(name, EngineError(f"{name} failed"))
        else:
            self.session.set(name, text)

    async def submit(self) -> None:
        """Steps of their own in portions, some backwards over declared variables; functions as such; plans ahead."""
        in_functions = {id for _, _, ids in self.app.functions for id in ids}
        functions = {ids[0]: (template, bound, ids) for template, bound, ids in self.app.functions}
        portion: list[Step] = []
        for step in self.app.steps:
            if step.id in functions:
                await self.submit_steps(portion)
                portion = []
                await self.call(*functions[step.id])
            elif step.id not in in_functions:
                portion.append(step)
                if self.rng.random() < 0.4:
                    await self.submit_steps(portion)
                    portion = []
                    await self.clock.sleep(self.rng.choice([0.0, 0.0, 0.005]))
        await self.submit_steps(portion)

    async def submit_steps(self, steps: Sequence[Step]) -> None:
        order = list(steps)
        if self.rng.random() < 0.3:
            self.rng.shuffle(order)
        calls = [step.call() for step in order]
        if not calls:
            return
        try:
            if self.rng.random() < 0.3:
                awaited = [call.id for call in calls if self.rng.random() < 0.3]
                planned = [PlannedCall(call=call, body={}) for call in calls]
                plan = await self.manager.plan(self.session, planned, awaited=awaited, ttl_s=1e6)
                self.tasks.update(plan.tasks)
                if self.rng.random() < 0.3:
                    plan.close([call.id for call in calls])
            else:
                tasks = await self.session.submit_all(calls, is_delivered=self.rng.random() < 0.5)
                self.tasks.update({task.call.id: task for task in tasks})
        except (TransformFailed, NoEngineForModel) as error:  # nothing was accepted: what reads it will never know it
            for step in steps:
                self.refuse(step.id, step.output, error)

    async def call(self, template: Template, bound: dict[str, Part], ids: list[str]) -> None:
        bindings = {name: bound[name].segment() for name in template.inputs}
        try:
            tasks = await self.session.call(template, bindings, form="text", function="function")
        except (TransformFailed, NoEngineForModel) as error:
            for id in ids:
                self.refuse(id, id, error)
        else:
            assert [task.call.id for task in tasks.values()] == ids
            self.tasks.update({task.call.id: task for task in tasks.values()})

    def refuse(self, id: str, output: str, error: ParrotError) -> None:
        self.refused[id] = error
        self.session.fail(output, error)

    async def trouble(self) -> None:
        await self.clock.sleep(self.rng.choice([0.0, 0.001, 0.01, 0.05]))
        kind = self.rng.random()
        members = list(self.fleet)
        if kind < 0.3 and members:
            engine = self.rng.choice(members).engine
            assert isinstance(engine, ScriptedEngine)
            engine.die()
        elif kind < 0.6 and members:
            engine = self.rng.choice(members).engine
            assert isinstance(engine, ScriptedEngine)
            engine.fail_next(EngineError("a bad day"), after_tokens=self.rng.choice([0, 2]))
        elif self.tasks:
            self.rng.choice(list(self.tasks.values())).cancel(Cancelled("somebody left"))

    # ---- comparing ---------------------------------------------------------------------------------------

    def given(self) -> dict[str, str]:
        """Steps that ended by what no plain loop can know: cancels, engines' bad days, and a fleet that was empty."""
        given = {id: str(error) for id, error in self.refused.items()}
        for id, task in self.tasks.items():
            outside = isinstance(task.failure, Cancelled | EngineLost | NoEngineForModel)
            if outside or (isinstance(task.failure, EngineError) and "a bad day" in str(task.failure)):
                given[id] = str(task.failure)
        return given

    def compare(self) -> None:
        expected = plain_outcomes(self.app, self.given())
        assert {*self.tasks, *self.refused} == expected.keys()
        for id, task in self.tasks.items():
            assert self.outcome(id, expected[id], task) == expected[id], id
        for id, read in self.reads.items():
            failure = self.tasks[id].failure
            if failure is None:
                assert read.result() == expected[id].text
            else:
                assert repr(read.exception()) == repr(failure)

    def outcome(self, id: str, expected: Outcome, task: Task) -> Outcome:
        assert task.is_over, f"{id} hangs in state {task.state}"
        if task.result is not None:
            return Outcome(text=task.result.text)
        if isinstance(task.failure, UpstreamFailed):
            # Of several inputs that failed, the one that did so first in time is named; the plain loop knows no time.
            inputs = {step.output: step for step in self.app.steps}
            causes = self.causes(id)
            assert (task.failure.variable, str(task.failure.cause)) in causes, (task.failure, causes)
            assert task.failure.variable in inputs or task.failure.variable in self.app.outside
            assert not isinstance(task.failure.cause, UpstreamFailed)
            return Outcome(error=expected.error, is_upstream=True)
        return Outcome(error=str(task.failure))

    def causes(self, id: str) -> set[tuple[str, str]]:
        """Inputs of a step that have failed, with the root of each."""
        (step,) = (step for step in self.app.steps if step.id == id)
        failures = {name: self.session.variable(name).failure for name in step.inputs()}
        roots = {
            name: failure.cause if isinstance(failure, UpstreamFailed) else failure
            for name, failure in failures.items()
        }
        return {(name, str(root)) for name, root in roots.items() if root is not None}


async def run(seed: int) -> App:
    run = Run(seed)
    await run.live()
    run.compare()
    run.manager.check()
    await run.session.close()
    await run.manager.close()
    run.manager.check()
    assert run.manager.open_calls == run.manager.queued_calls == 0
    return run.app


@pytest.mark.parametrize("part", range(10))
async def test_random_apps_come_to_what_a_plain_loop_makes_of_them(part: int) -> None:
    calls = 0
    for seed in range(part * GRAPHS // 10, (part + 1) * GRAPHS // 10):
        try:
            calls += len((await run(seed)).steps)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    assert calls > GRAPHS // 10  # the apps are not empty


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_twenty_thousand_random_apps() -> None:
    for seed in range(10_000, 30_000):
        try:
            await run(seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
