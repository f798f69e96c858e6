"""Work ahead in whole steps: what a fill takes of them, and what changes once somebody waits for it."""

from __future__ import annotations

from collections.abc import Iterable

from parrot_compat.core.engine import Chunk, ContextId, Fill, Filled, Scope
from parrot_compat.core.engine_front import Answer, Command, Verb
from parrot_compat.core.prompt import Tokens
from parrot_compat.gpu.scheduler import FILL_AHEAD_S
from tests.gpu.paged_runner import PagedRunner, expected, generate, paged_stepper, prompt, resolved

PATIENT = Scope(slack_s=30.0)


class Steps:
    """A stepper by hand: steps of eight tokens, and a clock that stands still."""

    def __init__(self) -> None:
        self.runner = PagedRunner(resolved(step_tokens=8))
        self.now_s = 0.0
        self.stepper = paged_stepper(self.runner, clock=lambda: self.now_s)
        self.answers: dict[int, list[Answer]] = {}

    def step(self, *verbs: Verb) -> list[tuple[int, ...]]:
        """Begin `verbs` and do one step: the tokens of its rows."""
        commands = [Command(len(self.answers) + 1 + number, verb) for number, verb in enumerate(verbs)]
        self.answers |= {command.id: [] for command in commands}
        for update in self.stepper.step(commands).updates:
            self.answers[update.command].append(update.answer)
        self.stepper.check()
        return [tuple(row.tokens) for row in self.runner.steps[-1]]

    def finish(self) -> None:
        while self.stepper.has_work:
            self.step()

    def drawn(self, command: int) -> tuple[int, ...]:
        chunks: Iterable[Chunk] = (answer for answer in self.answers[command] if isinstance(answer, Chunk))
        return tuple(token for chunk in chunks for token in chunk.tokens)


def fill(context: int, tokens: tuple[int, ...]) -> Fill:
    return Fill(context=ContextId(context), content=Tokens(tokens))


def test_a_fill_takes_what_prompts_leave_of_a_step_and_changes_no_answer() -> None:
    steps, ahead, asked = Steps(), prompt(12, 1), prompt(20, 2)
    assert steps.step(fill(1, ahead), generate(2, asked, 4, scope=PATIENT)) == [asked[:8]]
    assert steps.step() == [asked[8:16]]
    assert set(steps.step()) == {ahead[:4], asked[16:]}
    steps.finish()
    assert steps.drawn(2) == expected(asked, 4)
    assert steps.answers[1] == [Filled(tokens=12, cached_tokens=0)]


def test_decoding_goes_on_in_every_step_beside_a_fill() -> None:
    steps, asked = Steps(), prompt(4, 2)
    steps.step(generate(2, asked, 6))
    for _ in range(5):
        rows = steps.step(*([fill(1, prompt(40, 1))] if 2 not in steps.answers else []))
        assert sorted(map(len, rows)) == [1, 7]
    assert steps.drawn(1) == expected(asked, 6)


def test_a_fill_that_is_due_takes_its_turn() -> None:
    steps, ahead, asked = Steps(), prompt(12, 1), prompt(40, 2)
    assert steps.step(fill(1, ahead), generate(2, asked, 4, scope=PATIENT)) == [asked[:8]]
    steps.now_s = FILL_AHEAD_S
    assert steps.step() == [ahead[:8]]


def test_a_fill_that_an_answer_waits_for_is_work_ahead_no_longer() -> None:
    steps, ahead, tail, asked = Steps(), prompt(12, 1), prompt(3, 3), prompt(40, 2)
    assert steps.step(fill(1, ahead), generate(2, asked, 4, scope=PATIENT)) == [asked[:8]]
    assert steps.step(generate(1, tail, 5)) == [ahead[:8]]
    steps.finish()
    assert steps.drawn(3) == expected(ahead + tail, 5)
    assert steps.drawn(2) == expected(asked, 4)


def test_a_fill_behind_a_fill_inherits_who_waits_for_it() -> None:
    steps, first, second, tail = Steps(), prompt(8, 1), prompt(8, 4), prompt(8, 3)
    asked = prompt(40, 2)
    steps.step(fill(1, first), fill(1, second), generate(2, asked, 4, scope=PATIENT))
    assert steps.step(generate(1, tail, 5)) == [first]
    assert steps.step() == [second]
    assert steps.step() == [tail]
    steps.finish()
    assert steps.drawn(4) == expected(first + second + tail, 5)


def test_a_fill_that_is_forked_is_computed_once_for_both() -> None:
    steps, ahead, tail, asked = Steps(), prompt(16, 1), prompt(3, 3), prompt(40, 2)
    steps.step(fill(1, ahead), generate(2, asked, 4, scope=PATIENT))
    assert steps.step(generate(3, tail, 5, parent=ContextId(1))) == [ahead[:8]]
    assert steps.step() == [ahead[8:]]
    steps.finish()
    assert steps.drawn(3) == expected(ahead + tail, 5)
    computed = [token for step in steps.runner.steps for row in step for token in row.tokens]
    assert computed.count(ahead[0]) == computed.count(ahead[5]) == 1
