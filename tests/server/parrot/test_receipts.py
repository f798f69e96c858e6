"""What an answer says of its call beyond the answer: in an object for those who know it, else in headers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

from parrot_compat.core.errors import EngineError
from parrot_compat.core.manager import Limits
from tests.server.live import Live, Reply, connect, events_of, live, send, until

from .graphs import CHAT, GRAPHS, SESSIONS, claim, echo, opened, planned, ref, text_of, user

TEXT = "/v1/completions"
BOTH = [(CHAT, {"messages": user("count")}), (TEXT, {"prompt": "count"})]


async def asked(server: Live, said: dict[str, Any], headers: dict[str, str] | None = None, **fields: Any) -> Reply:
    body = {"messages": user("count"), "parrot": said} | fields
    reply = await send(server, "POST", CHAT, body, headers)
    assert reply.status == 200, reply.body
    return reply


@pytest.mark.parametrize(("path", "body"), BOTH, ids=["chat", "text"])
async def test_a_request_with_the_object_gets_one_back(server: Live, path: str, body: dict[str, Any]) -> None:
    reply = await send(server, "POST", path, {**body, "parrot": {"v": 1, "session": "receipts"}})
    receipt = reply.json()["parrot"]
    assert receipt["session"] == "receipts" and len(receipt["session_id"]) == 32 and receipt["call"]
    assert receipt["objective"] == "latency" and receipt["hints"] == {}
    assert receipt["queue_ms"] >= 0 and receipt["cached_tokens"] >= 0
    assert "claimed" not in receipt and "reason" not in receipt
    assert "x-parrot-session" not in reply.headers


@pytest.mark.parametrize(("path", "body"), BOTH, ids=["chat", "text"])
async def test_a_request_without_it_gets_headers_and_no_field_it_does_not_know(
    server: Live, path: str, body: dict[str, Any]
) -> None:
    for stream in (False, True):
        reply = await send(server, "POST", path, {**body, "stream": stream}, {"x-parrot-session": "headers"})
        assert b"parrot" not in reply.body.replace(b"fp_parrot", b"")
        assert reply.headers["x-parrot-session"] == "headers"
        assert len(reply.headers["x-parrot-session-id"]) == 32
        assert reply.headers["x-parrot-call"] and reply.headers["x-parrot-objective"] == "latency"
        assert ("x-parrot-queue-ms" in reply.headers) == (not stream)
        assert ("x-parrot-cached-tokens" in reply.headers) == (not stream)


@pytest.mark.parametrize(("path", "body"), BOTH, ids=["chat", "text"])
@pytest.mark.parametrize("usage", [False, True])
@pytest.mark.parametrize("n", [1, 3])
async def test_in_a_stream_the_receipt_is_on_the_last_chunk(
    server: Live, path: str, body: dict[str, Any], usage: bool, n: int
) -> None:
    options = {"stream_options": {"include_usage": True}} if usage else {}
    reply = await send(server, "POST", path, {**body, "parrot": {"v": 1}, "stream": True, "n": n, **options})
    *others, last = events_of(reply)
    assert last["parrot"]["call"] and last["parrot"]["queue_ms"] >= 0
    assert not any("parrot" in chunk for chunk in others)
    assert (last["choices"] == []) == usage


async def test_the_stock_client_can_send_the_object(client: openai.AsyncOpenAI) -> None:
    messages: Any = user("count")
    answer = await client.chat.completions.create(
        model="org/scripted", messages=messages, extra_body={"parrot": {"v": 1, "call": "mine"}}
    )
    assert answer.model_extra is not None and answer.model_extra["parrot"]["call"] == "mine"


async def test_cached_tokens_of_the_receipt_are_those_of_the_usage(server: Live) -> None:
    body = {"messages": user("a long story " * 40), "parrot": {"v": 1}}
    await send(server, "POST", CHAT, body)
    again = (await send(server, "POST", CHAT, body)).json()
    assert again["parrot"]["cached_tokens"] == again["usage"]["prompt_tokens_details"]["cached_tokens"] > 0


MANY = [
    (CHAT, {"messages": user("a tale of many " * 40), "n": 3}),
    (TEXT, {"prompt": ["a story of some " * 40, "a legend of one " * 20], "n": 2}),
]


@pytest.mark.parametrize(("path", "body"), MANY, ids=["chat", "text"])
async def test_a_prompt_of_several_answers_is_cached_once(server: Live, path: str, body: dict[str, Any]) -> None:
    asked = {**body, "parrot": {"v": 1}}
    new, again = [(await send(server, "POST", path, asked)).json() for _ in range(2)]
    for answer in (new, again):
        assert answer["parrot"]["cached_tokens"] == answer["usage"]["prompt_tokens_details"]["cached_tokens"]
    cached = again["parrot"]["cached_tokens"]
    assert 0 < cached <= again["usage"]["prompt_tokens"]
    *_, last = events_of(await send(server, "POST", path, {**asked, "stream": True}))
    assert last["parrot"]["cached_tokens"] == cached
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *_, last = events_of(await send(server, "POST", path, {**asked, **options}))
    assert last["parrot"]["cached_tokens"] == cached == last["usage"]["prompt_tokens_details"]["cached_tokens"]


# ---- sessions --------------------------------------------------------------------------------------------


async def test_the_clearest_name_of_a_session_counts(server: Live) -> None:
    headers = {"x-claude-code-session-id": "claude"}
    assert (await asked(server, {}, headers)).json()["parrot"]["session"] == "claude"
    headers = {"x-session-id": "some", **headers}
    assert (await asked(server, {}, headers)).json()["parrot"]["session"] == "some"
    headers = {"x-parrot-session": "ours", **headers}
    assert (await asked(server, {}, headers)).json()["parrot"]["session"] == "ours"
    assert (await asked(server, {"session": "said"}, headers)).json()["parrot"]["session"] == "said"


async def test_requests_that_name_a_session_share_it_and_others_leave_nothing() -> None:
    async with live(echo) as server:
        await asked(server, {})
        assert server.manager.sessions() == ()
        first, second = [(await asked(server, {"session": "s", "call": call})).json() for call in "ab"]
        assert [first["parrot"]["call"], second["parrot"]["call"]] == ["a", "b"]
        (session,) = server.manager.sessions()
        assert [task.call.id for task in session.tasks()] == ["a", "b"]
        seen = (await send(server, "GET", f"{SESSIONS}/s")).json()
        assert seen["id"] == "s" and [call["id"] for call in seen["calls"]] == ["a", "b"]
        drawn = (await send(server, "POST", SESSIONS, {"name": "a name for people"})).json()
        assert drawn["name"] == "a name for people"
        assert (await asked(server, {"session": drawn["id"]})).json()["parrot"]["session"] == drawn["id"]
        assert len(server.manager.sessions()) == 2


async def test_a_label_of_ours_that_is_too_long_is_refused_and_one_of_others_ignored(server: Live) -> None:
    long = "x" * 300
    reply = await send(server, "POST", CHAT, {"messages": user("x")}, {"x-parrot-session": long})
    assert reply.status == 400 and reply.error["param"] == "X-Parrot-Session"
    reply = await asked(server, {}, {"x-session-id": long})
    assert reply.json()["parrot"]["hints"] == {"x-session-id": "ignored"}
    reply = await send(server, "POST", CHAT, {"messages": user("x"), "parrot": {"session": long}})
    assert reply.status == 400 and reply.error["param"] == "parrot.session"


@pytest.mark.parametrize(
    "label", ["../../etc", "a b", "%2e%2e", "\x00", "雪", "{{7*7}}", "' OR 1=1 --", "\r\nset-cookie: x=1", "x" * 256]
)
async def test_any_label_is_a_label(server: Live, label: str) -> None:
    reply = await asked(server, {"session": label, "call": label + "c"[: 256 - len(label)]})
    assert reply.json()["parrot"]["session"] == label
    assert "set-cookie" not in reply.headers


async def test_a_session_whose_label_no_path_can_hold_is_seen_and_ended_by_its_id(server: Live) -> None:
    receipt = (await asked(server, {"session": "a/b", "call": "c"})).json()["parrot"]
    headers = (await send(server, "POST", CHAT, {"messages": user("count")}, {"x-parrot-session": "a/b"})).headers
    path = f"{SESSIONS}/{receipt['session_id']}"
    assert headers["x-parrot-session-id"] == receipt["session_id"]
    seen = await send(server, "GET", path)
    assert seen.status == 200 and (seen.json()["id"], seen.json()["calls"][0]["id"]) == ("a/b", "c")
    assert (await send(server, "DELETE", path)).status == 200
    assert (await send(server, "GET", path)).status == 404
    assert (await asked(server, {"session": "a/b"})).json()["parrot"]["session_id"] != receipt["session_id"]


async def test_a_call_sent_twice_under_one_id_is_answered_twice(server: Live) -> None:
    said = {"session": "twice", "call": "c", "output": {"name": "out"}}
    first = (await asked(server, said)).json()["parrot"]
    again = (await asked(server, said)).json()["parrot"]
    assert first["call"] == "c" and first["hints"] == {"call": "applied", "output": "applied"}
    assert again["call"] != "c" and again["hints"] == {"call": "ignored", "output": "ignored"}


async def test_the_second_try_of_a_call_whose_client_has_left_gets_its_name() -> None:
    said = {"session": "s", "call": "c", "output": {"name": "o"}}
    body = {"messages": user("count"), "parrot": said}
    async with live(echo) as server, asyncio.timeout(30):
        server.engine.stall()
        _, writer = await connect(server.url, "POST", CHAT, json.dumps(body).encode())
        await until(lambda: server.manager.open_calls == 1)
        again = asyncio.create_task(asked(server, said))  # while the server does not know yet that the first has left
        await until(lambda: server.manager.open_calls == 2)
        writer.close()
        await until(lambda: server.manager.open_calls == 1)
        server.engine.resume()
        assert (await again).json()["parrot"]["hints"] == {"call": "ignored", "output": "ignored"}
        for reference in (ref("c"), {"type": "parrot:ref", "variable": "o"}):
            reply = await asked(server, {"session": "s"}, messages=user("about ", reference))
            assert text_of(reply) == "[about [count]]"
        kept = f"{SESSIONS}/s/variables/o"
        found = (await send(server, "GET", kept)).json()
        assert found["state"] == "ready" and found["id"] == found["name"] == "o"
        assert "parrot:done" in (await send(server, "GET", f"{kept}/stream")).body.decode()


async def test_a_third_try_does_not_take_the_name_from_a_second_that_still_runs() -> None:
    said = {"session": "s", "call": "c", "output": {"name": "o"}}
    references = (ref("c"), {"type": "parrot:ref", "variable": "o"})
    async with live(echo) as server, asyncio.timeout(30):
        server.engine.fail_next(EngineError("out of paper"))
        assert (await send(server, "POST", CHAT, {"messages": user("first"), "parrot": said})).status == 502
        server.engine.stall()
        second = asyncio.create_task(asked(server, said, messages=user("second")))
        await until(lambda: server.manager.open_calls == 1)
        third = json.dumps({"messages": user("third"), "parrot": said}).encode()
        _, writer = await connect(server.url, "POST", CHAT, third)
        await until(lambda: server.manager.open_calls == 2)
        readers = [
            asyncio.create_task(asked(server, {"session": "s"}, messages=user("about ", reference)))
            for reference in references
        ]
        await until(lambda: server.manager.open_calls == 4)
        writer.close()
        await until(lambda: server.manager.open_calls == 3)
        server.engine.resume()
        assert (await second).json()["parrot"]["hints"] == {"call": "applied", "output": "applied"}
        for reader in readers:
            assert text_of(await reader) == "[about [second]]"
        assert text_of(await asked(server, said, messages=user("about ", ref("c")))) == "[about [second]]"


async def test_the_second_try_of_a_call_that_failed_gets_its_name() -> None:
    said = {"session": "s", "call": "c", "output": {"name": "o"}}
    async with live(echo) as server:
        server.engine.fail_next(EngineError("out of paper"))
        assert (await send(server, "POST", CHAT, {"messages": user("count"), "parrot": said})).status == 502
        again = (await asked(server, said, n=2)).json()["parrot"]
        assert again["hints"] == {"call": "applied", "output": "applied"}
        for reference in (ref("c"), ref("c-1"), {"type": "parrot:ref", "variable": "o"}):
            reply = await asked(server, {"session": "s"}, messages=user("about ", reference))
            assert text_of(reply) == "[about [count]]"
        call = {"template": "about {{input:x}} {{output:y}}", "bindings": {"x": {"variable": "o"}}}
        made = (await send(server, "POST", f"{SESSIONS}/s/calls", call)).json()["variables"]["y"]
        state = (await send(server, "GET", f"{SESSIONS}/s/variables/{made}?wait=30")).json()
        assert "[count]" in state["text"]
        third = (await asked(server, said)).json()["parrot"]
        assert third["hints"] == {"call": "ignored", "output": "ignored"}


async def test_n_choices_of_a_named_call_have_names_of_their_own() -> None:
    async with live(echo) as server:
        await asked(server, {"session": "s", "call": "c"}, n=3)
        (session,) = server.manager.sessions()
        assert [task.call.id for task in session.tasks()] == ["c", "c-1", "c-2"]


async def test_a_tenant_has_only_so_many_named_sessions() -> None:
    from parrot_compat.server.limits import RequestLimits

    async with live(echo, limits=RequestLimits(sessions=2)) as server:
        opened = [(await send(server, "POST", SESSIONS, {})).json()["id"] for _ in range(2)]
        for path, body in [(SESSIONS, {}), (CHAT, {"messages": user("x"), "parrot": {"session": "c"}})]:
            reply = await send(server, "POST", path, body)
            assert reply.status == 429 and "2 sessions" in reply.error["message"]
        await send(server, "DELETE", f"{SESSIONS}/{opened[0]}")
        await asked(server, {"session": "c"})


async def test_a_label_costs_no_request_its_answer_the_one_that_was_not_used_for_longest_makes_room() -> None:
    from parrot_compat.server.limits import RequestLimits

    async with live(echo, limits=RequestLimits(sessions=2)) as server, asyncio.timeout(30):
        for label in ("a", "b", "a", "c", "a", "d", "a"):
            assert (await asked(server, {"session": label})).json()["parrot"]["session"] == label
        assert {session.name for session in server.manager.sessions()} == {"a", "d"}
        server.engine.stall()
        busy = asyncio.create_task(asked(server, {"session": "d"}))
        await until(lambda: server.manager.open_calls == 1)
        assert (await send(server, "POST", SESSIONS, {"name": "own"})).status == 200
        assert {session.name for session in server.manager.sessions()} == {"d", "own"}, "what runs is not ended"
        reply = await send(server, "POST", CHAT, {"messages": user("x"), "parrot": {"session": "e"}})
        assert reply.status == 429
        server.engine.resume()
        await busy


@pytest.mark.parametrize("uses", ["by its id", "by a claim"])
async def test_a_session_that_is_used_otherwise_than_by_its_label_is_used_too(uses: str) -> None:
    from parrot_compat.server.limits import RequestLimits

    async with live(echo, limits=RequestLimits(sessions=2)) as server:
        graph = await opened(server, {"session": "a", "calls": [planned("x", "one")]})
        await asked(server, {"session": "b"})
        if uses == "by its id":
            assert (await send(server, "GET", f"{SESSIONS}/{graph['session_id']}")).status == 200
        else:
            assert (await claim(server, graph["id"], "x", "one")).json()["parrot"]["claimed"]
        await asked(server, {"session": "c"})
        assert {session.name for session in server.manager.sessions()} == {"a", "c"}


async def test_where_sessions_keep_as_much_as_they_may_calls_are_answered_outside_of_the_one_they_name() -> None:
    async with live(echo, admits=Limits(kept_bytes_per_tenant=12_000)) as server:
        before = await opened(server, {"session": "s", "calls": [planned("early", "one")]})
        while server.manager.has_room(""):
            assert (await asked(server, {"session": "s"})).json()["parrot"]["session"] == "s"
        refused = (await claim(server, before["id"], "early", "another")).json()["parrot"]
        assert refused["claimed"] is False and refused["reason"] == "the prompt differs from the planned one"
        kept = server.manager.sessions()[0].tasks()
        for _ in range(3):
            receipt = (await asked(server, {"session": "s"})).json()["parrot"]
            assert receipt["session"] != "s" and receipt["hints"] == {"session": "ignored"}
        graph = await opened(server, {"session": "s", "calls": [planned("a", "one"), planned("b", "", ref("a"))]})
        assert graph["session"] != "s" and (await claim(server, graph["id"], "a", "one")).json()["parrot"]["claimed"]
        assert server.manager.sessions()[0].tasks() == kept

        reads = {"session": "s", "calls": [planned("x", "", {"type": "parrot:ref", "variable": kept[0].output.name})]}
        for reply in (
            await send(server, "POST", GRAPHS, reads),
            await send(server, "POST", f"{SESSIONS}/s/variables", {"name": "v", "text": "x"}),
        ):
            assert reply.status == 429 and reply.error["code"] == "sessions_full"
            assert reply.headers["x-should-retry"] == "false"
        await send(server, "DELETE", f"{SESSIONS}/s")
        await send(server, "DELETE", f"{SESSIONS}/{graph['session']}")
        assert (await asked(server, {"session": "s"})).json()["parrot"]["session"] == "s"
        server.manager.check()


async def test_where_sessions_keep_as_much_as_they_may_labels_that_are_not_in_use_make_room() -> None:
    async with live(echo, admits=Limits(kept_bytes_per_tenant=13_000)) as server, asyncio.timeout(30):
        for label in ("busy", "old", "later"):
            await asked(server, {"session": label})
        assert not server.manager.has_room("")
        busy, old, later = server.manager.sessions()
        with busy.life.held():
            assert (await asked(server, {"session": "new"})).json()["parrot"]["session"] == "new"
        assert [session.is_closed for session in (busy, old, later)] == [False, True, False], "as few as will do"
        await asked(server, {"session": "new"})
        assert [session.name for session in server.manager.sessions()] == ["later", "new"]
        server.manager.check()


async def test_no_label_makes_room_in_vain() -> None:
    async with live(echo, admits=Limits(kept_bytes_per_tenant=12_000)) as server, asyncio.timeout(30):
        for label in ("idle", "old"):
            await asked(server, {"session": label})
        idle, old = server.manager.sessions()
        old.kept.add(12_000)
        with old.life.held():
            receipt = (await asked(server, {"session": "new"})).json()["parrot"]
            assert receipt["session"] != "new" and receipt["hints"] == {"session": "ignored"}
            assert not idle.is_closed and not old.is_closed
        graph = await opened(server, {"session": "new", "calls": [planned("a", "one")]})
        assert graph["session"] == "new" and idle.is_closed and old.is_closed


# ---- hints -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "objective", "hints"),
    [
        ({}, "latency", {}),
        ({"parrot": {"objective": "background"}}, "background", {"objective": "applied"}),
        ({"service_tier": "flex"}, "throughput", {"service_tier": "applied"}),
        ({"service_tier": "priority"}, "latency", {"service_tier": "applied"}),
        ({"service_tier": "auto"}, "latency", {}),
        ({"service_tier": "scale"}, "latency", {"service_tier": "ignored"}),
        ({"service_tier": 7}, "latency", {"service_tier": "ignored"}),
        ({"priority": 10}, "background", {"priority": "clipped"}),
        ({"priority": -1}, "latency", {"priority": "clipped"}),
        ({"priority": 0}, "latency", {"priority": "clipped"}),
        ({"priority": True}, "latency", {"priority": "ignored"}),
        ({"nvext": {"agent_hints": {"priority": 10}}}, "latency", {"nvext.agent_hints.priority": "clipped"}),
        ({"nvext": {"agent_hints": {"priority": -3}}}, "background", {"nvext.agent_hints.priority": "clipped"}),
        ({"nvext": {"agent_hints": {"osl": 3}}}, "latency", {"nvext.agent_hints.osl": "ignored"}),
        ({"nvext": {"agent_hints": 5, "x": 1}}, "latency", {"nvext.agent_hints": "ignored", "nvext.x": "ignored"}),
        ({"nvext": "soon"}, "latency", {"nvext": "ignored"}),
        (
            {"priority": 5, "service_tier": "flex", "parrot": {"objective": "latency"}},
            "latency",
            {"objective": "applied", "service_tier": "ignored", "priority": "ignored"},
        ),
        ({"my_invention": 1, "user": "me"}, "latency", {"my_invention": "ignored", "user": "ignored"}),
        ({"parrot": {"colour": "green"}}, "latency", {"parrot.colour": "ignored"}),
        ({"parrot": {"function": "F"}}, "latency", {"function": "applied"}),
        ({"parrot": {"stage": {"kind": "map", "group": "g"}}}, "latency", {"stage": "applied"}),
        ({"parrot": {"stage": {"index": 3}}}, "latency", {"stage": "ignored"}),
    ],
)
@pytest.mark.parametrize("path", [CHAT, TEXT])
async def test_every_hint_has_its_word(
    server: Live, path: str, fields: dict[str, Any], objective: str, hints: dict[str, str]
) -> None:
    body = {"messages": user("count")} if path == CHAT else {"prompt": "count"}
    receipt = (await send(server, "POST", path, {**body, "parrot": {}, **fields})).json()["parrot"]
    assert (receipt["objective"], receipt["hints"]) == (objective, hints)
    if "parrot" not in fields:
        headers = (await send(server, "POST", path, {**body, **fields})).headers
        assert headers["x-parrot-objective"] == objective
        ignored = sorted(name for name, word in hints.items() if word == "ignored")
        taken = sorted(f"{name}={word}" for name, word in hints.items() if word != "ignored")
        assert headers.get("x-parrot-ignored", "") == ", ".join(ignored)
        assert headers.get("x-parrot-hints", "") == ", ".join(taken)


async def test_hints_without_number_are_counted_not_repeated(server: Live) -> None:
    reply = await asked(server, {}, **{f"field_{index}": 1 for index in range(500)}, **{"b\r\nad": 1, "x" * 500: 2})
    hints = reply.json()["parrot"]["hints"]
    assert len(hints) == 33 and hints["+470"] == "ignored"


# ---- spans -----------------------------------------------------------------------------------------------

PARTS = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
MESSAGES = [{"role": "system", "content": "Be brief. 雪"}, {"role": "user", "content": PARTS}]


def span(**where: Any) -> dict[str, Any]:
    return {"name": "x", "message": 0, "start": 0, "end": 5, **where}


async def test_spans_that_lie_inside_are_kept_for_whoever_looks() -> None:
    async with live(echo) as server:
        spans = [
            span(end=11),
            span(start=10, end=11, **{"from": "earlier"}),
            span(message=1, part=1, start=0, end=3),
            span(start=3, end=3),
        ]
        reply = await asked(server, {"session": "s", "call": "c", "inputs": spans}, messages=MESSAGES)
        assert reply.json()["parrot"]["hints"] == {"call": "applied", "inputs": "applied"}
        seen = (await send(server, "GET", f"{SESSIONS}/s")).json()
        assert seen["calls"][0]["spans"] == spans


@pytest.mark.parametrize(
    "wrong",
    [
        span(end=12),
        span(start=-1),
        span(start=4, end=3),
        span(message=2),
        span(message=-1),
        span(message=1, part=2),
        span(message=1, part=-1),
        span(message=1),
        span(part=1),
        span(end=10**30),
        span(message=10**30),
    ],
)
async def test_a_span_that_lies_outside_is_ignored_and_the_call_answered(server: Live, wrong: dict[str, Any]) -> None:
    reply = await asked(server, {"inputs": [span(), wrong]}, messages=MESSAGES)
    assert reply.json()["parrot"]["hints"] == {"inputs": "applied", "inputs[1]": "ignored"}


async def test_spans_into_prompts_count_prompts_as_messages(server: Live) -> None:
    said = {"inputs": [span(message=1, end=3), span(message=1, end=4), span(message=0)]}
    body = {"prompt": ["longer", "two"], "parrot": said}
    hints = (await send(server, "POST", TEXT, body)).json()["parrot"]["hints"]
    assert hints == {"inputs": "applied", "inputs[1]": "ignored"}
    body = {"prompt": [1, 2, 3], "parrot": {"inputs": [span(end=1)]}}
    assert (await send(server, "POST", TEXT, body)).json()["parrot"]["hints"] == {"inputs[0]": "ignored"}


async def test_two_requests_at_once_that_want_one_name_both_get_their_answer() -> None:
    """An SDK that tries again: long prompts are rendered beside the loop, so that both are on their way at once."""
    async with live(echo, context_tokens=30_000) as server:
        said = {"session": "s", "call": "summary", "output": {"name": "text"}}
        body = {"messages": user("x" * 9000), "parrot": said, "max_tokens": 5}
        replies = await asyncio.gather(*(send(server, "POST", CHAT, body) for _ in range(3)))
        assert [reply.status for reply in replies] == [200, 200, 200], [reply.body[:300] for reply in replies]
        calls = [reply.json()["parrot"]["call"] for reply in replies]
        assert calls.count("summary") == 1 and len(set(calls)) == 3
        assert (await send(server, "POST", CHAT, body)).status == 200


async def test_a_call_and_a_variable_of_one_name_do_not_stand_in_each_others_way() -> None:
    async with live(echo, context_tokens=30_000) as server:
        first = {"session": "s", "call": "x"}
        second = {"session": "s", "call": "y", "output": {"name": "x"}}
        bodies = [{"messages": user("x" * 9000), "parrot": said, "max_tokens": 5} for said in (first, second)]
        replies = await asyncio.gather(*(send(server, "POST", CHAT, body) for body in bodies))
        hints = [reply.json()["parrot"]["hints"] for reply in replies]
        assert hints == [{"call": "applied"}, {"call": "applied", "output": "applied"}]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_whose_session_is_deleted_is_told_that_it_was_cancelled(
    stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with live(echo) as server:
        server.engine.stall()
        body = {"messages": user("hello"), "parrot": {"session": "s"}, "stream": stream}
        asking = asyncio.create_task(send(server, "POST", CHAT, body))
        await until(lambda: server.engine.load().running > 0)
        assert (await send(server, "DELETE", f"{SESSIONS}/s")).status == 200
        reply = await asking
        server.engine.resume()
    if stream:
        last = reply.body.decode().strip().rpartition("\n\n")[2].removeprefix("data: ")
        assert json.loads(last)["error"]["code"] == "cancelled"
    else:
        assert reply.status == 499 and reply.json()["error"]["code"] == "cancelled"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
