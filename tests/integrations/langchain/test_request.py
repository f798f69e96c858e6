"""What leaves the client."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

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


def test_a_stream_asks_for_usage_unless_told_not_to(other: OtherServer) -> None:
    llm = ChatParrot(base_url=other.url)
    list(llm.stream("hi"))
    assert (other.last.body["stream"], other.last.body["stream_options"]) == (True, {"include_usage": True})
    list(llm.stream("hi", stream_usage=False))
    assert "stream_options" not in other.last.body


def test_only_one_choice_can_be_streamed(other: OtherServer) -> None:
    with pytest.raises(ValueError, match="n is 2"):
        list(ChatParrot(base_url=other.url, n=2).stream("hi"))
    assert other.requests == []


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


def test_calls_that_differ_in_nothing_share_a_cache_entry(other: OtherServer) -> None:
    cache = InMemoryCache()
    for _ in range(2):
        ChatParrot(base_url=other.url, seed=1, cache=cache).invoke("hi")
    assert len(other.requests) == 1


@pytest.mark.parametrize("difference", [{"seed": 2}, {"model": "m"}, {"extra_body": {"min_p": 0.1}}, {"top_k": 4}])
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
