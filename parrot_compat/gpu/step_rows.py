"""The rows of the next step, with pages for all their tokens.

They carry out what `scheduler` plans, and plan again until there is room; they know nothing of runners or of what is
drawn. The invariant: a round that finds no row takes pages from somebody, so that rows are found while there is work;
and what gives way (cache, idle contexts, the least urgent sequence) never changes a token.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import replace

from parrot_compat.core.errors import EngineError

from .batch import BatchRow
from .config import ResolvedConfig
from .kv.context import Context
from .kv.contexts import Contexts
from .kv.pages import OutOfPages
from .scheduler import plan_step, victims
from .sequence import Sequence
from .step import PlannedRow, Room, StepPlan
from .work import Clock, Work

__all__ = ["Row", "StepRows"]

Row = tuple[Sequence, BatchRow]
CopyPages = Callable[[Items[tuple[int, int]]], None]


class StepRows:
    def __init__(
        self, config: ResolvedConfig, work: Work, contexts: Contexts, clock: Clock, copy_pages: CopyPages
    ) -> None:
        """`copy_pages` copies whole pages, (source, target), before the next step is launched."""
        self._config = config
        self._work = work
        self._contexts = contexts
        self._clock = clock
        self._copy_pages = copy_pages

    def find(self) -> list[Row]:
        """Plan until there is room for what is planned. Every round that finds no row takes pages from somebody."""
        while self._work.sequences:
            plan = self._all_draw() or self._plan()
            for id in plan.preempt:
                self._preempt(self._work.sequences[id])
            if plan.drop_idle_pages:
                self._drop_idle(plan.drop_idle_pages)
            if plan.rows and (rows := self._carry_out(plan)):
                # Rows that share a prefix come one after another: their page lists begin alike.
                return sorted(rows, key=lambda row: row[0].context.pages)
        return []

    def _all_draw(self) -> StepPlan | None:
        """The plan of the commonest step, found without the scheduler: everybody draws, and there is room for all."""
        sequences, size, missing = self._work.sequences.values(), self._config.page_size, 0
        if len(sequences) > min(self._config.max_rows, self._config.step_tokens):
            return None
        for sequence in sequences:
            if not (sequence.is_started and sequence.is_drawing):
                return None
            missing += len(sequence.context.tokens) > len(sequence.context.pages) * size
        if missing > self._contexts.free_pages:
            return None
        return StepPlan(rows=tuple(PlannedRow(id, 1) for id in sorted(self._work.sequences)))

    def _plan(self) -> StepPlan:
        room = Room(
            rows=self._config.max_rows,
            tokens=self._config.step_tokens,
            free_pages=self._contexts.free_pages,
            page_size=self._config.page_size,
            now_s=self._clock(),
            shares_prefixes=self._config.enable_prefix_caching and self._config.share_prefixes,
            has_idle=self._has_idle,
        )
        return plan_step([sequence.view for sequence in self._work.sequences.values()], room, self._work.flows.served)

    def _carry_out(self, plan: StepPlan) -> list[Row]:
        """Give every planned row its pages. Where they run out the rest waits; no row at all: somebody gives way."""
        rows: list[Row] = []
        waiting = list(plan.rows)
        while waiting:
            sequence = self._work.sequences[waiting[0].id]
            try:
                rows.append(self._prepare(sequence, waiting[0]))
            except OutOfPages as shortage:
                # The plan found room where there was none: a shared page has to be copied.
                if self._take_a_page({planned.id for planned in plan.rows}):
                    continue
                if not rows:
                    self._make_way(sequence, shortage)
                break
            del waiting[0]
        return rows

    def _prepare(self, sequence: Sequence, planned: PlannedRow) -> Row:
        context = sequence.context
        start, end = context.computed, context.computed + planned.tokens
        # A sequence that starts takes the pages of its whole text at once, so that it never stops half-way for pages.
        copies = self._contexts.reserve(context, end if sequence.is_started else len(context.tokens))
        if copies:  # at once: the next reserve may evict a source
            self._copy_pages(copies)
        if not sequence.is_started:
            sequence.is_started = True
            sequence.found_cached(self._clock())
        row = BatchRow(
            tokens=context.tokens[start:end],
            start=start,
            pages=context.pages,
            draw=sequence.draw_after(end),
            prompt_tokens=sequence.prompt_tokens,
            wanted=sequence.wanted_after(end),
        )
        return sequence, row

    def ahead(self, before: Items[tuple[int, Sequence, BatchRow]]) -> list[Row] | None:
        """Rows that draw the tokens behind those that `before` are drawing, (number in its step, sequence, row) each.

        `None`: pages are missing, so somebody has to give way, which waits until the tokens are known.
        """
        rows: list[Row] = []
        for number, sequence, row in before:
            draw, end = sequence.draw_ahead(), row.start + len(row.tokens)
            if draw is None:
                continue
            if not self._contexts.reserve_ahead(sequence.context, end + 1):
                return None
            ahead = replace(
                row, tokens=(0,), start=end, pages=sequence.context.pages, draw=draw, wanted=None, drawn_by=number
            )
            rows.append((sequence, ahead))
        return rows

    # ---- pages -------------------------------------------------------------------------------------

    @property
    def _has_idle(self) -> bool:
        """There are such contexts as `_idle_contexts` gives."""
        return len(self._contexts) > len(self._work.sequences) and bool(self._idle_contexts())

    def _idle_contexts(self) -> list[Context]:
        """Contexts that hold pages and have no verb at work, the least recently used first."""
        busy = {sequence.context.id for sequence in self._work.sequences.values()}
        return [context for context in self._contexts if context.pages and context.id not in busy]

    def _preempt(self, sequence: Sequence) -> None:
        """Back to waiting, without pages. Its tokens stay, so it goes on where it was once they are computed again."""
        sequence.is_started = False
        self._contexts.drop(sequence.context)

    def _drop_idle(self, pages: int) -> None:
        enough = self._contexts.free_pages + pages
        for context in self._idle_contexts():
            self._contexts.drop(context)
            if self._contexts.free_pages >= enough:
                return

    def _take_a_page(self, planned: set[int]) -> bool:
        """From an idle context, or from the last that waits and is not planned. `False`: they have none."""
        if self._has_idle:
            self._drop_idle(1)
            return True
        for sequence in reversed(self._work.sequences.values()):
            if not sequence.is_started and sequence.context.pages and sequence.id not in planned:
                self._contexts.drop(sequence.context)
                return True
        return False

    def _make_way(self, first: Sequence, shortage: OutOfPages) -> None:
        """Only who runs has pages: one of them goes back to waiting."""
        others = victims([sequence.view for sequence in self._work.sequences.values()], self._clock())
        if others:
            self._preempt(self._work.sequences[others[0].id])
        elif first.context.pages:
            self._preempt(first)
        else:
            self._work.fail(first, EngineError(f"engine {self._config.name!r} has no pages for it: {shortage}"))
