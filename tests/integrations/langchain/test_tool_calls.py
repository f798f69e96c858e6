"""Calls of tools as an app gets them: what cannot be made of an answer that comes whole cannot be made of a stream."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.caches import BaseCache, InMemoryCache
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool

from parrot_compat.integrations.langchain import ChatParrot

from ..other_server import OtherServer, Reply, Request, chunk, completion

CUT = '{"amount": 12'
"""Of 1250."""
NO_OBJECTS = ["[3]", "[]", "3", "0", '"3"', "true", '{"amount": 12', '{"amount"', "amount=3"]
NOTHING = ["", "null", "{}"]


def answering(*arguments: str, finish: str = "tool_calls") -> Callable[[Request], Reply]:
    """With calls of one tool, whole or in pieces, as is asked for; and with a text once one has been answered."""

    def answer(request: Request) -> Reply:
        if any(message["role"] == "tool" for message in request.body["messages"]):
            said, made, reason = "done", [], "stop"
        else:
            said, made, reason = None, [call(text, number) for number, text in enumerate(arguments)], finish
        if not request.body.get("stream"):
            return Reply(completion(said, finish=reason, tool_calls=made))
        events = [chunk(content=said)] if said else []
        for number, one in enumerate(made):
            text = one["function"]["arguments"]
            pieces = [text[: len(text) // 2], text[len(text) // 2 :]]
            opened = {"index": number, **one, "function": {"name": "refund", "arguments": ""}}
            events += [chunk(tool_calls=[opened])]
            events += [chunk(tool_calls=[{"index": number, "function": {"arguments": piece}}]) for piece in pieces]
        return Reply(events=iter([*events, chunk(reason), chunk(usage=completion()["usage"])]))

    return answer


def call(arguments: str, number: int = 0) -> dict[str, Any]:
    return {"id": f"c{number}", "type": "function", "function": {"name": "refund", "arguments": arguments}}


def told(message: AIMessage) -> tuple[list[Any], list[Any]]:
    return [made["args"] for made in message.tool_calls], [broken["args"] for broken in message.invalid_tool_calls]


def ways(other: OtherServer, **settings: Any) -> list[AIMessage]:
    """The answer as `invoke` gives it: whole, and from a stream."""
    models = [ChatParrot(base_url=other.url, streaming=streaming, **settings) for streaming in (False, True)]
    return [*(llm.invoke("go") for llm in models), *(asyncio.run(llm.ainvoke("go")) for llm in models)]


@pytest.mark.parametrize("text", NO_OBJECTS)
@pytest.mark.parametrize("finish", ["length", "tool_calls"])
def test_a_call_whose_arguments_are_no_object_cannot_be_made(other: OtherServer, text: str, finish: str) -> None:
    other.answer = answering('{"amount": 1}', text, finish=finish)
    for message in ways(other):
        assert told(message) == ([{"amount": 1}], [text])
        (broken,) = message.invalid_tool_calls
        assert (broken["id"], broken["name"]) == ("c1", "refund")
        assert "no JSON object" in (broken["error"] or "")
        assert message.response_metadata["finish_reason"] == finish and "calls_at_end" not in message.response_metadata


@pytest.mark.parametrize("text", NOTHING)
def test_a_call_without_arguments_can_be_made(other: OtherServer, text: str) -> None:
    other.answer = answering(text)
    for message in ways(other):
        assert told(message) == ([{}], [])


def test_an_answer_that_was_cut_off_behind_its_calls_has_them(other: OtherServer) -> None:
    other.answer = answering('{"amount": 1}', '{"why": "two\nlines"}', finish="length")
    for message in ways(other):
        assert told(message) == ([{"amount": 1}, {"why": "two\nlines"}], [])


def test_the_blocks_of_an_answer_have_the_same_calls_as_its_message(other: OtherServer) -> None:
    other.answer = answering('{"amount": 1}', CUT, finish="length")
    for message in ways(other, output_version="v1"):
        assert told(message) == ([{"amount": 1}], [CUT])
        blocks = [block for block in message.content_blocks if block["type"] in ("tool_call", "tool_call_chunk")]
        assert [block["args"] for block in blocks] == [{"amount": 1}]  # type: ignore[typeddict-item]


def test_the_chunk_that_ends_a_stream_says_what_its_calls_are(other: OtherServer) -> None:
    other.answer = answering('{"amount": 1}', CUT, finish="length")
    total: Any = None
    for part in ChatParrot(base_url=other.url).stream("go"):
        total = part if total is None else total + part
    assert isinstance(total, AIMessageChunk)
    noted = total.response_metadata["calls_at_end"]
    assert [made["args"] for made in noted["tool_calls"]] == [{"amount": 1}]
    assert [broken["args"] for broken in noted["invalid_tool_calls"]] == [CUT]


def test_a_stream_whose_calls_are_whole_is_no_different_for_it(other: OtherServer) -> None:
    other.answer = answering('{"amount": 1}', "")
    chunks = list(ChatParrot(base_url=other.url).stream("go"))
    assert not any("calls_at_end" in part.response_metadata for part in chunks)


class Disk(BaseCache):
    """Keeps what it is given at that moment, as caches outside the process do."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], bytes] = {}

    def lookup(self, prompt: str, llm_string: str) -> Any:
        found = self.kept.get((prompt, llm_string))
        return None if found is None else pickle.loads(found)

    def update(self, prompt: str, llm_string: str, return_val: Any) -> None:
        self.kept[prompt, llm_string] = pickle.dumps(return_val)

    def clear(self, **kwargs: Any) -> None:
        self.kept.clear()


@pytest.mark.parametrize("cache", [InMemoryCache(), Disk()], ids=["memory", "disk"])
def test_an_answer_from_a_cache_has_the_calls_that_it_had(other: OtherServer, cache: BaseCache) -> None:
    other.answer = answering(CUT, finish="length")
    llm = ChatParrot(base_url=other.url, streaming=True, cache=cache)
    assert [told(llm.invoke("go")) for _ in range(3)] == [([], [CUT])] * 3
    assert len(other.requests) == 1


def test_a_call_that_cannot_be_made_is_told_when_it_is_answered(other: OtherServer) -> None:
    other.answer = answering(CUT, finish="length")
    llm = ChatParrot(base_url=other.url, streaming=True)
    llm.invoke([HumanMessage("go"), llm.invoke("go"), ToolMessage("that was cut off", tool_call_id="c0")])
    assert other.last.body["messages"][1]["tool_calls"] == [call(CUT)]


# ---- agents ------------------------------------------------------------------------------------------


async def in_events(agent: Any, asked: Any) -> None:
    async for _ in agent.astream_events(asked, version="v2"):
        pass


async def in_pieces(agent: Any, asked: Any) -> None:
    async for _ in agent.astream(asked, stream_mode="messages"):
        pass


RUNS: dict[str, Callable[[Any, Any], Any]] = {
    "invoke": lambda agent, asked: agent.invoke(asked),
    "updates": lambda agent, asked: list(agent.stream(asked)),
    "messages": lambda agent, asked: list(agent.stream(asked, stream_mode="messages")),
    "async messages": lambda agent, asked: asyncio.run(in_pieces(agent, asked)),
    "events": lambda agent, asked: asyncio.run(in_events(agent, asked)),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("streaming", [None, True])
def test_an_agent_makes_no_call_that_was_cut_off(
    other: OtherServer, run: Callable[[Any, Any], Any], streaming: bool | None
) -> None:
    pytest.importorskip("langgraph")
    agents = pytest.importorskip("langchain.agents")
    refunded: list[int | None] = []

    @tool
    def refund(amount: int | None = None) -> str:
        """Give money back."""
        refunded.append(amount)
        return "done"

    settings = {} if streaming is None else {"streaming": streaming}
    agent = agents.create_agent(ChatParrot(base_url=other.url, **settings), [refund])
    asked = {"messages": [("human", "give 1250 back")]}
    other.answer = answering(CUT, finish="length")
    run(agent, asked)
    assert refunded == []
    other.answer = answering('{"amount": 1250}')
    run(agent, asked)
    assert refunded == [1250]
