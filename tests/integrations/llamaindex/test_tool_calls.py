"""Calls of tools as an app gets them of `ParrotLLM`: in pieces, cut off, and more of them than were asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
from llama_index.core.program import FunctionCallingProgram
from llama_index.core.tools import FunctionTool
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel

from parrot_compat.integrations.llamaindex import ParrotLLM
from tests.integrations.other_server import OtherServer, Reply, Request, chunk, completion

FUNCTION = PydanticProgramMode.FUNCTION


class Bird(BaseModel):
    """What a bird is."""

    name: str
    legs: int


KEA = Bird(name="kea", legs=2)
CUT = '{"amount": 12'
"""Of 1250."""


def model(other: OtherServer, **settings: Any) -> ParrotLLM:
    return ParrotLLM(base_url=other.url, model="m", context_window=1000, max_retries=0, **settings)


def call(name: str, arguments: str, number: int = 0) -> dict[str, Any]:
    return {"id": f"c{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def piece(text: str, name: str | None = None, number: int = 0) -> dict[str, Any]:
    function = {"arguments": text} if name is None else {"name": name, "arguments": text}
    return chunk(tool_calls=[{"index": number, "id": None if name is None else f"c{number}", "function": function}])


def answering(calls: Sequence[tuple[str, str]], finish: str = "tool_calls") -> Callable[[Request], Reply]:
    """With calls of these names and arguments, whole or in pieces, as is asked for."""

    def answer(request: Request) -> Reply:
        if not request.body.get("stream"):
            made = [call(name, arguments, number) for number, (name, arguments) in enumerate(calls)]
            return Reply(completion(None, finish=finish, tool_calls=made))
        events = []
        for number, (name, arguments) in enumerate(calls):
            middle = len(arguments) // 2
            events += [piece("", name, number), piece(arguments[:middle], None, number)]
            events += [piece(arguments[middle:], None, number)]
        return Reply(events=iter([*events, chunk(finish), chunk(usage=completion()["usage"])]))

    return answer


class Refunds:
    """A tool that must not be called with what nobody said."""

    def __init__(self) -> None:
        self.made: list[int | None] = []
        self.tool = FunctionTool.from_defaults(self.refund)

    def refund(self, amount: int | None = None) -> str:
        """Give money back."""
        self.made.append(amount)
        return "done"


# ---- in pieces ---------------------------------------------------------------------------------------


def test_an_object_that_comes_as_a_call_in_pieces_is_what_the_stream_ends_with(other: OtherServer) -> None:
    other.answer = answering([("Bird", KEA.model_dump_json())])
    llm = model(other, pydantic_program_mode=FUNCTION)
    program = FunctionCallingProgram.from_defaults(Bird, prompt_template_str="Which?", llm=llm)

    async def asynchronously() -> list[Any]:
        predicted = [found async for found in await llm.astream_structured_predict(Bird, PromptTemplate("Which?"))]
        return [predicted[-1], [found async for found in await program.astream_call()][-1]]

    ended = [[*llm.stream_structured_predict(Bird, PromptTemplate("Which?"))][-1], [*program.stream_call()][-1]]
    assert [*ended, *asyncio.run(asynchronously())] == [KEA] * 4


def test_a_call_that_was_heard_is_sent_back_once(other: OtherServer) -> None:
    other.answer = answering([("refund", '{"amount": 3}'), ("refund", "")])
    llm, tool = model(other), Refunds().tool
    whole = llm.chat_with_tools([tool], user_msg="go", allow_parallel_tool_calls=True)
    *_, streamed = llm.stream_chat_with_tools([tool], user_msg="go", allow_parallel_tool_calls=True)
    for response in (whole, streamed):
        llm.chat([ChatMessage(content="go"), response.message])
        assert other.last.body["messages"][1] == {
            "role": "assistant",
            "content": None,
            "tool_calls": [call("refund", '{"amount": 3}'), call("refund", "", 1)],
        }
        assert [made.tool_kwargs for made in llm.get_tool_calls_from_response(response)] == [{"amount": 3}, {}]


# ---- cut off -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [CUT, '{"amount"', "{"])
def test_a_call_that_was_cut_off_is_not_made(other: OtherServer, cut: str) -> None:
    other.answer = answering([("refund", '{"amount": 3}'), ("refund", cut)], "length")
    llm, refunds = model(other), Refunds()
    both: dict[str, Any] = {"user_msg": "go", "allow_parallel_tool_calls": True}
    with pytest.raises(ValueError, match=r"'refund' was cut off \(finish_reason: length\)"):
        llm.predict_and_call([refunds.tool], **both)
    with pytest.raises(ValueError, match="cut off"):
        asyncio.run(llm.apredict_and_call([refunds.tool], **both))
    for streaming in (True, False):
        agent = FunctionAgent(tools=[refunds.tool], llm=llm, streaming=streaming)
        with pytest.raises(Exception, match="cut off"):
            asyncio.run(ask(agent))
    assert refunds.made == []


async def ask(agent: FunctionAgent) -> str:
    return str(await agent.run("go"))


def test_what_has_come_of_a_call_can_be_looked_at_until_it_is_over(other: OtherServer) -> None:
    other.answer = answering([("refund", CUT)], "length")
    llm = model(other)
    heard = []
    with pytest.raises(ValueError, match="cut off"):
        for response in llm.stream_chat_with_tools([Refunds().tool], user_msg="go"):
            if "finish_reason" not in response.additional_kwargs:
                heard.append(llm.get_tool_calls_from_response(response)[0].tool_kwargs)
    assert heard == [{}, {}, {"amount": 12}]


@pytest.mark.parametrize("said", ["[3]", "3", '"3"', '{"amount": 3', "amount=3"])
def test_a_call_whose_arguments_are_no_object_is_not_made(other: OtherServer, said: str) -> None:
    other.answer = answering([("refund", said)])
    llm, refunds = model(other), Refunds()
    with pytest.raises(ValueError, match="'refund' cannot be read"):
        llm.predict_and_call([refunds.tool], user_msg="go")
    assert refunds.made == []


@pytest.mark.parametrize("said", ["", "{}", "null"])
def test_a_call_without_arguments_is_made_without(other: OtherServer, said: str) -> None:
    other.answer = answering([("refund", said)])
    refunds = Refunds()
    model(other).predict_and_call([refunds.tool], user_msg="go")
    assert refunds.made == [None]


@pytest.mark.parametrize("mode", [FUNCTION, PydanticProgramMode.DEFAULT])
def test_a_streamed_object_that_was_cut_off_does_not_pass_for_a_whole_one(
    other: OtherServer, mode: PydanticProgramMode
) -> None:
    cut = '{"name": "kea", "legs": 2'  # of 24: a table's
    said = [chunk(content=cut), chunk("length"), chunk(usage=completion()["usage"])]
    other.answer = answering([("Bird", cut)], "length") if mode is FUNCTION else lambda _: Reply(events=iter(said))
    llm, template = model(other, pydantic_program_mode=mode), PromptTemplate("Which?")

    async def asynchronously() -> None:
        async for _ in await llm.astream_structured_predict(Bird, template):
            pass

    with pytest.raises(ValueError, match="cut off"):
        list(llm.stream_structured_predict(Bird, template))
    with pytest.raises(ValueError, match="cut off"):
        asyncio.run(asynchronously())


# ---- more than were asked for ------------------------------------------------------------------------


def test_of_more_calls_than_were_asked_for_the_first_counts(other: OtherServer) -> None:
    other.answer = answering([("refund", '{"amount": 1}'), ("refund", '{"amount": 2}')])
    llm, refunds = model(other), Refunds()
    assert llm.predict_and_call([refunds.tool], user_msg="go").response == "done"
    assert asyncio.run(llm.apredict_and_call([refunds.tool], user_msg="go")).response == "done"
    assert refunds.made == [1, 1] and other.last.body["parallel_tool_calls"] is False

    async def streamed() -> Any:
        responses = await llm.astream_chat_with_tools([refunds.tool], user_msg="go")
        return [response async for response in responses][-1]

    last = [*llm.stream_chat_with_tools([refunds.tool], user_msg="go")][-1]
    for response in (last, asyncio.run(streamed()), llm.chat_with_tools([refunds.tool], user_msg="go")):
        made = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
        assert [block.tool_call_id for block in made] == ["c0"]
        assert [told["id"] for told in response.message.additional_kwargs["tool_calls"]] == ["c0"]


def test_as_many_calls_as_were_asked_for_are_made(other: OtherServer) -> None:
    other.answer = answering([("refund", '{"amount": 1}'), ("refund", '{"amount": 2}')])
    llm, refunds = model(other), Refunds()
    llm.predict_and_call([refunds.tool], user_msg="go", allow_parallel_tool_calls=True)
    assert refunds.made == [1, 2]
    for asked in ({"allow_parallel_tool_calls": True}, {"parallel_tool_calls": True}, {"parallel_tool_calls": None}):
        whole = llm.chat_with_tools([refunds.tool], "go", **asked)
        *_, last = llm.stream_chat_with_tools([refunds.tool], "go", **asked)
        assert [len(llm.get_tool_calls_from_response(response)) for response in (whole, last)] == [2, 2]
