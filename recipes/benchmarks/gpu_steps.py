"""Steps of a runner, taken by the engine's own stepper in this thread, and their times.

The invariant: scheduling, pages and prefixes are the engine's; only text and transport are missing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.core.engine import Chunk, ContextId, Generate, Scope
from parrot_compat.core.engine_front import Command
from parrot_compat.core.prompt import Tokens
from parrot_compat.gpu.batch import BatchRow
from parrot_compat.gpu.drawing.draw import Draw
from parrot_compat.gpu.runner import ModelRunner
from parrot_compat.gpu.stepper import Stepper

from .gpu_rows import times_s
from .gpu_shapes import Load

__all__ = ["GREEDY", "Steps", "answers", "decode_s", "prefill_s"]

GREEDY = ResolvedSampling(max_tokens=1 << 20)
WARM_STEPS, TIMED_STEPS = 8, 8


class Silent:
    """A text stream for tokens that nobody reads."""

    met: str | None = None

    def push(self, token_ids: Sequence[int], may_stop: bool = True) -> str:
        return ""

    def flush(self) -> str:
        return ""


class Steps:
    """A runner stepped by the engine's own stepper, in this thread: scheduling, pages and prefixes are the engine's."""

    def __init__(self, runner: ModelRunner, **changed: bool) -> None:
        """`changed`: of the resolved config: how the steps are to be taken."""
        runner.config = replace(runner.config, **changed)
        self._stepper = Stepper(runner, lambda stop, marks: Silent())
        self.step_tokens = runner.config.step_tokens
        self.texts: dict[int, list[int]] = {}

    def ask(self, asked: Sequence[tuple[list[int], int]], group: str | None = None) -> None:
        """(prompt, output tokens), greedy, all at once."""
        commands = []
        for number, (prompt, out) in enumerate(asked, len(self.texts) + 1):
            self.texts[number] = []
            sampling = ResolvedSampling(max_tokens=out, ignore_eos=True)
            verb = Generate(context=ContextId(number), content=Tokens(tuple(prompt)), sampling=sampling,
                            scope=Scope(group=group))  # fmt: skip
            commands.append(Command(number, verb))
        self._take(commands)

    def step(self) -> bool:
        """One step; whether there is more to do."""
        self._take(())
        return self._stepper.has_work

    def run(self) -> list[list[int]]:
        while self.step():
            pass
        return list(self.texts.values())

    def _take(self, commands: Sequence[Command]) -> None:
        for update in self._stepper.step(commands).updates:
            if isinstance(update.answer, Exception):
                raise update.answer
            assert isinstance(update.answer, Chunk)
            self.texts[update.command] += update.answer.tokens


def answers(runner: ModelRunner, asked: Sequence[tuple[list[int], int]], **changed: bool) -> list[list[int]]:
    steps = Steps(runner, **changed)
    steps.ask(asked)
    return steps.run()


def prefill_s(runner: ModelRunner, prompt: int, device: torch.device, tries: int) -> list[float]:
    ids = [number % 500 + 3 for number in range(prompt)]
    batch = [BatchRow(tokens=ids, start=0, pages=range(-(-prompt // 16)), draw=Draw(sampling=GREEDY, index=0))]
    return times_s(partial(runner.run, batch), device, tries)


def decode_s(steps: Steps, rows: int, load: Load) -> list[float]:
    """Seconds of a step in which `rows` texts of about `context` tokens draw, of each of the tries."""
    drawn = random.Random(rows)
    # The first draw while the prompts of the last are still computed.
    out = WARM_STEPS + load.tries * TIMED_STEPS + 2 + -(-rows * load.context // steps.step_tokens)
    steps.ask([([drawn.randrange(3, 500) for _ in range(load.context - out // 2)], out) for _ in range(rows)])
    while not all(steps.texts.values()):
        steps.step()
    found = []
    for number in range(load.tries + 1):
        count = TIMED_STEPS if number else WARM_STEPS
        before, began = sum(map(len, steps.texts.values())), time.perf_counter()
        for _ in range(count):
            steps.step()
        taken = time.perf_counter() - began
        assert sum(map(len, steps.texts.values())) - before == count * rows
        if number:
            found.append(taken / count)
    steps.run()
    return found
