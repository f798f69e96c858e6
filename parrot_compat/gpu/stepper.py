"""The stepper: takes commands and advances all sequences, one step at a time.

Plain synchronous code that one thread calls; it knows nothing of asyncio, threads, processes or tensors.

With `async_scheduling` a step is under way when `step` returns, and while the same sequences go on drawing, whoever
waits for a row of theirs, the next one is launched before the tokens of this one are known: the device is never idle
while the host looks at them. A text that turns out to have ended has then been computed one token too far, which is
thrown away, and who gets its row gets it a step later.

The invariant: a step always gets something done while there is work, and what it must do to find room (evict, drop,
preempt) never changes a token that is drawn.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from parrot_compat.core.engine import EngineInfo, EngineLoad
from parrot_compat.core.engine_front import Command, StepReport
from parrot_compat.core.errors import EngineError

from .batch import BatchRow
from .config import ResolvedConfig
from .drawing.drawn import Drawn
from .kv.contexts import Contexts
from .kv.pages import PagePool
from .kv.radix import RadixTree
from .sequence import Forms, Sequence, TextStreams
from .step_rows import Row, StepRows
from .wanted import Read
from .work import Clock, Work

__all__ = ["Runner", "Stepper"]

logger = logging.getLogger(__name__)


class Runner(Protocol):
    """What computes a step; `runner.ModelRunner` is the one."""

    config: ResolvedConfig

    def launch(self, rows: Items[BatchRow], after: Any = None, /) -> Any:
        """Begin a step. `after`: what `launch` gave for the step before, whose drawn tokens rows may follow."""
        ...

    def collect(self, flight: Any, /) -> Items[Drawn | Read | None]:
        """What the rows of a launched step drew. Steps are collected in the order in which they were launched."""
        ...

    def copy_pages(self, pairs: Items[tuple[int, int]], /) -> None: ...

    def check_device(self) -> None:
        """Wait until the device has done what it was given. Errors: its own, where it answers nothing any more."""
        ...


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """A step that was launched."""

    rows: list[Row]
    flight: Any
    began_s: float


class Stepper:
    """All sequences of one runner."""

    def __init__(
        self,
        runner: Runner,
        text_streams: TextStreams,
        clock: Clock = time.monotonic,
        forms: Forms | None = None,
    ) -> None:
        config = runner.config
        pool = PagePool(config.pages, config.page_size)
        self.config = config
        self._runner = runner
        self._contexts = Contexts(pool, RadixTree(pool) if config.enable_prefix_caching else None)
        self._work = Work(config, self._contexts, text_streams, clock, forms)
        self._rows = StepRows(config, self._work, self._contexts, clock, runner.copy_pages)
        self._obeys_formats = forms is not None
        self._clock = clock
        self._step_s: float | None = None
        self._under_way: _UnderWay | None = None
        self._landed_s = 0.0
        self._taken = 0

    @property
    def info(self) -> EngineInfo:
        config = self.config
        return EngineInfo(
            name=config.name,
            model=config.served_model_name,
            context_tokens=config.context_tokens,
            capacity_tokens=config.pages * config.page_size,
            max_rows=config.max_rows,
            page_size=config.page_size,
            defaults=config.checkpoint.defaults,
            obeys_formats=self._obeys_formats,
        )

    @property
    def has_work(self) -> bool:
        return self._work.can_go_on or self._under_way is not None

    def step(self, commands: Items[Command]) -> StepReport:
        """Launch the next step, land the one under way, hand back."""
        before, self._under_way = self._under_way, None
        if before is not None:
            if not commands:
                self._under_way = self._launch_ahead(before)
            self._land(before)
        if self._under_way is None:
            self._take(commands)
            self._under_way = self._launch(self._rows.find())
            if self._under_way is not None and not self.config.async_scheduling:
                self._land(self._under_way)
                self._under_way = None
        outbox = self._work.outbox
        return StepReport(updates=outbox.take(), load=self.load(), taken=self._taken, number=outbox.reports)

    def load(self) -> EngineLoad:
        sequences = self._work.sequences.values()
        running = sum(sequence.is_started for sequence in sequences)
        return EngineLoad(
            running=running,
            waiting=len(sequences) - running + len(self._work.queued),
            waiting_tokens=sum(
                sequence.prompt_tokens - sequence.context.computed for sequence in sequences if not sequence.drawn
            ),
            free_tokens=self._contexts.free_pages * self.config.page_size,
            step_s=self._step_s,
        )

    def compile_aside(self, wake: Callable[[], None]) -> None:
        """Forms are compiled beside the steps; `wake` is called, in whatever thread, when there is something to do."""
        self._work.forms.compile_aside(wake)

    def stop_compiling(self) -> None:
        self._work.forms.stop()

    def check(self) -> None:
        """Assert that nothing is lost between two steps."""
        self._work.check()

    # ---- the parts of a step -----------------------------------------------------------------------

    def _take(self, commands: Items[Command]) -> None:
        for command in commands:
            self._work.take(command)
            self._taken = command.id
        self._work.begin()
        for sequence in list(self._work.sequences.values()):
            # Another may have computed the same text by now.
            if not sequence.is_started and self._contexts.match(sequence.context) == len(sequence.context.tokens):
                sequence.found_cached(self._clock())
                self._work.end_if_computed(sequence)

    def _launch(self, rows: list[Row], after: _UnderWay | None = None) -> _UnderWay | None:
        """`None`: no rows, or the launch failed: then its rows have failed, and all others go on."""
        if not rows:
            return None
        began_s = self._clock()
        try:
            flight = self._runner.launch([row for _, row in rows], None if after is None else after.flight)
        except Exception as cause:
            self._fail_of_step(rows, cause)
            return None
        return _UnderWay(rows, flight, began_s)

    def _land(self, step: _UnderWay) -> None:
        """What was computed is in the pages; what was drawn goes on or ends."""
        try:
            drawn = self._runner.collect(step.flight)
        except Exception as cause:
            self._fail_of_step(step.rows, cause)
            return
        took_s = self._clock() - max(step.began_s, self._landed_s)
        self._landed_s = self._clock()
        self._step_s = took_s if self._step_s is None else 0.9 * self._step_s + 0.1 * took_s
        for (sequence, row), token in zip(step.rows, drawn, strict=True):
            if not self._is_alive(sequence):  # it had ended, or failed, when this step was already under way
                continue
            if (error := _why_unusable(token)) is not None:
                # Pages of this step may hold the same numbers: nobody is to find them. Those of steps before stay.
                self._fail([(sequence, row)], error)
                continue
            self._contexts.commit(sequence.context, row.start + len(row.tokens))
            self._work.flows.serve(sequence.flow, len(row.tokens))
            if isinstance(token, Read):
                sequence.take_read(token)
                token = token.drawn
            if row.draw is not None:
                assert token is not None, f"sequence {sequence.id} was to draw"
                self._work.extend(sequence, token)
            else:
                self._work.end_if_computed(sequence)

    def _fail_of_step(self, rows: list[Row], cause: Exception) -> None:
        """Fail the rows of a step that failed. Errors: of a lost device, which ends the engine: its calls can be
        answered elsewhere."""
        if isinstance(cause, torch.AcceleratorError) and "out of memory" not in str(cause):
            raise cause  # a device that reported an error answers nothing but errors
        # Triton or cuBLAS may have heard of such an error first, and they say so with errors of another kind.
        self._runner.check_device()
        self._fail(rows, cause)

    def _fail(self, rows: list[Row], cause: Exception) -> None:
        logger.error("a step of %d rows failed on %s", len(rows), self.config.name, exc_info=cause)
        for sequence, _ in rows:
            if self._is_alive(sequence):
                error = EngineError(f"a step failed on engine {self.config.name!r}: {type(cause).__name__}: {cause}")
                error.__cause__ = cause
                self._contexts.drop(sequence.context)  # what a failed step wrote is not known
                self._work.fail(sequence, error)

    def _is_alive(self, sequence: Sequence) -> bool:
        return self._work.sequences.get(sequence.id) is sequence

    # ---- a step ahead of its tokens ----------------------------------------------------------------

    def _launch_ahead(self, before: _UnderWay) -> _UnderWay | None:
        """The step behind `before`, if all there is to do is that its rows go on drawing."""
        alive = [(number, pair) for number, pair in enumerate(before.rows) if self._is_alive(pair[0])]
        work = self._work
        if not self.config.async_scheduling or work.queued or work.forms.has_news:
            return None
        if any(row.draw is None or row.wanted or sequence.must_see_each_token for _, (sequence, row) in alive):
            return None
        if len(alive) != len(work.sequences) and not self._is_theirs_alone([pair for _, pair in alive]):
            return None
        rows = self._rows.ahead([(number, sequence, row) for number, (sequence, row) in alive])
        return None if rows is None else self._launch(rows, before)

    def _is_theirs_alone(self, rows: list[Row]) -> bool:
        """Whether the step behind that of `rows` has nothing for those who wait: all rows, or all tokens of a step, are
        taken, none of them is about to be free, and no prompt ends here, which one who waits may ask for as well."""
        if len(rows) < min(self.config.max_rows, self.config.step_tokens):
            return False
        if sum(sequence.is_started for sequence in self._work.sequences.values()) > len(rows):
            return False
        return all(
            len(row.tokens) == 1 and row.draw is not None and row.draw.index > 0 and sequence.draw_ahead() is not None
            for sequence, row in rows
        )


def _why_unusable(token: Drawn | Read | None) -> EngineError | None:
    """Why a row fails by itself; `None`: it does not."""
    drawn = token.drawn if isinstance(token, Read) else token
    if isinstance(drawn, EngineError):
        return drawn
    if isinstance(token, Read) and not token.is_usable:
        return EngineError("the model gave states or log probabilities that are no numbers (NaN or infinite)")
    return None
