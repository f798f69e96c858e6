"""What LangChain does around a model works around ChatParrot: caches, limiters, retries, fallbacks, events, blocks."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import ConfigurableField

from parrot_compat.integrations.langchain import ChatParrot
from parrot_compat.integrations.langchain.errors import ParrotConnectionError, ParrotServerError

from ..other_server import OtherServer, Reply, Request, completion, echo

NOWHERE = "http://127.0.0.1:9/v1"


async def test_a_cached_answer_is_not_asked_for_again(other: OtherServer) -> None:
    llm = ChatParrot(base_url=other.url, cache=InMemoryCache())
    assert llm.invoke("hi").text == llm.invoke("hi").text == (await llm.ainvoke("hi")).text
    assert len(other.requests) == 1
    llm.invoke("hi", temperature=1)  # another request, and so another answer
    assert len(other.requests) == 2
    llm.model_copy(update={"seed": 1}).invoke("hi")
    assert len(other.requests) == 3


async def test_a_limiter_is_asked_before_every_request(other: OtherServer) -> None:
    class Counting(BaseRateLimiter):
        asked = 0

        def acquire(self, *, blocking: bool = True) -> bool:
            Counting.asked += 1
            return True

        async def aacquire(self, *, blocking: bool = True) -> bool:
            return self.acquire()

    llm = ChatParrot(base_url=other.url, rate_limiter=Counting())
    llm.batch(["a", "b"])
    list(llm.stream("c"))
    await llm.ainvoke("d")
    assert Counting.asked == len(other.requests) == 4


def test_a_retry_is_another_request_and_a_fallback_another_model(other: OtherServer) -> None:
    failures = iter([Reply({"error": {"message": "busy"}}, 500)])
    other.answer = lambda request: next(failures, None) or echo(request)
    patient = ChatParrot(base_url=other.url, max_retries=0).with_retry(
        retry_if_exception_type=(ParrotServerError,), wait_exponential_jitter=False, stop_after_attempt=2
    )
    assert patient.invoke("hi").text == "you said hi"
    assert len(other.requests) == 2
    absent = ChatParrot(base_url=NOWHERE, max_retries=0)
    assert absent.with_fallbacks([ChatParrot(base_url=other.url)]).invoke("hi").text == "you said hi"
    with pytest.raises(ParrotConnectionError):
        absent.invoke("hi")


def test_fields_and_alternatives_are_chosen_by_the_config(other: OtherServer) -> None:
    tunable = ChatParrot(base_url=other.url).configurable_fields(temperature=ConfigurableField(id="t"))
    tunable.invoke("hi", {"configurable": {"t": 0.25}})
    assert other.last.body["temperature"] == 0.25
    either = ChatParrot(base_url=NOWHERE, max_retries=0).configurable_alternatives(
        ConfigurableField(id="which"), there=ChatParrot(base_url=other.url, model="there")
    )
    either.invoke("hi", {"configurable": {"which": "there"}})
    assert other.last.body["model"] == "there"


async def test_events_of_version_3_tell_the_text_the_usage_and_the_message(other: OtherServer) -> None:
    llm = ChatParrot(base_url=other.url)
    stream = llm.stream_events("hi", version="v3")
    assert "".join(stream.text) == "you said hi"
    assert stream.output.text == "you said hi" and stream.output.usage_metadata["total_tokens"] == 10
    later = await llm.astream_events("hi", version="v3")
    assert "".join([piece async for piece in later.text]) == "you said hi"


def test_content_comes_in_blocks_where_that_is_asked_for(other: OtherServer) -> None:
    def thoughtful(request: Request) -> Reply:
        return Reply(completion("42", reasoning_content="because"))

    llm = ChatParrot(base_url=other.url, output_version="v1")
    assert llm.invoke("hi").content == [{"type": "text", "text": "you said hi"}]
    other.answer = thoughtful
    blocks = ChatParrot(base_url=other.url).invoke("why?").content_blocks
    assert {"type": "text", "text": "42"} in blocks
    assert any(block["type"] == "reasoning" and block["reasoning"] == "because" for block in blocks)


def test_blocks_of_an_earlier_answer_can_be_sent_again(other: OtherServer) -> None:
    llm = ChatParrot(base_url=other.url, output_version="v1")
    said: Any = llm.invoke("hi")
    (llm | StrOutputParser()).invoke(["hi", said, "again"])
    assistant = other.last.body["messages"][1]
    assert assistant["role"] == "assistant" and "you said hi" in str(assistant["content"])
    assert isinstance(said, AIMessage)
