"""Clocks: simulated time goes where somebody waits, in order, and only when nobody can run."""

from __future__ import annotations

import asyncio
import time

from parrot_compat.core.clock import RealClock, SimulatedClock


async def test_simulated_sleepers_wake_in_order_at_their_moments() -> None:
    clock, woken = SimulatedClock(), []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((seconds, clock.now()))

    await asyncio.gather(*(sleeper(seconds) for seconds in (3600.0, 1.0, 2.5, 1.0)))
    assert woken == [(1.0, 1.0), (1.0, 1.0), (2.5, 2.5), (3600.0, 3600.0)]
    clock.check()


async def test_time_stands_still_while_anybody_can_run() -> None:
    clock = SimulatedClock(10.0)
    sleeper = asyncio.create_task(clock.sleep(1.0))
    for _ in range(20):
        await asyncio.sleep(0)
        assert clock.now() == 10.0
    await sleeper
    assert clock.now() == 11.0


async def test_a_new_sleeper_starts_from_the_present() -> None:
    clock = SimulatedClock()
    for step in range(1, 6):
        await clock.sleep(0.5)
        assert clock.now() == 0.5 * step


async def test_a_sleeper_that_is_cancelled_moves_no_time() -> None:
    clock = SimulatedClock()
    cancelled, stays = asyncio.create_task(clock.sleep(1.0)), asyncio.create_task(clock.sleep(5.0))
    await asyncio.sleep(0)
    cancelled.cancel()
    await stays
    assert clock.now() == 5.0
    clock.check()


async def test_a_real_clock_counts_from_the_epoch_and_never_back() -> None:
    earliest_s = time.time()
    clock = RealClock()
    before = clock.now()
    assert earliest_s - 1 <= before <= time.time() + 1  # a second: somebody may be setting the machine's clock
    await clock.sleep(0)
    assert clock.now() >= before
