"""Pages of this machine, and of sites that were named, may use the server from a browser; no other page may."""

from __future__ import annotations

import pytest

from parrot_compat.server.origins import Origins

from .live import Live, Reply, live, send

HELLO = {"messages": [{"role": "user", "content": "hello"}]}
PATH = "/v1/chat/completions"
APP, EVIL, HERE = "https://app.example", "https://evil.example", "http://localhost:3000"
PLUGIN = "app://obsidian.md"
ALLOWED = "access-control-allow-origin"


async def preflight(server: Live, origin: str) -> Reply:
    """As a browser asks before OpenAI's client may send its request."""
    asked = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-lang",
    }
    return await send(server, "OPTIONS", PATH, b"", asked)


@pytest.mark.parametrize("keys", [(), ("secret",)])
async def test_pages_that_may_ask_can_read_answers_and_refusals(keys: tuple[str, ...]) -> None:
    key = {"authorization": "Bearer secret"} if keys else {}
    async with live(keys=keys, origins=[APP, PLUGIN]) as server:
        for origin in (APP, PLUGIN, HERE):
            asked = await preflight(server, origin)
            assert asked.status == 200 and asked.headers[ALLOWED] == origin
            assert "x-stainless-lang" in asked.headers["access-control-allow-headers"]
            answer = await send(server, "POST", PATH, HELLO, {"origin": origin, **key})
            refused = await send(server, "POST", PATH, HELLO | {"n": 0}, {"origin": origin, **key})
            assert (answer.status, refused.status) == (200, 400)
            for reply in (answer, refused):
                assert reply.headers[ALLOWED] == origin and "origin" in reply.headers["vary"].lower()
                assert reply.headers["x-request-id"]
        if keys:
            unknown = await send(server, "POST", PATH, HELLO, {"origin": APP})
            assert unknown.status == 401 and unknown.headers[ALLOWED] == APP


@pytest.mark.parametrize(("keys", "status"), [((), 403), (("secret",), 401)])
async def test_a_page_of_another_site_is_told_nothing(keys: tuple[str, ...], status: int) -> None:
    async with live(keys=keys, origins=[APP]) as server:
        for reply in (await preflight(server, EVIL), await send(server, "POST", PATH, HELLO, {"origin": EVIL})):
            assert reply.status == status and reply.error["code"] in ("not_local", "invalid_api_key")
            assert ALLOWED not in reply.headers


async def test_an_answer_to_no_page_speaks_of_no_origin(server: Live) -> None:
    reply = await send(server, "POST", PATH, HELLO)
    assert reply.status == 200 and not [name for name in reply.headers if name.startswith("access-control")]
    assert (await send(server, "OPTIONS", PATH, b"", {"origin": HERE})).status == 405  # not a preflight


def test_origins_are_compared_whole_and_a_star_is_all() -> None:
    assert "HTTPS://App.Example" in Origins(["https://app.example/"])
    for other in ("http://app.example", "https://app.example:8443", "https://app.example.evil.example", "null", ""):
        assert other not in Origins([APP])
    assert EVIL in Origins(["*"])
