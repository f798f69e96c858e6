"""ChatParrot against our own server: what both sides promise together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from langchain_core import exceptions as core
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, trim_messages
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from pydantic import BaseModel

from parrot_compat.core.events import Event, FirstToken
from parrot_compat.integrations.langchain import ChatParrot

from ..served import CONTEXT_TOKENS, MODELS, Served


@pytest.fixture
def llm(ours: Served) -> ChatParrot:
    return ChatParrot(base_url=ours.url, max_retries=0)


async def test_every_way_of_running_a_chain_gives_the_same_text(llm: ChatParrot) -> None:
    chain = ChatPromptTemplate.from_template("{word}!") | llm | StrOutputParser()
    expected = "you said: hey!"
    assert chain.invoke({"word": "hey"}) == expected
    assert await chain.ainvoke({"word": "hey"}) == expected
    assert "".join(chain.stream({"word": "hey"})) == expected
    assert "".join([piece async for piece in chain.astream({"word": "hey"})]) == expected
    assert chain.batch([{"word": "hey"}] * 3) == [expected] * 3
    assert await chain.abatch([{"word": "hey"}] * 3) == [expected] * 3


def test_without_a_model_the_first_answers_and_says_so(llm: ChatParrot) -> None:
    assert llm.invoke("hi").response_metadata["model_name"] == MODELS[0]
    assert llm.invoke("hi", model=MODELS[1]).response_metadata["model_name"] == MODELS[1]


def test_streamed_and_whole_answers_count_the_same_tokens(llm: ChatParrot) -> None:
    whole = llm.invoke("count me once, and once more").usage_metadata
    streamed = [part.usage_metadata for part in llm.stream("count me twice, and no more!") if part.usage_metadata]
    assert whole is not None and len(streamed) == 1
    assert (whole["input_tokens"], whole["output_tokens"]) == (
        streamed[0]["input_tokens"],
        streamed[0]["output_tokens"],
    )


def test_a_prompt_that_was_read_before_comes_from_the_cache(llm: ChatParrot) -> None:
    prompt = "a prompt that is long enough to fill a few blocks of the prefix cache " * 3
    llm.invoke(prompt)
    usage = llm.invoke(prompt).usage_metadata
    assert usage is not None and 0 < usage["input_token_details"]["cache_read"] < usage["input_tokens"]


def test_stop_and_length_end_an_answer(llm: ChatParrot) -> None:
    stopped = llm.invoke("one STOP two", stop=["STOP"])
    assert (stopped.text, stopped.response_metadata["finish_reason"]) == ("you said: one ", "stop")
    short = llm.bind(max_tokens=3).invoke("hi")
    assert (short.text, short.response_metadata["finish_reason"]) == ("you", "length")


def test_several_choices_are_served(ours: Served) -> None:
    result = ChatParrot(base_url=ours.url, n=3).generate([[HumanMessage("hi")]])
    assert [generation.text for generation in result.generations[0]] == ["you said: hi"] * 3


def test_text_is_counted_with_the_served_models_tokenizer(llm: ChatParrot) -> None:
    assert llm.get_num_tokens("four") == 4  # the scripted engine has a token for each character
    assert llm.get_token_ids("ab") == [ord("a"), ord("b")]
    answer = llm.invoke("hi")
    assert answer.usage_metadata is not None
    assert llm.get_num_tokens_from_messages([HumanMessage("hi")]) == answer.usage_metadata["input_tokens"]


def test_a_history_is_trimmed_by_what_its_turns_are_as_a_prompt(llm: ChatParrot) -> None:
    history = [SystemMessage("be brief"), *(HumanMessage("hi" * 9), AIMessage("ho" * 9)) * 4]
    limit = llm.get_num_tokens_from_messages(history[-3:])
    kept = trim_messages(history, max_tokens=limit, token_counter=llm, strategy="last")
    assert kept == history[-3:] and trim_messages([], max_tokens=1, token_counter=llm) == []


def test_the_profile_knows_the_context(llm: ChatParrot) -> None:
    assert llm.profile is not None and llm.profile["max_input_tokens"] == CONTEXT_TOKENS


def test_errors_are_langchains(llm: ChatParrot, ours: Served) -> None:
    with pytest.raises(core.ModelNotFoundError, match="no-such-model"):
        llm.invoke("hi", model="no-such-model")
    with pytest.raises(core.ContextOverflowError):
        llm.invoke("x" * (CONTEXT_TOKENS + 1))
    with pytest.raises(core.ModelInvalidRequestError):
        llm.invoke("hi", temperature=-1)
    with pytest.raises(core.ModelInvalidRequestError):
        llm.invoke([])
    with pytest.raises(core.ContextOverflowError):
        list(llm.stream("x" * (CONTEXT_TOKENS + 1)))


def test_an_engine_that_holds_to_no_form_is_not_asked_for_one(llm: ChatParrot) -> None:
    @tool
    def add(a: int, b: int) -> int:
        """Adds."""
        return a + b

    class Answer(BaseModel):
        text: str

    with pytest.raises(core.ModelInvalidRequestError, match="tools"):
        llm.bind_tools([add], tool_choice="any").invoke("1 + 2")
    with pytest.raises(core.ModelInvalidRequestError, match="response_format"):
        llm.with_structured_output(Answer).invoke("hi")


async def test_leaving_a_stream_ends_the_call_in_the_server(llm: ChatParrot, ours: Served) -> None:
    engine, *_ = ours.engines

    def stop(event: Event) -> None:
        if isinstance(event, FirstToken):
            engine.stall()  # the rest is not there yet, however late this test looks

    async def subscribed() -> Callable[[], None]:
        return ours.manager.events.subscribe(stop)

    unsubscribe = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(subscribed(), ours.loop))
    try:
        async for _ in (stream := llm.astream("speak at length " * 50)):
            break
        assert await asyncio.to_thread(ours.open_calls) == 1
        await stream.aclose()  # type: ignore[attr-defined]
        for _ in range(600):
            if await asyncio.to_thread(ours.open_calls) == 0:
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("the call is still open a while after its client has left")
    finally:
        ours.loop.call_soon_threadsafe(unsubscribe)
        ours.loop.call_soon_threadsafe(engine.resume)


def test_a_group_reaches_the_engines_as_separate_calls(llm: ChatParrot, ours: Served) -> None:
    before = ours.generated
    result = llm.generate([[HumanMessage(str(index))] for index in range(12)])
    assert [generations[0].text for generations in result.generations] == [f"you said: {index}" for index in range(12)]
    assert ours.generated - before == 12
