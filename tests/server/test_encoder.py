"""Tokens that are counted and read for their own sake: other people's calls do not wait for that."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from parrot_compat.core.admission import Limits
from parrot_compat.core.engines.char_tokenizer import CharTokenizer
from parrot_compat.core.errors import PromptTooLong, QueueFull, TooManyCalls
from parrot_compat.core.prompt import Content
from parrot_compat.server.encoder import Encoder
from parrot_compat.server.json_values import written

from .live import Live, connect, live, send, until

CHAT = "/v1/chat/completions"
HARD = "hard to tokenise"
FEW = Limits(open_calls=5, open_calls_per_tenant=3, open_prompt_tokens=1000)


class Held:
    """Work in threads that goes on when it is let."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.may = threading.Event()

    def work(self, name: str) -> str:
        self.begun.append(name)
        assert self.may.wait(120)
        return name


@asynccontextmanager
async def held() -> AsyncIterator[Held]:
    one = Held()
    try:
        async with asyncio.timeout(120):
            yield one
    finally:
        one.may.set()


async def test_work_beyond_a_tenants_limit_is_refused_and_counts_until_it_has_ended() -> None:
    async with held() as one:
        encoder = Encoder(FEW)
        running = [asyncio.create_task(encoder.run("a", 1, lambda name=name: one.work(name))) for name in "xyz"]  # type: ignore[misc]
        await until(lambda: len(one.begun) == 2)
        with pytest.raises(TooManyCalls):
            await encoder.run("a", 1, lambda: "more")
        running[0].cancel()  # it runs, and nothing can stop it
        running[2].cancel()  # it waits
        await asyncio.wait((running[0], running[2]))
        await until(lambda: encoder.open == 2)
        one.may.set()
        assert await running[1] == "y"
        await until(lambda: encoder.open == 0)
        assert one.begun == ["x", "y"]


async def test_nothing_is_kept_of_work_that_nobody_waits_for_any_more() -> None:
    class Body:
        """What it would have read."""

    async with held() as one:
        encoder = Encoder(FEW)
        running = [asyncio.create_task(encoder.run("a", 1, lambda name=name: one.work(name))) for name in "xy"]  # type: ignore[misc]
        await until(lambda: len(one.begun) == 2)
        body = Body()
        kept = weakref.ref(body)
        waiting = asyncio.create_task(encoder.run("a", 1, lambda body=body: one.work(str(body))))  # type: ignore[misc]
        del body
        await asyncio.sleep(0)
        assert encoder.open == 3
        waiting.cancel()
        await asyncio.wait((waiting,))
        del waiting
        gc.collect()
        assert kept() is None and encoder.open == 2
        one.may.set()
        assert [await task for task in running] == ["x", "y"]


async def test_work_for_all_tenants_has_a_limit_in_tokens() -> None:
    async with held() as one:
        encoder = Encoder(FEW)
        with pytest.raises(PromptTooLong):
            await encoder.run("a", 1001, lambda: "much")
        running = asyncio.create_task(encoder.run("a", 600, lambda: one.work("x")))
        await until(lambda: bool(one.begun))
        with pytest.raises(QueueFull):
            await encoder.run("b", 600, lambda: "more")
        one.may.set()
        assert await running == "x"
        assert await encoder.run("b", 600, lambda: "more") == "more"


async def test_of_several_tenants_none_has_more_than_half_of_the_tokens() -> None:
    async with held() as one:
        encoder = Encoder(FEW, is_shared=True)
        running = [asyncio.create_task(encoder.run("a", 250, lambda: one.work("x"))) for _ in range(2)]
        await until(lambda: len(one.begun) == 2)
        with pytest.raises(TooManyCalls, match="for this tenant; the limit is 500"):
            await encoder.run("a", 1, lambda: "more")
        other = asyncio.create_task(encoder.run("b", 500, lambda: "room"))
        await asyncio.sleep(0)
        assert encoder.open == 3
        one.may.set()
        assert [await task for task in running] == ["x", "x"] and await other == "room"


@pytest.mark.parametrize(("keys", "status"), [((), 200), (("a",), 200), (("a", "b"), 429)])
async def test_a_server_of_several_keys_leaves_each_of_them_room(
    monkeypatch: pytest.MonkeyPatch, keys: tuple[str, ...], status: int
) -> None:
    monkeypatch.setattr("parrot_compat.server.encoder.LIMITS", Limits(open_prompt_tokens=100))
    bearers = [{"authorization": f"Bearer {key}"} for key in keys or ("none",)]
    async with slow(keys=keys) as (server, one):
        begun = asyncio.create_task(send(server, "POST", "/tokenize", {"prompt": HARD * 12}, bearers[0]))
        await until(lambda: bool(one.begun))
        for bearer, expected in ((bearers[0], status), (bearers[-1], 200 if len(keys) > 1 else status)):
            assert (await send(server, "POST", "/tokenize", {"prompt": "easy " * 32}, bearer)).status == expected
        one.may.set()
        assert (await begun).status == 200


async def test_work_that_fails_is_over() -> None:
    def fails() -> None:
        raise ValueError("no")

    encoder = Encoder(FEW)
    with pytest.raises(ValueError, match="no"):
        await encoder.run("a", 1000, fails)
    await until(lambda: encoder.open == 0)


class Slow(CharTokenizer):
    """It takes as long as it is let for what is hard."""

    def __init__(self) -> None:
        self.held = Held()

    def encode(self, content: Content) -> tuple[int, ...]:
        if HARD in str(content):
            self.held.work("encode")
        return super().encode(content)

    def decode(self, tokens: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        if len(tokens) == 1000:
            self.held.work("decode")
        return super().decode(tokens, skip_special_tokens=skip_special_tokens)


@asynccontextmanager
async def slow(**options: Any) -> AsyncIterator[tuple[Live, Held]]:
    tokenizer = Slow()
    async with asyncio.timeout(120), live(tokenizer=tokenizer, context_tokens=200_000, **options) as server:
        try:
            yield server, tokenizer.held
        finally:
            tokenizer.held.may.set()


MESSAGES = [{"role": "user", "content": HARD}]
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "tokenize": ("/tokenize", {"prompt": HARD}),
    "detokenize": ("/detokenize", {"tokens": [65] * 1000}),
    "count_tokens": ("/v1/messages/count_tokens", {"messages": MESSAGES, "model": "org/scripted"}),
    "echo": ("/v1/completions", {"prompt": [65] * 1000, "echo": True, "max_tokens": 1}),
}


@pytest.mark.parametrize("name", ASKED)
async def test_a_flood_is_refused_and_takes_no_thread_from_the_prompts_of_calls(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    limits = Limits(open_calls_per_tenant=50, open_prompt_tokens=2**24)
    monkeypatch.setattr("parrot_compat.server.encoder.LIMITS", limits)
    async with slow() as (server, one):
        flood = [asyncio.create_task(send(server, "POST", *ASKED[name])) for _ in range(51)]
        (refused,), waiting = await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
        assert refused.result().status == 429 and b"the limit is 50" in refused.result().body
        long = {"messages": [{"role": "user", "content": "word " * 10_000}], "max_tokens": 1}
        assert (await send(server, "POST", CHAT, long)).status == 200  # such a prompt is made in a thread
        assert len(one.begun) == 2
        one.may.set()
        assert {(await answer).status for answer in waiting} == {200}


async def test_what_nobody_waits_for_any_more_is_not_tokenised() -> None:
    async with slow() as (server, one):
        path, body = ASKED["tokenize"]
        raw = json.dumps(body).encode()
        first, second = [await connect(server.url, "POST", path, raw) for _ in range(2)]
        await until(lambda: len(one.begun) == 2)
        _, leaver = await connect(server.url, "POST", path, raw)
        last = asyncio.create_task(send(server, "POST", "/tokenize", {"prompt": "easy"}))
        await send(server, "GET", "/health")  # by then the others wait
        leaver.close()
        await leaver.wait_closed()
        await send(server, "GET", "/health")
        one.may.set()
        assert (await last).json()["count"] == 4
        for reader, writer in (first, second):
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
            writer.close()
        assert len(one.begun) == 2


async def test_ids_of_a_prompt_are_those_that_its_call_was_made_of() -> None:
    """They are not made a second time."""
    made: list[Content] = []

    class Counting(CharTokenizer):
        def encode(self, content: Content) -> tuple[int, ...]:
            made.append(content)
            return super().encode(content)

    async with live(tokenizer=Counting()) as server, asyncio.timeout(60):
        for path, body in (
            (CHAT, {"messages": [{"role": "user", "content": "hello"}]}),
            ("/v1/completions", {"prompt": "hello", "n": 2}),
        ):
            made.clear()
            answer = (await send(server, "POST", path, {**body, "return_token_ids": True})).json()
            told = answer if path == CHAT else answer["choices"][1]
            (content, *again) = made
            assert told["prompt_token_ids"] == list(CharTokenizer().encode(content))
            assert all(other == content for other in again) and len(made) <= (1 if path == CHAT else 2)


def test_what_is_written_in_pieces_reads_the_same() -> None:
    data = {
        "ids": list(range(10_000)),
        "of each": [(), (1,), tuple(range(5000))],
        "text": 'a"\\\n☃\U0001d530\ud800' * 2000,
        "": [{"nothing": None, "some": [1.5, True, "x"], "none": {}}, [], {}],
    }
    said = written(data)
    assert said.isascii() and json.loads(said) == json.loads(json.dumps(data))
    assert said == json.dumps(data, separators=(",", ":")).encode()
