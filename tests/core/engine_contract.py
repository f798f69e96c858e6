"""What every engine promises, as tests. An implementation inherits `EngineContract` and says how it starts.

    class TestMyEngine(EngineContract):
        async def start(self) -> Engine: ...

Hooks: `start` (a fresh engine, running), `content` (a prompt of n tokens), `engine` (override the fixture and return
a shared one where starting is slow), `held` (where it can be made to stand still), and the flags below. Any prompt must
get an answer of at least `answer_tokens` tokens when nobody stops it; greedy sampling with `ignore_eos` is what the
tests ask for.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from parrot_compat.core.call import Finish, ResolvedSampling, Usage
from parrot_compat.core.engine import Chunk, ContextId, Embed, Engine, Fill, Filled, Generate, Hurries, Scope
from parrot_compat.core.errors import ContextLost, EngineLost, PromptTooLong
from parrot_compat.core.prompt import Content, Tokens

_context_ids = itertools.count(1_000_000)


def new_context() -> ContextId:
    return ContextId(next(_context_ids))


def greedy(max_tokens: int, **fields: Any) -> ResolvedSampling:
    return ResolvedSampling(max_tokens=max_tokens, ignore_eos=True, **fields)


async def collect(chunks: AsyncIterator[Chunk]) -> tuple[str, list[Chunk]]:
    """The whole answer: its text and its chunks."""
    seen = [chunk async for chunk in chunks]
    return "".join(chunk.text for chunk in seen), seen


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what tells nobody when it changes."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def settle(engine: Engine) -> None:
    """Wait until nothing runs or waits in the engine."""
    await until(lambda: not engine.load().running and not engine.load().waiting)


class EngineContract:
    holds_contexts = True
    """Contexts hold exactly what was put in them (False for text engines: there they are advisory)."""
    counts_tokens = True
    """Prompt lengths and the context limit are in tokens that the test can count."""
    answer_tokens = 8
    """Any prompt gets at least this many tokens of answer when nobody stops it."""

    # ---- hooks -------------------------------------------------------------------------------------

    async def start(self) -> Engine:
        raise NotImplementedError("an engine's test says how it starts")

    def content(self, tokens: int, salt: int = 0) -> Content:
        """A prompt of `tokens` tokens; another `salt` is another prompt, a longer one begins with the shorter."""
        return Tokens(tuple(3 + (position * 7 + position // 5 + salt * 13) % 50 for position in range(tokens)))

    def joined(self, first: Content, second: Content) -> Content:
        """`first` and then `second` as one content."""
        assert isinstance(first, Tokens) and isinstance(second, Tokens)
        return Tokens(first.ids + second.ids)

    @contextmanager
    def held(self, engine: Engine) -> Iterator[Callable[[], bool] | None]:
        """What is inside the engine stands still until the block ends. Gives what tells whether work is inside, or
        `None` where this engine cannot be held."""
        yield None

    @pytest.fixture
    async def engine(self) -> AsyncIterator[Engine]:
        engine = await self.start()
        yield engine
        await engine.close()

    async def ask(self, engine: Engine, content: Content, max_tokens: int = 6, **fields: Any) -> str:
        """The greedy answer in a context of its own, which is freed."""
        context = new_context()
        generate = Generate(context=context, content=content, sampling=greedy(max_tokens), **fields)
        text, _ = await collect(engine.generate(generate))
        await engine.free(context)
        return text

    def needs_contexts(self) -> None:
        if not self.holds_contexts:
            pytest.skip("contexts of this engine are advisory")

    # ---- answers -----------------------------------------------------------------------------------

    async def test_info_names_the_engine_its_model_and_its_limits(self, engine: Engine) -> None:
        assert engine.info.name and engine.info.model
        assert engine.info.context_tokens > 0 and engine.info.page_size >= 1

    async def test_the_last_chunk_and_only_the_last_says_why_it_ended(self, engine: Engine) -> None:
        generate = Generate(context=new_context(), content=self.content(10), sampling=greedy(6))
        _, chunks = await collect(engine.generate(generate))
        assert [chunk.finish for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
        assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
        assert chunks[-1].finish is not None and isinstance(chunks[-1].usage, Usage)

    async def test_an_answer_has_at_most_max_tokens_and_then_finishes_with_length(self, engine: Engine) -> None:
        generate = Generate(context=new_context(), content=self.content(10), sampling=greedy(6))
        _, chunks = await collect(engine.generate(generate))
        usage = chunks[-1].usage
        assert usage is not None and usage.output_tokens == 6
        assert chunks[-1].finish is Finish.LENGTH
        if engine.info.takes == "tokens":
            assert sum(len(chunk.tokens) for chunk in chunks) == 6

    async def test_usage_counts_the_prompt(self, engine: Engine) -> None:
        if not self.counts_tokens:
            pytest.skip("this engine counts tokens in its own way")
        generate = Generate(context=new_context(), content=self.content(10), sampling=greedy(2))
        _, chunks = await collect(engine.generate(generate))
        usage = chunks[-1].usage
        assert usage is not None and usage.prompt_tokens == 10 and 0 <= usage.cached_tokens <= 10
        if engine.info.takes == "tokens":  # known before the first token is drawn
            assert chunks[0].prompt == Usage(prompt_tokens=10, cached_tokens=usage.cached_tokens)
            assert not any(chunk.prompt for chunk in chunks[1:])

    async def test_the_same_greedy_prompt_has_the_same_answer(self, engine: Engine) -> None:
        assert await self.ask(engine, self.content(12)) == await self.ask(engine, self.content(12))

    async def test_neighbours_do_not_change_an_answer(self, engine: Engine) -> None:
        prompts = [self.content(4 + 3 * salt, salt) for salt in range(5)]
        alone = [await self.ask(engine, prompt) for prompt in prompts]
        together = await asyncio.gather(*(self.ask(engine, prompt) for prompt in prompts))
        assert together == alone

    async def test_hurrying_does_not_change_an_answer(self, engine: Engine) -> None:
        if not isinstance(engine, Hurries):
            pytest.skip("this engine does not order its work by slack")
        generate = Generate(
            context=new_context(), content=self.content(10), sampling=greedy(6), scope=Scope(slack_s=60.0)
        )
        text, chunks = "", engine.generate(generate)
        async for chunk in chunks:
            engine.hurry(generate.context, 0.0)
            engine.hurry(new_context(), 0.0)
            text += chunk.text
        assert text == await self.ask(engine, self.content(10))

    async def test_a_stop_string_ends_the_text_before_it(self, engine: Engine) -> None:
        whole = await self.ask(engine, self.content(9), self.answer_tokens)
        stop = whole[len(whole) // 2 : len(whole) // 2 + 2]
        assert stop, "the engine under test must answer this prompt with some text"
        sampling = greedy(self.answer_tokens, stop=(stop,))
        generate = Generate(context=new_context(), content=self.content(9), sampling=sampling)
        text, chunks = await collect(engine.generate(generate))
        assert text == whole[: whole.index(stop)]
        assert chunks[-1].finish is Finish.STOP
        if engine.info.takes == "tokens":
            assert chunks[-1].stop == stop

    # ---- contexts ----------------------------------------------------------------------------------

    async def test_filling_first_does_not_change_the_answer(self, engine: Engine) -> None:
        self.needs_contexts()
        head, tail, context = self.content(11), self.content(4, salt=3), new_context()
        filled = await engine.fill(Fill(context=context, content=head))
        assert 0 <= filled.cached_tokens <= filled.tokens
        text, _ = await collect(engine.generate(Generate(context=context, content=tail, sampling=greedy(6))))
        assert text == await self.ask(engine, self.joined(head, tail))

    async def test_forks_of_one_parent_answer_as_if_each_had_the_whole_prompt(self, engine: Engine) -> None:
        self.needs_contexts()
        head, parent = self.content(11), new_context()
        await engine.fill(Fill(context=parent, content=head))
        tails = [self.content(3, salt) for salt in range(4)]
        forked = await asyncio.gather(*(self.ask(engine, tail, parent=parent) for tail in tails))
        assert forked == [await self.ask(engine, self.joined(head, tail)) for tail in tails]

    async def test_a_fork_outlives_its_parent(self, engine: Engine) -> None:
        self.needs_contexts()
        head, tail, parent, child = self.content(11), self.content(3, salt=2), new_context(), new_context()
        await engine.fill(Fill(context=parent, content=head))
        await engine.fill(Fill(context=child, content=tail, parent=parent))
        await engine.free(parent)
        text, _ = await collect(
            engine.generate(Generate(context=child, content=self.content(2, salt=5), sampling=greedy(6)))
        )
        assert text == await self.ask(engine, self.joined(self.joined(head, tail), self.content(2, salt=5)))

    async def test_the_output_stays_in_the_context(self, engine: Engine) -> None:
        self.needs_contexts()
        context, more = new_context(), self.content(3, salt=1)
        _, chunks = await collect(
            engine.generate(Generate(context=context, content=self.content(10), sampling=greedy(5)))
        )
        text, _ = await collect(engine.generate(Generate(context=context, content=more, sampling=greedy(6))))
        said = Tokens(tuple(token for chunk in chunks for token in chunk.tokens))
        assert text == await self.ask(engine, self.joined(self.joined(self.content(10), said), more))

    async def test_truncate_forgets_what_came_after(self, engine: Engine) -> None:
        self.needs_contexts()
        context, tail = new_context(), self.content(4, salt=4)
        await engine.fill(Fill(context=context, content=self.content(20)))
        await engine.truncate(context, 9)
        text, _ = await collect(engine.generate(Generate(context=context, content=tail, sampling=greedy(6))))
        assert text == await self.ask(engine, self.joined(self.content(9), tail))

    async def test_an_unknown_parent_is_a_lost_context(self, engine: Engine) -> None:
        self.needs_contexts()
        with pytest.raises(ContextLost):
            await engine.fill(Fill(context=new_context(), content=self.content(3), parent=new_context()))
        with pytest.raises(ContextLost):
            await self.ask(engine, self.content(3), parent=new_context())

    async def test_truncating_an_unknown_context_is_a_lost_context(self, engine: Engine) -> None:
        self.needs_contexts()
        with pytest.raises(ContextLost):
            await engine.truncate(new_context(), 3)

    async def test_a_freed_context_is_lost_to_forks(self, engine: Engine) -> None:
        self.needs_contexts()
        parent = new_context()
        await engine.fill(Fill(context=parent, content=self.content(5)))
        await engine.free(parent)
        with pytest.raises(ContextLost):
            await self.ask(engine, self.content(3), parent=parent)

    async def test_free_may_come_twice_and_for_contexts_that_never_were(self, engine: Engine) -> None:
        context = new_context()
        await engine.fill(Fill(context=context, content=self.content(5)))
        await engine.free(context)
        await engine.free(context)
        await engine.free(new_context())
        assert await self.ask(engine, self.content(5)) == await self.ask(engine, self.content(5))

    async def test_namespaces_share_answers_but_no_cache(self, engine: Engine) -> None:
        self.needs_contexts()
        prompt = self.content(40, salt=9)
        first = await self.ask(engine, prompt, scope=Scope(namespace="one"))
        context = new_context()
        generate = Generate(context=context, content=prompt, sampling=greedy(6), scope=Scope(namespace="two"))
        text, chunks = await collect(engine.generate(generate))
        assert text == first
        assert chunks[-1].usage is not None and chunks[-1].usage.cached_tokens == 0

    # ---- embeddings --------------------------------------------------------------------------------

    async def test_every_input_has_a_vector_of_length_one_that_depends_on_it_alone(self, engine: Engine) -> None:
        inputs = tuple(self.content(4 + 3 * salt, salt) for salt in range(5))
        together = await engine.embed(Embed(inputs=inputs))
        alone = [(await engine.embed(Embed(inputs=(one,)))).vectors[0] for one in inputs]
        assert list(together.vectors) == alone
        assert len({tuple(vector) for vector in alone}) == 5 and len({len(vector) for vector in alone}) == 1
        assert all(math.isclose(math.hypot(*vector), 1.0, abs_tol=1e-5) for vector in alone)
        assert together.prompt_tokens == sum(4 + 3 * salt for salt in range(5)) or not self.counts_tokens

    async def test_fewer_dimensions_are_the_first_ones_at_length_one(self, engine: Engine) -> None:
        inputs = (self.content(9),)
        whole = (await engine.embed(Embed(inputs=inputs))).vectors[0]
        short = (await engine.embed(Embed(inputs=inputs, dimensions=3))).vectors[0]
        size = math.hypot(*whole[:3])
        assert list(short) == pytest.approx([number / size for number in whole[:3]], abs=1e-5)

    async def test_nothing_to_embed_gives_nothing(self, engine: Engine) -> None:
        nothing = await engine.embed(Embed(inputs=()))
        assert nothing.vectors == () and nothing.prompt_tokens == 0

    async def test_an_input_to_embed_may_fill_the_context_and_not_more(self, engine: Engine) -> None:
        if not self.counts_tokens:
            pytest.skip("this engine counts tokens in its own way")
        limit = engine.info.context_tokens
        assert len((await engine.embed(Embed(inputs=(self.content(limit),)))).vectors) == 1
        with pytest.raises(PromptTooLong, match="prompt is too long") as refusal:
            await engine.embed(Embed(inputs=(self.content(5), self.content(limit + 1))))
        assert str(limit) in str(refusal.value)
        await settle(engine)

    # ---- limits ------------------------------------------------------------------------------------

    async def test_a_prompt_that_leaves_no_room_is_refused_with_both_numbers(self, engine: Engine) -> None:
        if not self.counts_tokens:
            pytest.skip("this engine counts tokens in its own way")
        limit = engine.info.context_tokens
        with pytest.raises(PromptTooLong, match="prompt is too long") as refusal:
            await self.ask(engine, self.content(limit))
        assert str(limit) in str(refusal.value)
        assert await self.ask(engine, self.content(limit - 1), max_tokens=1) is not None

    async def test_max_tokens_beyond_the_room_ends_when_the_context_is_full(self, engine: Engine) -> None:
        if not (self.counts_tokens and self.holds_contexts):
            pytest.skip("this engine counts tokens in its own way")
        limit = engine.info.context_tokens
        generate = Generate(context=new_context(), content=self.content(limit - 5), sampling=greedy(10_000))
        _, chunks = await collect(engine.generate(generate))
        assert chunks[-1].finish is Finish.LENGTH
        assert chunks[-1].usage is not None and chunks[-1].usage.output_tokens == 5

    # ---- leaving -----------------------------------------------------------------------------------

    async def test_closing_the_iterator_stops_the_work(self, engine: Engine) -> None:
        sampling = greedy(max(self.answer_tokens, engine.info.context_tokens // 2))
        chunks = engine.generate(Generate(context=new_context(), content=self.content(10), sampling=sampling))
        await anext(chunks)
        await chunks.aclose()  # type: ignore[attr-defined]  # generators close; plain iterators are not handed out
        await settle(engine)
        assert await self.ask(engine, self.content(10)) == await self.ask(engine, self.content(10))

    async def test_a_cancelled_fill_stops_the_work(self, engine: Engine) -> None:
        context, content, other = new_context(), self.content(60), self.content(60, salt=6)
        with self.held(engine) as is_inside:
            fill = asyncio.create_task(engine.fill(Fill(context=context, content=content)))
            await asyncio.sleep(0)
            if is_inside is not None:
                await until(is_inside)
            fill.cancel()
            (outcome,) = await asyncio.gather(fill, return_exceptions=True)
        await settle(engine)
        assert isinstance(outcome, asyncio.CancelledError | Filled)  # text engines are done at once
        assert (engine.load().running, engine.load().waiting) == (0, 0)
        if is_inside is not None:  # less is there than one leaves that was not stopped
            assert isinstance(outcome, asyncio.CancelledError)
            await engine.fill(Fill(context=new_context(), content=other))
            again, whole = [await engine.fill(Fill(context=new_context(), content=one)) for one in (content, other)]
            assert again.cached_tokens < whole.cached_tokens
        await engine.free(context)

    async def test_close_ends_the_work_inside_and_refuses_what_comes_later(self) -> None:
        engine = await self.start()
        work = [asyncio.create_task(self.ask(engine, self.content(8, salt), 200)) for salt in range(12)]
        await asyncio.sleep(0)
        await engine.close()
        outcomes = await asyncio.gather(*work, return_exceptions=True)
        assert all(isinstance(outcome, str | EngineLost) for outcome in outcomes)
        assert any(isinstance(outcome, EngineLost) for outcome in outcomes)  # so many tokens are not drawn at once
        with pytest.raises(EngineLost):
            await self.ask(engine, self.content(3))
        with pytest.raises(EngineLost):
            await engine.fill(Fill(context=new_context(), content=self.content(3)))
        await engine.close()

    async def test_load_is_zero_when_nothing_is_inside(self, engine: Engine) -> None:
        await self.ask(engine, self.content(5))
        await settle(engine)
        assert replace(engine.load(), free_tokens=None, step_s=None) == type(engine.load())()
