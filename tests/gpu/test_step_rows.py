"""The rows of a step: the short way to a plan leads to the scheduler's."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parrot_compat.core.engine_front import Answer, Command
from parrot_compat.gpu import step_rows
from parrot_compat.gpu.batch import BatchRow
from parrot_compat.gpu.step import StepPlan
from parrot_compat.gpu.step_rows import StepRows
from tests.gpu.paged_runner import PagedRunner, generate, paged_stepper, prompt, resolved

asked = st.tuples(st.integers(1, 40), st.integers(0, 3), st.integers(1, 20), st.integers(0, 6))
"""Tokens of a prompt, its salt, tokens of the answer, the step in which it comes."""


def ran(
    work: list[tuple[int, int, int, int]], pages: int
) -> tuple[list[tuple[BatchRow, ...]], list[tuple[int, Answer]]]:
    """The rows of all steps and all answers."""
    runner = PagedRunner(resolved(pages=pages, max_rows=3, context_tokens=60))
    stepper = paged_stepper(runner, clock=lambda: 0.0)
    commands = [
        (step, generate(number + 1, prompt(tokens, salt), most))
        for number, (tokens, salt, most, step) in enumerate(work)
    ]
    answers: list[tuple[int, Answer]] = []
    number = 0
    while number <= 6 or stepper.has_work:
        coming = [Command(id + 1, verb) for id, (step, verb) in enumerate(commands) if step == number]
        answers += [(update.command, update.answer) for update in stepper.step(coming).updates]
        stepper.check()
        number += 1
    return runner.steps, answers


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(asked, min_size=1, max_size=5), st.sampled_from([200, 32, 17]))
def test_the_short_way_to_a_plan_gives_the_same_steps(work: list[tuple[int, int, int, int]], pages: int) -> None:
    short = ran(work, pages)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StepRows, "_all_draw", lambda self: None)
        assert ran(work, pages) == short


def test_the_scheduler_is_not_asked_while_all_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for, right = 0, step_rows.plan_step

    def counted(*facts: Any) -> StepPlan:
        nonlocal asked_for
        asked_for += 1
        return right(*facts)

    monkeypatch.setattr(step_rows, "plan_step", counted)
    steps, _ = ran([(9, 1, 20, 0), (9, 2, 20, 0)], pages=200)
    assert asked_for == 1 and len(steps) == 20
