"""Calls of tools told to stock clients while they are drawn, in every family's way of writing them."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from parrot_compat.core.engines.char_tokenizer import CharTokenizer
from parrot_compat.core.output_format import ToolStyle

from .live import events_of, live, send

ARGUMENTS = '{"a": 1, "text": "a } and a \\" in it"}'
CALL = f'{{"name": "add", "arguments": {ARGUMENTS}}}'
TAGGED = """<tool_call>
<function=add>
<parameter=a>
1
</parameter>
<parameter=text>
a } and a " in it
</parameter>
</function>
</tool_call>"""
SAID: dict[ToolStyle, str] = {
    "hermes": f"I add.\n<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{CALL}\n</tool_call>",
    "llama3_json": "; ".join([CALL.replace("arguments", "parameters")] * 2),
    "mistral": f"[TOOL_CALLS] [{CALL}, {CALL}]",
    "mistral_args": f"I add.[TOOL_CALLS]add[ARGS]{ARGUMENTS}[TOOL_CALLS]add[CALL_ID]a1b2c3d4e[ARGS]{ARGUMENTS}",
    "granite": f"<|tool_call|>[{CALL}, {CALL}]",
    "qwen3_coder": f"I add.\n{TAGGED}\n{TAGGED}",
}
SAYS: Any = {"hermes", "mistral_args", "qwen3_coder"}
"""Text before the first call."""
PARAMETERS: Any = {"type": "object", "properties": {"a": {"type": "integer"}, "text": {"type": "string"}}}
TOOLS: Any = [{"type": "function", "function": {"name": "add", "parameters": PARAMETERS}}]
ASKED: Any = {"messages": [{"role": "user", "content": "Add"}], "tools": TOOLS}
PATH = "/v1/chat/completions"


class Styled(CharTokenizer):
    """Of a model whose chat template shows how it calls tools."""

    def __init__(self, style: ToolStyle) -> None:
        self.tool_style = style


def pieces_of(events: list[Any]) -> list[Any]:
    return [piece for event in events for piece in event["choices"][0]["delta"].get("tool_calls", ())]


@pytest.mark.parametrize("style", SAID)
async def test_a_call_is_streamed_as_its_arguments_are_drawn_and_comes_to_the_whole(style: ToolStyle) -> None:
    async with live({"Add": SAID[style]}, tokenizer=Styled(style)) as server:
        whole = (await send(server, "POST", PATH, ASKED)).json()["choices"][0]
        events = events_of(await send(server, "POST", PATH, ASKED | {"stream": True}))
    assert [call["function"] for call in whole["message"]["tool_calls"]] == [
        {"name": "add", "arguments": ARGUMENTS}
    ] * 2
    for index in range(2):
        own = [piece for piece in pieces_of(events) if piece["index"] == index]
        assert len(own) > 3 and set(own[0]) == {"index", "id", "type", "function"}
        assert own[0]["type"] == "function" and own[0]["function"]["name"] == "add"
        assert all(set(piece) == {"index", "function"} and set(piece["function"]) == {"arguments"} for piece in own[1:])
        assert "".join(piece["function"]["arguments"] for piece in own) == ARGUMENTS
    content = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
    assert content == (whole["message"]["content"] or "") == ("I add." if style in SAYS else "")
    assert events[-1]["choices"][0]["finish_reason"] == whole["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("style", SAID)
@pytest.mark.parametrize("stream", [False, True])
async def test_where_calls_must_not_be_parallel_the_first_ends_the_answer(style: ToolStyle, stream: bool) -> None:
    asked = ASKED | {"parallel_tool_calls": False, "tool_choice": "auto"}
    if stream:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    async with live({"Add": SAID[style] + " and so on" * 40}, tokenizer=Styled(style)) as server:
        reply = await send(server, "POST", PATH, asked)
        if stream:
            *events, last = events_of(reply)
            calls, finish, usage = pieces_of(events), events[-1]["choices"][0]["finish_reason"], last["usage"]
            assert {call["index"] for call in calls} == {0}
            arguments = "".join(call["function"]["arguments"] for call in calls)
        else:
            (choice,) = reply.json()["choices"]
            (call,) = choice["message"]["tool_calls"]
            arguments, finish, usage = call["function"]["arguments"], choice["finish_reason"], reply.json()["usage"]
        assert arguments == ARGUMENTS and finish == "tool_calls"
        # the engine has not drawn what nobody would read, and what it has drawn is counted
        last = "</function>" if style == "qwen3_coder" else ARGUMENTS
        end = SAID[style].index(last) + len(last)
        assert end < usage["completion_tokens"] <= end + 16
        assert usage["prompt_tokens"] > 0
        again = (await send(server, "POST", PATH, ASKED | {"parallel_tool_calls": False})).json()["usage"]
        assert 0 < again["prompt_tokens_details"]["cached_tokens"] <= again["prompt_tokens"]
        assert server.engine.load().running == 0


async def test_json_that_is_no_call_is_streamed_as_text() -> None:
    said = '{"title": "a long text that is no call of anything", "name": "add"}'
    async with live({"Add": said}, tokenizer=Styled("llama3_json")) as server:
        events = events_of(await send(server, "POST", PATH, ASKED | {"stream": True}))
    contents = [text for event in events if (text := event["choices"][0]["delta"].get("content"))]
    assert "".join(contents) == said and len(contents) > 3
    assert events[-1]["choices"][0]["finish_reason"] == "stop"


async def test_an_answer_that_is_cut_off_amid_a_call_says_so() -> None:
    said = SAID["hermes"]
    async with live({"Add": said}) as server:
        asked = ASKED | {"max_tokens": said.index("it") + 2}
        (choice,) = (await send(server, "POST", PATH, asked)).json()["choices"]
    assert choice["finish_reason"] == "length"
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["arguments"] == ARGUMENTS[: ARGUMENTS.index("it") + 2]


async def test_the_sdks_streaming_helper_puts_the_pieces_together() -> None:
    async with live({"Add": SAID["hermes"]}) as server:
        # older releases of the helper take no tool that is not strict
        tool = TOOLS[0]["function"] | {"strict": True, "parameters": {"type": "object", "additionalProperties": False}}
        asked: Any = {**ASKED, "model": "org/scripted", "tools": [{"type": "function", "function": tool}]}
        async with (
            openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
            client.chat.completions.stream(**asked) as stream,
        ):
            kinds = [event.type async for event in stream]
            final = await stream.get_final_completion()
    calls = final.choices[0].message.tool_calls or []
    assert [json.loads(call.function.arguments) for call in calls] == [json.loads(ARGUMENTS)] * 2
    assert kinds.count("tool_calls.function.arguments.delta") > 4
    assert kinds.count("tool_calls.function.arguments.done") == 2


OTHER: Any = [{"type": "function", "function": {"name": "now"}}]


@pytest.mark.parametrize("style", SAID)
async def test_of_allowed_tools_the_others_are_not_called(style: ToolStyle) -> None:
    for allowed, calls in (("add", 2), ("now", 0)):
        one = {"type": "function", "function": {"name": allowed}}
        choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [one]}}
        async with live({"Add": SAID[style]}, tokenizer=Styled(style)) as server:
            asked = ASKED | {"tools": TOOLS + OTHER, "tool_choice": choice}
            (whole,) = (await send(server, "POST", PATH, asked)).json()["choices"]
            events = events_of(await send(server, "POST", PATH, asked | {"stream": True}))
        assert len(whole["message"].get("tool_calls", ())) == calls
        assert len({piece["index"] for piece in pieces_of(events)}) == calls
        if not calls:
            assert whole["finish_reason"] == "stop" and whole["message"]["content"] == SAID[style]
