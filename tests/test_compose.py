"""Everything wired together: the real application over our own engine in its own process."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import openai
import pytest

from parrot_compat import compose
from parrot_compat.compose import Served, _engine_config, _limits, embedded, managing, running
from parrot_compat.core.engines.process import ProcessEngine
from parrot_compat.core.errors import (
    EngineError,
    ModelRefused,
    NoEngineForModel,
    ParrotError,
    QueueFull,
    SessionFull,
    TooManyCalls,
)
from parrot_compat.core.events import EngineJoined, Event, FirstToken
from parrot_compat.core.prompt import Text
from parrot_compat.settings import Settings

from .core.scripted_server import ScriptedServer, serving
from .server.live import connect, until
from .server.real import client_of, listening

pytest.importorskip("torch")

SMALL = Settings(device="cpu", max_model_len=512, kv_tokens=4096, threads=1)
PROMPT = "Once upon a time there was a server."


def free_tokens(served: Served) -> list[int | None]:
    return [member.engine.load().free_tokens for member in served.manager.fleet]


async def ask(client: openai.AsyncOpenAI) -> str:
    answer = await client.completions.create(model="builtin:tiny", prompt=PROMPT, max_tokens=8, temperature=0)
    return answer.choices[0].text


async def test_a_client_that_leaves_gives_its_pages_back_and_a_killed_engine_comes_back() -> None:
    events: list[Event] = []
    async with listening(SMALL) as (url, served), client_of(url) as client:
        served.manager.events.subscribe(events.append)
        said = await ask(client)
        await until(lambda: free_tokens(served) == [4096])

        endless = {"prompt": PROMPT, "n": 4, "max_tokens": 400, "ignore_eos": True, "stream": True}
        _, writer = await connect(url, "POST", "/v1/completions", json.dumps(endless).encode())
        async with asyncio.timeout(60):
            await until(lambda: sum(isinstance(event, FirstToken) for event in events) >= 5)
            assert free_tokens(served) != [4096]
            writer.close()
            await until(lambda: not served.manager.open_calls and free_tokens(served) == [4096])
        served.manager.check()

        (member,) = served.manager.fleet
        assert isinstance(member.engine, ProcessEngine) and member.engine.pid is not None
        os.kill(member.engine.pid, signal.SIGKILL)
        assert await ask(client) == said
        assert any(isinstance(event, EngineJoined) for event in events)


async def test_several_engines_serve_one_model_under_the_name_asked_for() -> None:
    settings = Settings(device="cpu", max_model_len=256, kv_tokens=1024, engines=2, served_model_name=("little",))
    async with running(settings) as served:
        (card,) = served.manager.models()
    assert (card.name, card.engines, card.context_tokens) == ("little", ("engine-0", "engine-1"), 256)


@pytest.mark.parametrize(
    ("settings", "engines", "threads"),
    [
        (Settings(), 1, 8),
        (Settings(engines=2), 2, 4),
        (Settings(engines=2, more_models=("another",)), 4, 2),
        (Settings(engines=10), 10, 1),
        (Settings(engines=2, threads=8), 2, 8),
    ],
)
def test_engines_of_one_machine_share_the_cores_that_the_process_may_use(
    settings: Settings, engines: int, threads: int
) -> None:
    from parrot_compat.gpu.config import CheckpointFacts, EngineConfig, Machine, resolve

    config = EngineConfig.from_json(_engine_config(settings, "m", "/m", 0))
    facts = CheckpointFacts(
        path="/m", model_type="llama", layers=1, heads=1, kv_heads=1, head_dim=8, vocab_size=9,
        max_position_embeddings=64, hidden_size=8,
    )  # fmt: skip
    assert config.engines_here == engines
    assert resolve(config, facts, Machine(device="cpu", free_bytes=1 << 30, cores=8)).threads == threads


async def test_a_model_that_was_asked_for_is_asked_of_the_upstream_whatever_its_name() -> None:
    async with serving(ScriptedServer(lambda prompt: "yes")) as server:
        async with managing(Settings(upstream=server.base_url)) as manager:
            assert [card.name for card in manager.models()] == ["big"]
        async with managing(Settings(upstream=server.base_url, model="small", more_models=("big",))) as manager:
            assert [card.name for card in manager.models()] == ["small", "big"]
        with pytest.raises(NoEngineForModel, match=r"'builtin:tiny'.*'big', 'small'"):
            async with managing(Settings(upstream=server.base_url, model="builtin:tiny")):
                raise AssertionError("it runs")


async def test_what_an_upstream_is_asked_is_told_without_the_password_in_its_url() -> None:
    told: list[str] = []
    async with serving(ScriptedServer(lambda prompt: "yes")) as server:
        url = server.base_url.replace("http://", "http://operator:hunter2@")
        async with managing(Settings(upstream=url, upstream_api_key="secret\n"), told.append):
            assert told == [f"asking {server.base_url} what it serves"]
    with pytest.raises(ParrotError) as failed:
        async with managing(Settings(upstream="http://operator:hunter2@127.0.0.1:9/v1")):
            raise AssertionError("it runs")
    assert "hunter2" not in str(failed.value)


def test_engines_log_what_the_server_logs() -> None:
    assert _engine_config(Settings(log_level="debug"), "m", "/m", 0)["log_level"] == "debug"


@pytest.mark.parametrize(("keys", "share"), [((), None), (("a",), None), (("a", "a"), None), (("a", "b"), 2**24)])
def test_keys_that_are_several_tenants_share_what_is_counted_in_tokens(
    keys: tuple[str, ...], share: int | None
) -> None:
    assert _limits(Settings(api_keys=keys)).open_prompt_tokens_per_tenant == share


@pytest.mark.parametrize(
    ("asked", "refusal"),
    [({"max_open_calls": 1}, QueueFull), ({"max_open_calls_per_tenant": 1}, TooManyCalls)],
)
async def test_the_limits_that_were_asked_for_are_the_managers(asked: dict[str, int], refusal: type[Exception]) -> None:
    server = ScriptedServer(lambda prompt: "yes")
    async with serving(server), managing(Settings(upstream=server.base_url, **asked)) as manager:
        await manager.embed([Text("one")])
        with pytest.raises(refusal, match="the limit is 1"):
            await manager.embed([Text("one"), Text("two")])


async def test_how_much_sessions_may_keep_is_what_was_asked_for() -> None:
    server = ScriptedServer(lambda prompt: "yes")
    async with serving(server), managing(Settings(upstream=server.base_url, max_kept_bytes_per_tenant=9)) as manager:
        with pytest.raises(SessionFull, match="the limit is 9"):
            manager.open_session().declare("variable")


async def test_what_cannot_be_served_is_refused_by_name_and_leaves_nothing_behind() -> None:
    before = asyncio.all_tasks()  # of other tests on this loop too
    with pytest.raises(ModelRefused, match="huge"):
        async with running(Settings(model="builtin:huge")):
            raise AssertionError("it runs")
    assert asyncio.all_tasks() <= before


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_engines_that_have_started_are_closed_where_another_does_not(
    monkeypatch: pytest.MonkeyPatch, is_cancelled: bool
) -> None:
    closed, waits = [], asyncio.Event()

    class Started:
        async def close(self) -> None:
            closed.append(self)

    async def start(config: dict[str, object], settings: Settings) -> Started:
        if config["name"] == "engine-1":
            if not is_cancelled:
                raise EngineError("no room")
            waits.set()
            await asyncio.Event().wait()
        return Started()

    monkeypatch.setattr(compose, "_start", start)

    async def begin() -> None:
        async with managing(Settings(engines=2, device="cpu")):
            raise AssertionError("it runs")

    beginning = asyncio.create_task(begin())
    if is_cancelled:
        await waits.wait()
        await asyncio.sleep(0)
        beginning.cancel()
    with pytest.raises(asyncio.CancelledError if is_cancelled else EngineError):
        await beginning
    assert len(closed) == 1


async def test_an_embedded_application_before_an_upstream_takes_the_model_that_it_lists() -> None:
    def ask_one(upstream: str) -> str:
        with embedded(upstream=upstream) as application, application.open_session() as session:
            return session.call("Is it there? {{output:answer}}")["answer"].get()

    async with serving(ScriptedServer(lambda prompt: "yes")) as server:
        assert await asyncio.to_thread(ask_one, server.base_url) == "yes"
    assert server.asked[-1]["model"] == "big"
