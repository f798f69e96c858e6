"""Anthropic's API: messages whole and streamed, tools, thinking, counts, and errors in its own envelope."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from parrot_compat.core.call import Finish, Usage
from parrot_compat.core.engine import Chunk
from parrot_compat.core.engines.char_tokenizer import CharTokenizer
from parrot_compat.core.errors import EngineError
from parrot_compat.core.output_format import ReasoningStyle, ToolCalls
from parrot_compat.core.tool_calls import CallPiece
from parrot_compat.server.anthropic import answers
from parrot_compat.server.anthropic.answers_schema import MessageAnswer, MessageEvent
from parrot_compat.server.anthropic.messages_schema import MessagesRequest
from parrot_compat.server.anthropic.translation import translated
from parrot_compat.server.hints import Hints
from parrot_compat.server.limits import RequestLimits
from tests.server.live import Live, Reply, live, send

PATH = "/v1/messages"
HELLO: dict[str, Any] = {"role": "user", "content": "the capital of France"}
ASKED: dict[str, Any] = {"model": "org/scripted", "max_tokens": 200, "messages": [HELLO]}
ADD = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": "é"}}\n</tool_call>'
TOOL = {"name": "add", "description": "Adds.", "input_schema": {"type": "object", "properties": {}}}
CALLS = {"Add": f"I add.\n{ADD}\n{ADD}"}


class Thinking(CharTokenizer):
    reasoning_style: ReasoningStyle = "think"


async def ask(server: Live, **change: Any) -> Any:
    reply = await send(server, "POST", PATH, ASKED | change)
    assert reply.status == 200, reply.body
    return MessageAnswer.model_validate(reply.json()).model_dump()


def events_of(reply: Reply) -> list[dict[str, Any]]:
    """Of a stream; each event is named as its data says, and is as it is described."""
    events = []
    for block in reply.body.decode().strip().split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
        if event["type"] != "error":
            MessageEvent.model_validate(event)
    return events


async def streamed(server: Live, **change: Any) -> list[dict[str, Any]]:
    reply = await send(server, "POST", PATH, ASKED | change | {"stream": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    return events_of(reply)


def error_of(reply: Reply) -> dict[str, Any]:
    data = reply.json()
    assert set(data) == {"type", "error"} and data["type"] == "error" and set(data["error"]) == {"type", "message"}
    return {"status": reply.status, **data["error"]}


async def test_a_message_is_answered_with_its_content_its_end_and_what_was_used(server: Live) -> None:
    answer = await ask(server)
    assert answer["content"] == [{"type": "text", "text": "Paris is the capital of France."}]
    assert (answer["role"], answer["model"]) == ("assistant", "org/scripted") and answer["id"].startswith("msg_")
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("end_turn", None)
    counted = await send(server, "POST", f"{PATH}/count_tokens", {"model": "org/scripted", "messages": [HELLO]})
    usage = answer["usage"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == counted.json()["input_tokens"] > 0
    assert usage["output_tokens"] == len("Paris is the capital of France.")


async def test_counting_asks_nothing_of_the_form(server: Live) -> None:
    form = {"format": {"type": "json_schema", "schema": {"default": float("nan")}}}
    body = {"model": "org/scripted", "messages": [HELLO], "output_config": form}
    assert (await send(server, "POST", PATH, {**body, "max_tokens": 5})).status == 400
    assert (await send(server, "POST", f"{PATH}/count_tokens", body)).json()["input_tokens"] > 0


async def test_why_an_answer_ended_is_told(server: Live) -> None:
    cut = await ask(server, max_tokens=5)
    assert (cut["content"][0]["text"], cut["stop_reason"]) == ("Paris", "max_tokens")
    stopped = await ask(server, stop_sequences=["never", " capital"])
    assert (stopped["content"][0]["text"], stopped["stop_reason"]) == ("Paris is the", "stop_sequence")
    assert stopped["stop_sequence"] == " capital"


async def test_what_was_cached_of_a_prompt_is_told_apart(server: Live) -> None:
    system = [{"type": "text", "text": "Be brief. " * 40, "cache_control": {"type": "ephemeral"}}]
    first, again = [(await ask(server, system=system))["usage"] for _ in range(2)]
    assert first["cache_read_input_tokens"] + first["input_tokens"] == sum(
        again[name] for name in ("cache_read_input_tokens", "input_tokens")
    )
    assert again["cache_read_input_tokens"] > first["cache_read_input_tokens"]
    assert again["cache_creation_input_tokens"] == 0
    events = await streamed(server, system=system)
    assert events[0]["message"]["usage"] == again | {"output_tokens": 0}
    assert events[-2]["usage"] == again


@pytest.mark.parametrize(
    ("script", "change", "kinds"),
    [
        ({"France": "Paris."}, {}, ["text"]),
        ({"France": "<think>\nA city.\n</think>\n\nParis."}, {}, ["thinking", "text"]),
        (CALLS, {"messages": [{"role": "user", "content": "Add"}], "tools": [TOOL]}, ["text", "tool_use", "tool_use"]),
        ({"France": "Paris. STOP"}, {"stop_sequences": ["STOP"]}, ["text"]),
        ({"France": ""}, {}, []),
    ],
)
async def test_the_events_of_a_stream_come_to_the_whole_message(
    script: dict[str, str], change: dict[str, Any], kinds: list[str]
) -> None:
    async with live(script, tokenizer=Thinking()) as server:
        whole = await ask(server, **change)
        events = await streamed(server, **change)
    assert [block["type"] for block in whole["content"]] == kinds
    assert [event["type"] for event in (events[0], *events[-2:])] == ["message_start", "message_delta", "message_stop"]
    assert events[-2]["delta"] == {name: whole[name] for name in ("stop_reason", "stop_sequence")}
    blocks: list[dict[str, Any]] = []
    is_open = False
    for event in events[1:-2]:
        match event["type"]:
            case "content_block_start":
                assert not is_open and event["index"] == len(blocks)
                blocks.append(event["content_block"] | {"json": ""})
                is_open = True
            case "content_block_delta":
                assert is_open and event["index"] == len(blocks) - 1
                delta = event["delta"]
                name = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "json"}[delta["type"]]
                blocks[-1][name] += delta["partial_json" if name == "json" else name]
            case "content_block_stop":
                assert is_open and event["index"] == len(blocks) - 1
                is_open = False
    assert not is_open
    for block, expected in zip(blocks, whole["content"], strict=True):
        written = block.pop("json")
        if block["type"] == "tool_use":
            assert json.loads(written) == expected["input"]
        assert {name: value for name, value in block.items() if name not in ("id", "input")} == {
            name: value for name, value in expected.items() if name not in ("id", "input")
        }


async def test_tools_are_called_and_what_they_say_comes_back() -> None:
    seen: list[str] = []

    def script(prompt: str) -> str:
        seen.append(prompt)
        return "Three." if "tool\n" in prompt else f"I add. {ADD}"

    async with live(script) as server:
        asked = {"role": "user", "content": [{"type": "text", "text": "Add"}]}
        first = await ask(server, messages=[asked], tools=[TOOL], tool_choice={"type": "auto"})
        assert first["stop_reason"] == "tool_use"
        call = first["content"][-1]
        assert (call["name"], call["input"]) == ("add", {"a": 1, "b": "é"})
        said = {"type": "tool_result", "tool_use_id": call["id"], "content": [{"type": "text", "text": "3"}]}
        then = [
            {"role": "assistant", "content": first["content"]},
            {"role": "user", "content": [said, *asked["content"]]},
        ]
        second = await ask(server, messages=[asked, *then], tools=[TOOL])
        assert second["content"] == [{"type": "text", "text": "Three."}]
    assert seen[0].startswith("tools\n") and '"name": "add"' in seen[0]
    assert seen[1].endswith("user\nAddassistant\nI add.tool\n3user\nAddassistant\n")


async def test_of_calls_that_must_not_be_parallel_one_is_made() -> None:
    async with live(CALLS) as server:
        for parallel, expected in ((False, 2), (True, 1)):
            choice = {"type": "auto", "disable_parallel_tool_use": parallel}
            asked = {"messages": [{"role": "user", "content": "Add"}], "tools": [TOOL], "tool_choice": choice}
            answer = await ask(server, **asked)
            assert len([block for block in answer["content"] if block["type"] == "tool_use"]) == expected
            events = await streamed(server, **asked)
            starts = [event["content_block"]["type"] for event in events if event["type"] == "content_block_start"]
            assert starts == ["text", *["tool_use"] * expected]


async def test_a_call_that_was_cut_off_has_what_there_was_of_its_input() -> None:
    async with live(CALLS) as server:
        asked: dict[str, Any] = {"messages": [{"role": "user", "content": "Add"}], "tools": [TOOL]}
        cut = await ask(server, **asked, max_tokens=CALLS["Add"].index(' "b"'))
    assert cut["stop_reason"] == "max_tokens"
    assert cut["content"][-1]["input"] == {"a": 1}


async def test_a_stop_sequence_within_a_call_is_what_has_ended_the_message() -> None:
    async with live(CALLS) as server:
        asked: dict[str, Any] = {"messages": [{"role": "user", "content": "Add"}], "tools": [TOOL]}
        cut = await ask(server, **asked, stop_sequences=[', "b"'])
        events = await streamed(server, **asked, stop_sequences=[', "b"'])
    assert (cut["stop_reason"], cut["stop_sequence"]) == ("stop_sequence", ', "b"')
    assert cut["content"][-1]["input"] == {"a": 1}
    assert events[-2]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": ', "b"'}


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "add"}])
def test_where_a_call_is_required_the_form_of_a_message_is_moot(choice: dict[str, Any]) -> None:
    form = {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    asked = MessagesRequest.model_validate(ASKED | {"tools": [TOOL], "tool_choice": choice, "output_config": form})
    body = translated(asked, Hints())
    body.check(RequestLimits())
    use = body.tool_use("hermes")
    assert use is not None
    held = use.held(body.sampling(), obeys_formats=True).format
    assert isinstance(held, ToolCalls) and held.is_required and [name for name, _ in held.tools] == ["add"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"temperature": 1.5}, "temperature"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "messages[0].content[0].tool_use_id"),
        ({"messages": [HELLO, {"role": "assistant", "content": "Par"}]}, "messages"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0].type"),
        ({"tools": [{"name": "add"}]}, "tools[0].input_schema"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "other"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"system": [{"type": "text"}]}, "system[0].text"),
    ],
)
async def test_what_cannot_be_served_is_refused_by_the_name_that_the_client_gave_it(
    server: Live, change: dict[str, Any], words: str
) -> None:
    for stream in (False, True):
        error = error_of(await send(server, "POST", PATH, ASKED | change | {"stream": stream}))
        assert (error["status"], error["type"]) == (400, "invalid_request_error")
        assert words in error["message"]


async def test_errors_are_anthropics_on_its_paths_alone() -> None:
    async with live(keys=["secret"]) as server:
        for headers, status, kind in (
            ({}, 401, "authentication_error"),
            ({"x-api-key": "wrong"}, 401, "authentication_error"),
            ({"x-api-key": "secret"}, 404, "not_found_error"),
            ({"authorization": "Bearer secret"}, 404, "not_found_error"),
        ):
            reply = await send(server, "POST", PATH, ASKED | {"model": "none"}, headers)
            error = error_of(reply)
            assert (error["status"], error["type"]) == (status, kind)
            assert reply.headers["request-id"] == reply.headers["x-request-id"]
        key = {"x-api-key": "secret"}
        assert error_of(await send(server, "GET", PATH, b"", key))["status"] == 405
        assert (await send(server, "POST", PATH, ASKED, key)).status == 200
        assert (await send(server, "GET", "/v1/models/none", b"", key)).error["code"] == "model_not_found"


async def test_a_failure_amid_a_stream_is_its_last_event() -> None:
    async with live() as server:
        server.engine.fail_next(EngineError("out of paper"), after_tokens=8)
        *events, last = await streamed(server)
        assert events[-1]["delta"] == {"type": "text_delta", "text": "Paris is"}
        assert last["type"] == "error" and last["error"] == {"type": "api_error", "message": "out of paper"}


async def test_what_has_no_effect_is_named(server: Live) -> None:
    more = {
        "metadata": {"user_id": "u"},
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "output_config": {"effort": "low"},
        "mood": "cheerful",
    }
    form = {"type": "json_schema", "schema": {}, "name": "answer"}
    named = MessagesRequest.model_validate(ASKED | {"output_config": {"format": form}}).ignored()
    assert named == ["output_config.format.name"]
    reply = await send(server, "POST", PATH, ASKED | more)
    ignored = reply.headers["x-parrot-ignored"].split(", ")
    assert set(ignored) >= {"metadata", "thinking", "thinking.budget_tokens", "output_config.effort", "mood"}
    plain = await send(server, "POST", PATH, ASKED)
    assert plain.status == 200 and "x-parrot-ignored" not in plain.headers


def system(cch: str) -> list[dict[str, Any]]:
    """As Claude Code begins: with a line that is another in each request."""
    texts = (f"x-anthropic-billing-header: cc_version=2.1.177; cch={cch};", "You write code. " * 20)
    return [{"type": "text", "text": text} for text in texts]


async def test_what_a_client_says_of_its_billing_is_no_part_of_the_prompt() -> None:
    async with live() as server:
        first = await send(server, "POST", PATH, ASKED | {"system": system("36ee5")})
        assert first.headers["x-parrot-ignored"] == "system[0]"
        again = await ask(server, system=system("0b1c2"))
        assert again["usage"]["cache_read_input_tokens"] > 300
        text = await ask(server, system="\n".join(block["text"] for block in system("77777")))
        assert text["usage"]["cache_read_input_tokens"] > 300
        for alone in (system("1")[:1], system("1")[0]["text"]):
            assert (await ask(server, system=alone))["content"]


def test_system_texts_come_first_and_neighbours_of_one_role_are_one_turn() -> None:
    """Chat templates with strict roles refuse anything else."""
    call = {"type": "tool_use", "id": "t", "name": "add", "input": {}}
    said = [
        ("user", "task"),
        ("system", "Agents: none."),
        ("user", [{"type": "text", "text": "now"}]),
        ("assistant", "I add."),
        ("assistant", [call]),
        ("user", [{"type": "tool_result", "tool_use_id": "t", "content": "3"}, {"type": "text", "text": "and"}]),
        ("user", "then?"),
    ]
    messages = [{"role": role, "content": content} for role, content in said]
    body = translated(MessagesRequest.model_validate(ASKED | {"system": "Be brief.", "messages": messages}), Hints())
    assert [message.role for message in body.messages] == ["system", "user", "assistant", "tool", "user"]
    texts = [[text] if isinstance(text, str) else text for text in body.texts()]
    assert texts == [["Be brief.", "Agents: none."], ["task", "now"], ["I add."], ["3"], ["and", "then?"]]
    assert [one.function.name for one in body.messages[2].tool_calls or ()] == ["add"]


THOUGHT = {"type": "thinking", "thinking": "A city.", "signature": ""}


@pytest.mark.parametrize("said", [[THOUGHT], []])
@pytest.mark.parametrize("times", [1, 2])
async def test_an_answer_without_text_can_be_said_back(said: list[dict[str, Any]], times: int) -> None:
    """The limit fell among the thoughts, or the model said nothing: both are answers of ours."""
    messages = [HELLO, *[{"role": "assistant", "content": said}] * times, {"role": "user", "content": "Go on"}]
    async with live({"": "Well."}, tokenizer=Thinking()) as server:
        answer = await ask(server, messages=messages)
        counted = await send(server, "POST", f"{PATH}/count_tokens", {"model": "org/scripted", "messages": messages})
    assert answer["content"] == [{"type": "text", "text": "Well."}] and counted.status == 200


@pytest.mark.parametrize("number", ["1e999", "NaN", "9" * 5000])
async def test_an_input_that_json_cannot_say_is_told_as_it_was_written(number: str) -> None:
    call = '<tool_call>{"name": "add", "arguments": {"a": ' + number + "}}</tool_call>"
    async with live({"Add": call}, context_tokens=20_000) as server:
        asked = ASKED | {"messages": [{"role": "user", "content": "Add"}], "tools": [TOOL], "max_tokens": 9000}
        reply = await send(server, "POST", PATH, asked)

    def refuse(name: str) -> None:
        raise AssertionError(name)

    (block,) = json.loads(reply.body, parse_constant=refuse)["content"]
    assert block["input"] == {"arguments": '{"a": ' + number + "}"}


async def test_what_is_left_of_a_call_comes_before_the_text_behind_it() -> None:
    async def chunks() -> AsyncIterator[Chunk]:
        yield Chunk(calls=(CallPiece(index=0, id="c", name="add", arguments='{"a": '),), prompt=Usage())
        yield Chunk(text="Done.", calls=(CallPiece(index=0, arguments="1}"), CallPiece(index=1, id="d", name="f")))
        yield Chunk(finish=Finish.STOP, usage=Usage())

    events = [event async for event in answers.events_of("id", "model", chunks())]
    stopped: set[int] = set()
    for event in events:
        if event["type"] == "content_block_stop":
            stopped.add(event["index"])
        assert event["type"] != "content_block_delta" or event["index"] not in stopped
    message = await answers.message_of("id", "model", chunks())
    assert [block["type"] for block in message["content"]] == ["tool_use", "text", "tool_use"]
    assert message["content"][0]["input"] == {"a": 1}
