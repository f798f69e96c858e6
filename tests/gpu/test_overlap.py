"""Steps launched before the tokens of the step before are known: when, and what is left when a text ends meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from parrot_compat.core.engine import Chunk, ContextId, Fill, Filled
from parrot_compat.core.engine_front import Cancel, Command, Free, Update
from parrot_compat.core.prompt import Tokens
from parrot_compat.gpu.batch import BatchRow
from parrot_compat.gpu.drawing.sampler import not_drawable
from tests.gpu.paged_runner import EOS, PagedRunner, expected, generate, paged_stepper, prompt, resolved


class Recorder(PagedRunner):
    """Remembers in which order steps were launched and collected."""

    def launch(self, rows: Sequence[BatchRow], after: Any = None) -> Any:
        flight = super().launch(rows, after)
        self.order = [*getattr(self, "order", []), ("launch", len(self.steps), after is not None)]
        return (len(self.steps), flight)

    def collect(self, flight: Any) -> Any:
        number, answers = flight
        self.order.append(("collect", number, False))
        return answers


class Overlapped(Recorder):
    def launch(self, rows: Sequence[BatchRow], after: Any = None) -> Any:
        return super().launch(rows, None if after is None else after[1])


def texts(updates: Sequence[Update]) -> dict[int, tuple[int, ...]]:
    found: dict[int, tuple[int, ...]] = {}
    for update in updates:
        assert isinstance(update.answer, Chunk), update.answer
        found[update.command] = found.get(update.command, ()) + update.answer.tokens
    return found


def run(runner: PagedRunner, *commands: Command) -> dict[int, tuple[int, ...]]:
    stepper = paged_stepper(runner)
    updates = list(stepper.step(commands).updates)
    while stepper.has_work:
        updates += stepper.step(()).updates
        stepper.check()
    stepper.step([Command(100 + command.id, Free(ContextId(command.id))) for command in commands])
    stepper.check()
    assert stepper.load().free_tokens == runner.config.pages * runner.config.page_size
    return texts(updates)


def test_while_the_same_rows_draw_each_step_is_launched_before_the_one_before_is_collected() -> None:
    runner = Overlapped(resolved(async_scheduling=True))
    found = run(runner, *(Command(n, generate(n, prompt(5, n), 10)) for n in (1, 2)))
    assert found == {n: expected(prompt(5, n), 10) for n in (1, 2)}
    ahead = [number for kind, number, is_ahead in runner.order if kind == "launch" and is_ahead]
    assert ahead == list(range(2, 11)) and len(runner.steps) == 10
    for number in ahead:
        kinds = [(kind, step) for kind, step, _ in runner.order]
        assert kinds.index(("launch", number)) < kinds.index(("collect", number - 1))


def test_without_it_every_step_is_collected_before_the_next_is_launched() -> None:
    runner = Overlapped(resolved(async_scheduling=False))
    run(runner, Command(1, generate(1, prompt(5), 10)))
    assert [kind for kind, *_ in runner.order] == ["launch", "collect"] * 10


def test_a_text_that_ends_by_its_length_is_not_computed_too_far() -> None:
    runner = Overlapped(resolved(async_scheduling=True))
    found = run(runner, Command(1, generate(1, prompt(5, 1), 4)), Command(2, generate(2, prompt(6, 2), 9)))
    assert found == {1: expected(prompt(5, 1), 4), 2: expected(prompt(6, 2), 9)}
    assert [len(step) for step in runner.steps] == [2] * 4 + [1] * 5


def test_a_text_that_turns_out_to_have_ended_is_computed_one_token_too_far_and_leaves_nothing_behind() -> None:
    runner = Overlapped(resolved(async_scheduling=True))
    others = expected(prompt(7, 2), 12)
    runner.draws[prompt(4, 1) + expected(prompt(4, 1), 3)] = EOS
    found = run(runner, Command(1, generate(1, prompt(4, 1), 12)), Command(2, generate(2, prompt(7, 2), 12)))
    assert found == {1: (*expected(prompt(4, 1), 3), EOS), 2: others}
    assert [len(step) for step in runner.steps] == [2] * 5 + [1] * 7


def test_a_full_engine_overlaps_however_many_wait_and_who_waits_starts_when_a_row_is_free() -> None:
    runner = Overlapped(resolved(async_scheduling=True, max_rows=2))
    found = run(runner, *(Command(n, generate(n, prompt(5, n), 10)) for n in (1, 2, 3)))
    assert found == {n: expected(prompt(5, n), 10) for n in (1, 2, 3)}
    assert [len(step) for step in runner.steps] == [2] * 10 + [1] * 10, "the third begins when the others have ended"
    ahead = {number for kind, number, is_ahead in runner.order if kind == "launch" and is_ahead}
    assert ahead == {*range(3, 11), *range(12, 21)}, "but for the step behind their prompts"


def test_in_a_full_engine_who_waits_for_a_text_that_others_compute_has_it_with_them() -> None:
    runner = Overlapped(resolved(async_scheduling=True, max_rows=2))
    stepper = paged_stepper(runner)
    fill = Fill(context=ContextId(3), content=Tokens(prompt(5, 2)))
    updates = list(
        stepper.step([*(Command(n, generate(n, prompt(5, n), 30)) for n in (1, 2)), Command(3, fill)]).updates
    )
    while stepper.has_work and 3 not in {update.command for update in updates}:
        updates += stepper.step(()).updates
    assert len(runner.steps) == 2 and isinstance(updates[-1].answer, Filled)


def test_who_waits_gets_the_row_of_a_text_that_ends_by_its_length_in_the_very_next_step() -> None:
    runner = Overlapped(resolved(async_scheduling=True, max_rows=2))
    asked = {1: 4, 2: 9, 3: 5}
    found = run(runner, *(Command(n, generate(n, prompt(5, n), tokens)) for n, tokens in asked.items()))
    assert found == {n: expected(prompt(5, n), tokens) for n, tokens in asked.items()}
    assert [len(step) for step in runner.steps] == [2] * 9
    assert [number for number, step in enumerate(runner.steps, 1) if any(len(row.tokens) > 1 for row in step)] == [1, 5]


def test_who_waits_gets_the_row_of_a_text_that_ends_unforeseen_one_step_later() -> None:
    runner = Overlapped(resolved(async_scheduling=True, max_rows=2))
    runner.draws[prompt(4, 1) + expected(prompt(4, 1), 3)] = EOS
    found = run(runner, *(Command(n, generate(n, prompt(4, n), 12)) for n in (1, 2, 3)))
    assert found[1] == (*expected(prompt(4, 1), 3), EOS)
    assert found[2] == expected(prompt(4, 2), 12) and found[3] == expected(prompt(4, 3), 12)
    assert [number for number, step in enumerate(runner.steps, 1) if any(len(row.tokens) > 1 for row in step)] == [1, 6]


def test_a_step_of_few_tokens_is_full_with_as_many_rows() -> None:
    runner = Overlapped(resolved(async_scheduling=True, max_rows=8, step_tokens=2))
    found = run(runner, *(Command(n, generate(n, prompt(2, n), 10)) for n in (1, 2, 3)))
    assert found == {n: expected(prompt(2, n), 10) for n in (1, 2, 3)}
    assert sum(is_ahead for kind, _, is_ahead in runner.order if kind == "launch") >= 8


def test_while_a_row_is_free_nobody_waits_for_the_sake_of_overlap() -> None:
    """A prompt of two steps is computed beside a text that draws; then both draw."""
    runner = Overlapped(resolved(async_scheduling=True, max_rows=3, step_tokens=8))
    found = run(runner, Command(1, generate(1, prompt(2, 1), 12)), Command(2, generate(2, prompt(20, 2), 6)))
    assert found == {1: expected(prompt(2, 1), 12), 2: expected(prompt(20, 2), 6)}
    of_prompt = [number for number, step in enumerate(runner.steps, 1) if any(len(row.tokens) > 1 for row in step)]
    assert of_prompt == [1, 2, 3]


def test_a_command_ends_the_overlap_for_one_step_and_a_cancelled_text_is_not_answered_any_more() -> None:
    runner = Overlapped(resolved(async_scheduling=True))
    stepper = paged_stepper(runner)
    updates = list(stepper.step([Command(n, generate(n, prompt(5, n), 30)) for n in (1, 2)]).updates)
    for _ in range(4):
        updates += stepper.step(()).updates
    told = len(texts(updates)[1])
    updates += stepper.step([Command(3, Cancel(1)), Command(4, generate(4, prompt(9, 4), 5))]).updates
    while stepper.has_work:
        updates += stepper.step(()).updates
        stepper.check()
    found = texts(updates)
    assert found[2] == expected(prompt(5, 2), 30) and found[4] == expected(prompt(9, 4), 5)
    assert len(found[1]) == told + 1, "the step under way when the command came is still told"


def test_a_step_that_fails_when_it_is_collected_fails_its_rows_and_the_step_behind_it_is_thrown_away() -> None:
    class Fails(Overlapped):
        def collect(self, flight: Any) -> Any:
            if flight[0] == 3:
                raise ValueError("not a number")
            return super().collect(flight)

    runner = Fails(resolved(async_scheduling=True))
    stepper = paged_stepper(runner)
    updates = list(stepper.step([Command(1, generate(1, prompt(5), 10))]).updates)
    while stepper.has_work:
        updates += stepper.step(()).updates
        stepper.check()
    assert "not a number" in str(updates[-1].answer) and [update.command for update in updates] == [1] * 3


@pytest.mark.parametrize("async_scheduling", [False, True])
def test_a_row_that_cannot_be_drawn_fails_alone(async_scheduling: bool) -> None:
    class Breaks(Overlapped):
        def collect(self, flight: Any) -> Any:
            tokens = super().collect(flight)
            return [not_drawable() if flight[0] == 3 and row == 1 else token for row, token in enumerate(tokens)]

    runner = Breaks(resolved(async_scheduling=async_scheduling))
    stepper = paged_stepper(runner)
    updates = list(stepper.step([Command(n, generate(n, prompt(5, n), 10)) for n in (1, 2, 3)]).updates)
    while stepper.has_work:
        updates += stepper.step(()).updates
        stepper.check()
    assert "cannot be drawn" in str(next(update.answer for update in updates if isinstance(update.answer, Exception)))
    found = texts([update for update in updates if not isinstance(update.answer, Exception)])
    assert found == {1: expected(prompt(5, 1), 10), 2: expected(prompt(5, 2), 2), 3: expected(prompt(5, 3), 10)}


def test_where_no_page_is_left_for_the_next_token_the_step_waits_for_the_tokens() -> None:
    runner = Overlapped(resolved(async_scheduling=True, pages=6, enable_prefix_caching=False))
    commands = [Command(n, generate(n, prompt(7, n), 14)) for n in (1, 2)]
    stepper = paged_stepper(runner)
    updates = list(stepper.step(commands).updates)
    while stepper.has_work:
        updates += stepper.step(()).updates
        stepper.check()
    assert texts(updates) == {n: expected(prompt(7, n), 14) for n in (1, 2)}
    waited = [number for kind, number, is_ahead in runner.order if kind == "launch" and not is_ahead]
    assert waited[0] == 1 and len(waited) > 1, "no step waited"
