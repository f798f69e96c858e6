"""What leaves the client."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableLambda

from parrot_compat.integrations.langchain import ChatParrot

from ..other_server import OtherServer


def sent(other: OtherServer, settings: dict[str, Any] | None = None, **call: Any) -> dict[str, Any]:
    ChatParrot(base_url=other.url, **(settings or {})).invoke("hi", **call)
    return {name: value for name, value in other.last.body.items() if name not in ("messages", "stream")}


def test_what_is_not_set_is_not_sent(other: OtherServer) -> None:
    assert sent(other) == {}


def test_settings_are_sent(other: OtherServer) -> None:
    settings: dict[str, Any] = {
        "model": "m",
        "temperature": 0.0,
        "max_tokens": 5,
        "top_p": 0.5,
        "top_k": 3,
        "seed": 0,
        "stop": ["x"],
    }
    assert sent(other, settings) == settings


@pytest.mark.parametrize(
    ("name", "value", "wire"),
    [
        ("model", "other", "model"),
        ("temperature", 0.9, "temperature"),
        ("max_tokens", 9, "max_tokens"),
        ("max_completion_tokens", 9, "max_tokens"),
        ("seed", 9, "seed"),
        ("top_p", 0.9, "top_p"),
        ("top_k", 9, "top_k"),
        ("stop", ["y"], "stop"),
    ],
)
def test_a_call_overrides_a_setting(other: OtherServer, name: str, value: Any, wire: str) -> None:
    settings = {"model": "m", "temperature": 0.1, "max_tokens": 1, "seed": 1, "top_p": 0.1, "top_k": 1, "stop": ["x"]}
    assert sent(other, settings, **{name: value}) == {**settings, wire: value}


def test_a_call_can_take_a_setting_back(other: OtherServer) -> None:
    assert sent(other, {"temperature": 0.1, "seed": 1}, temperature=None) == {"seed": 1}


def test_bound_arguments_are_sent(other: OtherServer) -> None:
    ChatParrot(base_url=other.url).bind(stop=["x"], logit_bias={"5": 1}).invoke("hi")
    assert other.last.body["stop"] == ["x"]
    assert other.last.body["logit_bias"] == {"5": 1}


def test_extra_bodies_are_merged_and_the_call_wins(other: OtherServer) -> None:
    settings = {"extra_body": {"priority": 1, "cache_salt": "s"}, "model_kwargs": {"min_p": 0.1}}
    body = sent(other, settings, extra_body={"priority": 2})
    assert body == {"priority": 2, "cache_salt": "s", "min_p": 0.1}


def test_headers_and_query_are_sent(other: OtherServer) -> None:
    llm = ChatParrot(base_url=other.url, default_headers={"x-mine": "1"}, default_query={"q": "2"})
    llm.invoke("hi", extra_headers={"x-call": "3"})
    assert other.last.path.endswith("?q=2")
    assert (other.last.headers["x-mine"], other.last.headers["x-call"]) == ("1", "3")
    ChatParrot(base_url=other.url, default_query={"q": ["2", "3"]}).invoke("hi")
    assert other.last.path.endswith("?q%5B%5D=2&q%5B%5D=3")


def test_a_stream_asks_for_usage_unless_told_not_to(other: OtherServer) -> None:
    llm = ChatParrot(base_url=other.url)
    list(llm.stream("hi"))
    assert (other.last.body["stream"], other.last.body["stream_options"]) == (True, {"include_usage": True})
    list(llm.stream("hi", stream_usage=False))
    assert "stream_options" not in other.last.body


def test_only_one_choice_can_be_streamed(other: OtherServer) -> None:
    with pytest.raises(ValueError, match="n is 2"):
        list(ChatParrot(base_url=other.url, n=2).stream("hi"))
    with pytest.raises(ValueError, match="n is 2"):
        ChatParrot(base_url=other.url, n=2, streaming=True).invoke("hi")
    assert other.requests == []


async def test_several_choices_come_whole_where_somebody_only_listens(other: OtherServer) -> None:
    llm = ChatParrot(base_url=other.url, n=2)

    async def ask(text: str) -> str:
        return (await llm.ainvoke(text)).text

    app = RunnableLambda(ask)
    heard = [event async for event in app.astream_events("hi", version="v2") if event["event"] == "on_chain_end"]
    assert heard[-1]["data"]["output"] == await app.ainvoke("hi") == "you said hi"
    assert [request.body["n"] for request in other.requests] == [2, 2]


def test_messages_keep_their_text_their_roles_and_their_names(other: OtherServer) -> None:
    ChatParrot(base_url=other.url).invoke(
        [
            SystemMessage("be brief"),
            HumanMessage("  two\n\nlines ", name="ada"),
            AIMessage("", tool_calls=[{"name": "add", "args": {"a": 1}, "id": "c1"}]),
            ToolMessage("2", tool_call_id="c1"),
            HumanMessage([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]),
            ("developer", "mind this"),
        ]
    )
    system, human, ai, tool, parts, developer = other.last.body["messages"]
    assert system == {"role": "system", "content": "be brief"}
    assert human == {"role": "user", "name": "ada", "content": "  two\n\nlines "}
    assert ai["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 1}'}
    assert tool == {"role": "tool", "tool_call_id": "c1", "content": "2"}
    assert parts["content"] == [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert developer == {"role": "developer", "content": "mind this"}


def test_an_answer_in_v1_form_goes_back_as_its_text_and_its_calls(other: OtherServer) -> None:
    call = {"type": "tool_call", "name": "add", "args": {"a": 1}, "id": "c1"}
    thought = {"type": "reasoning", "reasoning": "adding"}
    text = {"type": "text", "text": "let me add"}
    answers = [AIMessage(content_blocks=[thought, text, call]), AIMessage(content_blocks=[call])]  # type: ignore[arg-type]
    ChatParrot(base_url=other.url).invoke([HumanMessage("go"), *answers, ToolMessage("2", tool_call_id="c1")])
    _, said, silent, _ = other.last.body["messages"]
    assert said["content"] == [{"type": "text", "text": "let me add"}] and silent["content"] in ("", None)
    for answer in (said, silent):
        assert [made["function"] for made in answer["tool_calls"]] == [{"name": "add", "arguments": '{"a": 1}'}]


def history(other: OtherServer, *messages: BaseMessage) -> list[dict[str, Any]]:
    """Messages as they are sent, behind a question."""
    ChatParrot(base_url=other.url).invoke([HumanMessage("go"), *messages])
    sent: list[dict[str, Any]] = other.last.body["messages"][1:]
    return sent


@pytest.mark.parametrize(
    "message",
    [SystemMessage([]), HumanMessage([]), AIMessage([]), ToolMessage([], tool_call_id="c1")],
    ids=lambda message: message.type,
)
def test_a_content_of_no_parts_is_no_text(other: OtherServer, message: BaseMessage) -> None:
    assert [sent["content"] for sent in history(other, message)] == [""]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}},
        {"type": "tool_use", "id": "c1", "name": "add", "partial_json": '{"a": 1}'},
        {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": 1}'},
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "reasoning_content", "reasoning_content": {"text": "hm"}},
        {"type": "code_interpreter_call", "code": "1"},
        {"type": "server_tool_call", "name": "search", "args": {}, "id": "s1"},
        {"type": "server_tool_use", "name": "web_search", "input": {}, "id": "s1"},
        {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []},
        {"type": "code_execution_tool_result", "tool_use_id": "s1", "content": {"stdout": "1"}},
        {"type": "tool_result", "tool_use_id": "s1", "content": "1"},
        {"type": "web_search_call", "id": "s1", "status": "completed", "action": {"query": "x"}},
        {"type": "file_search_call", "id": "s1", "queries": ["x"]},
        {"type": "image_generation_call", "id": "s1", "result": "aGk="},
        {"type": "computer_call", "id": "s1", "action": {"type": "click"}},
        {"type": "mcp_call", "id": "s1", "name": "x", "arguments": "{}"},
        {"type": "mcp_list_tools", "id": "s1", "tools": []},
        {"type": "non_standard", "value": {"type": "web_search_call"}},
        {"type": "tool_use", "id": "s1", "name": "add", "partial_json": '{"a":'},
        {"type": "of a provider that is not there yet", "text": "hm"},
        {"type": None},
    ],
    ids=lambda block: str(block["type"]),
)
def test_what_other_providers_put_into_an_answer_goes_out_as_its_text_and_its_calls(
    other: OtherServer, block: dict[str, Any]
) -> None:
    call = {"name": "add", "args": {"a": 1}, "id": "c1"}
    said = AIMessage([{"type": "text", "text": "let me"}, block], tool_calls=[call])
    silent = AIMessage([block], tool_calls=[call])
    answer = ToolMessage("2", tool_call_id="c1")
    first, _, second, _ = history(other, said, answer, silent, answer)
    assert (first["content"], second["content"]) == ([{"type": "text", "text": "let me"}], "")
    for sent in (first, second):
        assert [made["id"] for made in sent["tool_calls"]] == ["c1"]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}},
        {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": 1}'},
    ],
    ids=lambda block: str(block["type"]),
)
def test_a_call_that_is_nothing_but_a_block_is_sent_as_a_call(other: OtherServer, block: dict[str, Any]) -> None:
    (sent, _) = history(other, AIMessage([block]), ToolMessage("2", tool_call_id="c1"))
    assert sent["content"] == "" and [made["id"] for made in sent["tool_calls"]] == ["c1"]
    assert sent["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 1}'}


def test_what_was_said_in_blocks_of_any_form_goes_back(other: OtherServer) -> None:
    shown = {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
    media = {"type": "image", "base64": "aGk=", "mime_type": "image/png"}
    two = {"type": "text", "text": "two", "annotations": []}
    said = AIMessage(["one", two, {"text": "three"}, {"type": "output_text", "text": "four"}, shown, media])
    (sent,) = history(other, said)
    texts = [{"type": "text", "text": text} for text in ("one", "two", "three", "four")]
    assert sent["content"] == [*texts, shown, {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]


@pytest.mark.parametrize(
    "part", [{"type": "parrot:ref", "variable": "v"}, {"type": "video_url", "video_url": {"url": "https://x/y.mp4"}}]
)
def test_a_reference_and_what_the_server_may_not_take_stay_where_they_are(
    other: OtherServer, part: dict[str, Any]
) -> None:
    assert history(other, AIMessage([part])) == [{"role": "assistant", "content": [part]}]


def test_a_refusal_goes_back_as_it_came(other: OtherServer) -> None:
    part = {"type": "refusal", "refusal": "I will not"}
    assert history(other, AIMessage([part])) == [{"role": "assistant", "content": [part]}]
    (sent,) = history(other, AIMessage("", additional_kwargs={"refusal": "I will not"}))
    assert sent == {"role": "assistant", "refusal": "I will not", "content": ""}


def test_results_in_blocks_are_messages_of_their_own(other: OtherServer) -> None:
    results = [{"type": "tool_result", "tool_use_id": id, "content": id} for id in ("c1", "c2")]
    assert [sent["tool_call_id"] for sent in history(other, HumanMessage(results))] == ["c1", "c2"]


def test_a_call_that_could_not_be_parsed_is_sent_where_it_was_answered(other: OtherServer) -> None:
    broken = [{"name": "add", "args": '{"a": 1,', "id": id, "error": "cut off"} for id in ("c1", "c2", None)]
    call = {"name": "add", "args": {"a": 1}, "id": "c0"}
    said = AIMessage("", tool_calls=[call], invalid_tool_calls=broken)
    sent = history(other, said, ToolMessage("2", tool_call_id="c0"), ToolMessage("no JSON", tool_call_id="c2"))[0]
    assert [made["id"] for made in sent["tool_calls"]] == ["c0", "c2"]
    assert sent["tool_calls"][1]["function"] == {"name": "add", "arguments": '{"a": 1,'}
    assert "tool_calls" not in history(other, AIMessage("hm", invalid_tool_calls=broken))[0]


def test_a_thought_goes_back_as_it_came(other: OtherServer) -> None:
    call = {"name": "add", "args": {"a": 1}, "id": "c1"}
    told = AIMessage("", tool_calls=[call], additional_kwargs={"reasoning_content": "I add"})
    blocks = AIMessage(content_blocks=[{"type": "reasoning", "reasoning": "I add"}, {"type": "tool_call", **call}])  # type: ignore[list-item,misc]
    for message in (told, blocks):
        sent = history(other, message, ToolMessage("2", tool_call_id="c1"))[0]
        assert sent["reasoning_content"] == "I add" and sent["content"] == "" and len(sent["tool_calls"]) == 1
    assert "reasoning_content" not in history(other, AIMessage("hm"))[0]


def test_calls_that_differ_in_nothing_share_a_cache_entry(other: OtherServer) -> None:
    cache = InMemoryCache()
    for _ in range(2):
        ChatParrot(base_url=other.url, seed=1, cache=cache).invoke("hi")
    assert len(other.requests) == 1


@pytest.mark.parametrize(
    "difference",
    [
        {"seed": 2},
        {"model": "m"},
        {"extra_body": {"min_p": 0.1}},
        {"top_k": 4},
        {"stop": ["x"]},
        {"model_kwargs": {"stop": ["x"]}},
    ],
)
def test_calls_that_differ_do_not_share_a_cache_entry(other: OtherServer, difference: dict[str, Any]) -> None:
    cache = InMemoryCache()
    ChatParrot(base_url=other.url, cache=cache).invoke("hi")
    ChatParrot(base_url=other.url, cache=cache, **difference).invoke("hi")
    assert len(other.requests) == 2


def test_tracing_learns_the_parameters_of_this_call() -> None:
    llm = ChatParrot(model="m", temperature=0.5, max_tokens=7, stop="x")
    params = llm._get_ls_params(stop=["y"], model="other", temperature=0.9)
    assert params == {
        "ls_provider": "parrot",
        "ls_model_type": "chat",
        "ls_model_name": "other",
        "ls_temperature": 0.9,
        "ls_max_tokens": 7,
        "ls_stop": ["y"],
    }
