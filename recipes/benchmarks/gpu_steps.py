"""Steps of a runner, taken by the engine's own stepper in this thread, and their times.

The invariant: scheduling, pages and prefixes are the engine's; only text and transport are missing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial

import torch

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.core.engine import Chunk, ContextId, Generate
from parrot_compat.core.engine_front import Command
from parrot_compat.core.prompt import Tokens
from parrot_compat.gpu.batch import BatchRow
from parrot_compat.gpu.drawing.draw import Draw
from parrot_compat.gpu.runner import Flight, ModelRunner
from parrot_compat.gpu.stepper import Stepper

from .gpu_rows import times_s
from .gpu_shapes import Load

__all__ = [
    "GREEDY",
    "SAMPLINGS",
    "Launches",
    "Steps",
    "answers",
    "decode_s",
    "drawing_s",
    "may_not_wait",
    "outputs",
    "prefill_s",
]

GREEDY = ResolvedSampling(max_tokens=1 << 20)
SAMPLINGS = {
    "greedy": GREEDY,
    "sampled": replace(GREEDY, temperature=0.8),
    "sampled, top_p 0.9": replace(GREEDY, temperature=0.8, top_p=0.9),
    "penalties": replace(GREEDY, repetition_penalty=1.1, presence_penalty=0.5, frequency_penalty=0.5),
    "logit bias": replace(GREEDY, logit_bias=((7, 2.0), (11, -2.0))),
    "top_k, min_p": replace(GREEDY, temperature=0.8, top_k=20, min_p=0.1),
    "log probabilities": replace(GREEDY, logprobs=20),
}
"""The ways to draw that do different things on the device."""
WARM_STEPS, TIMED_STEPS = 8, 8


class Silent:
    """A text stream for tokens that nobody reads."""

    met: str | None = None

    def follow(self, token_id: int | None) -> None:
        """Nothing goes on behind nothing."""

    def push(self, token_ids: Sequence[int], may_stop: bool = True) -> str:
        return ""

    def flush(self) -> str:
        return ""


@contextmanager
def may_not_wait() -> Iterator[None]:
    """Whatever waits for the CUDA device in here raises a `RuntimeError` that says so. It takes a CUDA build of torch;
    torch knows most of what waits, not all."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


class Launches:
    """A runner, and what its launches were like. One that waits for the device is noted and done again, waiting."""

    def __init__(self, runner: ModelRunner, *, are_watched: bool) -> None:
        """`are_watched`: whether they wait for the device, which only a CUDA device can tell."""
        self.config = runner.config
        self.collect = runner.collect
        self.copy_pages = runner.copy_pages
        self.check_device = runner.check_device
        self.shared: list[int] = []
        """Of each launch, how many prefixes its rows read together."""
        self.waited: list[str] = []
        """What was said of each launch that waited."""
        self._runner = runner
        self._are_watched = are_watched and runner.device.type == "cuda"

    def launch(self, rows: Sequence[BatchRow], after: Flight | None = None) -> Flight:
        flight = self._launch(rows, after)
        self.shared.append(len(flight.packed.shared))
        return flight

    def _launch(self, rows: Sequence[BatchRow], after: Flight | None) -> Flight:
        try:
            with may_not_wait() if self._are_watched else nullcontext():
                return self._runner.launch(rows, after)
        except torch.AcceleratorError:
            raise
        except RuntimeError as error:
            if not self._are_watched:
                raise
            self.waited.append(str(error))
        # It computes the same into the same pages; an error of another kind is raised here again.
        return self._runner.launch(rows, after)


class Steps:
    """A runner stepped by the engine's own stepper, in this thread: scheduling, pages and prefixes are the engine's."""

    def __init__(self, runner: ModelRunner, *, are_watched: bool = False, **changed: bool) -> None:
        """`changed`: of the resolved config: how the steps are to be taken. `are_watched`: see `Launches`."""
        runner.config = replace(runner.config, **changed)
        self.launches = Launches(runner, are_watched=are_watched)
        self._stepper = Stepper(self.launches, lambda stop, marks: Silent())
        self.step_tokens = runner.config.step_tokens
        self.texts: dict[int, list[int]] = {}

    def ask(
        self,
        asked: Sequence[tuple[list[int], int]],
        sampling: ResolvedSampling = GREEDY,
    ) -> None:
        """(prompt, output tokens), all at once, each drawn by `sampling` with a seed of its own, to its full length."""
        commands = []
        for number, (prompt, out) in enumerate(asked, len(self.texts) + 1):
            self.texts[number] = []
            verb = Generate(
                context=ContextId(number),
                content=Tokens(tuple(prompt)),
                sampling=replace(sampling, max_tokens=out, ignore_eos=True, seed=number),
            )
            commands.append(Command(number, verb))
        self._take(commands)

    def know(self, front: list[int]) -> None:
        """Have the beginning of prompts computed, so that those that come find it."""
        self.ask([(front, 1)])
        self.run()

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


def decode_s(steps: Steps, rows: int, load: Load, sampling: ResolvedSampling = GREEDY) -> list[float]:
    """Seconds of a step in which `rows` texts of about `context` tokens draw, of each of the tries."""
    drawn = random.Random(rows)
    out = outputs(steps, rows * load.context, load.tries)
    prompts = [[drawn.randrange(3, 500) for _ in range(load.context - out // 2)] for _ in range(rows)]
    steps.ask([(prompt, out) for prompt in prompts], sampling=sampling)
    return drawing_s(steps, rows, load.tries)


def outputs(steps: Steps, prompt_tokens: int, tries: int) -> int:
    """So many does each text need for `drawing_s`: the first draws while the prompts of the last are computed."""
    return WARM_STEPS + tries * TIMED_STEPS + 2 + -(-prompt_tokens // steps.step_tokens)


def drawing_s(steps: Steps, rows: int, tries: int) -> list[float]:
    """Seconds of a step in which the `rows` texts that were asked for draw, of each of the tries."""
    while not all(steps.texts.values()):
        steps.step()
    found = []
    for number in range(tries + 1):
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
