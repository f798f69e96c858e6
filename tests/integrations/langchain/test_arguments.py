from __future__ import annotations

from typing import Any

import openai
import pytest
from langchain_core.runnables import ConfigurableField
from pydantic import SecretStr

from parrot_compat.integrations import remote
from parrot_compat.integrations.langchain import ChatParrot, ParrotCompletion, ParrotEmbeddings

from ..other_server import OtherServer


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"model": "m"}, "model_name", "m"),
        ({"model_name": "m"}, "model_name", "m"),
        ({"openai_api_base": "http://x/v1"}, "base_url", "http://x/v1"),
        ({"base_url": "http://x/v1"}, "base_url", "http://x/v1"),
        ({"max_completion_tokens": 5}, "max_tokens", 5),
        ({"max_tokens": 5}, "max_tokens", 5),
        ({"request_timeout": 2.5}, "timeout", 2.5),
        ({"timeout": 2.5}, "timeout", 2.5),
        ({"stop_sequences": ["x"]}, "stop", ["x"]),
        ({"stop": "x"}, "stop", "x"),
        ({"openai_organization": "o"}, "organization", "o"),
        ({"frequency_penalty": 0.5}, "model_kwargs", {"frequency_penalty": 0.5}),
        ({"n": 2, "model_kwargs": {"logprobs": True}}, "model_kwargs", {"n": 2, "logprobs": True}),
        ({"http_client": None, "openai_proxy": None}, "model_kwargs", {}),
    ],
)
def test_the_arguments_of_chat_openai_are_taken(given: dict[str, object], field: str, value: object) -> None:
    assert getattr(ChatParrot(**given), field) == value


@pytest.mark.parametrize("kind", [ChatParrot, ParrotCompletion, ParrotEmbeddings])
@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("base_url", "base_url", "http://from.environment/v1"),
        ("openai_api_base", "base_url", "http://from.environment/v1"),
        ("api_key", "api_key", SecretStr("from environment")),
        ("openai_api_key", "api_key", SecretStr("from environment")),
        ("max_retries", "max_retries", 2),
        ("model_kwargs", "model_kwargs", {}),
        ("timeout", "timeout", None),
        ("request_timeout", "timeout", None),
        ("model", "model_name", None),
    ],
)
def test_none_is_as_if_the_argument_was_not_given(
    monkeypatch: pytest.MonkeyPatch, kind: Any, name: str, field: str, value: object
) -> None:
    monkeypatch.setenv("PARROT_BASE_URL", "http://from.environment/v1")
    monkeypatch.setenv("PARROT_API_KEY", "from environment")
    assert getattr(kind(**{name: None}), field) == value


@pytest.mark.parametrize("kind", [ChatParrot, ParrotCompletion, ParrotEmbeddings])
def test_a_variable_that_is_empty_is_not_set(monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    monkeypatch.setenv("PARROT_BASE_URL", "")
    monkeypatch.setenv("PARROT_API_KEY", "")
    model = kind()
    assert (model.base_url, model.api_key.get_secret_value()) == (remote.DEFAULT_BASE_URL, "none")


@pytest.mark.parametrize(
    ("given", "connect_s", "silence_s"),
    [
        (60, 60, 60),
        ((5, 60), 5, 60),
        (openai.Timeout(60, connect=5), 5, 60),
        (openai.Timeout(None, connect=5), 5, None),
        (None, 10, None),
    ],
)
@pytest.mark.parametrize("kind", [ChatParrot, ParrotCompletion, ParrotEmbeddings])
def test_limits_of_time_are_taken_in_every_form(kind: Any, given: Any, connect_s: float, silence_s: float) -> None:
    limit = remote.client(kind(request_timeout=given)._endpoint).timeout
    limit = limit if isinstance(limit, openai.Timeout) else openai.Timeout(limit)
    assert (limit.connect, limit.read) == (connect_s, silence_s)


def test_none_beside_the_same_argument_under_its_other_name_is_no_second_one() -> None:
    assert ChatParrot(base_url="http://x/v1", openai_api_base=None).base_url == "http://x/v1"
    assert ChatParrot(stream_usage=None, disable_streaming=None).stream_usage is True  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["api_key", "openai_api_key"])
def test_the_key_is_taken_under_both_names_and_never_shown(name: str, other: OtherServer) -> None:
    llm = ChatParrot(base_url=other.url, **{name: "very secret"})
    llm.invoke("hi")
    assert other.last.headers["authorization"] == "Bearer very secret"
    assert "very secret" not in repr(llm) + str(llm.asdict())


@pytest.mark.parametrize(
    "names",
    [
        ("max_tokens", "max_completion_tokens"),
        ("model", "model_name"),
        ("timeout", "request_timeout"),
        ("base_url", "openai_api_base"),
    ],
)
def test_an_argument_given_under_two_names_is_refused_in_any_order(names: tuple[str, str]) -> None:
    values = ("http://one/v1", "http://two/v1") if "base_url" in names else (1, 2) if "model" not in names else "ab"
    for one, two in (names, names[::-1]):
        with pytest.raises(ValueError, match="one argument"):
            ChatParrot(**{one: values[0], two: values[1]})
        ChatParrot(**{one: values[0], two: values[0]})


def test_an_unknown_argument_is_sent_and_said(other: OtherServer) -> None:
    with pytest.warns(UserWarning, match="'min_p' is not an argument"):
        llm = ChatParrot(base_url=other.url, min_p=0.1)
    llm.invoke("hi")
    assert other.last.body["min_p"] == 0.1


def test_an_argument_without_effect_is_said() -> None:
    with pytest.warns(UserWarning, match="tiktoken_model_name.*counted by the server"):
        llm = ChatParrot(tiktoken_model_name="gpt-4")
    assert llm.model_kwargs == {}


def test_a_transport_that_cannot_be_honoured_is_refused() -> None:
    with pytest.raises(ValueError, match="HTTPS_PROXY"):
        ChatParrot(http_client=object())


def test_the_environment_says_where_the_server_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PARROT_BASE_URL", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "not ours")
    llm = ChatParrot()
    assert llm.base_url == "http://127.0.0.1:8000/v1"
    assert llm.api_key.get_secret_value() != "not ours"
    monkeypatch.setenv("PARROT_BASE_URL", "http://elsewhere/v1")
    assert ChatParrot().base_url == "http://elsewhere/v1"


def test_fields_can_be_configured_at_run_time(other: OtherServer) -> None:
    llm = ChatParrot(model="a", base_url=other.url, temperature=0.1).configurable_fields(
        temperature=ConfigurableField(id="t"), model_name=ConfigurableField(id="m")
    )
    llm.with_config(configurable={"t": 0.9, "m": "b"}).invoke("hi")
    assert (other.last.body["temperature"], other.last.body["model"]) == (0.9, "b")
    assert [chunk.text for chunk in llm.with_config(configurable={"t": 0.9}).stream("hi")][1:4] == [
        "you ",
        "said ",
        "hi",
    ]
