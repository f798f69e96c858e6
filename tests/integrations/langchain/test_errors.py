from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from langchain_core import exceptions as core

from parrot_compat.integrations.errors import (
    ParrotAPIError,
    ParrotConnectionError,
    ParrotTimeoutError,
    sdk_errors,
)
from parrot_compat.integrations.langchain import ChatParrot

from ..other_server import OtherServer, Reply, Request, chunk, completion


def refusing(status: int, message: str = "no", code: str | None = None) -> Reply:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return Reply({"error": error}, status, {"x-request-id": "req_1", "retry-after-ms": "1"})


@pytest.mark.parametrize(
    ("status", "sdk", "langchain"),
    [
        (400, openai.BadRequestError, core.ModelInvalidRequestError),
        (401, openai.AuthenticationError, core.ModelAuthenticationError),
        (403, openai.PermissionDeniedError, core.ModelPermissionDeniedError),
        (404, openai.NotFoundError, core.ModelNotFoundError),
        (409, openai.ConflictError, core.ModelInvalidRequestError),
        (413, openai.APIStatusError, core.ModelInvalidRequestError),
        (422, openai.UnprocessableEntityError, core.ModelInvalidRequestError),
        (424, openai.APIStatusError, core.ModelInvalidRequestError),
        (429, openai.RateLimitError, core.ModelRateLimitError),
        (500, openai.InternalServerError, core.ModelAPIError),
        (503, openai.InternalServerError, core.ModelAPIError),
    ],
)
async def test_a_refusal_is_the_sdks_error_and_langchains(
    other: OtherServer, status: int, sdk: type[openai.APIStatusError], langchain: type[core.ModelError]
) -> None:
    other.answer = lambda request: refusing(status, "the reason", "the_code")
    llm = ChatParrot(base_url=other.url, max_retries=0)
    with pytest.raises(langchain, match="the reason") as sync:
        llm.invoke("hi")
    with pytest.raises(langchain):
        await llm.ainvoke("hi")
    with pytest.raises(langchain):
        list(llm.stream("hi"))
    with pytest.raises(langchain):
        [_ async for _ in llm.astream("hi")]
    error = sync.value
    assert isinstance(error, sdk) and isinstance(error, ParrotAPIError)
    assert (error.status_code, error.code, error.request_id) == (status, "the_code", "req_1")


@pytest.mark.parametrize(
    "reply", [refusing(400, code="context_length_exceeded"), refusing(400, "prompt is too long: 9 > 8")]
)
def test_a_prompt_that_is_too_long_is_told_from_other_refusals(other: OtherServer, reply: Reply) -> None:
    other.answer = lambda request: reply
    with pytest.raises(core.ContextOverflowError):
        ChatParrot(base_url=other.url).invoke("hi")
    assert len(other.requests) == 1


def test_what_may_pass_is_tried_again(other: OtherServer) -> None:
    replies = itertools.chain([refusing(503), refusing(429)], itertools.repeat(Reply(completion())))
    other.answer = lambda request: next(replies)
    assert ChatParrot(base_url=other.url, max_retries=2).invoke("hi").text == "hello"
    assert len(other.requests) == 3


async def test_a_server_that_is_not_there_is_named() -> None:
    with socket.socket() as nobody:  # held, so that no other program comes to listen there
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        llm = ChatParrot(base_url=f"http://127.0.0.1:{port}/v1", max_retries=0)
        with pytest.raises(core.ModelConnectionError, match=f"127.0.0.1:{port}") as caught:
            llm.invoke("hi")
        assert isinstance(caught.value, openai.APIConnectionError)
        with pytest.raises(core.ModelConnectionError):
            await llm.ainvoke("hi")


def test_a_server_that_is_silent_for_longer_than_the_timeout(other: OtherServer) -> None:
    def never(request: Request) -> Reply:
        other.client_left.wait(60)
        return Reply(completion())

    other.answer = never
    with pytest.raises(core.ModelTimeoutError) as caught:
        ChatParrot(base_url=other.url, timeout=0.05, max_retries=0).invoke("hi")
    other.client_left.set()
    assert isinstance(caught.value, openai.APITimeoutError)


async def test_a_stream_that_falls_silent_for_longer_than_the_timeout(other: OtherServer) -> None:
    def events() -> Iterator[dict[str, Any]]:
        yield chunk(content="one ")
        other.client_left.wait(60)

    other.answer = lambda request: Reply(events=events())
    llm = ChatParrot(base_url=other.url, timeout=0.05, max_retries=0)
    with pytest.raises(core.ModelTimeoutError):
        list(llm.stream("hi"))
    with pytest.raises(core.ModelTimeoutError):
        [_ async for _ in llm.astream("hi")]
    other.client_left.set()


def test_silence_that_the_sdk_says_nothing_of_is_told_as_a_timeout() -> None:
    request = httpx.Request("POST", "http://127.0.0.1/v1")
    with pytest.raises(ParrotTimeoutError), sdk_errors():
        raise httpx.ReadTimeout("silent", request=request)
    with pytest.raises(ParrotConnectionError), sdk_errors():
        raise httpx.ReadError("broken", request=request)


async def test_a_fault_inside_a_stream_comes_after_the_text_before_it(other: OtherServer) -> None:
    fault = {"error": {"message": "the engine died", "type": "server_error", "param": None, "code": "engine_lost"}}
    other.answer = lambda request: Reply(events=iter([chunk(content="one "), chunk(content="two"), fault]))
    llm = ChatParrot(base_url=other.url)
    seen = []
    with pytest.raises(core.ModelAPIError, match="the engine died") as caught:
        for part in llm.stream("hi"):
            seen.append(part.text)
    assert seen == ["one ", "two"]
    assert isinstance(caught.value, openai.APIError) and caught.value.code == "engine_lost"
    with pytest.raises(core.ModelAPIError, match="the engine died"):
        [_ async for _ in llm.astream("hi")]


async def test_a_connection_that_breaks_inside_a_stream_is_an_error(other: OtherServer) -> None:
    other.answer = lambda request: Reply(events=iter([chunk(content="one ")]), cut=True)
    llm = ChatParrot(base_url=other.url)
    with pytest.raises(core.ModelConnectionError):
        list(llm.stream("hi"))
    with pytest.raises(core.ModelConnectionError):
        [_ async for _ in llm.astream("hi")]


def test_an_error_of_the_app_is_left_alone(other: OtherServer) -> None:
    stream = ChatParrot(base_url=other.url)._stream([])
    other.answer = lambda request: Reply(events=iter([chunk(content="one "), chunk(content="two")]))
    next(stream)
    with pytest.raises(KeyError, match="mine"):
        stream.throw(KeyError("mine"))
