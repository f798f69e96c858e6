"""What an app sees of the model class: calls one by one and many at once, copies, loops, callbacks, tokens."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core import exceptions as core
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, trim_messages
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import LLMResult
from langchain_core.prompts import ChatPromptTemplate

from parrot_compat.integrations import servers
from parrot_compat.integrations.langchain import ChatParrot

from ..other_server import OtherServer, Reply, Request, chunk, completion, echo


class Runs(BaseCallbackHandler):
    """Every run that began, and how it ended."""

    def __init__(self) -> None:
        self.started: list[uuid.UUID] = []
        self.ended: dict[uuid.UUID, str] = {}
        self.failed: list[uuid.UUID] = []
        self.tokens: list[str] = []

    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: uuid.UUID, **kwargs: Any) -> None:
        self.started.append(run_id)

    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        self.tokens.append(token)

    def on_llm_end(self, response: LLMResult, *, run_id: uuid.UUID, **kwargs: Any) -> None:
        self.ended[run_id] = response.generations[0][0].text

    def on_llm_error(self, error: BaseException, *, run_id: uuid.UUID, **kwargs: Any) -> None:
        self.failed.append(run_id)


def all_at_once(count: int) -> Callable[[Request], Reply]:
    """Answers nobody until `count` requests are in the server."""
    barrier = threading.Barrier(count)

    def answer(request: Request) -> Reply:
        barrier.wait(timeout=60)
        return echo(request)

    return answer


def prompts(*texts: str) -> list[list[Any]]:
    return [[HumanMessage(text)] for text in texts]


async def test_a_chain_gives_the_same_text_whichever_way_it_is_run(other: OtherServer) -> None:
    chain = ChatPromptTemplate.from_template("{x}!") | ChatParrot(base_url=other.url) | StrOutputParser()
    expected = "you said a!"
    assert chain.invoke({"x": "a"}) == expected
    assert await chain.ainvoke({"x": "a"}) == expected
    assert "".join(chain.stream({"x": "a"})) == expected
    assert "".join([part async for part in chain.astream({"x": "a"})]) == expected
    assert chain.batch([{"x": "a"}, {"x": "b"}]) == [expected, "you said b!"]
    assert await chain.abatch([{"x": "a"}, {"x": "b"}]) == [expected, "you said b!"]


def test_prompts_of_one_generate_are_sent_at_once_and_answered_in_order(other: OtherServer) -> None:
    count = 40  # more than LangChain's own pool has threads on most machines
    other.answer = all_at_once(count)
    texts = [str(index) for index in range(count)]
    runs = Runs()
    first = uuid.uuid4()
    result = ChatParrot(base_url=other.url).generate(prompts(*texts), callbacks=[runs], run_id=first)
    assert [generations[0].text for generations in result.generations] == [f"you said {text}" for text in texts]
    assert result.llm_output is not None and result.llm_output["token_usage"]["total_tokens"] == count * 10
    assert result.llm_output["token_usage"]["prompt_tokens_details"] == {"cached_tokens": count * 4}
    assert result.run is not None and result.run[0].run_id == first
    assert [runs.ended[info.run_id] for info in result.run] == [f"you said {text}" for text in texts]


async def test_prompts_of_one_agenerate_are_sent_at_once(other: OtherServer) -> None:
    other.answer = all_at_once(20)
    result = await ChatParrot(base_url=other.url).agenerate(prompts(*map(str, range(20))))
    assert [generations[0].text for generations in result.generations] == [f"you said {index}" for index in range(20)]


def test_a_batch_is_sent_at_once(other: OtherServer) -> None:
    other.answer = all_at_once(40)
    answers = ChatParrot(base_url=other.url).batch([str(index) for index in range(40)])
    assert [answer.text for answer in answers] == [f"you said {index}" for index in range(40)]


def test_a_mapped_chain_is_sent_at_once(other: OtherServer) -> None:
    other.answer = all_at_once(40)
    chain = (ChatPromptTemplate.from_template("{x}") | ChatParrot(base_url=other.url) | StrOutputParser()).map()
    assert chain.invoke([{"x": str(index)} for index in range(40)])[39] == "you said 39"


def test_a_batch_keeps_to_the_width_the_app_asks_for(other: OtherServer) -> None:
    lock, inside, most = threading.Lock(), 0, 0

    def answer(request: Request) -> Reply:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        threading.Event().wait(0.02)
        with lock:
            inside -= 1
        return echo(request)

    other.answer = answer
    ChatParrot(base_url=other.url).batch([str(index) for index in range(8)], {"max_concurrency": 2})
    assert most <= 2


def test_one_failed_prompt_fails_the_group_and_every_run_that_began_ends(other: OtherServer) -> None:
    def answer(request: Request) -> Reply:
        return Reply({"error": {"message": "not this one"}}, 400) if request.text == "bad" else echo(request)

    other.answer = answer
    runs = Runs()
    with pytest.raises(core.ModelInvalidRequestError, match="not this one"):
        ChatParrot(base_url=other.url).generate(prompts("a", "bad", "c"), callbacks=[runs])
    assert len(runs.failed) == 1
    assert set(runs.started) == set(runs.ended) | set(runs.failed)


def test_a_batch_can_return_its_failures(other: OtherServer) -> None:
    other.answer = lambda request: Reply({"error": {"message": "no"}}, 400) if request.text == "bad" else echo(request)
    good, bad = ChatParrot(base_url=other.url).batch(["good", "bad"], return_exceptions=True)
    assert good.text == "you said good"
    assert isinstance(bad, core.ModelInvalidRequestError)


def test_an_answer_carries_model_finish_provider_and_tokens(other: OtherServer) -> None:
    answer = ChatParrot(base_url=other.url, model="m").invoke("hi")
    metadata = answer.response_metadata
    assert (metadata["model_name"], metadata["finish_reason"], metadata["model_provider"]) == ("m", "stop", "parrot")
    assert answer.usage_metadata == {
        "input_tokens": 7,
        "output_tokens": 3,
        "total_tokens": 10,
        "input_token_details": {"cache_read": 4},
    }


async def test_a_stream_sums_to_the_same_message_with_the_usage_counted_once(other: OtherServer) -> None:
    llm = ChatParrot(base_url=other.url, model="m")
    whole = llm.invoke("hi")
    for chunks in (list(llm.stream("hi")), [part async for part in llm.astream("hi")]):
        assert [part.text for part in chunks if part.usage_metadata] == [""]
        total = chunks[0]
        for part in chunks[1:]:
            total = total + part
        assert (total.text, total.usage_metadata) == (whole.text, whole.usage_metadata)
        metadata = total.response_metadata
        assert (metadata["finish_reason"], metadata["model_provider"]) == ("stop", "parrot")


def test_streaming_inside_invoke_gives_callbacks_their_tokens(other: OtherServer) -> None:
    runs = Runs()
    answer = ChatParrot(base_url=other.url, streaming=True).invoke("hi", {"callbacks": [runs]})
    assert answer.text == "you said hi" == "".join(runs.tokens)
    assert other.last.body["stream"] is True
    ChatParrot(base_url=other.url, streaming=False).stream("hi").__next__()
    assert other.last.body["stream"] is False


async def test_leaving_a_stream_closes_the_connection(other: OtherServer) -> None:
    def endless(request: Request) -> Reply:
        return Reply(events=iter(lambda: chunk(content="word " * 1000), None))

    other.answer = endless
    llm = ChatParrot(base_url=other.url)
    stream = llm.stream("hi")
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert other.client_left.wait(60)
    other.client_left.clear()
    async for _ in (astream := llm.astream("hi")):
        break
    await astream.aclose()  # type: ignore[attr-defined]
    assert await asyncio.to_thread(other.client_left.wait, 60)


async def test_cancelling_a_call_closes_the_connection(other: OtherServer) -> None:
    arrived = threading.Event()

    def endless(request: Request) -> Reply:
        arrived.set()
        return Reply(events=iter(lambda: chunk(content="word " * 1000), None))

    other.answer = endless
    call = asyncio.create_task(ChatParrot(base_url=other.url, streaming=True).ainvoke("hi"))
    assert await asyncio.to_thread(arrived.wait, 60)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await asyncio.to_thread(other.client_left.wait, 60)


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda llm: pickle.loads(pickle.dumps(llm))])
def test_a_copy_works_and_is_equal_after_the_original_was_used(
    other: OtherServer, copied: Callable[[Any], Any]
) -> None:
    llm = ChatParrot(base_url=other.url, api_key="k", temperature=0.5, default_headers={"x": "1"})
    llm.invoke("hi")
    asyncio.run(llm.ainvoke("hi"))
    twin = copied(llm)
    assert twin == llm
    assert twin.invoke("hi").text == "you said hi"
    assert (other.last.headers["authorization"], other.last.headers["x"]) == ("Bearer k", "1")


def test_one_instance_serves_one_event_loop_after_another_and_several_at_once(other: OtherServer) -> None:
    llm = ChatParrot(base_url=other.url)
    for _ in range(3):
        assert asyncio.run(llm.ainvoke("hi")).text == "you said hi"
    with ThreadPoolExecutor(4) as pool:
        texts = pool.map(lambda text: asyncio.run(llm.ainvoke(text)).text, "abcd")
    assert list(texts) == [f"you said {text}" for text in "abcd"]


def test_instances_with_equal_settings_share_their_connection(other: OtherServer) -> None:
    for _ in range(3):
        ChatParrot(base_url=other.url).invoke("hi")
    assert other.connections == 1


def test_tokens_are_the_servers(other: OtherServer) -> None:
    other.answer = lambda request: Reply(
        {"tokens": [5, 6, 7] if "prompt" in request.body else [1, 2, 3, 4], "count": 0}
    )
    llm = ChatParrot(base_url=other.url, model="m")
    assert llm.get_token_ids("some text") == [5, 6, 7]
    assert other.last.path == "/tokenize"
    assert other.last.body == {"model": "m", "prompt": "some text"}
    assert llm.get_num_tokens("some text") == 3
    assert llm.get_num_tokens_from_messages([HumanMessage("hi")]) == 4
    assert other.last.body["messages"] == [{"role": "user", "content": "hi"}]


def test_a_server_that_counts_no_tokens_is_said_to_be_one(other: OtherServer) -> None:
    with pytest.raises(core.ModelNotFoundError) as caught:
        ChatParrot(base_url=other.url).get_num_tokens("text")
    assert any("/tokenize" in note for note in caught.value.__notes__)


def picky(request: Request) -> Reply:
    """Counts the characters of texts; of conversations only where a question comes first and then turns alternate, as
    many chat templates have it."""
    if "prompt" in request.body:
        return Reply({"tokens": [0] * len(request.body["prompt"])})
    roles = [message["role"] for message in request.body["messages"]]
    if roles != [("user", "assistant")[place % 2] for place in range(len(roles))] or not roles:
        return Reply({"error": {"message": "roles must alternate", "type": "BadRequestError", "code": 400}}, 400)
    return Reply({"tokens": [0] * sum(len(message["content"]) for message in request.body["messages"])})


@pytest.mark.parametrize("strategy", ["first", "last"])
@pytest.mark.parametrize("partial", [True, False])
@pytest.mark.parametrize("limit", [0, 5, 30, 60, 1000])
def test_a_history_is_trimmed_by_the_servers_count_in_any_order(
    other: OtherServer, strategy: Any, partial: bool, limit: int
) -> None:
    other.answer = picky
    llm = ChatParrot(base_url=other.url)
    turns: list[BaseMessage] = [
        SystemMessage("be brief"),
        *(HumanMessage("one\ntwo"), AIMessage("three"), AIMessage("four"), HumanMessage("five\nsix")),
    ]
    for history in (turns, turns[1:3], turns[::-1], turns[:1], []):
        kept = trim_messages(
            history, max_tokens=limit, token_counter=llm, strategy=strategy, allow_partial=partial, include_system=False
        )
        assert kept == history if limit == 1000 else len(kept) <= len(history)


def test_no_messages_are_no_tokens_and_are_not_asked_about(other: OtherServer) -> None:
    assert ChatParrot(base_url=other.url).get_num_tokens_from_messages([]) == 0
    assert other.requests == []


def test_tools_count_where_the_conversation_is_counted_message_by_message(other: OtherServer) -> None:
    other.answer = picky
    llm = ChatParrot(base_url=other.url)
    system: list[BaseMessage] = [SystemMessage("be brief")]
    offered = {"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {}}}
    assert llm.get_num_tokens_from_messages(system, [offered]) > llm.get_num_tokens_from_messages(system) > 0


def test_a_conversation_that_is_too_long_to_count_is_said_to_be(other: OtherServer) -> None:
    error = {"message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded"}
    other.answer = lambda request: Reply({"error": error}, 400)
    with pytest.raises(core.ContextOverflowError):
        ChatParrot(base_url=other.url).get_num_tokens_from_messages([HumanMessage("hi")])


def test_an_apps_own_tokenizer_is_used_if_it_brings_one(other: OtherServer) -> None:
    llm = ChatParrot(base_url=other.url, custom_get_token_ids=lambda text: [0] * len(text))
    assert llm.get_num_tokens("four") == 4
    assert llm.get_num_tokens_from_messages([HumanMessage("hi")]) > 2
    assert other.requests == []


def test_the_profile_is_asked_of_the_server_when_it_is_read_and_once(
    other: OtherServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = {"id": "m", "object": "model", "created": 0, "owned_by": "x", "max_model_len": 4096}
    llm = ChatParrot(base_url=other.url, model="m")
    assert other.requests == []
    monkeypatch.setattr(servers, "ASK_AGAIN_S", 0.0)
    assert llm.profile is None  # this server has no models yet
    other.answer = lambda request: Reply({"object": "list", "data": [card]})
    assert llm.profile is not None and llm.profile["max_input_tokens"] == 4096
    asked = len(other.requests)
    assert llm.profile["max_input_tokens"] == 4096 and len(other.requests) == asked


@pytest.mark.parametrize("cards", [[], [{"id": "m", "object": "model", "created": 0, "owned_by": "x"}]])
def test_a_server_that_tells_no_profile_is_not_asked_for_it_at_every_step(
    other: OtherServer, cards: list[dict[str, Any]]
) -> None:
    other.answer = lambda request: Reply({"object": "list", "data": cards})
    llm = ChatParrot(base_url=other.url, model="m")
    assert [llm.profile for _ in range(3)] == [None] * 3
    assert len(other.requests) == 1


def test_the_profile_says_what_agents_choose_by_where_the_server_tells(other: OtherServer) -> None:
    card = {"id": "m", "object": "model", "created": 0, "owned_by": "x", "max_model_len": 4096}
    can = {"structured_output": True, "tool_calling": False}
    other.answer = lambda request: Reply({"object": "list", "data": [{**card, "capabilities": can}]})
    profile = ChatParrot(base_url=other.url).profile
    assert profile is not None
    assert (profile["structured_output"], profile["tool_calling"], profile["tool_choice"]) == (True, False, False)
    can["structured_output_with_tools"] = False  # which is what agents need
    profile = ChatParrot(base_url=other.url).profile
    assert profile is not None and profile["structured_output"] is False


def test_a_profile_that_is_given_is_kept(other: OtherServer) -> None:
    assert ChatParrot(base_url=other.url, profile={"max_input_tokens": 9}).profile == {"max_input_tokens": 9}
    assert other.requests == []


def test_several_choices_are_several_generations_with_the_tokens_counted_once(other: OtherServer) -> None:
    answer = completion("one")
    answer["choices"].append(
        {"index": 1, "message": {"role": "assistant", "content": "two"}, "finish_reason": "length"}
    )
    other.answer = lambda request: Reply(answer)
    (generations,) = ChatParrot(base_url=other.url, n=2).generate(prompts("hi")).generations
    assert [generation.text for generation in generations] == ["one", "two"]
    assert [bool(generation.message.usage_metadata) for generation in generations] == [True, False]  # type: ignore[union-attr]
