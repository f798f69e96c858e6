"""Metrics count what happened, once, and are labelled by what is served, never by what a client has chosen."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from parrot_compat.core.errors import EngineError

from .live import Live, live, send

ASKED = {"prompt": "count", "max_tokens": 5}
MODEL = (("model", "org/scripted"),)


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
        assert values["parrot_prompt_tokens_total", MODEL] == 3 * len("count")
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
        assert ("parrot_calls_submitted_total", MODEL) not in await scraped(second)


async def test_a_server_with_keys_shows_metrics_to_those_who_have_one() -> None:
    async with live(keys=["k"]) as server:
        assert (await send(server, "GET", "/metrics")).status == 401
        assert await scraped(server, {"authorization": "Bearer k"})
