"""The engine's behaviour over a runner that reads its pages, and the port's contract over a real model too."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parrot_compat.core.call import Finish
from parrot_compat.core.engine import Chunk, ContextId, Engine, Fill, Scope
from parrot_compat.core.engine_front import Command
from parrot_compat.core.errors import BadPrompt, ContextLost, EngineError, EngineLost, ModelRefused, PromptTooLong
from parrot_compat.core.output_format import AnyJson
from parrot_compat.core.prompt import Text, Tokens
from parrot_compat.gpu.config import EngineConfig
from parrot_compat.gpu.engine import TorchEngine, load_stepper
from parrot_compat.gpu.stepper import Stepper
from tests.core.engine_contract import EngineContract, collect
from tests.gpu.at_once import at_once
from tests.gpu.paged_runner import (
    EOS,
    PagedEngine,
    PagedRunner,
    answer,
    drained,
    expected,
    generate,
    paged_stepper,
    prompt,
    resolved,
    started,
    tokenizer,
)


class TestPagedEngine(EngineContract):
    async def start(self) -> Engine:
        engine = PagedEngine()
        await engine.start()
        return engine

    @contextmanager
    def held(self, engine: Engine) -> Iterator[Callable[[], bool]]:
        assert isinstance(engine, PagedEngine)
        engine.runner.gate.clear()
        try:
            yield engine.runner.inside.is_set
        finally:
            engine.runner.gate.set()


async def tiny_engine() -> Engine:
    engine = TorchEngine(EngineConfig(model="builtin:random", max_model_len=96, kv_tokens=2048, threads=1))
    await engine.start()
    return engine


@pytest.fixture(scope="module")
async def shared_tiny_engine() -> AsyncIterator[Engine]:
    engine = await tiny_engine()
    yield engine
    await engine.close()


class TestTinyModel(EngineContract):
    async def start(self) -> Engine:
        return await tiny_engine()

    @pytest.fixture
    async def engine(self, shared_tiny_engine: Engine) -> Engine:
        return shared_tiny_engine


@pytest.fixture(params=[False, True], ids=["in turn", "overlapped"])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[PagedEngine]:
    engine = PagedEngine(async_scheduling=request.param)
    await engine.start()
    yield engine
    await engine.close()


# ---- drawing -------------------------------------------------------------------------------------------


async def test_tokens_are_those_of_the_model_whatever_the_chunks(engine: PagedEngine) -> None:
    assert await answer(engine, 1, prompt(70), 20) == expected(prompt(70), 20)
    assert [len(step[0].tokens) for step in engine.runner.steps[:4]] == [32, 32, 6, 1]
    await drained(engine, 1)


async def test_many_at_once_answer_as_each_alone(engine: PagedEngine) -> None:
    prompts = [prompt(3 + 5 * salt, salt) for salt in range(20)]
    answers = await at_once(engine, *(answer(engine, salt + 1, prompts[salt], 12) for salt in range(20)))
    assert answers == [expected(text, 12) for text in prompts]
    assert max(len(step) for step in engine.runner.steps) == 8
    await drained(engine, *range(1, 21))


async def test_seeded_sampling_is_reproducible_among_any_neighbours(engine: PagedEngine) -> None:
    sampling = dict(temperature=1.0, seed=7)
    alone = await answer(engine, 1, prompt(9), 12, **sampling)
    both = await at_once(
        engine, answer(engine, 2, prompt(9), 12, **sampling), answer(engine, 3, prompt(9), 12, temperature=1.0, seed=8)
    )
    assert alone == both[0] == expected(prompt(9), 12, **sampling) != both[1]


async def test_eos_ends_the_answer_and_is_counted_but_is_no_text(engine: PagedEngine) -> None:
    first = expected(prompt(9), 3)
    engine.runner.draws[prompt(9) + first] = EOS
    text, chunks = await collect(engine.generate(generate(1, prompt(9), 20)))
    assert text == tokenizer().decode(first)
    assert chunks[-1].tokens == (EOS,) and chunks[-1].finish is Finish.STOP
    assert chunks[-1].usage is not None and chunks[-1].usage.output_tokens == 4


async def test_ignore_eos_goes_on_and_min_tokens_delays_the_end(engine: PagedEngine) -> None:
    first = expected(prompt(9), 3)
    engine.runner.draws[prompt(9) + first] = EOS
    assert len(await answer(engine, 1, prompt(9), 20, ignore_eos=True)) == 20
    assert len(await answer(engine, 2, prompt(9), 20, min_tokens=3)) == 4
    assert len(await answer(engine, 3, prompt(9), 20, min_tokens=4)) == 20


async def test_a_stop_token_before_min_tokens_ends_nothing(engine: PagedEngine) -> None:
    whole = expected(prompt(9), 20)
    end = dict(stop_token_ids=(whole[2],), ignore_eos=True)
    assert await answer(engine, 1, prompt(9), 20, **end) == whole[:3]
    assert await answer(engine, 2, prompt(9), 20, min_tokens=3, **end) == whole


async def test_a_stop_string_before_min_tokens_ends_nothing(engine: PagedEngine) -> None:
    whole = expected(prompt(9), 20)
    end = dict(stop=(tokenizer().decode(whole[1:3]),), ignore_eos=True)
    assert await answer(engine, 1, prompt(9), 20, **end) == whole[:3]
    assert await answer(engine, 2, prompt(9), 20, min_tokens=2, **end) == whole[:3]
    assert await answer(engine, 3, prompt(9), 20, min_tokens=3, **end) == whole


async def test_a_stop_token_ends_the_answer_and_is_no_text(engine: PagedEngine) -> None:
    whole = expected(prompt(9), 8)
    text, chunks = await collect(
        engine.generate(generate(1, prompt(9), 8, stop_token_ids=(whole[4],), ignore_eos=True))
    )
    assert text == tokenizer().decode(whole[: whole.index(whole[4])])
    assert chunks[-1].finish is Finish.STOP


async def test_text_streams_as_it_is_drawn_and_adds_up(engine: PagedEngine) -> None:
    text, chunks = await collect(engine.generate(generate(1, prompt(9), 12)))
    assert [len(chunk.tokens) for chunk in chunks] == [1] * 12
    assert text == tokenizer().decode(expected(prompt(9), 12))


async def test_text_held_back_for_a_stop_string_that_never_came_is_given_at_the_end(engine: PagedEngine) -> None:
    whole = tokenizer().decode(expected(prompt(9), 8))
    stop = whole[-2:] + " and then something else"
    text, chunks = await collect(engine.generate(generate(1, prompt(9), 8, stop=(stop,))))
    assert text == whole and chunks[-1].finish is Finish.LENGTH
    engine.runner.draws[prompt(9) + expected(prompt(9), 8)] = EOS
    text, chunks = await collect(engine.generate(generate(2, prompt(9), 20, stop=(stop,))))
    assert text == whole and chunks[-1].finish is Finish.STOP


async def test_max_tokens_zero_computes_the_prompt_and_draws_nothing(engine: PagedEngine) -> None:
    for context in (1, 2):  # computed, then found in the cache
        _, chunks = await collect(engine.generate(generate(context, prompt(8), 0)))
        assert [(c.text, c.tokens, c.finish) for c in chunks] == [("", (), Finish.LENGTH)]
        assert chunks[0].usage is not None and chunks[0].usage.output_tokens == 0
    await drained(engine, 1, 2)


async def test_an_empty_content_goes_on_where_the_context_ends(engine: PagedEngine) -> None:
    await engine.fill(Fill(context=ContextId(1), content=Tokens(prompt(16))))
    assert await answer(engine, 1, (), 5) == expected(prompt(16), 5)
    text = prompt(16) + expected(prompt(16), 5)
    assert await answer(engine, 1, (), 5) == expected(text, 5)
    await drained(engine, 1)


# ---- what is refused -----------------------------------------------------------------------------------


async def test_only_known_token_ids_are_taken(engine: PagedEngine) -> None:
    with pytest.raises(BadPrompt, match="4096 is not in the vocabulary of 4096"):
        await answer(engine, 1, (5, 4096))
    with pytest.raises(BadPrompt, match="empty"):
        await answer(engine, 2, ())
    with pytest.raises(BadPrompt, match="token ids, not Text"):
        await engine.fill(Fill(context=ContextId(3), content=Text("hello")))
    await drained(engine)


async def test_a_prompt_too_long_after_its_parent_names_the_whole_length(engine: PagedEngine) -> None:
    await engine.fill(Fill(context=ContextId(1), content=Tokens(prompt(100))))
    with pytest.raises(PromptTooLong, match=r"prompt is too long: 128 tokens .* 128 tokens"):
        await answer(engine, 2, prompt(28), parent=ContextId(1))
    assert await answer(engine, 3, prompt(27), parent=ContextId(1)) == expected(prompt(100) + prompt(27), 1)
    await drained(engine, 1, 2, 3)


async def test_contexts_are_not_forked_across_namespaces(engine: PagedEngine) -> None:
    await engine.fill(Fill(context=ContextId(1), content=Tokens(prompt(9)), scope=Scope(namespace="a")))
    with pytest.raises(ContextLost, match="another namespace"):
        await answer(engine, 2, prompt(3), parent=ContextId(1), scope=Scope(namespace="b"))


# ---- cache ---------------------------------------------------------------------------------------------


async def test_cached_tokens_are_exactly_those_that_were_not_computed(engine: PagedEngine) -> None:
    _, first = await collect(engine.generate(generate(1, prompt(40), 1)))
    engine.runner.steps.clear()
    _, second = await collect(engine.generate(generate(2, (*prompt(40), 5, 6), 1)))
    assert first[-1].usage is not None and first[-1].usage.cached_tokens == 0
    assert second[-1].usage is not None and second[-1].usage.cached_tokens == 40
    assert sum(len(row.tokens) for step in engine.runner.steps for row in step) == 2
    filled = await engine.fill(Fill(context=ContextId(3), content=Tokens(prompt(40))))
    assert (filled.tokens, filled.cached_tokens) == (40, 40)


async def test_a_common_prefix_that_arrives_many_times_at_once_is_computed_once(engine: PagedEngine) -> None:
    head = prompt(64)
    texts = [head + prompt(5, salt) for salt in range(1, 6)]
    answers = await at_once(engine, *(answer(engine, n, text, 6) for n, text in enumerate(texts, 1)))
    assert answers == [expected(text, 6) for text in texts]
    assert sum(row.start < 64 for step in engine.runner.steps for row in step) == 2, "two chunks, once"
    await drained(engine, *range(1, 6))


async def test_rows_that_share_a_prefix_are_adjacent(engine: PagedEngine) -> None:
    heads = [prompt(16, 1), prompt(16, 2)]
    for context, head in enumerate(heads, 1):
        await engine.fill(Fill(context=ContextId(context), content=Tokens(head)))
    engine.runner.steps.clear()
    calls = [answer(engine, 10 + n, prompt(3, 10 + n), 8, parent=ContextId(1 + n % 2)) for n in range(6)]
    await at_once(engine, *calls)
    full = [[row.pages[0] for row in step] for step in engine.runner.steps if len(step) == 6]
    assert full, "the six ran together"
    assert all(first == sorted(first) and len(set(first)) == 2 for first in full)


async def test_without_prefix_caching_nothing_is_reused_and_answers_are_equal() -> None:
    engine = await started(enable_prefix_caching=False)
    for context in (1, 2):
        _, chunks = await collect(engine.generate(generate(context, prompt(40), 6)))
        assert chunks[-1].usage is not None and chunks[-1].usage.cached_tokens == 0
        assert tuple(token for chunk in chunks for token in chunk.tokens) == expected(prompt(40), 6)
    await drained(engine, 1, 2)
    await engine.close()


# ---- memory --------------------------------------------------------------------------------------------


async def test_too_little_memory_for_all_preempts_and_changes_no_token() -> None:
    engine = await started(pages=20, context_tokens=80)
    prompts = [prompt(20, salt) for salt in range(6)]
    calls = [answer(engine, n + 1, prompts[n], 40, temperature=1.0, seed=n) for n in range(6)]
    answers = await at_once(engine, *calls)
    assert answers == [expected(prompts[n], 40, temperature=1.0, seed=n) for n in range(6)]
    rows = [row for step in engine.runner.steps for row in step if row.draw is not None]
    assert any(len(row.tokens) > 1 and row.draw.index > 0 for row in rows), "nobody was preempted inside an answer"
    await drained(engine, *range(1, 7))
    await engine.close()


async def test_a_context_as_long_as_the_memory_runs() -> None:
    engine = await started(pages=8, context_tokens=32)
    assert await answer(engine, 1, prompt(31), 5) == expected(prompt(31), 1)
    assert await answer(engine, 2, prompt(16), 50) == expected(prompt(16), 16)
    await drained(engine, 1, 2)
    await engine.close()


async def test_idle_contexts_give_up_their_pages_and_are_computed_again_when_used() -> None:
    engine = await started(pages=16, context_tokens=64)
    for context in range(1, 6):
        await engine.fill(Fill(context=ContextId(context), content=Tokens(prompt(24, context))))
    for context in range(1, 6):
        text = prompt(24, context) + prompt(3, 9)
        assert await answer(engine, context, prompt(3, 9), 6) == expected(text, 6)
    await drained(engine, *range(1, 6))
    await engine.close()


def test_who_draws_gets_its_page_from_who_waits_where_the_two_share_one_and_memory_is_full() -> None:
    runner = PagedRunner(resolved(pages=4, max_rows=2, context_tokens=16))
    stepper = paged_stepper(runner)
    asked = [generate(1, prompt(5, 1), 3), generate(2, prompt(6, 2), 3), generate(3, prompt(6, 2), 3)]
    drawn: dict[int, list[int]] = {1: [], 2: [], 3: []}

    def step(*commands: Command) -> None:
        for update in stepper.step(commands).updates:
            assert isinstance(update.answer, Chunk), update.answer
            drawn[update.command] += update.answer.tokens
        stepper.check()

    step(Command(1, asked[0]), Command(2, asked[1]))
    step(Command(3, asked[2]))  # it waits for a row, and has taken over the page that the second draws into
    assert [len(rows) for rows in runner.steps] == [2, 2]
    while stepper.has_work:
        step()
    assert drawn == {n: list(expected(prompt(*of), 3)) for n, of in {1: (5, 1), 2: (6, 2), 3: (6, 2)}.items()}


async def test_a_cut_inside_a_shared_page_still_fits_when_memory_is_full() -> None:
    engine = await started(pages=4, context_tokens=16)
    await engine.fill(Fill(context=ContextId(1), content=Tokens(prompt(15))))
    await engine.truncate(ContextId(1), 13)
    both = await at_once(
        engine, answer(engine, 2, (77,), 2, parent=ContextId(1)), answer(engine, 3, (78,), 2, parent=ContextId(1))
    )
    assert both == [expected((*prompt(13), last), 2) for last in (77, 78)]
    await drained(engine, 1, 2, 3)
    await engine.close()


# ---- failures ------------------------------------------------------------------------------------------


async def test_a_failed_step_fails_its_rows_with_the_cause_and_the_engine_goes_on(engine: PagedEngine) -> None:
    await engine.fill(Fill(context=ContextId(1), content=Tokens(prompt(10))))
    engine.runner.fails.append(ValueError("a cosmic ray"))
    with pytest.raises(EngineError, match="cosmic ray") as failure:
        await answer(engine, 1, prompt(3, 1), 6)
    assert isinstance(failure.value.__cause__, ValueError) and not isinstance(failure.value, EngineLost)
    assert await answer(engine, 1, prompt(3, 2), 6) == expected(prompt(10) + prompt(3, 2), 6)
    await drained(engine, 1)


async def test_a_dead_thread_loses_everything_that_waits(engine: PagedEngine) -> None:
    engine.runner.fails.append(KeyboardInterrupt("the thread dies"))
    outcomes = await asyncio.gather(*(answer(engine, n, prompt(9, n)) for n in range(1, 30)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [EngineLost] * 29
    with pytest.raises(EngineLost, match="the thread dies"):
        await engine.free(ContextId(1))


async def test_close_loses_what_is_inside(engine: PagedEngine) -> None:
    engine.runner.gate.clear()
    work = asyncio.create_task(answer(engine, 1, prompt(9), 90))
    assert await asyncio.to_thread(engine.runner.inside.wait, 30)
    close = asyncio.create_task(engine.close())
    with pytest.raises(EngineLost, match="closed"):
        await work
    engine.runner.gate.set()
    await close


async def test_a_closed_engine_is_gone_before_any_collection() -> None:
    """Its memory is given back at once, and its graphs are not destroyed amid what another captures."""
    kept: list[weakref.ref[object]] = []

    def load(config: EngineConfig) -> Stepper:
        stepper = load_stepper(config)
        kept.extend(map(weakref.ref, (stepper, stepper._runner)))  # type: ignore[arg-type]
        return stepper

    config = EngineConfig(model="builtin:random", max_model_len=96, kv_tokens=2048, threads=1)
    gc.disable()
    try:
        engine = TorchEngine(config, load)
        await engine.start()
        await collect(engine.generate(generate(1, (5, 6, 7), 4)))
        if find_spec("llguidance") is not None:
            await collect(engine.generate(generate(2, (5, 6, 7), 4, format=AnyJson())))
        await engine.close()
        assert all(each() is not None for each in kept)
        del engine
        await asyncio.sleep(0)
        assert [each() for each in kept] == [None, None]
    finally:
        gc.enable()


async def test_a_model_that_cannot_be_loaded_is_refused_at_the_start() -> None:
    engine = TorchEngine(EngineConfig(model="/nowhere/at/all"))
    with pytest.raises(ModelRefused, match="/nowhere/at/all"):
        await engine.start()
    with pytest.raises(EngineLost):
        await engine.free(ContextId(1))
    await engine.close()


async def test_load_counts_what_has_been_asked_at_once(engine: PagedEngine) -> None:
    engine.runner.gate.clear()
    work = [asyncio.create_task(answer(engine, n, prompt(30, n), 4)) for n in range(1, 13)]
    await asyncio.sleep(0)
    load = engine.load()
    assert load.running + load.waiting == 12 and load.waiting_tokens == 360
    engine.runner.gate.set()
    await asyncio.gather(*work)


# ---- anything, in any order ----------------------------------------------------------------------------

call = st.tuples(st.integers(0, 3), st.integers(1, 40), st.integers(0, 12), st.sampled_from(["run", "leave", "fork"]))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(calls=st.lists(call, min_size=1, max_size=12), pages=st.integers(16, 40), step_tokens=st.integers(3, 20))
def test_any_mix_of_work_gives_every_answer_and_loses_no_page(
    calls: list[tuple[int, int, int, str]], pages: int, step_tokens: int
) -> None:
    async def one(engine: PagedEngine, context: int, salt: int, length: int, draws: int, how: str) -> None:
        text = prompt(length, salt)
        if how == "fork":
            await engine.fill(Fill(context=ContextId(1000 + context), content=Tokens(text[: length // 2])))
            fork = dict(parent=ContextId(1000 + context))
            assert await answer(engine, context, text[length // 2 :] or (5,), draws, **fork) == expected(
                text[: length // 2] + (text[length // 2 :] or (5,)), draws
            )
        elif how == "leave":
            chunks = engine.generate(generate(context, text, draws + 5))
            await anext(chunks)
            await chunks.aclose()  # type: ignore[attr-defined]
        else:
            assert await answer(engine, context, text, draws) == expected(text, draws)

    async def all_of_them() -> None:
        engine = await started(pages=pages, context_tokens=64, step_tokens=step_tokens, max_rows=4)
        async with asyncio.timeout(60):
            await asyncio.gather(*(one(engine, n, *call) for n, call in enumerate(calls, 1)))
        await drained(engine, *range(1, len(calls) + 1), *range(1001, len(calls) + 1001))
        await engine.close()

    asyncio.run(all_of_them())


async def test_chunks_of_one_answer_come_in_order_through_the_front(engine: PagedEngine) -> None:
    seen: list[Chunk] = [chunk async for chunk in engine.generate(generate(1, prompt(5), 30))]
    assert tuple(token for chunk in seen for token in chunk.tokens) == expected(prompt(5), 30)
