"""Streams of /v1/responses: the events of OpenAI's order, which put together are the whole response."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from parrot_compat.core.call import Finish, Usage
from parrot_compat.core.engine import Chunk
from parrot_compat.core.errors import EngineError
from parrot_compat.core.tool_calls import CallPiece
from parrot_compat.server.errors import Problem
from parrot_compat.server.responses.answers import Telling
from tests.server.live import Live, connect, live, send, until

from .asking import ADD, CALLS, HELLO, PATH, TOOL, Thinking, ask, events_of, said, streamed, without_names

PARIS = "Paris is the capital of France."


def put_together(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items that they come to, by deltas alone. Only one is open at a time; what is done is what was added."""
    items: dict[int, dict[str, Any]] = {}
    current: int | None = None
    for event in events:
        kind, index = event["type"].removeprefix("response."), event.get("output_index")
        if kind == "output_item.added":
            assert current is None and index == len(items) and event["item"]["status"] == "in_progress"
            current, items[index] = index, json.loads(json.dumps(event["item"]))
            continue
        if index is None:
            continue
        assert index == current and event.get("item_id", items[index]["id"]) == items[index]["id"]
        item, place = items[index], event.get("content_index")
        match kind:
            case "content_part.added":
                assert place == len(item["content"])
                item["content"].append(json.loads(json.dumps(event["part"])))
            case "content_part.done":
                assert item["content"][place] == event["part"]
            case "function_call_arguments.delta":
                item["arguments"] += event["delta"]
            case "function_call_arguments.done":
                assert (event["arguments"], event["name"]) == (item["arguments"], item["name"])
            case "output_item.done":
                assert event["item"] == item | {"status": event["item"]["status"]}
                item["status"], current = event["item"]["status"], None
            case "output_text.delta" | "reasoning_text.delta" | "refusal.delta":
                part = item["content"][place]
                part["refusal" if kind.startswith("refusal") else "text"] += event["delta"]
                if "logprobs" in part:
                    part["logprobs"] += event["logprobs"]
            case "output_text.done" | "reasoning_text.done" | "refusal.done":
                part = item["content"][place]
                assert {name: event[name] for name in ("text", "refusal", "logprobs") if name in event} == {
                    name: part[name] for name in ("text", "refusal", "logprobs") if name in part
                }
            case _:
                raise AssertionError(kind)
    assert current is None
    return [items[index] for index in sorted(items)]


MESSAGE = ["output_item.added", "content_part.added", "output_text", "content_part.done", "output_item.done"]
THOUGHT = ["output_item.added", "content_part.added", "reasoning_text", "content_part.done", "output_item.done"]
CALL = ["output_item.added", "function_call_arguments", "output_item.done"]


@pytest.mark.parametrize(
    ("script", "change", "order"),
    [
        ({"": PARIS}, {}, MESSAGE),
        ({"": PARIS}, {"include": ["message.output_text.logprobs"], "top_logprobs": 1}, MESSAGE),
        ({"": f"<think>\nA city.\n</think>\n\n{PARIS}"}, {}, THOUGHT + MESSAGE),
        (
            {"": f"<think>\nA city.\n</think>\n\n{PARIS}"},
            {"include": ["message.output_text.logprobs"]},
            THOUGHT + MESSAGE,
        ),
        ({"": f"I add. {ADD}{ADD}"}, {"tools": [TOOL]}, MESSAGE + CALL + CALL),
        ({"": f"I add. {ADD}{ADD}"}, {"tools": [TOOL], "parallel_tool_calls": False}, MESSAGE + CALL),
        ({"": f"<think>\nOne.\n</think>\n\n{ADD}"}, {"tools": [TOOL], "parrot": {"session": "s"}}, THOUGHT + CALL),
        ({"": ""}, {}, MESSAGE),
        ({"": PARIS}, {"max_output_tokens": 5}, MESSAGE),
        ({"": "<think>\nA city.\n</think>"}, {"max_output_tokens": 12}, THOUGHT),
    ],
)
async def test_the_events_of_a_stream_come_in_openais_order_and_to_the_whole_response(
    script: dict[str, str], change: dict[str, Any], order: list[str]
) -> None:
    async with live(script, tokenizer=Thinking()) as server:
        whole = await ask(server, **change)
        events = await streamed(server, **change)
    kinds: list[str] = []
    for event in events:
        kind = event["type"].removeprefix("response.")
        stem = kind.rpartition(".")[0]
        kind = stem if stem.endswith(("text", "arguments")) else kind  # its deltas and its end
        kinds += [] if kinds and kinds[-1] == kind and stem == kind else [kind]
    assert kinds == ["created", "in_progress", *order, whole["status"]]
    final = events[-1]["response"]
    assert put_together(events) == final["output"] and without_names(final) == without_names(whole)
    for event in events[:2]:
        assert event["response"]["status"] == "in_progress" and event["response"]["output"] == []
        assert event["response"]["id"] == final["id"] and event["response"]["usage"] is None


async def test_openais_own_stream_helper_puts_the_same_together(client: openai.AsyncOpenAI) -> None:
    async with client.responses.stream(model="org/scripted", input=HELLO) as stream:
        texts = [event.delta async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert final.output_text == "".join(texts) == PARIS


async def test_a_failure_amid_a_stream_is_an_error_and_a_failed_response() -> None:
    async with live() as server:
        server.engine.fail_next(EngineError("out of paper"), after_tokens=8)
        *events, error, failed = await streamed(server)
        assert events[-1]["delta"] == "Paris is"
        assert (error["type"], error["code"], error["message"]) == ("error", "engine_error", "out of paper")
        response = failed["response"]
        assert failed["type"] == "response.failed" and response["status"] == "failed"
        assert response["error"] == {"code": "server_error", "message": "out of paper"}
        (item,) = response["output"]
        assert item["status"] == "incomplete" and item["content"][0]["text"] == "Paris is"
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            server.engine.fail_next(EngineError("out of paper"), after_tokens=8)
            stream = await client.responses.create(model="org/scripted", input=HELLO, stream=True)
            with pytest.raises(openai.APIError, match="out of paper"):
                async for _ in stream:
                    pass


async def test_a_stream_that_a_server_cuts_off_fails_in_its_last_events() -> None:
    async with asyncio.timeout(60):
        async with live() as server:
            server.engine.stall()
            body = json.dumps({"input": HELLO, "stream": True}).encode()
            reader, writer = await connect(server.url, "POST", PATH, body)
            await reader.readuntil(b"event: response.in_progress")
            await until(lambda: server.manager.open_calls == 1)
        rest = await reader.read()
        writer.close()
    assert rest.count(b"event: error\n") == rest.count(b"event: response.failed\n") == 1 and b"[DONE]" not in rest
    assert server.manager.open_calls == 0


async def test_a_client_that_leaves_cancels_its_calls() -> None:
    async with asyncio.timeout(60), live() as server:
        server.engine.stall()
        body = json.dumps({"input": HELLO, "stream": True}).encode()
        reader, writer = await connect(server.url, "POST", PATH, body)
        await reader.readuntil(b"event: response.in_progress")
        await until(lambda: server.manager.open_calls == 1)
        writer.close()
        await until(lambda: server.manager.open_calls == 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_that_is_asked_for_again_under_its_key_is_the_same(stream: bool) -> None:
    async with live() as server:
        body, key = {"input": HELLO, "stream": stream}, {"idempotency-key": "k"}
        first, again = [await send(server, "POST", PATH, body, key) for _ in range(2)]
    assert first.body == again.body and again.headers["x-parrot-repeated"] == "true"
    assert server.engine.generated == 1


async def told(*chunks: Chunk) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    async def come() -> AsyncIterator[Chunk]:
        for chunk in chunks:
            yield chunk

    events = [event async for event in Telling({"id": "resp_1"}).events(come())]
    return events, await Telling({"id": "resp_1"}).whole(come())


async def test_what_is_said_instead_of_an_answer_is_a_part_of_its_own() -> None:
    events, whole = await told(
        Chunk(text="Well. "), Chunk(refusal="I will "), Chunk(refusal="not."), Chunk(finish=Finish.CONTENT_FILTER)
    )
    (item,) = whole["output"]
    assert [part["type"] for part in item["content"]] == ["output_text", "refusal"]
    assert item["content"][1]["refusal"] == "I will not."
    assert (whole["status"], whole["incomplete_details"]) == ("incomplete", {"reason": "content_filter"})
    assert put_together(events) == whole["output"]


async def test_what_is_left_of_a_call_comes_before_the_text_behind_it() -> None:
    events, whole = await told(
        Chunk(calls=(CallPiece(index=0, id="c", name="add", arguments='{"a": '),)),
        Chunk(text="Done.", calls=(CallPiece(index=0, arguments="1}"), CallPiece(index=1, id="d", name="f"))),
        Chunk(finish=Finish.TOOL_CALLS, usage=Usage(prompt_tokens=3, output_tokens=2)),
    )
    assert put_together(events) == whole["output"]
    assert [item["type"] for item in whole["output"]] == ["function_call", "message", "function_call"]
    assert whole["output"][0]["arguments"] == '{"a": 1}' and whole["usage"]["total_tokens"] == 5


async def test_a_call_that_goes_on_after_another_has_begun_is_done_anew() -> None:
    events, whole = await told(
        Chunk(calls=(CallPiece(index=0, id="c", name="f", arguments="{"), CallPiece(index=1, id="d", name="g"))),
        Chunk(calls=(CallPiece(index=0, arguments="}"),)),
        Chunk(calls=(CallPiece(index=1, arguments="{}"),), finish=Finish.TOOL_CALLS),
    )
    assert [item["arguments"] for item in whole["output"]] == ["{}", "{}"]
    done = {event["output_index"]: event["item"] for event in events if event["type"] == "response.output_item.done"}
    assert [done[0], done[1]] == whole["output"] == events[-1]["response"]["output"]


async def test_a_failure_before_the_first_event_is_told_too() -> None:
    error, failed = Telling({"id": "resp_1"}).failed(Problem(status=429, message="later", code="queue_full"))
    assert (error["sequence_number"], failed["sequence_number"]) == (0, 1)
    assert failed["response"]["error"]["code"] == "rate_limit_exceeded" and failed["response"]["output"] == []


async def test_log_probabilities_are_those_of_the_text_alone(server: Live) -> None:
    asked = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    (item,) = (await ask(server, **asked))["output"]
    entries = item["content"][0]["logprobs"]
    assert "".join(entry["token"] for entry in entries) == PARIS and entries[0]["top_logprobs"]
    (silent,) = (await ask(server, top_logprobs=2))["output"]
    assert silent["content"][0]["logprobs"] == []
    async with live({"": f"<think>\nHm.\n</think>\n\nI add. {ADD}"}, tokenizer=Thinking()) as other:
        answer = await ask(other, tools=[TOOL], **asked)
    text = said(answer)
    written = [
        entry["token"]
        for item in answer["output"]
        for part in item.get("content", ())
        for entry in part.get("logprobs", ())
    ]
    assert "".join(written).strip() == text.strip() == "I add."


async def test_a_call_that_was_cut_off_is_incomplete() -> None:
    async with live(CALLS) as server:
        limit = CALLS["Add"].index(' "b"')
        reply = await send(
            server, "POST", PATH, {"input": "Add", "tools": [TOOL], "max_output_tokens": limit, "stream": True}
        )
    events = events_of(reply)
    message, call = events[-1]["response"]["output"]
    assert (message["status"], call["status"], call["arguments"]) == ("completed", "incomplete", '{"a": 1,')
    assert events[-1]["type"] == "response.incomplete"
