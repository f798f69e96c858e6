"""The intake of a session: from a call that is asked for to a task in the scheduler's queue, with its objective.

It knows nothing of engines, placement or who asks.

The invariant: of the calls of one submit all are accepted or none; an accepted call whose inputs are there is in the
queue (or waits until the width of its submit lets it), or being rendered, or over; a call is charged to its tenant
from its acceptance until it is over.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from .admission import Admission
from .background import Background
from .call import Call, CallId, Reading
from .dataflow import Dataflow
from .errors import BadPrompt, ParrotError
from .fleet import Fleet
from .flow import Flow
from .lengths import Lengths
from .life import Life
from .objective import Deduction, Objective
from .output_format import ToolCalls
from .policy import Policy
from .prompt import Bound, ChatPrompt
from .rendering import Rendered, Renderer, about_tokens
from .scheduler import Scheduler
from .task import Task
from .task_events import ending_of, submission_of
from .task_state import TaskState
from .tokenizer import Reasoned, Templated
from .width import Width

__all__ = ["Intake", "Machinery"]

_log = logging.getLogger(__name__)

_RENDERED_AT_ONCE = 32
"""Prompts that are made without a look at what else is to be done."""
_SEEDS = random.SystemRandom()


@dataclass(frozen=True, slots=True, kw_only=True)
class Machinery:
    """The parts of the manager that sessions work with."""

    fleet: Fleet
    renderer: Renderer
    scheduler: Scheduler
    admission: Admission
    background: Background
    lengths: Lengths
    policy: Policy


class Intake:
    def __init__(self, flow: Flow, machinery: Machinery, life: Life, must_be_open: Callable[[], None]) -> None:
        self.dataflow = Dataflow(on_inputs=self._run)
        self.deduction = Deduction()
        self._flow = flow
        self._machinery = machinery
        self._life = life
        self._must_be_open = must_be_open
        self._policy = machinery.policy
        self._widths: dict[CallId, Width] = {}
        self._rendered_in_turn = 0
        self._late: deque[tuple[Task, Bound]] = deque()
        """Tasks of a wide fan-out whose prompts are made in the turns of the loop to come."""

    async def submit_all(self, calls: Sequence[Call], is_delivered: bool, width: int | None) -> tuple[Task, ...]:
        """Errors, and then nothing was accepted: see `Session.submit`."""
        admission, fleet = self._machinery.admission, self._machinery.fleet
        prompt_tokens = [about_tokens(call.prompt) for call in calls]
        admission.admit(self._flow.tenant, len(calls), sum(prompt_tokens))
        try:
            models = [fleet.model(call.model) for call in calls]
            for model in dict.fromkeys(models):
                if (away := fleet.away(model)) is not None:
                    raise away
            pairs = list(zip(calls, models, strict=True))
            for call in calls:
                admission.check_name("call", call.id)
                admission.check_name("variable", call.output)
            for format, model in dict.fromkeys((call.sampling.format, model) for call, model in pairs):
                await fleet.check_format(model, format)
            rendered: dict[CallId, Rendered] = {}
            for number, (call, model) in enumerate(pairs):
                if self.dataflow.has_inputs(call):
                    made = rendered[call.id] = await self._rendered(self.dataflow.bound(call), model)
                    admission.grow(self._flow.tenant, made.prompt_tokens - prompt_tokens[number])
                    prompt_tokens[number] = made.prompt_tokens
                if (number + 1) % _RENDERED_AT_ONCE == 0:
                    await asyncio.sleep(0)
            readings = {call.id: self._reading(call, model) for call, model in pairs}
            self._must_be_open()  # it may have been closed while a large prompt was encoded
            self.dataflow.graph.add(calls)
        except BaseException:
            admission.release(self._flow.tenant, len(calls), sum(prompt_tokens))
            raise
        if width is not None:
            self._widths |= dict.fromkeys([call.id for call in calls], Width(width, self._machinery.scheduler.put))
        is_near = len(calls) > 1 and self._policy.groups
        near = self.dataflow.graph.alike([call.id for call in calls]) if is_near else {}
        is_newcomer = self._policy.newcomers and self.dataflow.is_all(calls)
        tasks = tuple(self._accept(*pair, near.get(pair[0].id), readings[pair[0].id], is_newcomer) for pair in pairs)
        for task, tokens in zip(tasks, prompt_tokens, strict=True):
            task.charged_tokens = tokens
        seconds = [task.expected_tokens * fleet.step_s(task.model) for task in tasks]
        self.deduced(self.deduction.add(calls, seconds=seconds, is_delivered=is_delivered))
        for task in tasks:
            fleet.events.emit(submission_of(task))
        for task in tasks:
            if (known := rendered.get(task.call.id)) is not None:
                self._put(task, known)
            else:
                self.dataflow.begin(task)
        return tasks

    def deduced(self, changed: Iterable[CallId]) -> None:
        """Objectives have changed: tasks that no engine has yet take note, and their place in the queue with them. What
        runs only ever becomes more urgent: whoever has stopped waiting for it may be back at once."""
        for call in changed:
            task = self.dataflow.tasks[call]
            if task.state is TaskState.WAITING:
                task.objective = self._objective(call, slack_s=0.0)  # its slack is that of the moment it is ready
            elif task.state is TaskState.READY:
                self._machinery.scheduler.forget(task)
                task.objective = self._objective(call, slack_s=self._slack_s(call))
                self._queue(task)
            elif task.state is TaskState.RUNNING:
                slack_s = self._slack_s(call)
                if slack_s < task.objective.slack_s:  # its kind and group stay those with which it began
                    task.objective = replace(task.objective, slack_s=slack_s)
                    self._machinery.scheduler.hurry(task)

    def check(self) -> None:
        self.dataflow.check()
        self.deduction.check()
        for width in self._widths.values():
            width.check()
        for task in self.dataflow.tasks.values():
            if not task.is_over:
                kind = self.deduction.kind(task.call.id) if self._policy.objectives else "latency"
                assert task.objective.kind == kind or task.state is TaskState.RUNNING

    # ---- inside ----------------------------------------------------------------------------------------

    def _accept(self, call: Call, model: str, near: str | None, reading: Reading, is_newcomer: bool) -> Task:
        seed, name = call.sampling.seed, self._length_name(call, model)
        task = self.dataflow.tasks[call.id] = Task(
            call,
            model=model,
            output=self.dataflow.output(call.output),
            flow=self._flow,
            group=None if near is None else f"{self._flow.session}/{near}",
            seed=_SEEDS.getrandbits(31) if seed is None else seed,
            clock=self._machinery.fleet.clock,
            expected_tokens=self._machinery.lengths.expected(name, call.sampling.max_tokens),
            on_end=self._ended,
            on_return=self._returned,
            reading=reading,
            is_newcomer=is_newcomer,
        )
        task.keep_alive(self._life)
        return task

    def _reading(self, call: Call, model: str) -> Reading:
        """A raw text has no reasoning before it, nor has an answer that is held to a form from its first token on.
        Errors: `BadPrompt`."""
        reading, tokenizer = call.reading, self._machinery.fleet.tokenizer(model)
        format = call.sampling.format
        is_held = format is not None and not (isinstance(format, ToolCalls) and format.is_amid_text)
        if reading.reasoning is not None or is_held or not isinstance(call.prompt, ChatPrompt):
            return reading
        if call.prompt.template and isinstance(tokenizer, Templated):
            return replace(reading, reasoning=tokenizer.reasoning_style_with(call.prompt.template))
        return replace(reading, reasoning=tokenizer.reasoning_style) if isinstance(tokenizer, Reasoned) else reading

    def _run(self, task: Task) -> None:
        """Render and queue a task whose inputs have just become complete."""
        try:
            bound = self.dataflow.bound(task.call)
            if self._machinery.renderer.is_large(bound):
                task.is_rendering = True
                work = self._machinery.background.spawn(self._run_large(task, bound), f"render {task.call.id}")
                task.when_over(lambda _: work.cancel())  # in line for a thread it waits for nobody
                return
            if self._is_much_for_a_turn():
                task.is_rendering = True
                self._late.append((task, bound))
                if len(self._late) == 1:
                    self._machinery.background.spawn(self._run_late(), f"render after {task.call.id}")
                return
            rendered = self._machinery.renderer.render(bound.content(), task.model, self._flow.tenant)
            self._charge(task, rendered.prompt_tokens)
        except ParrotError as error:
            task.fail(error)
        except Exception as error:  # those who wait for this one must hear of it, and the others of theirs
            self._broke(task, error)
        else:
            self._put(task, rendered)

    def _is_much_for_a_turn(self) -> bool:
        def next_turn() -> None:
            self._rendered_in_turn = 0

        if self._rendered_in_turn == 0:
            asyncio.get_running_loop().call_soon(next_turn)
        self._rendered_in_turn += 1
        return bool(self._late) or self._rendered_in_turn > _RENDERED_AT_ONCE

    async def _run_late(self) -> None:
        while self._late:
            await asyncio.sleep(0)
            for _ in range(min(_RENDERED_AT_ONCE, len(self._late))):
                task, bound = self._late.popleft()
                if not task.is_over:
                    await self._run_large(task, bound)

    async def _run_large(self, task: Task, bound: Bound) -> None:
        try:
            rendered = await self._rendered(bound, task.model)
            self._charge(task, rendered.prompt_tokens)
        except ParrotError as error:
            task.fail(error)
        except Exception as error:
            self._broke(task, error)
        else:
            self._put(task, rendered)

    async def _rendered(self, bound: Bound, model: str) -> Rendered:
        """Errors: `BadPrompt`, `PromptTooLong`, `TransformFailed`."""
        return await self._machinery.renderer.render_bound(bound, model, self._flow.tenant)

    def _charge(self, task: Task, prompt_tokens: int) -> None:
        """Errors: `QueueFull`, `TooManyCalls`, where all that is open would be too much."""
        if not task.is_over:
            self._machinery.admission.grow(self._flow.tenant, prompt_tokens - task.charged_tokens)
            task.charged_tokens = prompt_tokens

    @staticmethod
    def _broke(task: Task, error: Exception) -> None:
        _log.exception("the prompt of call %r could not be made", task.call.id)
        task.fail(BadPrompt(f"the prompt could not be made: {type(error).__name__}: {error}"))

    def _put(self, task: Task, rendered: Rendered) -> None:
        if not task.is_over:
            task.objective = replace(task.objective, slack_s=self._slack_s(task.call.id))
            task.make_ready(rendered)
            self._queue(task)

    def _returned(self, task: Task) -> None:
        """What it should be quick at may have changed while an engine had it. It has its place in its width still."""
        task.objective = self._objective(task.call.id, slack_s=self._slack_s(task.call.id))
        self._machinery.scheduler.put(task)

    def _queue(self, task: Task) -> None:
        width = self._widths.get(task.call.id)
        put = self._machinery.scheduler.put if width is None else width.put
        put(task)

    def _slack_s(self, call: CallId) -> float:
        if not (self._policy.objectives and self._policy.slack):
            return 0.0
        now_s = self._machinery.fleet.clock.now()
        return self.deduction.slack_s(call, lambda id: self.dataflow.spent_s(id, now_s))

    def _objective(self, call: CallId, slack_s: float) -> Objective:
        if not self._policy.objectives:
            return Objective()
        group = self.deduction.group(call) if self._policy.groups else None
        return Objective(
            kind=self.deduction.kind(call),
            wanted=self.deduction.wanted(call),
            group=None if group is None else f"{self._flow.session}/{group}",
            slack_s=slack_s,
        )

    def _ended(self, task: Task) -> None:
        """A task of ours is over."""
        self._machinery.scheduler.forget(task)
        if (width := self._widths.pop(task.call.id, None)) is not None:
            width.ended(task)
        self._machinery.admission.release(self._flow.tenant, 1, task.charged_tokens)
        self._machinery.fleet.events.emit(ending_of(task))
        if self._policy.lengths and task.result is not None and task.call.function is not None:
            name = self._length_name(task.call, task.model)
            self._machinery.lengths.learn(name, task.result.usage.output_tokens)
        self.deduced(self.deduction.remove(task.call.id))
        self.dataflow.ended(task)

    def _length_name(self, call: Call, model: str) -> tuple[str | None, ...]:
        return self._flow.tenant, model, call.function, call.function_output
