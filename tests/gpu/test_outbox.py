"""What was sent before a failure could be heard of fails with it, however late it arrives."""

from __future__ import annotations

import pytest

from parrot_compat.core.engine import ContextId, Fill, Filled
from parrot_compat.core.engine_front import Answer, Cancel, Command, Free, StepReport, Verb
from parrot_compat.core.errors import ContextLost, EngineError
from parrot_compat.core.prompt import Tokens
from parrot_compat.gpu.stepper import Stepper
from tests.gpu.paged_runner import PagedRunner, generate, paged_stepper, prompt

FAILED, LATER = 1, 2
FILLED = Filled(tokens=3, cached_tokens=0)


class Failing:
    """A stepper, one of whose verbs has just failed; what it asked for next."""

    def __init__(self, held: int = 0) -> None:
        self.runner = PagedRunner()
        self.stepper: Stepper = paged_stepper(self.runner)
        if held:
            self.ask(Fill(context=ContextId(1), content=Tokens(prompt(held))), id=0)
        self.runner.fails.append(RuntimeError("a fault"))
        self.before = self.stepper.step(())
        self.report = self.stepper.step([Command(FAILED, generate(1, prompt(9)), self.before.number)])
        [update] = self.report.updates
        assert update.command == FAILED and isinstance(update.answer, EngineError)

    def ask(self, verb: Verb, id: int = LATER, heard: int | None = None) -> Answer:
        updates = list(self.stepper.step([Command(id, verb, heard)]).updates)
        while self.stepper.has_work:
            updates += self.stepper.step(()).updates
        self.stepper.check()
        return updates[-1].answer


def fill(context: int, parent: int | None = None) -> Fill:
    return Fill(
        context=ContextId(context), content=Tokens(prompt(3)), parent=None if parent is None else ContextId(parent)
    )


@pytest.mark.parametrize("held", [0, 7], ids=["a new context", "a context that holds something"])
def test_a_verb_sent_before_the_failure_was_told_fails_too(held: int) -> None:
    failing = Failing(held)
    assert isinstance(failing.ask(fill(1), heard=failing.before.number), ContextLost)


def test_a_verb_sent_when_the_failure_was_known_runs() -> None:
    failing = Failing()
    assert failing.ask(fill(1), heard=failing.report.number) == FILLED


def test_a_fork_sent_before_the_failure_was_told_fails_too() -> None:
    failing = Failing(held=7)
    assert isinstance(failing.ask(fill(2, parent=1), heard=failing.before.number), ContextLost)


def test_what_counts_on_a_verb_that_failed_for_anothers_sake_fails_too() -> None:
    failing = Failing(held=7)
    failing.ask(fill(2, parent=1), heard=failing.before.number)
    assert isinstance(failing.ask(fill(2), id=3, heard=failing.before.number), ContextLost)


def test_other_contexts_are_not_touched() -> None:
    failing = Failing()
    assert failing.ask(fill(5), heard=failing.before.number) == FILLED


@pytest.mark.parametrize("verb", [Free(ContextId(1)), Cancel(FAILED)], ids=["freed", "cancelled"])
def test_who_wanted_nothing_of_it_any_more_counts_on_nothing(verb: Verb) -> None:
    failing = Failing()
    failing.stepper.step([Command(LATER, verb, failing.before.number)])
    assert failing.ask(fill(1), id=3, heard=failing.before.number) == FILLED


def test_reports_are_numbered_as_they_are_made() -> None:
    stepper = paged_stepper(PagedRunner())
    numbers = [report.number for report in (stepper.step(()), stepper.step(()), stepper.step(()))]
    assert numbers == [1, 2, 3] and StepReport().number == 0
