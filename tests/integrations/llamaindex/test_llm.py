"""`ParrotLLM` on the wire: what leaves the client and what an app gets of what comes back."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)
from llama_index.core.program import FunctionCallingProgram
from llama_index.core.tools import FunctionTool
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel, SecretStr

from parrot_compat.integrations import errors as ours_errors
from parrot_compat.integrations.llamaindex import ParrotAPIError, ParrotEmbedding, ParrotLLM
from parrot_compat.integrations.remote import DEFAULT_BASE_URL
from tests.integrations.other_server import OtherServer, Reply, Request, chunk, completion
from tests.integrations.served import Served


@pytest.fixture
def llm(other: OtherServer) -> ParrotLLM:
    return ParrotLLM(base_url=other.url, model="m", context_window=1000, max_retries=0, temperature=0.5, max_tokens=9)


def user(text: str) -> ChatMessage:
    return ChatMessage(content=text)


class Bird(BaseModel):
    """What a bird is."""

    name: str
    legs: int


# ---- what is sent ------------------------------------------------------------------------------------


def test_messages_and_sampling_go_out_as_they_are(llm: ParrotLLM, other: OtherServer) -> None:
    llm.chat([ChatMessage(role="system", content="be brief"), user("hi {x}")], top_k=3, presence_penalty=None)
    assert other.last.body == {
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi {x}"}],
        "model": "m",
        "stream": False,
        "temperature": 0.5,
        "max_tokens": 9,
        "top_k": 3,
    }


def test_what_is_not_given_is_not_sent(other: OtherServer) -> None:
    ParrotLLM(base_url=other.url).complete("hi")
    assert other.last.body == {"messages": [{"role": "user", "content": "hi"}], "stream": False}


def test_an_assistants_calls_its_thoughts_and_a_tools_answer_go_out_in_openais_form(
    llm: ParrotLLM, other: OtherServer
) -> None:
    call = ToolCallBlock(tool_call_id="c1", tool_name="add", tool_kwargs={"a": 1})
    answer = ChatMessage(role=MessageRole.TOOL, content="2", additional_kwargs={"tool_call_id": "c1"})
    llm.chat(
        [user("1+1?"), ChatMessage(role=MessageRole.ASSISTANT, blocks=[ThinkingBlock(content="hm"), call]), answer]
    )
    assert other.last.body["messages"][1:] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}],
            "reasoning_content": "hm",
        },
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
    ]


def test_images_are_parts_and_texts_alone_are_one_text(llm: ParrotLLM, other: OtherServer) -> None:
    texts = ChatMessage(
        blocks=[TextBlock(text="a"), CachePoint(cache_control={"type": "ephemeral"}), TextBlock(text="b")]
    )
    seen = ChatMessage(blocks=[TextBlock(text="what?"), ImageBlock(url="http://127.0.0.1/a.png")])
    other.answer = lambda _: Reply(completion("yes"))
    llm.chat([texts, seen])
    assert other.last.body["messages"] == [
        {"role": "user", "content": "ab"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what?"},
                {"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png", "detail": "auto"}},
            ],
        },
    ]


def test_a_block_that_the_wire_cannot_hold_is_refused_by_name(llm: ParrotLLM, other: OtherServer) -> None:
    with pytest.raises(ValueError, match="video"):
        llm.chat([ChatMessage(blocks=[VideoBlock(url="http://127.0.0.1/a.mp4")])])
    assert other.requests == []


def test_api_base_is_understood_and_two_servers_are_refused(other: OtherServer) -> None:
    assert ParrotLLM(api_base=other.url).base_url == other.url
    assert ParrotLLM(api_base=other.url, base_url=other.url).base_url == other.url
    with pytest.raises(ValueError, match="'api_base' and 'base_url' are one argument"):
        ParrotLLM(api_base=other.url, base_url="http://127.0.0.1:1/v1")


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"model_name": "x"}, {"model": "x"}),
        ({"model_name": None, "model": "x"}, {"model": "x"}),
        ({"max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"reasoning_effort": "low", "logprobs": True}, {"reasoning_effort": "low", "logprobs": True}),
        ({"frequency_penalty": 0.5, "additional_kwargs": {"min_p": 0.1}}, {"frequency_penalty": 0.5, "min_p": 0.1}),
    ],
)
def test_the_arguments_of_llamaindexs_openai_classes_are_sent(given: Any, sent: Any, other: OtherServer) -> None:
    llm = ParrotLLM(base_url=other.url, **given)
    for copied in (llm, ParrotLLM.from_dict(llm.to_dict()), ParrotLLM(**llm.model_dump())):
        copied.complete("hi")
        assert other.last.body == {"messages": [{"role": "user", "content": "hi"}], "stream": False, **sent}


@pytest.mark.parametrize("kind", [ParrotLLM, ParrotEmbedding])
def test_an_argument_without_effect_is_warned_of_by_name(kind: Any) -> None:
    with pytest.warns(UserWarning, match=f"'reuse_client' has no effect on {kind.__name__}; .* additional_kwargs"):
        kind(reuse_client=True, api_version=None)
    with pytest.raises(ValueError, match="'logprobs' is given twice"):
        ParrotLLM(logprobs=True, additional_kwargs={"logprobs": False})


@pytest.mark.parametrize("kind", [ParrotLLM, ParrotEmbedding])
@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("base_url", "base_url", "http://from.environment/v1"),
        ("api_base", "base_url", "http://from.environment/v1"),
        ("api_key", "api_key", SecretStr("from environment")),
        ("max_retries", "max_retries", 2),
        ("additional_kwargs", "additional_kwargs", {}),
        ("timeout", "timeout", None),
        ("model", "model", None),
    ],
)
def test_none_is_as_if_the_argument_was_not_given(
    monkeypatch: pytest.MonkeyPatch, kind: Any, name: str, field: str, value: object
) -> None:
    monkeypatch.setenv("PARROT_BASE_URL", "http://from.environment/v1")
    monkeypatch.setenv("PARROT_API_KEY", "from environment")
    assert getattr(kind(**{name: None}), field) == value


@pytest.mark.parametrize("kind", [ParrotLLM, ParrotEmbedding])
def test_a_variable_that_is_empty_is_not_set(monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    monkeypatch.setenv("PARROT_BASE_URL", "")
    monkeypatch.setenv("PARROT_API_KEY", "")
    model = kind()
    assert (model.base_url, model.api_key.get_secret_value()) == (DEFAULT_BASE_URL, "none")


def test_the_environment_names_the_server(other: OtherServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARROT_BASE_URL", other.url)
    monkeypatch.setenv("PARROT_API_KEY", "k")
    ParrotLLM().complete("hi")
    assert other.last.headers["authorization"] == "Bearer k"


# ---- what comes back ---------------------------------------------------------------------------------


def test_every_way_of_asking_brings_the_same_text(llm: ParrotLLM) -> None:
    template = PromptTemplate("hi {who}")

    async def asynchronously() -> list[str]:
        return [
            str((await llm.acomplete("hi you")).text),
            str((await llm.achat([user("hi you")])).message.content),
            await llm.apredict(template, who="you"),
            "".join([piece.delta or "" async for piece in await llm.astream_complete("hi you")]),
            "".join([piece.delta or "" async for piece in await llm.astream_chat([user("hi you")])]),
            "".join([piece async for piece in await llm.astream(template, who="you")]),
        ]

    texts = [
        llm.complete("hi you").text,
        str(llm.chat([user("hi you")]).message.content),
        llm.predict(template, who="you"),
        "".join(piece.delta or "" for piece in llm.stream_complete("hi you")),
        "".join(piece.delta or "" for piece in llm.stream_chat([user("hi you")])),
        "".join(llm.stream(template, who="you")),
        *asyncio.run(asynchronously()),
    ]
    assert set(texts) == {"you said hi you"}


def test_tokens_are_counted_and_the_end_is_told_whole_and_streamed(llm: ParrotLLM) -> None:
    whole = llm.chat([user("hi")]).additional_kwargs
    tokens = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10, "cached_tokens": 4}
    assert whole == {**tokens, "finish_reason": "stop"}
    assert [*llm.stream_chat([user("hi")])][-1].additional_kwargs == whole


def test_reasoning_is_a_block_of_its_own(llm: ParrotLLM, other: OtherServer) -> None:
    other.answer = lambda _: Reply(completion("yes", reasoning_content="hm"))
    message = llm.chat([user("?")]).message
    assert [block.block_type for block in message.blocks] == ["thinking", "text"] and message.content == "yes"


def calling(*calls: dict[str, Any]) -> Callable[[Request], Reply]:
    return lambda _: Reply(completion(None, finish="tool_calls", tool_calls=list(calls)))


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


ADD = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}


def test_tools_are_offered_and_called(llm: ParrotLLM, other: OtherServer) -> None:
    other.answer = calling(ADD)
    tool = FunctionTool.from_defaults(add)
    assert llm.predict_and_call([tool], user_msg="1+2?").response == "3"
    assert asyncio.run(llm.apredict_and_call([tool], user_msg="1+2?")).response == "3"
    sent = other.last.body
    assert sent["tools"][0]["function"]["name"] == "add"
    assert (sent["tool_choice"], sent["parallel_tool_calls"]) == ("auto", False)
    llm.chat_with_tools([tool], user_msg="1+2?", tool_required=True)
    assert other.last.body["tool_choice"] == "required"
    llm.chat_with_tools([tool], user_msg="1+2?", tool_choice="add")
    assert other.last.body["tool_choice"] == {"type": "function", "function": {"name": "add"}}


def test_an_answer_that_calls_no_tool_is_told_where_one_was_expected(llm: ParrotLLM) -> None:
    response = llm.chat_with_tools([FunctionTool.from_defaults(add)], user_msg="hello")
    assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
    with pytest.raises(ValueError, match="you said hello"):
        llm.get_tool_calls_from_response(response)


def test_a_call_comes_together_from_the_pieces_of_a_stream(llm: ParrotLLM, other: OtherServer) -> None:
    def piece(**function: str) -> dict[str, Any]:
        return chunk(tool_calls=[{"index": 0, "id": "c1" if "name" in function else None, "function": function}])

    pieces = [piece(name="add", arguments=""), piece(arguments='{"a": 1'), piece(arguments=', "b": 2}'), chunk("stop")]
    other.answer = lambda _: Reply(events=iter(pieces))
    responses = [*llm.stream_chat_with_tools([FunctionTool.from_defaults(add)], user_msg="1+2?")]
    read = [llm.get_tool_calls_from_response(response)[0].tool_kwargs for response in responses]
    assert read == [{}, {"a": 1}, {"a": 1, "b": 2}, {"a": 1, "b": 2}]
    assert responses[-1].message.content is None


# ---- structured output -------------------------------------------------------------------------------


def test_structured_answers_are_asked_for_by_schema(llm: ParrotLLM, other: OtherServer) -> None:
    other.answer = lambda _: Reply(completion('{"name": "kea", "legs": 2}'))
    kea = Bird(name="kea", legs=2)
    template = PromptTemplate("Which bird is {what}?")
    assert llm.structured_predict(Bird, template, what="clever") == kea
    assert other.last.body["response_format"]["json_schema"] == {
        "name": "Bird",
        "schema": Bird.model_json_schema(),
        "description": "What a bird is.",
    }
    assert asyncio.run(llm.astructured_predict(Bird, template, {"seed": 3}, what="clever")) == kea
    assert other.last.body["seed"] == 3
    assert llm.as_structured_llm(Bird).chat([user("which?")]).raw == kea
    assert llm.as_structured_llm(Bird).complete("which?").raw == kea


def test_structured_answers_stream_as_they_become_readable(llm: ParrotLLM, other: OtherServer) -> None:
    pieces = [chunk(content=text) for text in ('{"name": "k', 'ea", "legs"', ": 2}")]
    other.answer = lambda _: Reply(events=iter([*pieces, chunk("stop")]))
    template = PromptTemplate("Which?")
    objects = [*llm.stream_structured_predict(Bird, template)]
    assert objects[-1] == Bird(name="kea", legs=2) and len(objects) == 4

    async def last() -> Any:
        return [found async for found in await llm.astream_structured_predict(Bird, template)][-1]

    assert asyncio.run(last()) == objects[-1]


def test_an_answer_that_is_not_of_the_schema_is_an_error(llm: ParrotLLM, other: OtherServer) -> None:
    other.answer = lambda _: Reply(completion('{"name": "ke', finish="length"))
    with pytest.raises(ValueError, match="Bird"):
        llm.structured_predict(Bird, PromptTemplate("Which?"))


def test_structured_answers_may_come_by_tool(other: OtherServer) -> None:
    mode = PydanticProgramMode.FUNCTION
    llm = ParrotLLM(base_url=other.url, model="m", context_window=1000, pydantic_program_mode=mode)
    function = {"name": "Bird", "arguments": '{"name": "kea", "legs": 2}'}
    other.answer = calling({"id": "c1", "type": "function", "function": function})
    assert llm.structured_predict(Bird, PromptTemplate("Which?")) == Bird(name="kea", legs=2)
    assert other.last.body["tool_choice"] == "required"
    program = FunctionCallingProgram.from_defaults(Bird, prompt_template_str="Which?", llm=llm)
    assert program() == Bird(name="kea", legs=2)


def test_our_engine_holds_a_random_model_to_the_schema(real: Served) -> None:
    llm = ParrotLLM(base_url=real.url, max_tokens=60, temperature=0)
    assert isinstance(llm.structured_predict(Bird, PromptTemplate("Which bird is {what}?"), what="clever"), Bird)


# ---- what it knows of the model ----------------------------------------------------------------------


def test_the_server_says_what_the_model_is(ours: Served) -> None:
    metadata = ParrotLLM(base_url=ours.url).metadata
    assert (metadata.context_window, metadata.model_name) == (4096, "first-model")
    assert metadata.is_chat_model and metadata.is_function_calling_model and metadata.num_output == -1
    assert ParrotLLM(base_url=ours.url, context_window=100, max_tokens=7).metadata.context_window == 100


def test_a_server_that_does_not_say_is_not_asked_at_every_call(other: OtherServer) -> None:
    llm = ParrotLLM(base_url=other.url)
    assert llm.metadata.context_window == llm.metadata.context_window == 3900
    assert sum(request.path == "/v1/models" for request in other.requests) == 1


def test_an_instance_can_be_copied_pickled_and_written_without_its_key(other: OtherServer) -> None:
    llm = ParrotLLM(base_url=other.url, api_key="secret", model="m")
    for twin in (deepcopy(llm), pickle.loads(pickle.dumps(llm))):
        assert twin.complete("hi").text == "you said hi"
    assert "secret" not in llm.to_json() + repr(llm)
    assert ParrotLLM.from_dict({**llm.to_dict(), "api_key": "k"}).complete("hi").text == "you said hi"


def test_one_instance_serves_several_event_loops(llm: ParrotLLM) -> None:
    for _ in range(3):
        assert asyncio.run(llm.acomplete("hi")).text == "you said hi"


# ---- errors ------------------------------------------------------------------------------------------

FAILURES = [
    (400, "no", "e", ours_errors.ParrotBadRequestError),
    (400, "prompt is too long: 9 > 8", "context_length_exceeded", ours_errors.ParrotContextOverflowError),
    (401, "no", None, ours_errors.ParrotAuthenticationError),
    (403, "no", None, ours_errors.ParrotPermissionDeniedError),
    (404, "no", "model_not_found", ours_errors.ParrotNotFoundError),
    (409, "no", None, ours_errors.ParrotConflictError),
    (422, "no", None, ours_errors.ParrotUnprocessableError),
    (424, "no", None, ours_errors.ParrotRequestError),
    (429, "no", None, ours_errors.ParrotRateLimitError),
    (503, "no", None, ours_errors.ParrotServerError),
]


@pytest.mark.parametrize(("status", "message", "code", "kind"), FAILURES)
def test_each_failure_has_its_class(
    llm: ParrotLLM, other: OtherServer, status: int, message: str, code: str | None, kind: type[Exception]
) -> None:
    body = {"error": {"message": message, "type": "x", "param": None, "code": code}}
    other.answer = lambda _: Reply(body, status)
    for ask in (
        lambda: llm.complete("hi"),
        lambda: [*llm.stream_complete("hi")],
        lambda: asyncio.run(llm.acomplete("hi")),
    ):
        with pytest.raises(kind, match=message) as caught:
            ask()
        assert isinstance(caught.value, ParrotAPIError)


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(ours_errors.ParrotConnectionError, match=r"127\.0\.0\.1:9/v1"):
        ParrotLLM(base_url="http://127.0.0.1:9/v1", max_retries=0).complete("hi")


def test_a_fault_inside_a_stream_comes_after_what_came_before_it(llm: ParrotLLM, other: OtherServer) -> None:
    fault = {"error": {"message": "engine lost", "type": "server_error", "param": None, "code": None}}
    other.answer = lambda _: Reply(events=iter([chunk(content="a"), fault]))
    heard: list[str] = []
    with pytest.raises(ours_errors.ParrotStreamError, match="engine lost"):
        for response in llm.stream_complete("hi"):
            heard.append(response.text)
    assert heard == ["a"]


def test_leaving_a_stream_ends_the_work(llm: ParrotLLM, other: OtherServer) -> None:
    def endless() -> Any:
        while True:
            yield chunk(content="x" * 1000)

    other.answer = lambda _: Reply(events=endless())
    stream = llm.stream_complete("hi")
    next(stream)
    stream.close()
    assert other.client_left.wait(30)
