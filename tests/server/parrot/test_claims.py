"""Claims over a live socket: a plain request that takes over its planned twin, or runs by itself."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest

from parrot_compat.core.engines.scripted import Speed
from parrot_compat.core.errors import EngineError
from parrot_compat.core.task import TaskState
from tests.server.live import Live, connect, events_of, live, send, until

from .graphs import CHAT, GRAPHS, SESSIONS, chain, claim, close, echo, opened, planned, pushed, ref, text_of, user

SLOW = Speed(step_s=0.002, chunk_tokens=1)
LONG = {"": "word " * 100}


def states(server: Live) -> dict[str, TaskState]:
    return {task.call.id: task.state for session in server.manager.sessions() for task in session.tasks()}


async def test_a_claim_takes_the_planned_answer_and_draws_nothing_anew() -> None:
    async with live(echo) as server:
        graph = await opened(server, chain())
        first = await claim(server, graph["id"], "a", "count")
        second = await claim(server, graph["id"], "b", "Sum up: " + text_of(first), nonce="m")
        for reply, call in ((first, "a"), (second, "b")):
            receipt = reply.json()["parrot"]
            assert (receipt["claimed"], receipt["call"], receipt["session"]) == (True, call, graph["session"])
            assert "reason" not in receipt
        assert text_of(second) == "[Sum up: [count]]"
        assert server.engine.generated == 2
        assert (await close(server, graph["id"])).json()["wasted_tokens"] == 0


async def test_one_run_claims_several_calls_with_one_nonce() -> None:
    async with live(echo) as server:
        graph = await opened(server, {"calls": [planned("a", "x"), planned("b", "y")], "nonce": "run"})
        for call, text in (("a", "x"), ("b", "y")):
            assert (await claim(server, graph["id"], call, text, nonce="run")).json()["parrot"]["claimed"] is True
        assert server.engine.generated == 2


async def test_a_claim_without_a_graph_finds_its_call() -> None:
    async with live(echo) as server:
        await opened(server, chain())
        assert (await claim(server, None, "a", "count")).json()["parrot"]["claimed"] is True


async def test_a_claim_streams_what_is_there_and_then_what_comes() -> None:
    async with live(LONG, speed=SLOW) as server, asyncio.timeout(30):
        graph = await opened(server, {"calls": [planned("a", "go")]})
        task = server.manager.sessions()[0].task("a")
        await until(lambda: task.drawn_tokens > 5)
        before = task.drawn_tokens
        reply = await claim(server, graph["id"], "a", "go", stream=True)
        chunks = events_of(reply)
        texts = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks]
        assert "".join(texts) == LONG[""]
        assert before < 500 and server.engine.generated == 1
        assert chunks[-1]["parrot"]["claimed"] is True
        assert not any("parrot" in chunk for chunk in chunks[:-1])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"messages": user("another text")}, "prompt"),
        ({"temperature": 0.5}, "sampling"),
        ({"max_tokens": 7}, "sampling"),
        ({"seed": 3}, "sampling"),
        ({"stop": ["x"]}, "sampling"),
        ({"frequency_penalty": 0.5}, "sampling"),
        ({"repetition_penalty": 1.1}, "sampling"),
        ({"logit_bias": {"5": 1}}, "sampling"),
        ({"logprobs": True}, "sampling"),
        ({"n": 2}, "n is not 1"),
    ],
    ids=["prompt", "temperature", "max_tokens", "seed", "stop", "frequency", "repetition", "bias", "logprobs", "n"],
)
async def test_what_differs_runs_by_itself_and_cancels_its_twin_with_what_hangs_on_it(
    change: dict[str, Any], reason: str
) -> None:
    async with live(echo) as server, asyncio.timeout(30):
        server.engine.stall()
        body = {"calls": [*chain()["calls"], planned("apart", "x")], "nonce": "run"}
        graph = await opened(server, body)
        said = {"claim": "a", "graph": graph["id"], "nonce": "n"}
        asked = {"messages": user("count"), "parrot": said, **change}
        answer = asyncio.create_task(send(server, "POST", CHAT, asked))
        await until(lambda: states(server)["a"] is TaskState.CANCELLED)
        server.engine.resume()
        reply = await answer
        receipt = reply.json()["parrot"]
        assert receipt["claimed"] is False and reason in receipt["reason"]
        assert receipt["session"] == graph["session"] and receipt["call"] != "a"
        assert text_of(reply) == ("[another text]" if reason == "prompt" else "[count]")
        await until(lambda: states(server)["apart"] is TaskState.FINISHED)
        assert states(server)["b"] in (TaskState.CANCELLED, TaskState.FAILED)


async def test_defaults_spelled_out_are_equal_to_defaults_left_out() -> None:
    async with live(echo) as server:
        graph = await opened(server, {"calls": [planned("a", "x")]})
        reply = await claim(server, graph["id"], "a", "x", top_p=1.0, top_k=0, n=1, presence_penalty=0, user="me")
        assert reply.json()["parrot"]["claimed"] is True


async def test_the_same_nonce_gets_the_same_answer_and_another_one_a_new_one() -> None:
    async with live(echo) as server:
        graph = await opened(server, {"calls": [planned("a", "x")]})
        for _ in range(3):
            assert (await claim(server, graph["id"], "a", "x", nonce="run-1")).json()["parrot"]["claimed"] is True
        assert server.engine.generated == 1
        reply = await claim(server, graph["id"], "a", "x", nonce="run-2")
        assert reply.json()["parrot"]["claimed"] is False
        assert "another run" in reply.json()["parrot"]["reason"]
        assert server.engine.generated == 2
        unnamed = {"messages": user("x"), "parrot": {"claim": "a", "graph": graph["id"]}}
        assert (await send(server, "POST", CHAT, unnamed)).json()["parrot"]["claimed"] is False


async def test_equal_prompts_are_claimed_each_once() -> None:
    async with live(echo) as server:
        graph = await opened(server, {"calls": [planned(f"c{index}", "same") for index in range(5)]})
        replies = [await claim(server, graph["id"], "c0", "same", nonce=f"run-{index}") for index in range(5)]
        assert all(reply.json()["parrot"]["claimed"] for reply in replies)
        assert server.engine.generated == 5


@pytest.mark.parametrize("call", ["unknown", "a"])
async def test_a_claim_on_what_is_not_there_is_answered_all_the_same(call: str) -> None:
    async with live(echo) as server:
        graph = await opened(server, {"calls": [planned("a", "x")]})
        reply = await claim(server, graph["id"] if call == "unknown" else "graph-0", call, "x")
        assert text_of(reply) == "[x]"
        assert reply.json()["parrot"]["claimed"] is False
        assert reply.json()["parrot"]["reason"]


async def test_a_claim_with_references_runs_by_itself() -> None:
    async with live(echo) as server:
        graph = await opened(server, {"session": "s", "calls": chain()["calls"]})
        said = {"claim": "b", "graph": graph["id"], "nonce": "n"}
        reply = await send(server, "POST", CHAT, {"messages": user("Sum up: ", ref("a")), "parrot": said})
        assert text_of(reply) == "[Sum up: [count]]"
        assert reply.json()["parrot"]["claimed"] is False and "references" in reply.json()["parrot"]["reason"]


async def test_a_planned_call_that_failed_runs_again_for_its_claim() -> None:
    async with live(echo) as server:
        server.engine.fail_next(EngineError("out of paper"))
        async with pushed(server, {"calls": [planned("a", "x")]}) as pushes:
            graph = (await pushes.until("parrot:accepted"))["graph"]
            await pushes.until("parrot:failed")
        reply = await claim(server, graph, "a", "x")
        assert text_of(reply) == "[x]"
        assert reply.json()["parrot"]["claimed"] is False and "out of paper" in reply.json()["parrot"]["reason"]


async def test_a_claim_whose_call_fails_under_it_fails_and_its_retry_runs() -> None:
    async with live(LONG, speed=SLOW) as server, asyncio.timeout(30):
        server.engine.fail_next(EngineError("out of paper"), after_tokens=50)
        graph = await opened(server, {"calls": [planned("a", "x")]})
        reply = await claim(server, graph["id"], "a", "x")
        assert reply.status == 502 and "out of paper" in reply.error["message"]
        assert text_of(await claim(server, graph["id"], "a", "x")) == LONG[""]


def sent(path: str, body: dict[str, Any]) -> bytes:
    raw = json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(raw)}\r\n\r\n".encode() + raw


async def heard(connection: socket.socket, words: bytes) -> None:
    """Read until they have come."""

    def read() -> None:
        connection.settimeout(60)
        said = b""
        while words not in said:
            piece = connection.recv(9999)
            assert piece, said
            said += piece

    await asyncio.to_thread(read)


async def test_a_claim_that_was_sent_before_the_close_is_heard_before_it() -> None:
    """On a connection that the server has not accepted yet, where the close comes on one that it knows."""
    async with live(echo) as server:
        graph = (await opened(server, {"calls": [planned("a", "x")]}))["id"]
        address = "127.0.0.1", int(server.url.rpartition(":")[2])
        said = {"claim": "a", "graph": graph, "nonce": "n"}
        with socket.create_connection(address) as known:
            known.sendall(sent("/tokenize", {"prompt": "x"}))
            await heard(known, b"max_model_len")
            with socket.create_connection(address) as new:  # nobody else has a turn from here on
                new.sendall(sent(CHAT, {"messages": user("x"), "parrot": said}))
                known.sendall(sent(f"{GRAPHS}/{graph}/close", {"taken": []}))
                await heard(new, b'"claimed":true')
            await heard(known, b'"claimed":1')


# ---- leaving ---------------------------------------------------------------------------------------------


async def claiming(server: Live, graph: str, call: str, text: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A claim whose answer has begun."""
    said = {"claim": call, "graph": graph, "nonce": "n"}
    body = {"messages": user(text), "parrot": said, "stream": True}
    reader, writer = await connect(server.url, "POST", CHAT, json.dumps(body).encode())
    await reader.readuntil(b'"content":"w')
    return reader, writer


async def test_a_claim_that_leaves_lets_go_of_a_call_that_something_reads() -> None:
    async with live(LONG, speed=SLOW) as server, asyncio.timeout(30):
        graph = await opened(server, chain())
        session = server.manager.sessions()[0]
        _, writer = await claiming(server, graph["id"], "a", "count")
        writer.close()
        await session.task("a").finished()
        assert (await session.task("b").finished()).text


async def test_a_claim_that_leaves_ends_a_call_that_nothing_else_wants() -> None:
    async with live(LONG, speed=SLOW) as server, asyncio.timeout(30):
        graph = await opened(server, {"calls": [planned("a", "count")]})
        _, writer = await claiming(server, graph["id"], "a", "count")
        writer.close()
        await until(lambda: states(server)["a"] is TaskState.CANCELLED)
        await until(lambda: not server.engine.load().running)


async def test_of_two_connections_of_one_claim_one_may_leave() -> None:
    async with live(LONG, speed=SLOW) as server, asyncio.timeout(30):
        graph = await opened(server, {"calls": [planned("a", "count")]})
        _, first = await claiming(server, graph["id"], "a", "count")
        reader, second = await claiming(server, graph["id"], "a", "count")
        first.close()
        rest = await reader.read()
        second.close()
        assert b'"finish_reason":"stop"' in rest and b'"claimed":true' in rest
        assert server.engine.generated == 1


async def test_the_session_shows_what_was_planned_and_how_it_went() -> None:
    async with live(echo) as server:
        body = chain(session="app")
        body["calls"][0] |= {"function": "Count", "stage": {"kind": "map", "group": "g", "index": 0, "size": 2}}
        async with pushed(server, body) as pushes:
            await pushes.rest()
        seen = (await send(server, "GET", f"{SESSIONS}/app")).json()
        calls = {call["id"]: call for call in seen["calls"]}
        assert calls["a"]["function"] == "Count" and calls["a"]["stage"]["group"] == "g"
        assert [call["state"] for call in seen["calls"]] == ["finished", "finished"]
        assert calls["b"]["inputs"] == [calls["a"]["output"]]
        assert calls["b"]["output_tokens"] == len("[Sum up: [count]]")
        assert {variable["state"] for variable in seen["variables"]} == {"ready"}
        assert (await send(server, "GET", f"{GRAPHS}/nothing")).status in (404, 405)
