"""Placement: which engine each ready task goes to.

A pure function. It knows nothing of sessions or HTTP, asks nobody and changes nothing: same inputs, same answer.

The invariant: an idle engine is never passed over in favour of one where the wait costs more than the reuse
saves, or of what has slack more than `_WORTH` times as much; and where nothing is saved, load alone decides.
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Sequence
from dataclasses import dataclass, field

from .prefix import BLOCK_TOKENS

__all__ = ["Assignment", "Candidate", "EngineView", "place"]

_WORTH = 6.0
"""Seconds that a task with slack may be done later for each second of computing that this saves. What computes less
leaves more to others; but many that go home for a few tokens would leave the other engines idle."""

_ROW_SHARE = 0.05  # of a step's time that one more row adds: between a CPU (0.09) and a GPU far from full (0.01)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A task that could start now, as placement sees it."""

    key: Hashable
    prompt_tokens: int
    output_tokens: int
    """Expected, not promised."""
    blocks: tuple[int, ...] = ()
    """Hashes of its prefixes, one per `BLOCK_TOKENS` (see `prefix`)."""
    tenant: str = ""
    group: str | None = None
    slack_s: float = 0.0
    """The time by which it may finish later without anybody noticing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineView:
    """An engine as placement sees it, at one moment."""

    name: str
    context_tokens: int | None
    """`None` where the engine judges lengths by itself."""
    rows: int
    """Tasks that run or wait there."""
    waiting_tokens: int
    """Prompt tokens given to it and not yet computed."""
    prefill_tokens_s: float
    """Prompt tokens it computes per second."""
    step_s: float
    """Time of one decode step, seconds."""
    call_s: float
    """How long a call takes there, seconds."""
    max_rows: int | None = None
    """Tasks that it may be given at a time; others that use it do not count."""
    given: int | None = None
    """Of `rows`, those that it was given from here; `None`: all."""
    homes: Container[int] = field(default_factory=frozenset)
    """Block hashes of what it holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    key: Hashable
    engine: str
    reused_tokens: int


class _Plan:
    """What an engine will look like after the assignments made so far."""

    __slots__ = ("given", "homes", "rows", "view", "waiting_tokens")

    def __init__(self, view: EngineView) -> None:
        self.view = view
        self.rows = view.rows
        self.given = view.rows if view.given is None else view.given
        self.waiting_tokens = view.waiting_tokens
        self.homes: set[int] = set()

    @property
    def is_full(self) -> bool:
        # What others have there goes without our hearing of it: nobody may wait for that.
        return self.view.max_rows is not None and self.given >= self.view.max_rows

    def reused_tokens(self, task: Candidate) -> int:
        known = 0
        for block in task.blocks:
            if block not in self.homes and block not in self.view.homes:
                break
            known += 1
        return known * BLOCK_TOKENS

    def finish_s(self, task: Candidate, reused_tokens: int) -> float:
        view = self.view
        queue_s = self.waiting_tokens / view.prefill_tokens_s
        queue_s += self.rows * _ROW_SHARE * view.step_s * task.output_tokens
        if view.max_rows is not None and self.rows >= view.max_rows:
            queue_s += view.call_s * (self.rows - view.max_rows + 1) / view.max_rows
        own_s = (task.prompt_tokens - reused_tokens) / view.prefill_tokens_s + view.step_s * task.output_tokens
        return queue_s + own_s

    def take(self, task: Candidate, reused_tokens: int) -> None:
        self.rows += 1
        self.given += 1
        self.waiting_tokens += max(0, task.prompt_tokens - reused_tokens)
        self.homes.update(task.blocks)


def place(tasks: Sequence[Candidate], engines: Sequence[EngineView]) -> tuple[Assignment, ...]:
    """Assign tasks, in the order given, each to the engine where it is expected to finish first, beyond its slack:

        finish_s = queue_s + (prompt - reused) / prefill + step_s · output
        queue_s  = waiting / prefill + rows · 0.05 · step_s · output + (rows - max_rows + 1)⁺ · call_s / max_rows

    `prompt`, `reused`, `output`, `waiting` in tokens, `prefill` in tokens per second, `rows` in tasks; every task
    that is assigned counts for those after it, also as the new home of its prefix. Between equal engines this is
    score = reused / prefill - queue_s. A task with slack goes, of the engines with a free row that finish it within the
    slack, and not later by more than `_WORTH` times what they save, where least is left to compute, then where it
    finishes first. Ties go to the engine named first.

    A task whose best engine is full is left out: it waits, because waiting there is cheaper than starting
    elsewhere. Members of a group are looked at together, at the place of the first, the longest first, so that
    the last of them finishes soonest; but one that has more slack than the first, or comes behind another tenant's
    task, keeps its place. A task that fits no engine's context is left out too.
    """
    plans = [_Plan(view) for view in engines]
    chosen: list[Assignment] = []
    for task in _together(tasks):
        if all(plan.is_full for plan in plans):
            break  # and stays so: the rest would only be scored
        best: tuple[tuple[float, int, float], _Plan, int] | None = None
        for plan in plans:
            if plan.view.context_tokens is not None and task.prompt_tokens >= plan.view.context_tokens:
                continue
            reused_tokens = min(plan.reused_tokens(task), task.prompt_tokens)
            finish_s = plan.finish_s(task, reused_tokens)
            slack_s = min(task.slack_s, _WORTH * reused_tokens / plan.view.prefill_tokens_s)
            slack_s = 0.0 if plan.is_full else slack_s  # nobody waits for a row to save work while others idle
            cost = (max(0.0, finish_s - slack_s), -reused_tokens if slack_s else 0, finish_s)
            if best is None or cost < best[0]:
                best = cost, plan, reused_tokens
        if best is None:
            continue
        _, plan, reused_tokens = best
        if not plan.is_full:
            chosen.append(Assignment(key=task.key, engine=plan.view.name, reused_tokens=reused_tokens))
        plan.take(task, reused_tokens)
    return tuple(chosen)


def _together(tasks: Sequence[Candidate]) -> list[Candidate]:
    """Group members side by side, the longest prompt of those with least slack first. Members come to the place of an
    earlier one, before tasks of other groups, only where they have no more slack than that, which these may not have,
    and pass over no other tenant's turn."""
    places: list[list[Candidate]] = []
    begun: dict[str, list[Candidate]] = {}  # by group, its last place
    for index, task in enumerate(tasks):
        if index and task.tenant != tasks[index - 1].tenant:
            begun.clear()
        members = None if task.group is None else begun.get(task.group)
        if members is not None and task.slack_s <= members[0].slack_s:
            members.append(task)
        else:
            places.append([task])
            if task.group is not None:
                begun[task.group] = places[-1]
    for members in places:
        members.sort(key=lambda task: (task.slack_s, -task.prompt_tokens))
    return [task for members in places for task in members]
