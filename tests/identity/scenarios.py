"""Scenarios: what apps do to one engine, each ending in answers that the oracle is asked about.

A scenario gets the seeded randomness of its checkpoint, starts the engines it wants and returns their clients' answers.
It asserts that what it is about really happened (prefixes were reused, sequences were preempted): an identity that
holds because nothing was shared proves nothing. It compares no tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from .bench import PAGE_SIZE, Bench
from .oracle import Answer
from .port import Client, started
from .soup import everything_at_once

__all__ = ["SCENARIOS", "Scenario", "a_little_of_everything"]

SHORT, LONG = 24, 48

Scenario = Callable[[Bench], Awaitable[list[Answer]]]


async def _together(client: Client, prompts: Sequence[tuple[int, ...]], tokens: int, rows: int) -> None:
    """Ask all, `rows` at a time: whenever one answer is complete the next prompt joins the running batch."""
    waiting = list(reversed(prompts))

    async def worker() -> None:
        while waiting:
            await client.ask(waiting.pop(), tokens)

    await client.together(*(worker() for _ in range(rows)))


async def one_at_a_time(bench: Bench) -> list[Answer]:
    async with started(bench.config(max_rows=1), "one at a time") as client:
        await _together(client, bench.prompts(16), LONG, rows=1)
    return client.answers


async def two_at_a_time(bench: Bench) -> list[Answer]:
    async with started(bench.config(max_rows=2), "two at a time") as client:
        await _together(client, bench.prompts(16), SHORT, rows=2)
    return client.answers


async def steps_overlapped(bench: Bench) -> list[Answer]:
    """Most steps are launched before the tokens of the one before are known: nobody waits while five draw."""
    async with started(bench.config(async_scheduling=True, max_rows=5), "steps overlapped") as client:
        await _together(client, bench.prompts(10), LONG, rows=5)
        assert client.steps_ahead > client.steps / 2, f"{client.steps_ahead} of {client.steps} steps"
    return client.answers


async def five_at_a_time(bench: Bench) -> list[Answer]:
    async with started(bench.config(), "five at a time") as client:
        await _together(client, bench.prompts(25), SHORT, rows=5)
    return client.answers


async def sixteen_at_a_time(bench: Bench) -> list[Answer]:
    async with started(bench.config(), "sixteen at a time") as client:
        await _together(client, bench.prompts(40), SHORT, rows=16)
    return client.answers


async def more_callers_than_rows(bench: Bench) -> list[Answer]:
    async with started(bench.config(max_rows=3), "more callers than rows") as client:
        await _together(client, bench.prompts(12), SHORT, rows=12)
    return client.answers


async def page_boundaries(bench: Bench) -> list[Answer]:
    """Lengths one short of, at and one beyond a page's end; each prompt a second time hits what the first left."""
    lengths = [PAGE_SIZE * pages + extra for pages in (1, 2, 3, 6) for extra in (-1, 0, 1)]
    prompts = [bench.tokens(length) for length in [1, 2, *lengths]]
    async with started(bench.config(), "page boundaries, miss") as client:
        await _together(client, prompts, SHORT, rows=5)
        client.label = "page boundaries, hit"
        await _together(client, prompts, SHORT, rows=5)
        hits = client.answers[len(prompts) :]
        for answer in hits:
            # The last prompt token is always computed again: only with it are there logits to draw from.
            whole_pages = (len(answer.prompt) - 1) // PAGE_SIZE * PAGE_SIZE
            assert whole_pages <= answer.cached_tokens <= len(answer.prompt) - 1
    return client.answers


async def prefix_hits(bench: Bench) -> list[Answer]:
    """Prompts that go on where an earlier prompt, or an earlier answer, ended; and prompts that part midway."""
    trunk = bench.tokens(5 * PAGE_SIZE + 5)
    async with started(bench.config(), "first of its prefix") as client:
        first = [await client.ask(prompt, SHORT) for prompt in [trunk, *bench.prompts(5)]]
        client.label = "the same prompt again"
        for answer in first:
            await client.ask(answer.prompt, SHORT)
        client.label = "prompt extended by its answer and more"
        extended = [answer.prompt + answer.output + bench.tokens(bench.random.randint(1, 40)) for answer in first]
        await _together(client, extended, SHORT, rows=3)
        client.label = "prompts that part midway"
        parted = [trunk[: bench.random.randint(1, len(trunk))] + bench.tokens(20) for _ in range(14)]
        await _together(client, parted, SHORT, rows=7)
        assert sum(answer.cached_tokens >= 3 * PAGE_SIZE for answer in client.answers) >= 5
    return client.answers


async def prefix_caching_off(bench: Bench) -> list[Answer]:
    prompts = bench.prompts(5)
    async with started(bench.config(enable_prefix_caching=False), "prefix caching off") as client:
        await _together(client, prompts * 2, SHORT, rows=5)
        assert all(answer.cached_tokens == 0 for answer in client.answers)
    return client.answers


async def namespaces_apart(bench: Bench) -> list[Answer]:
    """The same prompt in two cache scopes: nothing is reused across them, and both draw the same."""
    prompt = bench.tokens(4 * PAGE_SIZE)
    async with started(bench.config(), "namespaces apart") as client:
        for namespace in ("one", "two", "one"):
            await client.ask(prompt, SHORT, namespace=namespace)
        first, other, again = (answer.cached_tokens for answer in client.answers)
        assert first == other == 0 and again >= 3 * PAGE_SIZE
    return client.answers


def chunks_of(step_tokens: int) -> Scenario:
    async def chunked_prefill(bench: Bench) -> list[Answer]:
        async with started(bench.config(step_tokens=step_tokens), f"chunks of {step_tokens}") as client:
            await _together(client, bench.prompts(10), SHORT, rows=5)
        return client.answers

    return chunked_prefill


async def small_pages(bench: Bench) -> list[Answer]:
    """Pages of 5 tokens: no power of two, and several per chunk."""
    async with started(bench.config(page_size=5, step_tokens=17), "small pages") as client:
        prompts = bench.prompts(8)
        await _together(client, prompts + prompts[:4], SHORT, rows=4)
        assert any(answer.cached_tokens for answer in client.answers)
    return client.answers


async def forks(bench: Bench) -> list[Answer]:
    """One filled context, many continuations at once, then forks of the forks beside the root, which goes on too."""
    async with started(bench.config()) as client:
        for length in (PAGE_SIZE * 3, PAGE_SIZE * 3 + 7, PAGE_SIZE * 3 - 1):
            root = await client.fill(bench.tokens(length))
            children = [client.new_context() for _ in range(3)]
            tails = [bench.tokens(bench.random.randint(1, 30)) for _ in children]
            client.label = f"forks of a context of {length}"
            pairs = zip(tails, children, strict=True)
            await client.together(*(client.ask(tail, SHORT, context=child, parent=root) for tail, child in pairs))
            client.label = f"forks of forks beside the root of {length}"
            again = [client.ask(bench.tokens(5), SHORT, parent=child) for child in children for _ in range(2)]
            await client.together(client.ask(bench.tokens(3), SHORT, context=root), *again)
            await client.free(*children)
            client.label = f"the root of {length} after its forks are gone"
            await client.ask(bench.tokens(4), SHORT, context=root)
    return client.answers


async def several_answers(bench: Bench) -> list[Answer]:
    """One prompt asked for many times at once, and while its answer is drawn: all go on from one begun page."""
    async with started(bench.config(), "several answers") as client:
        for length in (PAGE_SIZE - 2, PAGE_SIZE * 3, PAGE_SIZE * 3 + 1, PAGE_SIZE * 4 - 1, PAGE_SIZE * 5 + 9):
            prompt = bench.tokens(length)
            first = len(client.answers)
            await client.together(*(client.ask(prompt, SHORT) for _ in range(5)))
            cached = sorted(answer.cached_tokens for answer in client.answers[first:])
            assert cached == [0, *[length - 1] * 4], cached
            client.label = f"beside a context that holds {length} tokens"
            root = await client.fill(prompt)
            tails = [(), bench.tokens(1), bench.tokens(20)]
            await client.together(*(client.ask((*prompt, *tail), SHORT) for tail in tails))
            await client.ask(bench.tokens(3), SHORT, context=root)
    return client.answers


async def forks_of_a_running_answer(bench: Bench) -> list[Answer]:
    """Forks made while their parent draws: each goes on from as much of the answer as was there."""
    async with started(bench.config(step_tokens=32), "forked while its parent draws") as client:
        for length in (10, PAGE_SIZE * 2, 50):
            parent = await client.fill(bench.tokens(length))
            answer = asyncio.ensure_future(client.ask(bench.tokens(2), LONG, context=parent))
            for delay in range(4):
                await client.ask(bench.tokens(delay + 1), 3, parent=parent)
            await asyncio.gather(answer, *(client.ask(bench.tokens(2), 12, parent=parent) for _ in range(2)))
    return client.answers


async def fills(bench: Bench) -> list[Answer]:
    """Prompts that come in pieces, with nothing left to add when it is time to draw."""
    async with started(bench.config(step_tokens=32), "fills") as client:
        for length in (1, PAGE_SIZE, PAGE_SIZE + 1, 70):
            context = await client.fill(bench.tokens(length))
            client.label = f"filled with {length}, drawn from a fork with nothing added"
            await client.ask((), SHORT, parent=context)
            client.label = f"filled with {length} and then more, nothing added"
            await client.fill(bench.tokens(21), context=context)
            await client.ask((), SHORT, context=context)
            client.label = "the next turn in the same context"
            await client.ask(bench.tokens(9), SHORT, context=context)
    return client.answers


async def truncations(bench: Bench) -> list[Answer]:
    """Cut contexts inside a page, at its end, inside an answer and inside what forks share; go on with other tokens."""
    async with started(bench.config(), "truncations") as client:
        for cut in (1, PAGE_SIZE - 1, PAGE_SIZE * 2, PAGE_SIZE * 2 + 9, 60, 75):
            context = client.new_context()
            client.label = f"before a cut at {cut}"
            await client.ask(bench.tokens(61), SHORT, context=context)
            sibling = await client.fill(bench.tokens(2), parent=context)
            await client.truncate(context, cut)
            client.label = f"after a cut at {cut}, and a fork made before it"
            after = client.ask(bench.tokens(bench.random.randint(1, 40)), SHORT, context=context)
            await client.together(after, client.ask(bench.tokens(3), SHORT, context=sibling))
    return client.answers


async def preemption(bench: Bench) -> list[Answer]:
    """More running text than pages: sequences lose their pages midway and are computed again."""
    async with started(bench.config(kv_tokens=PAGE_SIZE * 24, max_rows=8), "preemption") as client:
        await _together(client, [bench.tokens(length) for length in range(30, 94, 4)], LONG, rows=8)
        assert client.preemptions > 0
    return client.answers


async def eviction(bench: Bench) -> list[Answer]:
    """A cache too small for what it is asked to remember: pages change hands all the time."""
    trunks = [bench.tokens(PAGE_SIZE * 4 + 3) for _ in range(3)]
    async with started(bench.config(kv_tokens=PAGE_SIZE * 20, max_rows=2), "eviction") as client:
        prompts = [trunks[turn % 3] + bench.tokens(bench.random.randint(1, 60)) for turn in range(15)]
        await _together(client, prompts, SHORT, rows=2)
        assert any(answer.cached_tokens for answer in client.answers)
    return client.answers


async def neighbours_leave(bench: Bench) -> list[Answer]:
    """Rows of a running batch are closed midway, some while their prompt is still being computed."""
    async with started(bench.config(step_tokens=32), "a neighbour leaves") as client:
        leaving = [client.leave_early(bench.tokens(120), after) for after in (0, 0, 1, 2, 5, 9)]
        staying = _together(client, bench.prompts(12), SHORT, rows=6)
        await client.together(staying, *leaving)
        client.label = "the next turn after one that was given up"
        context = await client.fill(bench.tokens(29))
        for after in (0, 1, 6, 20):
            await client.leave_early(bench.tokens(30), after, context=context)
            await client.ask(bench.tokens(2), 6, context=context)
    return client.answers


async def a_little_of_everything(bench: Bench) -> list[Answer]:
    """Few prompts, every mechanism once: this is what planted faults are looked for with."""
    trunk = bench.tokens(PAGE_SIZE * 3)
    async with started(bench.config(step_tokens=32), "a little of everything") as client:
        client.label = "side by side"
        await _together(client, [bench.tokens(length) for length in (70, 41, PAGE_SIZE * 2, 53)], SHORT, rows=4)
        client.label = "parted in the last tokens of a page"
        await client.ask((*trunk, *bench.tokens(5)), SHORT)
        await client.ask((*trunk[:-2], *bench.tokens(9)), SHORT)
        client.label = "forked inside a page"
        root = await client.fill(trunk[: PAGE_SIZE + 6])
        await client.together(*(client.ask(bench.tokens(3), SHORT, parent=root) for _ in range(3)))
        client.label = "cut inside a page"
        context = client.new_context()
        await client.ask(bench.tokens(40), SHORT, context=context)
        await client.truncate(context, PAGE_SIZE * 2 + 4)
        await client.ask(bench.tokens(20), SHORT, context=context)
        client.label = "beside one that is inside the same page, or inside another after the same pages"
        same, other = (*trunk[: PAGE_SIZE + 6], *bench.tokens(3)), (*trunk[:PAGE_SIZE], *bench.tokens(9))
        await client.together(client.ask(same, SHORT), client.ask(other, SHORT))
    return client.answers


SCENARIOS: dict[str, Scenario] = {
    scenario.__name__: scenario
    for scenario in (
        one_at_a_time,
        two_at_a_time,
        five_at_a_time,
        steps_overlapped,
        sixteen_at_a_time,
        more_callers_than_rows,
        page_boundaries,
        prefix_hits,
        prefix_caching_off,
        namespaces_apart,
        small_pages,
        forks,
        several_answers,
        forks_of_a_running_answer,
        fills,
        truncations,
        preemption,
        eviction,
        neighbours_leave,
        a_little_of_everything,
        everything_at_once,
    )
} | {f"chunks_of_{size}": chunks_of(size) for size in (7, 16, 64, 512)}
