"""Verbs on contexts: the order in which they run, what a fork sees, and what is left by those who leave early."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from parrot_compat.core.engine import Chunk, ContextId, EngineLoad, Fill
from parrot_compat.core.engine_front import Command
from parrot_compat.core.errors import ContextLost, PromptTooLong
from parrot_compat.core.prompt import Text, Tokens
from parrot_compat.gpu.stepper import Stepper
from parrot_compat.gpu.text.tokenizer import HuggingFaceTokenizer
from tests.gpu.paged_runner import (
    PagedEngine,
    PagedRunner,
    answer,
    drained,
    expected,
    generate,
    paged_stepper,
    prompt,
    resolved,
)
from tests.gpu.vocabularies import save_vocabulary


@pytest.fixture(params=[False, True], ids=["in turn", "overlapped"])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[PagedEngine]:
    engine = PagedEngine(async_scheduling=request.param)
    await engine.start()
    yield engine
    await engine.close()


# ---- several verbs on one context ----------------------------------------------------------------------


async def test_verbs_on_one_context_run_in_the_order_in_which_they_came(engine: PagedEngine) -> None:
    parts = [prompt(7, salt) for salt in range(4)]
    *_, drawn = await asyncio.gather(
        *(engine.fill(Fill(context=ContextId(1), content=Tokens(part))) for part in parts[:3]),
        answer(engine, 1, parts[3], 6),
    )
    assert drawn == expected(sum(parts, ()), 6)


async def test_a_fork_waits_for_the_fills_in_its_parents_line(engine: PagedEngine) -> None:
    first, second, tail = prompt(50, 1), prompt(50, 2), prompt(5, 3)
    *_, drawn = await asyncio.gather(
        engine.fill(Fill(context=ContextId(1), content=Tokens(first))),
        engine.fill(Fill(context=ContextId(1), content=Tokens(second))),
        answer(engine, 2, tail, 6, parent=ContextId(1)),
    )
    assert drawn == expected(first + second + tail, 6)
    await drained(engine, 1, 2)


async def test_a_fork_of_a_context_being_filled_has_the_whole_content(engine: PagedEngine) -> None:
    head, tail = prompt(90, 1), prompt(5, 3)
    _, drawn = await asyncio.gather(
        engine.fill(Fill(context=ContextId(1), content=Tokens(head))), answer(engine, 2, tail, 6, parent=ContextId(1))
    )
    assert drawn == expected(head + tail, 6)
    computed = sum(len(row.tokens) for step in engine.runner.steps for row in step)
    assert computed < 90 + 5 + 5 + engine.info.page_size, "shared up to the last full page, not repeated"


async def test_a_fork_of_a_context_being_drawn_has_what_is_drawn_by_then(engine: PagedEngine) -> None:
    chunks = engine.generate(generate(1, prompt(9), 60))
    async with aclosing(chunks):  # type: ignore[type-var]
        seen = [await anext(chunks) for _ in range(10)]
        engine.runner.gate.clear()
        fork = asyncio.create_task(answer(engine, 2, prompt(4, 5), 6, parent=ContextId(1)))
        await asyncio.sleep(0)
        engine.runner.gate.set()
        drawn = await fork
        rest = [chunk async for chunk in chunks]
    whole = expected(prompt(9), 60)
    assert tuple(token for chunk in [*seen, *rest] for token in chunk.tokens) == whole
    assert drawn in [expected(prompt(9) + whole[:n] + prompt(4, 5), 6) for n in range(10, 61)]
    await drained(engine, 1, 2)


async def test_work_behind_a_verb_that_failed_fails_and_the_context_is_as_before(engine: PagedEngine) -> None:
    await engine.fill(Fill(context=ContextId(1), content=Tokens(prompt(9))))
    refused, behind = await asyncio.gather(
        engine.fill(Fill(context=ContextId(1), content=Tokens(prompt(200)))),
        answer(engine, 1, prompt(3, 1), 6),
        return_exceptions=True,
    )
    assert isinstance(refused, PromptTooLong)
    assert isinstance(behind, ContextLost), "however late it came: it was sent before anybody knew of the refusal"
    assert await answer(engine, 1, prompt(3, 2), 6) == expected(prompt(9) + prompt(3, 2), 6)


async def test_freeing_a_context_ends_the_work_on_it(engine: PagedEngine) -> None:
    engine.runner.gate.clear()
    work = [asyncio.create_task(answer(engine, 1, prompt(9, salt), 50)) for salt in range(3)]
    assert await asyncio.to_thread(engine.runner.inside.wait, 30)
    free = asyncio.create_task(engine.free(ContextId(1)))
    await asyncio.sleep(0)
    engine.runner.gate.set()
    await free
    assert [type(outcome) for outcome in await asyncio.gather(*work, return_exceptions=True)] == [ContextLost] * 3
    await drained(engine)


# ---- leaving -------------------------------------------------------------------------------------------


async def test_closing_the_iterator_gives_back_rows_and_pages_without_a_free(engine: PagedEngine) -> None:
    engine.runner.hold_from = 4
    chunks = engine.generate(generate(1, prompt(30), 90))
    await anext(chunks)
    assert await asyncio.to_thread(engine.runner.inside.wait, 30)
    await chunks.aclose()  # type: ignore[attr-defined]
    engine.runner.gate.set()
    await drained(engine)
    assert len(engine.runner.steps) == 4, "the work went on"
    assert engine.load() == EngineLoad(free_tokens=engine.load().free_tokens, step_s=engine.load().step_s)
    with pytest.raises(ContextLost):
        await engine.truncate(ContextId(1), 3)


async def test_a_cancelled_verb_leaves_its_context_as_it_was(engine: PagedEngine) -> None:
    await engine.fill(Fill(context=ContextId(1), content=Tokens(prompt(10))))
    engine.runner.gate.clear()
    engine.runner.inside.clear()
    fill = asyncio.create_task(engine.fill(Fill(context=ContextId(1), content=Tokens(prompt(80, 1)))))
    assert await asyncio.to_thread(engine.runner.inside.wait, 30)
    fill.cancel()
    await asyncio.gather(fill, return_exceptions=True)
    engine.runner.gate.set()
    assert await answer(engine, 1, prompt(5, 2), 6) == expected(prompt(10) + prompt(5, 2), 6)
    await drained(engine, 1)


async def test_a_neighbour_cancelled_midway_changes_nobody_else(engine: PagedEngine) -> None:
    head = prompt(20)
    await engine.fill(Fill(context=ContextId(1), content=Tokens(head)))
    leaving = [engine.generate(generate(n, prompt(6, n), 90, parent=ContextId(1))) for n in (2, 3)]
    staying = [asyncio.create_task(answer(engine, n, prompt(6, n), 40, parent=ContextId(1))) for n in (4, 5, 6)]
    for chunks in leaving:
        for _ in range(7):
            await anext(chunks)
        await chunks.aclose()  # type: ignore[attr-defined]
    assert await asyncio.gather(*staying) == [expected(head + prompt(6, n), 40) for n in (4, 5, 6)]
    await drained(engine, *range(1, 7))


async def test_a_cancelled_leader_of_a_common_prefix_does_not_strand_its_followers(engine: PagedEngine) -> None:
    head = prompt(90)
    engine.runner.gate.clear()
    leader = asyncio.create_task(answer(engine, 1, (*head, 11), 6))
    assert await asyncio.to_thread(engine.runner.inside.wait, 30)
    followers = [asyncio.create_task(answer(engine, n, (*head, n), 6)) for n in (12, 13)]
    await asyncio.sleep(0)
    leader.cancel()
    await asyncio.gather(leader, return_exceptions=True)
    engine.runner.gate.set()
    assert await asyncio.gather(*followers) == [expected((*head, n), 6) for n in (12, 13)]
    await drained(engine, 12, 13)


def test_an_answer_tells_how_long_it_waited_before_its_first_step() -> None:
    moments = itertools.count()
    runner = PagedRunner(resolved(max_rows=1))
    stepper = paged_stepper(runner, clock=lambda: float(next(moments)))
    updates = list(stepper.step([Command(n, generate(n, prompt(5, n), 10)) for n in (1, 2)]).updates)
    while stepper.has_work:
        updates += stepper.step(()).updates
    chunks = [(update.command, update.answer) for update in updates if isinstance(update.answer, Chunk)]
    usages = {command: chunk.usage for command, chunk in chunks if chunk.usage is not None}
    first, second = (usages[n] for n in (1, 2))
    assert 0 < first.waited_s < second.waited_s
    assert first == second  # how long it waited is nothing that was counted


@pytest.mark.parametrize(("shares", "times"), [(True, 1), (False, 3)])
def test_what_prompts_have_in_common_is_computed_once_where_they_wait_for_each_other(shares: bool, times: int) -> None:
    runner = PagedRunner(resolved(share_prefixes=shares, step_tokens=64))
    stepper = paged_stepper(runner)
    common = prompt(16)
    prompts = {n: (*common, *prompt(2, n)) for n in (1, 2, 3)}
    updates = list(stepper.step([Command(n, generate(n, ids, 3)) for n, ids in prompts.items()]).updates)
    while stepper.has_work:
        updates += stepper.step(()).updates
    chunks = [(update.command, update.answer) for update in updates if isinstance(update.answer, Chunk)]
    drawn = {n: sum((chunk.tokens for command, chunk in chunks if command == n), ()) for n in prompts}
    assert drawn == {n: expected(ids, 3) for n, ids in prompts.items()}
    read = sum(len(row.tokens) for step in runner.steps for row in step if row.start < 16)
    assert read in range(16 * times, 16 * times + 2 * 3 + 1)


@pytest.mark.parametrize("style", ["llama2", "mistral", "qwen25"])
def test_the_text_of_an_answer_goes_on_where_its_prompt_ends(tmp_path: Path, style: str) -> None:
    tokenizer = HuggingFaceTokenizer(save_vocabulary(style, tmp_path / "vocabulary"))
    before, whole = (tokenizer.encode(Text(text)) for text in ("The quick brown", "The quick brown fox jumps"))
    drawn = whole[len(before) :]
    for stop, said in {(): " fox jumps", (" jum",): " fox"}.items():
        runner = PagedRunner(draws={whole[:end]: whole[end] for end in range(len(before), len(whole))})
        stepper = Stepper(runner, tokenizer.text_stream)
        updates = list(stepper.step([Command(1, generate(1, before, len(drawn), stop=stop))]).updates)
        while stepper.has_work:
            updates += stepper.step(()).updates
        assert "".join(update.answer.text for update in updates if isinstance(update.answer, Chunk)) == said
