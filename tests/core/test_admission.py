"""How many tokens of prompts a tenant may have open beside others."""

from __future__ import annotations

import pytest

from parrot_compat.core.admission import Admission, Limits
from parrot_compat.core.errors import PromptTooLong, QueueFull, TooManyCalls

from .conftest import World, make_call

SHARED = Limits(open_prompt_tokens=1000).shared()


async def test_calls_that_wait_leave_half_of_the_tokens_to_other_tenants(world: World) -> None:
    """They may wait for days, for a variable that nobody sets, and cost their tenant nothing."""
    world.limit(SHARED)
    world.engine()
    session = world.manager.open_session("one")
    session.declare("never")
    await session.submit_all([make_call(f"w{n}", "x" * 400, "never") for n in range(5)])
    with pytest.raises(TooManyCalls, match="would make 600 tokens for this tenant; the limit is 500") as refused:
        await session.submit(make_call("w5", "x" * 400, "never"))
    assert refused.value.retry_after_s > 0
    await (await world.manager.open_session("two").submit(make_call("c", "y" * 400))).finished()
    session.cancel()
    await session.submit(make_call("w6", "x" * 400, "never"))
    world.manager.check()


async def test_a_tenant_that_is_alone_may_have_all_of_the_tokens(world: World) -> None:
    world.limit(Limits(open_prompt_tokens=1000))
    world.engine()
    session = world.manager.open_session("one")
    session.declare("never")
    await session.submit_all([make_call(f"w{n}", "x" * 400, "never") for n in range(10)])
    with pytest.raises(QueueFull, match="the limit is 1000"):
        await session.submit(make_call("w10", "x" * 400, "never"))


async def test_what_inputs_bring_to_one_tenant_leaves_room_for_others(world: World) -> None:
    world.limit(SHARED)
    world.engine().stall()
    session = world.manager.open_session("one")
    session.declare("page")
    readers = await session.submit_all([make_call(f"r{n}", "r", "page") for n in range(3)])
    session.set("page", "x" * 300)
    await world.clock.sleep(0.001)
    assert [task.is_over for task in readers] == [False, False, True]
    assert isinstance(readers[2].failure, TooManyCalls) and "the most is 750" in str(readers[2].failure)
    await world.manager.open_session("two").submit(make_call("c", "y" * 200))
    world.manager.check()


async def test_prompts_that_no_tenant_may_have_at_once_are_not_to_be_tried_again(world: World) -> None:
    world.limit(SHARED)
    world.engine()
    with pytest.raises(PromptTooLong, match="at once 500 are taken"):
        await world.manager.open_session("one").submit_all([make_call(f"c{n}", "x" * 1100) for n in range(2)])
    world.manager.check()


def test_what_is_refused_is_not_counted_and_what_has_ended_makes_room() -> None:
    admission = Admission(SHARED)
    admission.admit("one", 2, 500)
    for refused in (lambda: admission.admit("one", 1, 1), lambda: admission.grow("one", 251)):
        with pytest.raises(TooManyCalls):
            refused()
    admission.admit("two", 1, 500)
    with pytest.raises(QueueFull):
        admission.admit("three", 1, 1)
    admission.grow("one", 250)
    admission.grow("one", -700)
    admission.check()
    admission.admit("one", 1, 450)
    assert admission.prompt_tokens == 1000 and admission.open_calls == 4
    for tenant, calls, tokens in (("one", 3, 500), ("two", 1, 500)):
        admission.release(tenant, calls, tokens)
    admission.check()
    assert admission.prompt_tokens == admission.open_calls == 0
