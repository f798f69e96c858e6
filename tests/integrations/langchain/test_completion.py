"""ParrotCompletion: prompts without roles, against our own server and another."""

from __future__ import annotations

import asyncio
import copy
import pickle
from typing import Any

import openai
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import ConfigurableField
from langchain_core.tracers.context import collect_runs

from parrot_compat.integrations import chunks as chunking
from parrot_compat.integrations.langchain import ParrotCompletion, session
from parrot_compat.integrations.langchain.errors import ParrotConnectionError
from parrot_compat.integrations.servers import remember_ours

from ..other_server import OtherServer, Reply, Request
from ..served import MODELS, Served

PROMPTS = ["Parrots repeat", "Servers answer", "Rivers run"]


def completion(request: Request, **more: Any) -> Reply:
    """As many choices as were asked for, each naming its prompt."""
    prompts = request.body["prompt"]
    prompts = [prompts] if isinstance(prompts, str) else prompts
    count = request.body.get("n", 1)
    texts = [f"{prompt} #{number}" for prompt in prompts for number in range(count)]
    choices = [{"index": index, "text": text, "finish_reason": "stop"} for index, text in enumerate(texts)]
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    answer = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "other", **more}
    return Reply({**answer, "choices": choices, "usage": usage})


async def test_every_way_of_asking_gives_the_same_text(ours: Served) -> None:
    llm = ParrotCompletion(base_url=ours.url, model=MODELS[0], max_tokens=50, temperature=0)
    expected = llm.invoke(PROMPTS[0])
    assert PROMPTS[0] in expected
    assert await llm.ainvoke(PROMPTS[0]) == expected
    assert "".join(llm.stream(PROMPTS[0])) == expected
    assert "".join([piece async for piece in llm.astream(PROMPTS[0])]) == expected
    together = llm.batch(PROMPTS)
    assert together[0] == expected and len(set(together)) == 3
    assert await llm.abatch(PROMPTS) == together
    chain = PromptTemplate.from_template("Parrots {verb}") | llm | StrOutputParser()
    assert chain.invoke({"verb": "repeat"}) == expected


async def test_the_session_that_the_app_has_named_is_told_however_it_asks(ours: Served) -> None:
    llm = ParrotCompletion(base_url=ours.url, model=MODELS[0], max_tokens=2)
    remember_ours(llm._endpoint)
    before = ours.sessions()
    with session("invoked"):
        llm.invoke("one")
    with session("awaited"):
        await llm.ainvoke("two")
    with session("streamed"):
        list(llm.stream("three"))
    with session("streamed, awaited"):
        assert [piece async for piece in llm.astream("four")]
    llm.invoke("five")
    names = [name for name in ours.sessions() if name is not None and name not in before]
    assert sorted(names) == ["awaited", "invoked", "streamed", "streamed, awaited"]


def test_a_server_that_may_not_know_sessions_is_told_of_none(other: OtherServer) -> None:
    other.answer = completion
    with session("report 17"):
        ParrotCompletion(base_url=other.url).invoke("one")
    (request,) = other.requests
    assert "parrot" not in request.body


def test_prompts_of_one_batch_are_one_request_and_answered_in_order(other: OtherServer) -> None:
    other.answer = completion
    assert ParrotCompletion(base_url=other.url).batch(PROMPTS) == [f"{prompt} #0" for prompt in PROMPTS]
    assert [request.body["prompt"] for request in other.requests] == [PROMPTS]


@pytest.mark.parametrize(("drawn", "sizes"), [({}, [8, 8, 4]), ({"n": 2}, [4] * 5), ({"best_of": 5}, [1] * 20)])
async def test_a_batch_that_is_too_long_for_a_request_is_several_and_answered_in_order(
    other: OtherServer, monkeypatch: pytest.MonkeyPatch, drawn: dict[str, int], sizes: list[int]
) -> None:
    monkeypatch.setattr(chunking, "MOST_CALLS", 8)
    other.answer = completion
    llm = ParrotCompletion(base_url=other.url, model_kwargs=drawn)
    prompts = [f"prompt {number}" for number in range(20)]
    for result in (llm.generate(prompts), await llm.agenerate(prompts)):
        texts = [[made.text for made in some] for some in result.generations]
        assert texts == [[f"{prompt} #{number}" for number in range(drawn.get("n", 1))] for prompt in prompts]
        assert result.llm_output is not None and result.llm_output["token_usage"]["total_tokens"] == 10 * len(sizes)
    assert sorted(len(request.body["prompt"]) for request in other.requests) == sorted(2 * sizes)
    assert llm.batch(prompts) == await llm.abatch(prompts) == [f"{prompt} #0" for prompt in prompts]


async def test_a_batch_of_several_requests_fails_with_the_first_that_does(
    other: OtherServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunking, "MOST_CALLS", 1)
    other.answer = lambda request: (
        Reply({"error": {"message": "no"}}, 400) if "b" in str(request.body) else completion(request)
    )
    llm = ParrotCompletion(base_url=other.url, max_retries=0)
    with pytest.raises(openai.BadRequestError):
        llm.batch(["a", "b", "c"])
    with pytest.raises(openai.BadRequestError):
        await llm.abatch(["a", "b", "c"])


def test_several_choices_stand_with_their_prompt(other: OtherServer) -> None:
    other.answer = completion
    result = ParrotCompletion(base_url=other.url, n=2).generate(PROMPTS[:2])
    assert [[one.text for one in many] for many in result.generations] == [
        ["Parrots repeat #0", "Parrots repeat #1"],
        ["Servers answer #0", "Servers answer #1"],
    ]
    assert result.llm_output is not None and result.llm_output["token_usage"]["total_tokens"] == 10


def test_what_is_set_is_sent_and_nothing_else(other: OtherServer) -> None:
    other.answer = completion
    llm = ParrotCompletion(base_url=other.url, model="m", temperature=0, max_tokens=5, top_k=3, stop=["x"], logprobs=2)
    llm.invoke("hi", stop=["y"])
    sent = {"temperature": 0, "max_tokens": 5, "top_k": 3, "stop": ["y"], "logprobs": 2}
    assert other.last.body == {"model": "m", "prompt": ["hi"], "stream": False, **sent}
    ParrotCompletion(base_url=other.url).invoke("hi")
    assert other.last.body == {"prompt": ["hi"], "stream": False, "max_tokens": 256}


@pytest.mark.parametrize("given", [{}, {"max_tokens": None}])
def test_a_text_may_have_as_many_tokens_as_in_the_class_it_replaces(other: OtherServer, given: Any) -> None:
    other.answer = completion
    ParrotCompletion(base_url=other.url, **given).invoke("hi")
    assert other.last.body["max_tokens"] == 256


def test_minus_one_is_as_many_tokens_as_fit(ours: Served) -> None:
    whole = ParrotCompletion(base_url=ours.url, model=MODELS[0], temperature=0, max_tokens=4000).invoke("word " * 100)
    assert len(whole.split()) > 100  # it says its prompt back, and ends
    assert ParrotCompletion(base_url=ours.url, max_tokens=-1, temperature=0).invoke("word " * 100) == whole
    some = ParrotCompletion(base_url=ours.url, temperature=0)
    assert some.invoke("word " * 100, max_tokens=-1) == "".join(some.stream("word " * 100, max_tokens=-1)) == whole


def test_streaming_inside_invoke_gives_callbacks_their_tokens(ours: Served) -> None:
    heard: list[str] = []

    class Listening(BaseCallbackHandler):
        def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            heard.append(token)

    llm = ParrotCompletion(base_url=ours.url, streaming=True, temperature=0)
    text = llm.invoke(PROMPTS[0], {"callbacks": [Listening()]})
    assert "".join(heard) == text and len([piece for piece in heard if piece]) > 1


def test_traces_name_the_model_and_count_the_tokens(ours: Served) -> None:
    with collect_runs() as runs:
        ParrotCompletion(base_url=ours.url, model=MODELS[0]).invoke(PROMPTS[0])
    (run,) = runs.traced_runs
    metadata = run.extra["metadata"]
    assert (metadata["ls_provider"], metadata["ls_model_name"]) == ("parrot", MODELS[0])
    assert run.outputs is not None and run.outputs["llm_output"]["token_usage"]["completion_tokens"] > 0


def test_messages_become_the_text_that_langchain_makes_of_them(other: OtherServer) -> None:
    other.answer = completion
    ParrotCompletion(base_url=other.url).invoke([HumanMessage("hi")])
    assert other.last.body["prompt"] == ["Human: hi"]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda llm: pickle.loads(pickle.dumps(llm))])
def test_a_copy_is_equal_and_works(ours: Served, copied: Any) -> None:
    llm = ParrotCompletion(base_url=ours.url, temperature=0)
    expected = llm.invoke(PROMPTS[0])
    assert copied(llm) == llm and copied(llm).invoke(PROMPTS[0]) == expected


def test_one_instance_serves_one_event_loop_after_another(ours: Served) -> None:
    llm = ParrotCompletion(base_url=ours.url, temperature=0)
    assert asyncio.run(llm.ainvoke("a")) == asyncio.run(llm.ainvoke("a")) == llm.invoke("a")


def test_caches_retries_fallbacks_and_configurable_fields_are_langchains_own(other: OtherServer) -> None:
    other.answer = completion
    cached = ParrotCompletion(base_url=other.url, cache=InMemoryCache())
    assert cached.invoke("hi") == cached.invoke("hi")
    assert len(other.requests) == 1
    for stop in (["a"], ["b"]):
        ParrotCompletion(base_url=other.url, cache=cached.cache, stop=stop).invoke("hi")
    assert len(other.requests) == 3, "its own stop makes another answer"
    tunable = ParrotCompletion(base_url=other.url).configurable_fields(temperature=ConfigurableField(id="t"))
    tunable.with_config(configurable={"t": 0.5}).invoke("hi")
    assert other.last.body["temperature"] == 0.5
    absent = ParrotCompletion(base_url="http://127.0.0.1:9/v1", max_retries=0)
    assert absent.with_fallbacks([cached]).invoke("hi") == "hi #0"
    with pytest.raises(ParrotConnectionError):
        absent.invoke("hi")


def test_a_prompt_that_is_too_long_is_langchains_error(ours: Served) -> None:
    with pytest.raises(ContextOverflowError):
        ParrotCompletion(base_url=ours.url).invoke("word " * 6000)


def test_the_environment_says_where_the_server_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARROT_BASE_URL", "http://elsewhere:1/v1")
    monkeypatch.setenv("PARROT_API_KEY", "the key")
    llm = ParrotCompletion()
    assert llm.base_url == "http://elsewhere:1/v1" and llm.api_key.get_secret_value() == "the key"
    assert "the key" not in repr(llm)


def test_tokens_are_the_servers(ours: Served) -> None:
    llm = ParrotCompletion(base_url=ours.url)
    assert llm.get_num_tokens("one two") > 0
    assert ParrotCompletion(base_url=ours.url, custom_get_token_ids=lambda text: [1]).get_num_tokens("one two") == 1
