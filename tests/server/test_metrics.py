"""Metrics count what happened, once, and are labelled by what is served, never by what a client has chosen."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from parrot_compat import __version__
from parrot_compat.core.engine import EngineInfo
from parrot_compat.core.engines.scripted import ScriptedEngine, Speed
from parrot_compat.core.errors import EngineError

from .live import CAPACITY, Live, connect, live, send, until

ASKED = {"prompt": "count", "max_tokens": 5}
MODEL = (("model", "org/scripted"),)
SLOW = Speed(step_s=0.002, chunk_tokens=1)
DOCS = Path(__file__).parents[2] / "docs/operating.md"
PHASES = ("wait", "queue", "prefill", "first_token")
"""Of the way to the first token."""


async def scraped(
    server: Live, headers: dict[str, str] | None = None
) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    reply = await send(server, "GET", "/metrics", headers=headers)
    assert reply.status == 200 and reply.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(reply.body.decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


async def test_calls_tokens_and_requests_are_counted() -> None:
    async with live() as server:
        for _ in range(3):
            await send(server, "POST", "/v1/completions", ASKED)
        server.engine.fail_next(EngineError("out of paper"))
        await send(server, "POST", "/v1/completions", ASKED)
        await send(server, "GET", "/v1/models/secret-of-a-client")
        values = await scraped(server)
        assert values["parrot_calls_submitted_total", MODEL] == 4
        assert values["parrot_calls_finished_total", (("finish", "length"), *MODEL)] == 3
        assert values["parrot_calls_failed_total", (("error", "EngineError"), *MODEL)] == 1
        assert values["parrot_output_tokens_total", MODEL] == 15
        assert values["parrot_prompt_tokens_total", MODEL] == 4 * len("count")
        assert values["parrot_first_token_seconds_count", MODEL] == 3
        phases = [values[f"parrot_{phase}_seconds_sum", MODEL] for phase in ("queue", "prefill", "decode")]
        assert min(phases) >= 0 and sum(phases) <= values["parrot_call_seconds_sum", MODEL]
        assert values["parrot_requests_total", (("route", "/v1/completions"), ("status", "200"))] == 3
        assert values["parrot_requests_total", (("route", "/v1/completions"), ("status", "502"))] == 1
        assert values["parrot_open_calls", ()] == 0
        assert values["parrot_engines", MODEL] == 1
        assert not any("secret" in str(key) for key in values)


async def test_two_servers_in_one_process_count_for_themselves() -> None:
    async with live() as first, live() as second:
        await send(first, "POST", "/v1/completions", ASKED)
        values = await scraped(second)
        assert values["parrot_calls_submitted_total", MODEL] == values["parrot_call_seconds_count", MODEL] == 0


async def test_a_server_with_keys_shows_metrics_to_those_who_have_one() -> None:
    async with live(keys=["k"]) as server:
        assert (await send(server, "GET", "/metrics")).status == 401
        assert await scraped(server, {"authorization": "Bearer k"})


async def test_of_a_client_that_leaves_the_tokens_and_the_way_to_the_first_one_are_counted() -> None:
    async with live({"": "word " * 700}, speed=SLOW) as server:
        asked = json.dumps({"prompt": "count", "stream": True}).encode()
        reader, writer = await connect(server.url, "POST", "/v1/completions", asked)
        async with asyncio.timeout(30):
            for _ in range(4):
                await reader.readuntil(b"\n\n")
            writer.close()
            await until(lambda: not server.manager.open_calls)
        values = await scraped(server)
        assert values["parrot_calls_failed_total", (("error", "Cancelled"), *MODEL)] == 1
        assert 3 <= values["parrot_output_tokens_total", MODEL] < 700 * len("word ")
        assert values["parrot_prompt_tokens_total", MODEL] == len("count")
        assert [values[f"parrot_{phase}_seconds_count", MODEL] for phase in PHASES] == [1] * 4
        assert values["parrot_call_seconds_count", MODEL] == values["parrot_decode_seconds_count", MODEL] == 0


async def test_a_call_that_ends_before_its_first_token_was_never_on_the_way_to_one() -> None:
    async with live() as server:
        server.engine.fail_next(EngineError("out of paper"))
        await send(server, "POST", "/v1/completions", ASKED)
        server.engine.stall()
        _, first = await connect(server.url, "POST", "/v1/completions", json.dumps(ASKED).encode())
        async with asyncio.timeout(30):
            await until(lambda: server.manager.open_calls > 0)
            first.close()
            await until(lambda: not server.manager.open_calls)
        values = await scraped(server)
        assert values["parrot_calls_failed_total", (("error", "Cancelled"), *MODEL)] == 1
        assert values["parrot_prompt_tokens_total", MODEL] == 2 * len("count")  # both were given to the engine
        assert values["parrot_output_tokens_total", MODEL] == 0
        assert [values[f"parrot_{phase}_seconds_count", MODEL] for phase in PHASES] == [0] * 4


async def test_every_series_of_a_served_model_is_there_before_its_first_event() -> None:
    async with live() as server:
        late = ScriptedEngine("", EngineInfo(name="late", model="org/late", context_tokens=512))
        server.manager.fleet.add(late, late.tokenizer)
        values = await scraped(server)
        for model in (MODEL, (("model", "org/late"),)):
            for name in ("engines_lost", "calls_submitted", "output_tokens", "embeddings"):
                assert values[f"parrot_{name}_total", model] == 0
            for error in ("Cancelled", "EngineLost", "UpstreamFailed"):
                assert values["parrot_calls_failed_total", (("error", error), *model)] == 0
            for finish in ("stop", "length", "tool_calls"):
                assert values["parrot_calls_finished_total", (("finish", finish), *model)] == 0
            assert values["parrot_first_token_seconds_count", model] == 0
        assert values["parrot_planned_calls_total", (("outcome", "taken"),)] == 0
        late.die()
        async with asyncio.timeout(30):
            await until(lambda: "org/late" not in server.manager.fleet.models())
        assert (await scraped(server))["parrot_engines_lost_total", (("model", "org/late"),)] == 1


async def test_embeddings_are_counted() -> None:
    async with live() as server:
        texts = ["a red fox", "stocks fell"]
        assert (await send(server, "POST", "/v1/embeddings", {"input": texts})).status == 200
        assert (await send(server, "POST", "/v1/embeddings", {"input": "x" * 5000})).status == 400
        values = await scraped(server)
        assert values["parrot_embeddings_total", MODEL] == 1
        assert values["parrot_embedded_inputs_total", MODEL] == 2
        assert values["parrot_embedded_tokens_total", MODEL] == sum(map(len, texts))
        assert values["parrot_calls_submitted_total", MODEL] == 0


async def test_the_use_of_an_engines_kv_is_a_share() -> None:
    async with live() as server:
        values = await scraped(server)
        labels = (("engine", "scripted-0"), *MODEL)
        assert (
            values["parrot_engine_free_tokens", labels] == values["parrot_engine_capacity_tokens", labels] == CAPACITY
        )
        assert values["parrot_engine_running", labels] == values["parrot_engine_waiting", labels] == 0


async def test_time_per_output_token_is_that_of_answers_of_two_tokens_and_more() -> None:
    async with live(speed=SLOW) as server:
        await send(server, "POST", "/v1/completions", ASKED | {"max_tokens": 1})
        values = await scraped(server)
        assert values["parrot_output_token_seconds_count", MODEL] == 0
        alone_s = values["parrot_decode_seconds_sum", MODEL]
        await send(server, "POST", "/v1/completions", ASKED)
        values = await scraped(server)
        decode_s = values["parrot_decode_seconds_sum", MODEL] - alone_s
        assert values["parrot_output_token_seconds_count", MODEL] == 1
        assert values["parrot_output_token_seconds_sum", MODEL] == pytest.approx(decode_s / 4) and decode_s >= 4 * 0.002
        assert values["parrot_output_token_seconds_bucket", (("le", "0.001"), *MODEL)] == 0


async def test_the_version_is_told_and_when_a_series_began_is_not() -> None:
    async with live() as server:
        await send(server, "POST", "/v1/completions", ASKED)
        values = await scraped(server)
        assert values["parrot_build_info", (("version", __version__),)] == 1
        assert not any(name.endswith("_created") for name, _ in values)


async def test_the_docs_name_all_of_them_and_no_other() -> None:
    async with live() as server:
        text = (await send(server, "GET", "/metrics")).body.decode()
    told = DOCS.read_text().partition("## Metrics")[2].partition("\n## ")[0]
    named = set(re.findall(r"\bparrot_\w+\b", told))
    assert named == set(re.findall(r"^# TYPE (parrot_\w+) ", text, re.MULTILINE))
