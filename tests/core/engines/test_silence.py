"""Silence: what is stuck and what is only slow, told by looks."""

from __future__ import annotations

import os

import pytest

from parrot_compat.core.engines.silence import LOOKS, SLOWER, Silence, processor_s


class Child:
    """As it is seen from outside."""

    def __init__(self) -> None:
        self.silence = Silence(120.0)
        self.is_asked = True
        self.heard = 0
        self.used_s: float | None = 0.0
        self.share = 0.0
        """Of a processor, that it uses."""

    def looks_until_stuck(self, most: int = 1000) -> int | None:
        for look in range(most):
            if self.silence.is_too_long(is_asked=self.is_asked, heard=self.heard, used_s=self.used_s):
                return look
            if self.used_s is not None:
                self.used_s += self.share * self.silence.look_s
        return None


@pytest.fixture
def child() -> Child:
    return Child()


def test_one_that_does_nothing_is_stuck_after_the_silence_that_it_is_given(child: Child) -> None:
    assert child.looks_until_stuck() == LOOKS
    assert LOOKS * child.silence.look_s == 120.0


def test_one_that_computes_is_given_longer_and_not_for_ever(child: Child) -> None:
    child.share = 0.3
    assert child.looks_until_stuck() == SLOWER * LOOKS - 1


def test_one_whose_processor_time_nobody_tells_may_be_computing(child: Child) -> None:
    child.used_s = None
    assert child.looks_until_stuck() == SLOWER * LOOKS - 1


def test_one_that_stops_computing_is_given_no_longer_than_others(child: Child) -> None:
    child.share = 0.3
    assert child.looks_until_stuck(LOOKS + 3) is None
    child.share = 0.0
    assert child.looks_until_stuck() == LOOKS


def test_one_that_speaks_or_is_asked_for_nothing_is_never_stuck(child: Child) -> None:
    for report in range(5 * LOOKS):
        child.heard = report
        assert child.looks_until_stuck(LOOKS - 1) is None
    child.is_asked = False
    assert child.looks_until_stuck() is None


def test_processor_time_is_that_of_the_process_and_grows() -> None:
    before = processor_s(os.getpid())
    if before is None:
        pytest.skip("this system has no /proc")
    used_s = sum(os.times()[:2])
    while sum(os.times()[:2]) < used_s + 0.1:
        pass
    after = processor_s(os.getpid())
    assert after is not None and after - before > 0.05
    assert processor_s(2**30) is None
