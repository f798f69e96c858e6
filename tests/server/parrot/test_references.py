"""References in plain requests: content parts that stand for a text which is not there yet."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from parrot_compat.core.errors import EngineError
from parrot_compat.core.task import TaskState
from tests.server.live import connect, events_of, live, send, until

from .graphs import CHAT, SESSIONS, echo, ref, text_of, user


def body(*parts: dict[str, Any], session: str = "s", call: str | None = None, **fields: Any) -> dict[str, Any]:
    said = {"v": 1, "session": session, **({} if call is None else {"call": call})}
    return {"messages": user("about ", *parts), "parrot": said, **fields}


async def test_a_request_waits_for_the_call_it_refers_to() -> None:
    async with live(echo) as server, asyncio.timeout(30):
        server.engine.stall()
        first = asyncio.create_task(
            send(server, "POST", CHAT, {"messages": user("x"), "parrot": {"session": "s", "call": "a"}})
        )
        await until(lambda: server.manager.open_calls == 1)
        second = asyncio.create_task(send(server, "POST", CHAT, body(ref("a"))))
        third = asyncio.create_task(send(server, "POST", CHAT, body(ref("a"), stream=True, return_token_ids=True)))
        await until(lambda: server.manager.open_calls == 3)
        server.engine.resume()
        assert text_of(await first) == "[x]"
        assert text_of(await second) == "[about [x]]"
        chunks = events_of(await third)
        assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == "[about [x]]"
        prompt = (await send(server, "POST", "/tokenize", {"messages": user("about [x]")})).json()["tokens"]
        assert [chunk["prompt_token_ids"] for chunk in chunks if "prompt_token_ids" in chunk] == [prompt]


async def test_a_request_waits_for_a_variable_that_is_written_later() -> None:
    async with live(echo) as server, asyncio.timeout(30):
        session = (await send(server, "POST", SESSIONS, {})).json()["id"]
        await send(server, "POST", f"{SESSIONS}/{session}/variables", {"name": "topic"})
        parts = [{"type": "parrot:ref", "variable": "topic", "transform": ["strip", {"truncate": 4}]}]
        answer = asyncio.create_task(send(server, "POST", CHAT, body(*parts, session=session, return_token_ids=True)))
        await until(lambda: server.manager.open_calls == 1)
        await send(server, "PUT", f"{SESSIONS}/{session}/variables/topic", {"text": "  parrots "})
        reply = await answer
        assert text_of(reply) == "[about parr]"
        prompt = (await send(server, "POST", "/tokenize", {"messages": user("about parr")})).json()["tokens"]
        assert reply.json()["prompt_token_ids"] == prompt


async def test_a_named_output_can_be_referred_to_as_a_variable() -> None:
    async with live(echo) as server:
        said = {"session": "s", "output": {"name": "summary"}}
        await send(server, "POST", CHAT, {"messages": user("x"), "parrot": said})
        assert text_of(await send(server, "POST", CHAT, body({"type": "parrot:ref", "variable": "summary"}))) == (
            "[about [x]]"
        )


async def test_what_is_referred_to_and_fails_is_a_424() -> None:
    async with live(echo) as server:
        server.engine.fail_next(EngineError("out of paper"))
        said = {"session": "s", "call": "a"}
        assert (await send(server, "POST", CHAT, {"messages": user("x"), "parrot": said})).status == 502
        reply = await send(server, "POST", CHAT, body(ref("a")))
        assert reply.status == 424 and reply.error["code"] == "upstream_failed"
        assert "out of paper" in reply.error["message"]


async def test_a_client_that_leaves_while_its_request_waits_is_forgotten_and_the_session_goes_on() -> None:
    async with live(echo) as server, asyncio.timeout(30):
        session = (await send(server, "POST", SESSIONS, {})).json()["id"]
        await send(server, "POST", f"{SESSIONS}/{session}/variables", {"name": "v"})
        asked = body({"type": "parrot:ref", "variable": "v"}, session=session, call="waits")
        _, writer = await connect(server.url, "POST", CHAT, json.dumps(asked).encode())
        await until(lambda: server.manager.open_calls == 1)
        writer.close()
        await until(lambda: server.manager.open_calls == 0)
        (open_session,) = server.manager.sessions()
        assert open_session.task("waits").state is TaskState.CANCELLED
        assert (await send(server, "PUT", f"{SESSIONS}/{session}/variables/v", {"text": "t"})).status == 200


@pytest.mark.parametrize(
    ("part", "status", "param"),
    [
        (ref("nobody"), 404, "messages[0].content[1].call"),
        ({"type": "parrot:ref", "variable": "nobody"}, 404, "messages[0].content[1].variable"),
        ({"type": "parrot:ref"}, 400, "messages[0].content[1]"),
        ({"type": "parrot:ref", "call": "a", "variable": "b"}, 400, "messages[0].content[1]"),
        ({"type": "parrot:ref", "response_id": "resp_1"}, 400, "messages[0].content[1].response_id"),
        ({"type": "parrot:ref", "call": 7}, 400, "messages[0].content"),
        ({"type": "parrot:ref", "call": "x" * 10_000}, 400, "messages[0].content"),
        (ref("a", transform="eval"), 400, "messages[0].content[1].transform"),
        (ref("a", transform={"regex": "(((("}), 400, "messages[0].content[1].transform"),
        (ref("a", transform={"regex": "(a+)+$" * 1000}), 400, "messages[0].content[1].transform"),
        (ref("a", transform=[[[["strip"]], 5]]), 400, "messages[0].content[1].transform"),
        (ref("a", transform={"truncate": -1}), 400, "messages[0].content[1].transform"),
    ],
)
async def test_a_reference_that_leads_nowhere_is_refused_by_name(part: dict[str, Any], status: int, param: str) -> None:
    async with live(echo) as server:
        await send(server, "POST", CHAT, {"messages": user("x"), "parrot": {"session": "s", "call": "a"}})
        for asked in (body(part), body(part, stream=True)):
            reply = await send(server, "POST", CHAT, asked)
            assert reply.status == status, reply.body
            assert reply.error["param"] == param
        assert server.manager.open_calls == 0


async def test_a_reference_in_a_session_of_one_call_leads_nowhere() -> None:
    async with live(echo) as server:
        reply = await send(server, "POST", CHAT, {"messages": user("x", ref("a"))})
        assert reply.status == 404 and server.manager.sessions() == ()
        reply = await send(server, "POST", "/tokenize", {"messages": user("x", ref("a"))})
        assert reply.status == 400 and reply.error["param"] == "messages[0].content[1].type"
