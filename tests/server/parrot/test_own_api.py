"""Sessions, calls and variables: the API for apps written for it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

from parrot_compat.core.errors import EngineError
from parrot_compat.core.events import SessionClosed
from parrot_compat.core.manager import Limits
from parrot_compat.core.output_format import JsonSchema
from parrot_compat.server.parrot.calls_schema import CallsRequest
from tests.server.live import CAPACITY, Live, Reply, connect, live, send, until

from .graphs import SESSIONS, echo

TWO, AWAITED = "x{{output:y}} then {{output:z}}", "wait=30&objective=throughput"
"""Waiting for `z` so can be seen from outside, while `y` runs: a call that runs stays what it began as."""


async def opened(server: Live, **body: Any) -> str:
    reply = await send(server, "POST", SESSIONS, body)
    assert reply.status == 200 and reply.json()["object"] == "parrot.session"
    session: str = reply.json()["id"]
    return session


async def called(server: Live, session: str, template: str, **body: Any) -> dict[str, Any]:
    reply = await send(server, "POST", f"{SESSIONS}/{session}/calls", {"template": template, **body})
    assert reply.status == 200, reply.body
    data: dict[str, Any] = reply.json()
    assert data["object"] == "parrot.call"
    return data


async def read(server: Live, session: str, variable: str, query: str = "wait=30") -> Reply:
    return await send(server, "GET", f"{SESSIONS}/{session}/variables/{variable}?{query}")


def objectives(server: Live) -> list[str]:
    return [call["objective"] for call in server.manager.sessions()[0].describe()["calls"]]


def events(reply: Reply) -> list[dict[str, Any]]:
    blocks = [block for block in reply.body.decode().split("\n\n") if block]
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


# ---- calls -----------------------------------------------------------------------------------------------


async def test_a_function_is_called_and_its_outputs_are_read_when_they_are_there() -> None:
    async with live(echo) as server:
        session = await opened(server)
        server.engine.stall()
        made = await called(
            server, session, "Write {{input:what}}: {{output:code}} Now test it: {{output:test}}",
            function="WriteCode", bindings={"what": "a sort"}, temperature=0,
        )  # fmt: skip
        assert [call["output"] for call in made["calls"]] == ["code", "test"]
        assert {call["output"]: call["variable"] for call in made["calls"]} == made["variables"]
        pending = (await read(server, session, made["variables"]["code"], "wait=0")).json()
        assert pending["state"] == "pending" and "text" not in pending
        server.engine.resume()
        code = (await read(server, session, made["variables"]["code"])).json()
        assert (code["state"], code["text"]) == ("ready", "[Write a sort: ]")
        test = (await read(server, session, made["variables"]["test"])).json()
        assert test["text"] == "[ Now test it: ]"
        seen = (await send(server, "GET", f"{SESSIONS}/{session}")).json()
        assert [call["function"] for call in seen["calls"]] == ["WriteCode", "WriteCode"]


async def test_a_call_reads_what_another_one_writes_through_a_transform() -> None:
    async with live(echo) as server:
        session = await opened(server)
        first = await called(server, session, "{{input:x}}{{output:y}}", bindings={"x": "abc"})
        bound = {"variable": first["variables"]["y"], "transform": {"regex": "[a-z]"}}
        second = await called(server, session, "{{input:y}}?{{output:z}}", bindings={"y": bound}, form="text")
        assert (await read(server, session, second["variables"]["z"])).json()["text"] == "[a?]"


async def test_a_list_of_bindings_is_one_stage_whose_calls_are_accepted_together() -> None:
    async with live(echo) as server:
        session = await opened(server)
        made = await called(server, session, "{{input:x}}{{output:y}}", bindings=[{"x": "one"}, {"x": "two"}])
        texts = [(await read(server, session, item["y"])).json()["text"] for item in made["variables"]]
        assert texts == ["[one]", "[two]"]
        wrong = {"template": "{{input:x}}{{output:y}}", "bindings": [{"x": "fine"}, {"x": "long " * 2000}]}
        reply = await send(server, "POST", f"{SESSIONS}/{session}/calls", wrong)
        assert reply.error["code"] == "context_length_exceeded"
        seen = (await send(server, "GET", f"{SESSIONS}/{session}")).json()
        assert len(seen["calls"]) == 2


async def test_what_is_said_for_an_output_goes_over_what_is_said_for_all() -> None:
    async with live({"": "one two three four"}) as server:
        session = await opened(server)
        own = {"a": {"max_tokens": 3}, "b": {"stop": "three"}}
        made = await called(
            server, session, "x{{output:a}}{{output:b}}{{output:c}}", outputs=own, max_tokens=13, temperature=0
        )
        texts = {name: (await read(server, session, made["variables"][name])).json()["text"] for name in "abc"}
        assert texts == {"a": "one", "b": "one two ", "c": "one two three"}


@pytest.mark.parametrize("of_all", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("own", ["max_tokens", "max_completion_tokens"])
async def test_the_limit_of_an_output_has_two_names(server: Live, of_all: str, own: str) -> None:
    session = await opened(server)
    said: dict[str, Any] = {of_all: 7, "outputs": {"a": {own: 3}}, "temperature": 0}
    made = await called(server, session, "count{{output:a}} count{{output:b}}", **said)
    texts = {name: (await read(server, session, made["variables"][name])).json()["text"] for name in "ab"}
    assert texts == {"a": "one", "b": "one two"}


async def test_a_call_sent_again_is_the_same_call_and_another_under_its_id_a_conflict() -> None:
    async with live(echo) as server:
        session = await opened(server)
        body = {"id": "once", "template": "x{{output:y}}"}
        first = await called(server, session, **body)
        assert await called(server, session, **body) == first
        path = f"{SESSIONS}/{session}/calls"
        reply = await send(server, "POST", path, {**body, "template": "z{{output:y}}"})
        assert reply.status == 409 and reply.headers["x-should-retry"] == "false"
        key = {"idempotency-key": "k"}
        replies = [await send(server, "POST", path, {"template": "x{{output:y}}"}, key) for _ in range(2)]
        assert replies[0].json() == replies[1].json() != first
        assert await called(server, await opened(server), **body) is not None  # ids belong to their session
        seen = (await send(server, "GET", f"{SESSIONS}/{session}")).json()
        assert len(seen["calls"]) == 2
        assert not server.manager.session(session)._at_close  # nothing is kept for each request


async def test_a_lost_answer_is_fetched_by_the_sdks_own_retry(client: openai.AsyncOpenAI, server: Live) -> None:
    session = await opened(server)
    body = {"id": "retry", "template": "count{{output:y}}"}
    first: Any = await client.post(f"/parrot/sessions/{session}/calls", body=body, cast_to=object)
    again: Any = await client.post(f"/parrot/sessions/{session}/calls", body=body, cast_to=object)
    assert first == again


# ---- variables -------------------------------------------------------------------------------------------


async def test_a_variable_is_written_once() -> None:
    async with live(echo) as server:
        session = await opened(server)
        path = f"{SESSIONS}/{session}/variables"
        named = (await send(server, "POST", path, {"name": "topic"})).json()
        assert named == {"object": "parrot.variable", "id": "topic"}
        drawn = (await send(server, "POST", path, {"text": "ready at once"})).json()["id"]
        assert (await read(server, session, drawn)).json()["text"] == "ready at once"
        assert (await send(server, "PUT", f"{path}/topic", {"text": "parrots"})).json()["state"] == "ready"
        for reply in (
            await send(server, "PUT", f"{path}/topic", {"text": "again"}),
            await send(server, "POST", path, {"name": "topic", "text": "again"}),
        ):
            assert reply.status == 409 and reply.error["code"] == "already_settled"
            assert reply.headers["x-should-retry"] == "false"
        output = (await called(server, session, "x{{output:y}}"))["variables"]["y"]
        assert (await send(server, "PUT", f"{path}/{output}", {"text": "mine"})).status == 409
        assert (await send(server, "PUT", f"{path}/nobody", {"text": "x"})).error["code"] == "variable_not_found"


async def test_a_variable_that_is_too_much_to_keep_leaves_nothing_behind() -> None:
    async with live(echo, admits=Limits(kept_bytes_per_tenant=30_000)) as server:
        session = await opened(server)
        assert (await send(server, "POST", f"{SESSIONS}/{session}/variables", {"text": "x" * 20_000})).status == 200
        (kept,) = [session.kept for session in server.manager.sessions()]
        before = kept.size
        for _ in range(20):
            reply = await send(server, "POST", f"{SESSIONS}/{session}/variables", {"text": "x" * 10_000})
            assert reply.status == 429 and reply.error["code"] == "sessions_full"
        assert kept.size == before
        server.manager.check()


async def test_a_wait_ends_with_the_text_or_with_its_time() -> None:
    async with live(echo) as server, asyncio.timeout(30):
        session = await opened(server)
        await send(server, "POST", f"{SESSIONS}/{session}/variables", {"name": "v"})
        assert (await read(server, session, "v", "wait=0.01")).json()["state"] == "pending"
        waits = asyncio.create_task(read(server, session, "v"))
        await until(lambda: server.manager.sessions()[0].life.is_held)
        await send(server, "PUT", f"{SESSIONS}/{session}/variables/v", {"text": ""})
        assert (await waits).json() == {
            "object": "parrot.variable", "id": "v", "name": "v", "state": "ready", "text": "",
        }  # fmt: skip


async def test_a_failure_is_told_to_whoever_waits_and_to_whoever_asks_later() -> None:
    async with live(echo) as server:
        session = await opened(server)
        server.engine.fail_next(EngineError("out of paper"))
        made = await called(server, session, "x{{output:y}} then {{output:z}}")
        for name, code in (("y", "engine_error"), ("z", "upstream_failed"), ("y", "engine_error")):
            reply = await read(server, session, made["variables"][name])
            assert reply.status == 200 and reply.json()["state"] == "failed"
            assert reply.json()["error"]["code"] == code and "out of paper" in reply.json()["error"]["message"]


@pytest.mark.parametrize("ends", ["DELETE", "cancel"])
async def test_a_wait_on_a_session_that_ends_is_over_too(ends: str) -> None:
    async with live(echo) as server, asyncio.timeout(30):
        session = await opened(server)
        server.engine.stall()
        made = await called(server, session, TWO)
        await until(lambda: server.manager.sessions()[0].describe()["calls"][0]["state"] == "running")
        waits = asyncio.create_task(read(server, session, made["variables"]["z"], AWAITED))
        await until(lambda: objectives(server)[1] == "throughput")
        if ends == "DELETE":
            assert (await send(server, "DELETE", f"{SESSIONS}/{session}")).status == 200
        else:
            assert (await send(server, "POST", f"{SESSIONS}/{session}/cancel", {})).status == 200
        reply = await waits
        assert reply.status == 200 and reply.json()["state"] == "failed"
        assert reply.json()["error"]["code"] == "cancelled"


async def test_a_variable_is_followed_as_it_is_written_and_read_again_from_the_start() -> None:
    async with live({"": "one two three four five"}) as server:
        session = await opened(server)
        made = await called(server, session, "x{{output:y}}")
        path = f"{SESSIONS}/{session}/variables/{made['variables']['y']}/stream"
        for _ in range(2):
            reply = await send(server, "GET", path)
            assert reply.headers["content-type"].startswith("text/event-stream")
            *chunks, done = events(reply)
            assert "".join(chunk["text"] for chunk in chunks) == "one two three four five" and len(chunks) > 1
            assert {chunk["type"] for chunk in chunks} == {"parrot:chunk"} and done["type"] == "parrot:done"
            assert [event["sequence_number"] for event in [*chunks, done]] == list(range(len(chunks) + 1))


async def test_a_stream_of_what_fails_ends_with_the_failure() -> None:
    async with live({"": "one two three four five"}) as server:
        session = await opened(server)
        server.engine.fail_next(EngineError("out of paper"), after_tokens=8)
        made = await called(server, session, "x{{output:y}}")
        *_, last = events(await send(server, "GET", f"{SESSIONS}/{session}/variables/{made['variables']['y']}/stream"))
        assert last["type"] == "parrot:failed" and last["error"]["code"] == "engine_error"


async def test_waiting_makes_a_call_quick_and_leaving_makes_it_slow_again() -> None:
    async with live(echo) as server, asyncio.timeout(30):
        session = await opened(server)
        await send(server, "POST", f"{SESSIONS}/{session}/variables", {"name": "later"})
        bound = {"x": {"variable": "later"}}
        one = await called(server, session, "{{input:x}}{{output:y}}", bindings=bound)
        await called(server, session, "{{input:x}}{{output:y}}", bindings=bound)

        variable = one["variables"]["y"]
        for path, objective in (
            (f"{variable}?wait=30", "latency"),
            (f"{variable}/stream", "latency"),
            (f"{variable}?wait=30&objective=throughput", "throughput"),
        ):
            _, writer = await connect(server.url, "GET", f"{SESSIONS}/{session}/variables/{path}")
            await until(lambda want=objective: objectives(server) == [want, "background"])
            writer.close()
            await until(lambda: objectives(server)[0] == "background")


async def test_leaving_a_wait_cancels_nothing() -> None:
    async with live(echo) as server, asyncio.timeout(30):
        session = await opened(server)
        server.engine.stall()
        made = await called(server, session, TWO)
        path = f"{SESSIONS}/{session}/variables/{made['variables']['z']}"
        _, writer = await connect(server.url, "GET", f"{path}?{AWAITED}")
        await until(lambda: objectives(server)[1] == "throughput")
        writer.close()
        await until(lambda: objectives(server)[1] == "background")
        server.engine.resume()
        assert (await read(server, session, made["variables"]["z"])).json()["text"] == "[ then ]"


# ---- sessions --------------------------------------------------------------------------------------------


async def test_a_session_that_ends_takes_everything_with_it() -> None:
    async with live({"": "word " * 700}) as server, asyncio.timeout(30):
        session = await opened(server, name="app")
        server.engine.stall()
        await called(server, session, "x{{output:y}} then {{output:z}}")
        await until(lambda: server.manager.open_calls == 2)
        assert (await send(server, "DELETE", f"{SESSIONS}/{session}")).json() == {
            "object": "parrot.session.deleted", "id": session, "deleted": True,
        }  # fmt: skip
        assert server.manager.open_calls == 0 and server.manager.sessions() == ()
        for method, path in (
            ("GET", ""),
            ("DELETE", ""),
            ("POST", "/calls"),
            ("GET", "/variables/x"),
            ("PUT", "/variables/x"),
        ):
            reply = await send(server, method, f"{SESSIONS}/{session}{path}", {} if method != "GET" else b"")
            assert reply.status == 404 and reply.error["code"] == "session_not_found", path
        server.engine.resume()
        server.manager.check()
        assert server.engine.load().free_tokens == CAPACITY


async def test_a_session_ends_by_itself_when_nobody_uses_it() -> None:
    async with live(echo) as server:
        closed = asyncio.Event()
        server.manager.events.subscribe(lambda event: closed.set() if isinstance(event, SessionClosed) else None)
        session = await opened(server, ttl_s=0.02)
        async with asyncio.timeout(30):
            await closed.wait()
        assert (await send(server, "GET", f"{SESSIONS}/{session}")).status == 404


async def test_a_session_lives_while_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with live(echo) as server:
        session = await opened(server, ttl_s=600)
        signs: list[str] = []
        life = server.manager.sessions()[0].life
        monkeypatch.setattr(type(life), "sign", lambda self: signs.append("sign"))
        await send(server, "POST", f"{SESSIONS}/{session}/variables", {"name": "v"})
        await send(server, "PUT", f"{SESSIONS}/{session}/variables/v", {"text": "x"})
        await read(server, session, "v", "")
        await send(server, "GET", f"{SESSIONS}/{session}")
        assert len(signs) >= 4


def test_an_output_may_be_held_to_a_schema_of_its_own() -> None:
    form = {"json": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}
    told: list[dict[str, Any]] = [
        {"outputs": {"y": {"structured_outputs": form}}},
        {"structured_outputs": form, "outputs": {"y": {"max_tokens": 50}}},
    ]
    for more in told:
        body = CallsRequest.model_validate({"template": "x{{output:y}}", **more})
        assert body.sampling_of()["y"].format == JsonSchema.of(form["json"])


async def test_the_description_of_a_session_is_json_whatever_is_in_it() -> None:
    async with live(echo) as server:
        session = await opened(server)
        await send(server, "POST", f"{SESSIONS}/{session}/variables", {"name": "雪 \u2028", "text": "\x7f"})
        server.engine.fail_next(EngineError("x"))
        await called(server, session, "x{{output:y}} {{output:z}}")
        await until(lambda: server.manager.open_calls == 0)
        reply = await send(server, "GET", f"{SESSIONS}/{session}")
        assert json.loads(reply.body, parse_constant=pytest.fail)["id"] == session
        assert [call["state"] for call in reply.json()["calls"]] == ["failed", "failed"]


async def test_calls_can_be_cancelled_by_name_all_of_those_named_or_none() -> None:
    async with live(echo) as server, asyncio.timeout(30):
        session = (await send(server, "POST", SESSIONS, {})).json()["id"]
        server.engine.stall()
        call = {"template": "{{input:x}}{{output:y}}", "bindings": [{"x": "a"}, {"x": "b"}]}
        one, other = (await send(server, "POST", f"{SESSIONS}/{session}/calls", call)).json()["calls"]
        reply = await send(server, "POST", f"{SESSIONS}/{session}/cancel", {"calls": [one["id"], "nobody"]})
        assert reply.status == 400 and reply.error["param"] == "calls[1]"
        assert (await read(server, session, one["variable"], "wait=0")).json()["state"] == "pending"
        assert (await send(server, "POST", f"{SESSIONS}/{session}/cancel", {"calls": [one["id"]]})).status == 200
        server.engine.resume()
        assert (await read(server, session, one["variable"])).json()["error"]["code"] == "cancelled"
        assert (await read(server, session, other["variable"])).json()["text"] == "[b]"


async def test_calls_can_be_cancelled_by_the_request_that_made_them() -> None:
    async with live(echo) as server, asyncio.timeout(30):
        session = (await send(server, "POST", SESSIONS, {})).json()["id"]
        cancel = f"{SESSIONS}/{session}/cancel"
        assert (await send(server, "POST", cancel, {"requests": ["r1"]})).status == 200
        server.engine.stall()
        call = {"template": "{{input:x}}{{output:y}}", "bindings": [{"x": "a"}, {"x": "b"}]}
        made = [(await send(server, "POST", f"{SESSIONS}/{session}/calls", call | {"id": id})).json() for id in "rs"]
        assert (await send(server, "POST", cancel, {"requests": ["r", "never"]})).status == 200
        server.engine.resume()
        for one, other in zip(made[0]["calls"], made[1]["calls"], strict=True):
            assert (await read(server, session, one["variable"])).json()["error"]["code"] == "cancelled"
            assert (await read(server, session, other["variable"])).json()["state"] == "ready"


async def test_a_cancelled_session_goes_on() -> None:
    async with live(echo) as server:
        session = await opened(server)
        server.engine.stall()
        made = await called(server, session, "x{{output:y}}")
        await send(server, "POST", f"{SESSIONS}/{session}/cancel", {})
        server.engine.resume()
        assert (await read(server, session, made["variables"]["y"])).json()["error"]["code"] == "cancelled"
        made = await called(server, session, "x{{output:y}}")
        assert (await read(server, session, made["variables"]["y"])).json()["text"] == "[x]"
