"""What is hurried has its turn as if it had come with so little slack; nothing else about it changes."""

from __future__ import annotations

from dataclasses import replace

from parrot_compat.core.engine import ContextId, Fill, Scope
from parrot_compat.core.engine_front import Hurry
from tests.gpu.paged_runner import expected, generate, prompt
from tests.gpu.test_fill_ahead import PATIENT, Steps, fill

SOON = Scope(slack_s=1.0)


def patient_fill(tokens: tuple[int, ...]) -> Fill:
    return replace(fill(1, tokens), scope=PATIENT)


def test_a_prompt_that_is_hurried_goes_before_those_that_had_less_slack() -> None:
    steps, patient, soon = Steps(), prompt(20, 1), prompt(40, 2)
    assert steps.step(generate(1, patient, 4, scope=PATIENT), generate(2, soon, 4, scope=SOON)) == [soon[:8]]
    assert steps.step(Hurry(ContextId(1), 0.0)) == [patient[:8]]
    assert steps.step() == [patient[8:16]]
    steps.finish()
    assert steps.drawn(1) == expected(patient, 4) and steps.drawn(2) == expected(soon, 4)


def test_work_is_never_put_off_and_what_is_not_there_is_not_missed() -> None:
    steps, patient, soon = Steps(), prompt(20, 1), prompt(40, 2)
    steps.step(generate(1, patient, 4, scope=PATIENT), generate(2, soon, 4, scope=SOON))
    assert steps.step(Hurry(ContextId(2), 60.0), Hurry(ContextId(3), 0.0)) == [soon[8:16]]
    steps.finish()
    assert steps.drawn(2) == expected(soon, 4) and steps.answers[3] == steps.answers[4] == []


def test_what_stands_in_line_is_hurried_with_what_it_waits_for() -> None:
    steps, ahead, tail, soon = Steps(), prompt(8, 1), prompt(8, 3), prompt(80, 2)
    started = steps.step(patient_fill(ahead), generate(1, tail, 4, scope=PATIENT), generate(2, soon, 4, scope=SOON))
    assert started == [soon[:8]]
    assert steps.step(Hurry(ContextId(1), 0.0)) == [ahead]
    assert steps.step() == [tail]
    steps.finish()
    assert steps.drawn(2) == expected(ahead + tail, 4)


def test_a_fork_that_waits_for_its_parent_is_not_hurried_with_it() -> None:
    steps, ahead, more, tail, soon = Steps(), prompt(8, 1), prompt(8, 4), prompt(8, 3), prompt(80, 2)
    fork = generate(3, tail, 4, scope=PATIENT, parent=ContextId(1))
    started = steps.step(patient_fill(ahead), patient_fill(more), fork, generate(2, soon, 4, scope=SOON))
    assert started == [soon[:8]]
    assert steps.step(Hurry(ContextId(1), 0.0)) == [ahead]
    assert steps.step() == [more]
    assert steps.step() == [soon[8:16]]
    steps.finish()
    assert steps.drawn(3) == expected(ahead + more + tail, 4)
