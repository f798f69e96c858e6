"""POST …/calls: its keys, what is kept of them, its patterns, and clients that leave while their calls are made."""

from __future__ import annotations

import json
from typing import Any

import pytest
import re2

from parrot_compat.core.transform import MAX_PATTERNS
from tests.server.live import Live, connect, live, send, until
from tests.server.test_encoder import HARD, slow

from .graphs import CHAT, GRAPHS, SESSIONS, chain, echo, planned, ref, user

COUNT = {"template": "count{{output:y}}"}


async def opened(server: Live) -> str:
    session: str = (await send(server, "POST", SESSIONS, {})).json()["id"]
    return session


# ---- keys ----------------------------------------------------------------------------------------------


async def test_a_key_without_end_is_refused_and_nothing_is_made_under_it() -> None:
    async with live(echo) as server:
        session = await opened(server)
        for path, body in ((f"{SESSIONS}/{session}/calls", COUNT), (GRAPHS, chain()), (CHAT, {"messages": user("x")})):
            reply = await send(server, "POST", path, body, {"idempotency-key": "k" * 257})
            assert reply.status == 400 and "Idempotency-Key: 257 characters; at most 256" in reply.error["message"]
        assert [one.tasks() for one in server.manager.sessions()] == [()]
        for path, body in ((f"{SESSIONS}/{session}/calls", COUNT), (GRAPHS, chain())):
            assert (await send(server, "POST", path, body, {"idempotency-key": "k" * 256})).status == 200


async def test_a_session_counts_what_it_keeps_of_a_request_that_may_come_again() -> None:
    async with live(echo) as server:
        session = await opened(server)
        server.engine.stall()  # a call counts by itself once it is over
        kept = server.manager.session(session).kept
        path, sizes = f"{SESSIONS}/{session}/calls", []
        for headers in ({}, {"idempotency-key": "k" * 256}, {"idempotency-key": "k" * 256}, {"idempotency-key": "j"}):
            assert (await send(server, "POST", path, COUNT, headers)).status == 200
            sizes.append(kept.size)
        assert sizes[0] == 0 and sizes[1] == sizes[2] > 1000 and sizes[3] - sizes[2] == sizes[1] - 255
        server.engine.resume()


# ---- who leaves -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"idempotency-key": "k"}])
async def test_a_client_that_leaves_while_its_calls_are_made_has_made_none(headers: dict[str, str]) -> None:
    async with slow() as (server, held):
        session = await opened(server)
        path = f"{SESSIONS}/{session}/calls"
        text = HARD + " and long " * 1000  # such a prompt is made in a thread
        body = {"template": "{{input:x}}{{output:y}}", "bindings": [{"x": text}] * 3, "max_tokens": 1}
        _, writer = await connect(server.url, "POST", path, json.dumps(body).encode(), headers)
        await until(lambda: len(held.begun) == 1)
        assert server.manager.open_calls == 3
        writer.close()
        await until(lambda: server.manager.open_calls == 0)
        held.may.set()
        assert server.manager.session(session).tasks() == ()
        reply = await send(server, "POST", path, body, headers)
        assert reply.status == 200 and "x-parrot-repeated" not in reply.headers
        assert len(server.manager.session(session).tasks()) == 3
        assert len(held.begun) == 4, "of the first three prompts one was begun"
        server.manager.check()


async def test_a_second_try_goes_on_where_the_client_of_the_first_has_left() -> None:
    async with slow() as (server, held):
        session = await opened(server)
        path, key = f"{SESSIONS}/{session}/calls", {"idempotency-key": "k"}
        body = {"template": HARD + " and long " * 1000 + "{{output:y}}", "max_tokens": 1}
        raw = json.dumps(body).encode()
        _, first = await connect(server.url, "POST", path, raw, key)
        await until(lambda: len(held.begun) == 1)
        reader, second = await connect(server.url, "POST", path, raw, key)
        await send(server, "GET", "/health")  # by then it waits for the first
        first.close()
        await until(lambda: len(held.begun) == 2)
        held.may.set()
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        second.close()
        assert len(server.manager.session(session).tasks()) == 1


# ---- patterns -------------------------------------------------------------------------------------------


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The patterns that were."""
    found: set[str] = set()
    compile = re2.compile

    def noted(pattern: str, options: Any) -> Any:
        found.add(pattern)
        return compile(pattern, options)

    monkeypatch.setattr(re2, "compile", noted)
    return found


def seen(number: int) -> dict[str, str]:
    return {"regex": f".|{number}"}


async def test_a_request_has_so_many_patterns_in_all_its_references(compiled: set[str]) -> None:
    async with live(echo) as server:
        session = await opened(server)
        await send(server, "POST", f"{SESSIONS}/{session}/variables", {"name": "v", "text": "text"})
        many, parts = range(MAX_PATTERNS + 1), [{"type": "parrot:ref", "variable": "v"}]
        template = "".join(f"{{{{input:x{n}}}}}" for n in many) + "{{output:y}}"
        bound = {f"x{n}": {"variable": "v"} for n in many}
        said = {"session": session}
        halves = (
            [ref("a", transform=seen(n)) for n in many[: MAX_PATTERNS // 2]],
            [ref("a", transform=seen(n)) for n in many[MAX_PATTERNS // 2 :]],
        )
        graph = [planned("a", "x"), *(planned(f"b{n}", "x", *half) for n, half in enumerate(halves))]
        for path, body, param in (
            (
                CHAT,
                {"messages": user("x", *(parts[0] | {"transform": seen(n)} for n in many)), "parrot": said},
                f"messages[0].content[{MAX_PATTERNS + 1}].transform",
            ),
            (GRAPHS, {"calls": graph}, f"calls[2].request.messages[0].content[{MAX_PATTERNS // 2 + 1}].transform"),
            (
                f"{SESSIONS}/{session}/calls",
                {
                    "template": template,
                    "bindings": {n: one | {"transform": seen(int(n[1:]))} for n, one in bound.items()},
                },
                f"bindings.x{MAX_PATTERNS}.transform",
            ),
        ):
            compiled.clear()
            reply = await send(server, "POST", path, body)
            assert reply.status == 400 and reply.error["param"] == param, reply.body
            assert reply.error["code"] == "invalid_template" and len(compiled) == MAX_PATTERNS
        assert [one.tasks() for one in server.manager.sessions()] == [()]
        same = {"template": template, "bindings": {name: one | {"transform": seen(0)} for name, one in bound.items()}}
        assert (await send(server, "POST", f"{SESSIONS}/{session}/calls", same)).status == 200


async def test_the_pattern_of_a_reference_that_leads_nowhere_is_not_compiled(compiled: set[str]) -> None:
    async with live(echo) as server:
        session = await opened(server)
        nowhere = user("x", ref("nobody", transform=seen(1)))
        bound = {"x": {"variable": "nobody", "transform": seen(1)}}
        for path, body in (
            (CHAT, {"messages": nowhere, "parrot": {"session": session}}),
            (GRAPHS, {"calls": [{"id": "a", "request": {"messages": nowhere}}]}),
            (f"{SESSIONS}/{session}/calls", {"template": "{{input:x}}{{output:y}}", "bindings": bound}),
        ):
            reply = await send(server, "POST", path, body)
            assert reply.status == 404 and reply.error["code"] == "variable_not_found"
        assert not compiled
