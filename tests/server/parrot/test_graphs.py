"""POST /v1/parrot/graphs over a live socket: what it answers, what it pushes, how it ends."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

from parrot_compat.core.engines.scripted import Speed
from parrot_compat.core.errors import EngineError
from parrot_compat.core.events import SessionClosed
from parrot_compat.core.manager import Limits
from parrot_compat.server.parrot import planning
from tests.server.live import CAPACITY, Live, connect, live, send, until

from .graphs import CHAT, GRAPHS, SESSIONS, chain, claim, close, echo, opened, planned, pushed, ref, text_of, user

SLOW = Speed(step_s=0.002, chunk_tokens=1)


async def test_the_server_says_what_it_can_do(server: Live) -> None:
    reply = await send(server, "GET", "/v1/parrot")
    assert reply.status == 200
    assert reply.json() == {
        "object": "parrot.capabilities",
        "v": 1,
        "version": reply.headers["x-parrot-version"],
        "levels": ["annotate", "plan", "claim", "reference"],
        "transforms": ["first_json", "json_pointer", "lines", "regex", "strip", "truncate"],
    }


async def test_a_graph_is_answered_before_anything_has_run() -> None:
    async with live() as server:
        server.engine.stall()
        graph = await opened(server, chain())
        assert [call["id"] for call in graph["calls"]] == ["a", "b"]
        seen = (await send(server, "GET", f"{SESSIONS}/{graph['session']}")).json()
        assert {call["output"] for call in seen["calls"]} == {call["variable"] for call in graph["calls"]}
        assert all(call["state"] != "finished" for call in seen["calls"])
        server.engine.resume()


async def test_each_call_is_pushed_as_it_settles_with_what_it_ran_with() -> None:
    async with live(echo) as server:
        fields = {"temperature": 0, "top_p": 1.0, "max_tokens": 50, "metadata": {"kept": [1, 1.5, None]}}
        body = {
            "calls": [
                planned("first", "one", **fields),
                planned("second", "then ", ref("first", transform={"truncate": 3}), {"type": "text", "text": "!"}),
            ]
        }
        async with pushed(server, body) as pushes:
            events = await pushes.rest()
        assert [event["type"] for event in events] == ["parrot:accepted", "parrot:call", "parrot:call", "parrot:done"]
        assert [event["sequence_number"] for event in events] == [0, 1, 2, 3]
        accepted, first, second, done = events
        assert accepted["graph"] == done["graph"] and done["wasted_tokens"] == 0
        assert [call["id"] for call in accepted["calls"]] == ["first", "second"]
        assert first["request"] == body["calls"][0]["request"]
        assert json.dumps(first["request"]) == json.dumps(body["calls"][0]["request"])  # 0 is not 0.0
        assert second["request"] == {"messages": user("then [on!")}
        assert second["completion"]["choices"][0]["message"]["content"] == "[then [on!]"


async def test_a_push_holds_the_answer_that_a_plain_request_gets(server: Live) -> None:
    asked = {"messages": user("count"), "temperature": 0, "return_token_ids": True}
    plain = (await send(server, "POST", CHAT, asked)).json()
    async with pushed(server, {"calls": [{"id": "a", "request": asked}]}) as pushes:
        completion = (await pushes.until("parrot:call"))["completion"]
    for own in ("id", "created"):
        assert plain.pop(own) and completion.pop(own)
    plain["usage"].pop("prompt_tokens_details")
    completion["usage"].pop("prompt_tokens_details")  # the second of two equal prompts finds more in the cache
    assert completion == plain


async def test_content_without_references_is_pushed_as_it_was_given(server: Live) -> None:
    asked = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "co"}, {"type": "text", "text": "unt"}]}]
    }
    async with pushed(server, {"calls": [{"id": "a", "request": asked}]}) as pushes:
        assert (await pushes.until("parrot:call"))["request"] == asked


async def test_what_fails_is_pushed_with_its_cause_and_takes_its_readers_with_it() -> None:
    async with live(echo) as server:
        server.engine.fail_next(EngineError("out of paper"))
        body = {"calls": [*chain()["calls"], planned("other", "still here")]}
        async with pushed(server, body) as pushes:
            events = await pushes.rest()
        failed = {event["call"]: event["error"] for event in events if event["type"] == "parrot:failed"}
        assert list(failed) == ["a", "b"]
        assert failed["a"]["code"] == "engine_error" and "out of paper" in failed["a"]["message"]
        assert failed["b"]["code"] == "upstream_failed" and "out of paper" in failed["b"]["message"]
        assert set(failed["b"]) == {"message", "type", "param", "code"}
        assert [event["call"] for event in events if event["type"] == "parrot:call"] == ["other"]
        assert events[-1]["type"] == "parrot:done"


async def test_a_transform_that_does_not_apply_fails_its_reader(server: Live) -> None:
    body = {"calls": [planned("a", "count"), planned("b", "", ref("a", transform={"json_pointer": "/x"}))]}
    async with pushed(server, body) as pushes:
        failed = await pushes.until("parrot:failed")
    assert failed["call"] == "b" and failed["error"]["code"] == "transform_failed"


async def test_leaving_the_pushes_leaves_the_plan_to_be_claimed() -> None:
    async with live(echo) as server:
        server.engine.stall()
        async with pushed(server, chain(nonce="run")) as pushes:
            graph = (await pushes.until("parrot:accepted"))["graph"]
        server.engine.resume()
        reply = await claim(server, graph, "a", "count")
        assert reply.json()["parrot"]["claimed"] is True
        reply = await claim(server, graph, "b", "Sum up: " + text_of(reply))
        assert reply.json()["parrot"]["claimed"] is True
        assert server.engine.generated == 2


async def test_a_long_silence_of_the_pushes_is_filled_with_comments() -> None:
    async with live(keep_alive_s=0.02) as server:
        server.engine.stall()
        raw = json.dumps({**chain(), "stream": True}).encode()
        reader, writer = await connect(server.url, "POST", GRAPHS, raw)
        async with asyncio.timeout(30):
            for _ in range(3):
                await reader.readuntil(b": still here\n\n")
            server.engine.resume()
            assert b'"type":"parrot:done"' in await reader.read()
        writer.close()


async def test_a_close_cancels_what_is_left_says_so_and_says_it_again() -> None:
    async with live({"": "word " * 700}, speed=SLOW) as server, asyncio.timeout(30):
        async with pushed(server, chain()) as pushes:
            graph = (await pushes.until("parrot:accepted"))["graph"]
            await until(lambda: server.engine.load().running > 0)
            closed = await close(server, graph)
            assert (await pushes.rest())[-1]["type"] == "parrot:done"
        assert closed.json() | {"wasted_tokens": 0} == {
            "object": "parrot.graph.closed", "id": graph, "taken": 0, "claimed": 0, "cancelled": 2, "wasted_tokens": 0,
        }  # fmt: skip
        assert (await close(server, graph, ["a"])).json() == closed.json()
        await until(lambda: not server.engine.load().running)
        assert server.manager.open_calls == 0
        reply = await claim(server, graph, "a", "count", max_tokens=3)
        assert reply.json()["parrot"]["claimed"] is False


async def test_a_close_counts_what_was_taken_from_the_pushes_and_what_was_drawn_for_nobody() -> None:
    async with live(echo) as server:
        async with pushed(server, chain()) as pushes:
            events = await pushes.rest()
        receipt = (await close(server, events[0]["graph"], ["a", "nobody"])).json()
        drawn = {event["call"]: event["completion"]["usage"]["completion_tokens"] for event in events[1:-1]}
        assert (receipt["taken"], receipt["claimed"], receipt["cancelled"]) == (1, 0, 0)
        assert receipt["wasted_tokens"] == drawn["b"] > 0


async def test_a_plan_that_nobody_claims_ends_by_time_with_its_session() -> None:
    async with live(echo) as server:
        closed = asyncio.Event()
        server.manager.events.subscribe(lambda event: closed.set() if isinstance(event, SessionClosed) else None)
        graph = await opened(server, chain(ttl_s=0.02))
        async with asyncio.timeout(30):
            await closed.wait()
        assert (await send(server, "GET", f"{SESSIONS}/{graph['session']}")).error["code"] == "session_not_found"
        gone = await close(server, graph["id"])
        assert gone.status == 404 and gone.error["code"] == "plan_not_found"
        server.manager.check()
        server.engine.check()
        assert server.engine.load().free_tokens == CAPACITY


async def test_a_plan_lives_while_its_pushes_are_read_though_no_call_of_it_can_run() -> None:
    async with live(echo) as server, asyncio.timeout(30):
        session = (await send(server, "POST", SESSIONS, {})).json()["id"]
        await send(server, "POST", f"{SESSIONS}/{session}/variables", {"name": "topic"})
        waits = planned("late", "about ", {"type": "parrot:ref", "variable": "topic"})
        async with pushed(server, {"session": session, "calls": [waits]}) as pushes:
            graph = (await pushes.until("parrot:accepted"))["graph"]
            plan = server.manager.find_plan("", plan_id=graph)
            assert plan.life.is_held
        await until(lambda: not plan.life.is_held)


async def test_the_end_of_a_session_is_the_end_of_its_pushes() -> None:
    async with live(echo) as server:
        server.engine.stall()
        async with pushed(server, chain()) as pushes:
            session = (await pushes.until("parrot:accepted"))["session"]
            assert (await send(server, "DELETE", f"{SESSIONS}/{session}")).json()["deleted"] is True
            assert (await pushes.rest())[-1]["type"] == "parrot:done"


async def test_a_graph_reads_variables_and_calls_of_the_session_it_joins() -> None:
    async with live(echo) as server:
        session = (await send(server, "POST", SESSIONS, {})).json()["id"]
        await send(server, "POST", f"{SESSIONS}/{session}/variables", {"name": "topic", "text": "parrots"})
        await opened(server, {"session": session, "calls": [planned("early", "hi")]})
        reads = [{"type": "parrot:ref", "variable": "topic"}, {"type": "text", "text": " "}, ref("early")]
        async with pushed(server, {"session": session, "calls": [planned("late", "about ", *reads)]}) as pushes:
            assert (await pushes.until("parrot:call"))["request"]["messages"] == user("about parrots [hi]")


# ---- sent again ----------------------------------------------------------------------------------------


async def test_the_same_graph_sent_again_is_the_same_plan() -> None:
    async with live(echo) as server:
        for again in ({"nonce": "run-1"}, {"session": "s"}):
            first = await opened(server, chain(**again))
            assert await opened(server, chain(**again)) == first
        key = {"idempotency-key": "k"}
        assert await opened(server, chain(), key) == await opened(server, chain(), key)
        assert (await opened(server, chain()))["id"] != (await opened(server, chain()))["id"]


async def test_the_same_graph_sent_again_is_the_same_plan_where_sessions_keep_as_much_as_they_may() -> None:
    async with live(echo, admits=Limits(kept_bytes_per_tenant=12_000)) as server:
        first = await opened(server, chain(session="s"))
        (session,) = server.manager.sessions()
        while server.manager.has_room(""):
            await send(server, "POST", CHAT, {"messages": user("x"), "parrot": {"session": "s"}})
        with session.life.held():  # in use, so that it does not make room
            assert await opened(server, chain(session="s")) == first
            apart = await opened(server, chain(session="other"))
            assert apart["session"] != "other" and await opened(server, chain(session="other")) == apart
            assert len(server.manager.sessions()) == 2


async def test_requests_that_pushes_will_tell_are_kept_until_the_graph_ends_within_the_limit() -> None:
    async with live(echo, admits=Limits(kept_bytes_per_tenant=400_000)) as server:
        server.engine.stall()
        body = {"session": "s", "calls": [planned("a", "one", metadata={"log": "x" * 300_000})]}
        async with pushed(server, body) as pushes:
            graph = (await pushes.until("parrot:accepted"))["graph"]
            (session,) = server.manager.sessions()
            assert session.kept.size > 300_000
            again = {"session": "s", "stream": True, "calls": [planned("b", "two", metadata={"log": "y" * 300_000})]}
            reply = await send(server, "POST", GRAPHS, again)
            assert (reply.status, reply.error["code"]) == (429, "sessions_full")
            await close(server, graph)
            assert session.kept.size < 20_000
        unread = await opened(server, again | {"stream": False})
        assert unread["session"] == "s" and session.kept.size < 20_000, "nobody is told of them"
        server.manager.check()


async def test_a_session_in_use_keeps_nothing_of_graphs_that_were_closed() -> None:
    async with live(echo) as server:
        listeners = []
        for number in range(5):
            calls = [planned(f"c{number}", "one")]
            async with pushed(server, {"session": "s", "nonce": str(number), "calls": calls}) as pushes:
                graph = (await pushes.rest())[0]["graph"]
            closed = await close(server, graph, [f"c{number}"])
            assert closed.json()["taken"] == 1 and (await close(server, graph)).json() == closed.json()
            (session,) = server.manager.sessions()
            listeners.append(len(session._at_close))
        assert listeners == [0] * 5
        server.manager.check()


async def test_ids_that_were_asked_for_are_pushed_after_the_close_too() -> None:
    async with live(echo) as server:
        body = {"calls": [planned("a", "one", return_token_ids=True), planned("b", "two")]}
        server.engine.stall()
        async with pushed(server, body) as pushes:
            graph = (await pushes.until("parrot:accepted"))["graph"]
            plan = server.manager.find_plan("", plan_id=graph)
            plan.tasks["a"].when_over(lambda _: plan.close())  # after the plan has heard of it, before the push is read
            server.engine.resume()
            assert (await pushes.until("parrot:call"))["completion"]["prompt_token_ids"]


async def test_two_equal_graphs_at_the_same_time_are_one_plan() -> None:
    async with live(echo) as server:
        graphs = await asyncio.gather(*(opened(server, chain(nonce="n")) for _ in range(8)))
        assert len({graph["id"] for graph in graphs}) == 1
        assert len(server.manager.sessions()) == 1


async def test_a_second_stream_of_a_plan_gets_every_push(server: Live) -> None:
    body = chain(nonce="twice")
    async with pushed(server, body) as first, pushed(server, body) as second:
        assert await first.rest() is not None
        assert [event["type"] for event in await second.rest()][1:3] == ["parrot:call", "parrot:call"]


async def test_a_known_call_with_another_body_is_a_conflict_that_is_not_to_be_retried() -> None:
    async with live(echo) as server:
        await opened(server, chain(session="s"))
        reply = await send(server, "POST", GRAPHS, {"session": "s", "calls": [planned("b", "another")]})
        assert reply.status == 409
        assert reply.error["code"] == "call_exists"
        assert reply.headers["x-should-retry"] == "false"
        assert (
            await send(server, "POST", CHAT, {"messages": user("x"), "parrot": {"session": "s", "call": "c"}})
        ).json()
        reply = await send(server, "POST", GRAPHS, {"session": "s", "calls": [planned("c", "another")]})
        assert reply.status == 409 and reply.error["param"] == "calls[0].id"


async def test_a_graph_that_was_refused_may_be_mended_and_sent_again() -> None:
    async with live(echo) as server:
        wrong = {"nonce": "n", "calls": [planned("a", "x" * 5000)]}
        for _ in range(2):
            assert (await send(server, "POST", GRAPHS, wrong)).error["code"] == "context_length_exceeded"
        await opened(server, {"nonce": "n", "calls": [planned("a", "short")]})
        assert len(server.manager.sessions()) == 1


# ---- whose it is ---------------------------------------------------------------------------------------


async def test_another_tenant_sees_no_plan_no_session_and_claims_nothing() -> None:
    async with live(echo, keys=("ann", "bob")) as server:
        ann, bob = ({"authorization": f"Bearer {key}"} for key in ("ann", "bob"))
        graph = await opened(server, chain(session="ours", nonce="n"), ann)
        said = {"claim": "a", "graph": graph["id"], "nonce": "n"}
        reply = await send(server, "POST", CHAT, {"messages": user("count"), "parrot": said}, bob)
        assert reply.json()["parrot"]["claimed"] is False
        reply = await send(server, "POST", CHAT, {"messages": user("count"), "parrot": {"claim": "a"}}, bob)
        assert reply.json()["parrot"]["claimed"] is False
        for path in (f"{SESSIONS}/ours", f"{SESSIONS}/{graph['session']}"):
            assert (await send(server, "GET", path, headers=bob)).error["code"] == "session_not_found"
        reply = await send(server, "POST", f"{GRAPHS}/{graph['id']}/close", {}, bob)
        assert reply.status == 404
        assert (await opened(server, chain(session="ours", nonce="n"), bob))["id"] != graph["id"]
        refused = await send(server, "POST", GRAPHS, {"calls": [planned("x", "", ref("a"))]}, bob)
        assert refused.status == 404
        assert (await send(server, "POST", f"{GRAPHS}/{graph['id']}/close", {}, ann)).status == 200


# ---- with the stock client -----------------------------------------------------------------------------


async def test_the_stock_client_plans_claims_and_closes(client: openai.AsyncOpenAI) -> None:
    body = chain(nonce="stock")
    graph: Any = await client.post("/parrot/graphs", body=body, cast_to=object)
    messages: Any = user("count")
    said = {"parrot": {"v": 1, "claim": "a", "graph": graph["id"], "nonce": "stock"}}
    answer = await client.chat.completions.create(model="org/scripted", messages=messages, extra_body=said)
    assert answer.model_extra is not None and answer.model_extra["parrot"]["claimed"] is True
    messages = user(f"Sum up: {answer.choices[0].message.content}")
    said = {"parrot": {"v": 1, "claim": "b", "graph": graph["id"], "nonce": "stock"}}
    stream = await client.chat.completions.create(model="org/scripted", messages=messages, stream=True, extra_body=said)
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].model_extra is not None and chunks[-1].model_extra["parrot"]["claimed"] is True
    assert all("parrot" not in (chunk.model_extra or {}) for chunk in chunks[:-1])
    closed: Any = await client.post(f"/parrot/graphs/{graph['id']}/close", body={"taken": []}, cast_to=object)
    assert (closed["claimed"], closed["wasted_tokens"]) == (2, 0)


async def test_the_stock_client_reads_a_refusal(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.post("/parrot/graphs", body={"calls": [planned("a", "x", top_logprobs=2)]}, cast_to=object)
    assert caught.value.param == "calls[0].request.top_logprobs"


async def test_large_requests_of_a_graph_are_read_with_turns_for_others_between_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with live(echo, context_tokens=200_000) as server:
        turns, read_at = 0, []

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        read = planning._read

        def noted(*given: Any) -> Any:
            read_at.append(turns)
            return read(*given)

        monkeypatch.setattr(planning, "_read", noted)
        large = [planned(f"c{n}", "x", *[{"type": "text", "text": ""}] * 5000) for n in range(4)]
        small = [planned(f"s{n}", "x") for n in range(4)]
        other = asyncio.create_task(others())
        await opened(server, {"calls": [*small, *large]})
        other.cancel()
        assert len(set(read_at[:4])) == 1 and len(set(read_at[4:])) == 4
