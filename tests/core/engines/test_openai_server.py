"""A server behind us: the engine contract over it, what is asked of it, and what its troubles become."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import openai
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from parrot_compat.core.call import Call, CallId, Finish, ResolvedSampling, Sampling, VariableName, WrittenLogprobs
from parrot_compat.core.engine import Chunk, Embed, Engine, Generate
from parrot_compat.core.engines.openai_answers import AnswerReader
from parrot_compat.core.engines.openai_requests import completion_request, our_error
from parrot_compat.core.engines.openai_server import OpenAIServerEngine, Upstream
from parrot_compat.core.engines.word_vectors import text_vector
from parrot_compat.core.errors import (
    BadPrompt,
    EngineError,
    EngineLost,
    NoEngineForModel,
    ParrotError,
    PromptTooLong,
    QueueFull,
)
from parrot_compat.core.fleet import Fleet
from parrot_compat.core.manager import Manager
from parrot_compat.core.output_format import AnyJson, Choice, Grammar, JsonSchema, OutputFormat, Regex, ToolCalls
from parrot_compat.core.prompt import Chat, ChatPrompt, Constant, Content, Message, Text, Tokens
from parrot_compat.core.tool_calls import whole_calls
from tests.core.engine_contract import EngineContract, collect, greedy, new_context
from tests.core.scripted_server import ScriptedServer, serving

CHAT = Chat(({"role": "user", "content": "who are you?"},))


class TestOpenAIServer(EngineContract):
    holds_contexts = False
    counts_tokens = False

    @pytest.fixture(autouse=True)
    async def servers(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as self.stack:
            yield

    async def start(self) -> Engine:
        script = ScriptedServer(lambda prompt: f"{len(prompt)} characters, the last is {prompt[-1:]!r}; ")
        server = await self.stack.enter_async_context(serving(script))
        return await OpenAIServerEngine.connect(server.base_url)

    def content(self, tokens: int, salt: int = 0) -> Content:
        return Text("".join(chr(97 + (position * 7 + salt) % 26) for position in range(tokens)))


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with serving(ScriptedServer(lambda prompt: "I am a model, and this is all I say.")) as server:
        yield server


@pytest.fixture
async def engine(server: ScriptedServer) -> AsyncIterator[OpenAIServerEngine]:
    engine = await OpenAIServerEngine.connect(server.base_url)
    yield engine
    await engine.close()


def generate(content: Content = CHAT, sampling: ResolvedSampling | None = None) -> Generate:
    return Generate(context=new_context(), content=content, sampling=sampling or greedy(100))


async def failure(engine: OpenAIServerEngine) -> ParrotError:
    with pytest.raises(ParrotError) as caught:
        await collect(engine.generate(generate(sampling=ResolvedSampling(max_tokens=100))))
    return caught.value


async def test_a_chat_is_streamed_with_its_usage(engine: OpenAIServerEngine) -> None:
    text, chunks = await collect(engine.generate(generate(sampling=ResolvedSampling(max_tokens=100))))
    assert text == "I am a model, and this is all I say."
    assert len(chunks) > 3
    last = chunks[-1]
    assert last.finish is Finish.STOP and last.usage is not None
    assert last.usage.output_tokens == len(text)
    assert last.usage.cached_tokens == last.usage.prompt_tokens // 2 > 0


async def test_texts_and_token_ids_go_to_the_completions_endpoint(
    engine: OpenAIServerEngine, server: ScriptedServer
) -> None:
    await collect(engine.generate(generate(Text("once upon"))))
    await collect(engine.generate(generate(Tokens((72, 105)))))
    assert [body["prompt"] for body in server.asked] == ["once upon", [72, 105]]


async def test_info_comes_from_the_list_of_models(server: ScriptedServer) -> None:
    engine = await OpenAIServerEngine.connect(server.base_url, model="small", name="theirs")
    assert (engine.info.name, engine.info.model, engine.info.context_tokens) == ("theirs", "small", 512)
    assert engine.info.takes == "text"
    await engine.close()


async def test_a_model_that_the_server_does_not_list_is_refused_with_what_it_lists(server: ScriptedServer) -> None:
    with pytest.raises(NoEngineForModel, match=r"'huge'.*'big', 'small'"):
        await OpenAIServerEngine.connect(server.base_url, model="huge")


async def test_nobody_at_the_address_is_a_lost_engine() -> None:
    with pytest.raises(EngineLost):
        await OpenAIServerEngine.connect(Upstream(base_url="http://127.0.0.1:9/v1", connect_s=1))


@pytest.mark.parametrize(
    "said",
    [
        HTMLResponse("<html>Welcome</html>"),
        JSONResponse({"error": {"message": "no such page"}}),
        JSONResponse([1, 2]),
        Response("{broken", media_type="application/json"),
        JSONResponse({"detail": "Not Found"}, 404),
    ],
    ids=["a page", "an error with status 200", "a list", "no JSON", "404"],
)
async def test_what_is_no_list_of_models_is_one_sentence(said: Response, monkeypatch: pytest.MonkeyPatch) -> None:
    async def models(request: object) -> Response:
        return said

    other = ScriptedServer(lambda prompt: "")
    monkeypatch.setattr(other, "models", models)
    async with serving(other):
        with pytest.raises(EngineError, match="does not list models as OpenAI's API does; does the URL end in /v1"):
            await OpenAIServerEngine.connect(other.base_url)


@pytest.mark.parametrize("url", ["http://[::1:8001/v1", "http://127.0.0.1:port/v1"])
async def test_what_is_no_url_is_one_sentence(url: str) -> None:
    with pytest.raises(EngineError, match="is no URL of a server"):
        await OpenAIServerEngine.connect(url)


async def test_a_key_that_cannot_be_sent_is_not_printed(server: ScriptedServer) -> None:
    with pytest.raises(EngineLost) as lost:
        await OpenAIServerEngine.connect(Upstream(base_url=server.base_url, api_key="sk-secret\n"), name="theirs")
    assert "sk-secret" not in str(lost.value) and "cannot be reached" not in str(lost.value)
    assert str(lost.value).endswith("'theirs' could not be asked: LocalProtocolError")


async def test_an_engine_is_not_called_after_the_password_in_its_url(server: ScriptedServer) -> None:
    upstream = Upstream(base_url=server.base_url.replace("http://", "http://operator:hunter2@"), api_key="sk-secret")
    engine = await OpenAIServerEngine.connect(upstream)
    assert engine.info.name == f"{server.base_url} big"
    assert "hunter2" not in repr(upstream) and "sk-secret" not in repr(upstream)
    await engine.close()
    with pytest.raises(NoEngineForModel, match="huge") as refused:
        await OpenAIServerEngine.connect(upstream, model="huge")
    assert "hunter2" not in str(refused.value)


async def test_only_what_was_asked_is_sent(engine: OpenAIServerEngine, server: ScriptedServer) -> None:
    unasked = Sampling().resolve(engine.info.defaults, room=engine.info.context_tokens, seed=7)
    await collect(engine.generate(generate(sampling=unasked)))
    assert server.asked[0].keys() == {"model", "messages", "seed", "stream", "stream_options"}

    asked = Sampling(
        temperature=1.0,
        top_k=5,
        max_tokens=9,
        stop=("x",),
        stop_token_ids=(3,),
        min_tokens=2,
        presence_penalty=0.5,
        frequency_penalty=-1.0,
        repetition_penalty=1.0,
        logit_bias=((5, 2.0),),
    )
    await collect(
        engine.generate(generate(sampling=asked.resolve(engine.info.defaults, room=engine.info.context_tokens, seed=7)))
    )
    said = {key: value for key, value in server.asked[1].items() if key not in server.asked[0]}
    assert said == {
        "temperature": 1.0,
        "top_k": 5,
        "max_tokens": 9,
        "stop": ["x"],
        "stop_token_ids": [3],
        "min_tokens": 2,
        "presence_penalty": 0.5,
        "frequency_penalty": -1.0,
        "repetition_penalty": 1.0,
        "logit_bias": {"5": 2.0},
    }


@pytest.mark.parametrize("asked", [None, 2**31 - 1])
@pytest.mark.parametrize("text", ["once upon", "雪 ☃!"])
def test_a_text_that_may_fill_the_context_is_asked_for_as_much_as_fits(asked: int | None, text: str) -> None:
    every = Sampling(max_tokens=asked).resolve(Sampling(), room=8192, seed=7)
    said = completion_request("big", Text(text), every, 8192)["max_tokens"]
    assert 8000 < said <= 8192 - len(text.encode())


def test_of_a_text_whose_room_is_not_known_or_next_to_none_nothing_is_said() -> None:
    for context_tokens, text in ((sys.maxsize, "once upon"), (512, "x" * 490)):
        every = Sampling().resolve(Sampling(), room=context_tokens, seed=7)
        assert "max_tokens" not in completion_request("big", Text(text), every, context_tokens)
    ids = Sampling().resolve(Sampling(), room=510, seed=7)
    assert completion_request("big", Tokens((72, 105)), ids, 512)["max_tokens"] == 510


async def test_log_probabilities_are_asked_for_and_told_by_what_the_tokens_write(
    engine: OpenAIServerEngine, server: ScriptedServer
) -> None:
    expected = [WrittenLogprobs(one.encode(), -0.5, ((one.encode(), -0.5), (b"?", -1.5))) for one in "I am"]
    for content in (CHAT, Text("who are you?")):
        _, chunks = await collect(engine.generate(generate(content, ResolvedSampling(max_tokens=4, logprobs=2))))
        assert [item for chunk in chunks for item in chunk.logprobs] == expected
    assert (server.asked[0]["logprobs"], server.asked[0]["top_logprobs"]) == (True, 2)
    assert server.asked[1]["logprobs"] == 2
    for content in (CHAT, Text("who are you?")):
        _, chunks = await collect(engine.generate(generate(content, ResolvedSampling(max_tokens=4, logprobs=0))))
        assert [item for chunk in chunks for item in chunk.logprobs] == [replace(one, top=()) for one in expected]
    assert "top_logprobs" not in server.asked[2]


async def test_a_server_that_tells_no_log_probabilities_fails_the_call_that_asked(
    engine: OpenAIServerEngine, server: ScriptedServer
) -> None:
    server.tells_logprobs = False
    with pytest.raises(EngineError, match="log probabilities"):
        await collect(engine.generate(generate(sampling=ResolvedSampling(max_tokens=5, logprobs=0))))
    with pytest.raises(BadPrompt, match="of a prompt"):
        await collect(engine.generate(generate(sampling=ResolvedSampling(max_tokens=5, prompt_logprobs=0))))
    assert len(server.asked) == 1


def test_a_part_of_a_character_is_told_by_its_bytes() -> None:
    told = {"tokens": ["bytes:\\xe9\\x9b", "\\xe9"], "token_logprobs": [-0.5, None], "text_offset": [0, 0]}
    choice = {"index": 0, "text": "", "finish_reason": "stop", "logprobs": told | {"top_logprobs": None}}
    chunk = AnswerReader().read(Completion.construct(id="x", choices=[choice], usage=None))
    assert chunk is not None
    assert [(item.written, item.logprob) for item in chunk.logprobs if isinstance(item, WrittenLogprobs)] == [
        (b"\xe9\x9b", -0.5),
        (b"\\xe9", float("-inf")),
    ]


@pytest.mark.parametrize(
    ("refusal", "expected", "words"),
    [
        (JSONResponse({"error": {"message": "no such role", "param": "messages"}}, 400), BadPrompt, "no such role"),
        (JSONResponse({"error": {"message": "context length is 5"}}, 400), PromptTooLong, "prompt is too long"),
        (JSONResponse({"error": {"message": "gone"}}, 404), NoEngineForModel, "gone"),
        (JSONResponse({"error": {"message": "slow down"}}, 429, {"retry-after": "7"}), QueueFull, "slow down"),
        (PlainTextResponse("boom", 500), EngineError, "500"),
        (PlainTextResponse("boom", 502), EngineError, "502"),
        (PlainTextResponse('data: {"error": {"message": "cuda"}}\n\n', 200), EngineError, "cuda"),
        (PlainTextResponse("data: {nonsense\n\n", 200), EngineError, "cannot be read"),
        (PlainTextResponse("data: [DONE]\n\n", 200), EngineError, "without saying why"),
    ],
)
async def test_what_a_server_answers_becomes_an_error_of_ours(
    engine: OpenAIServerEngine, server: ScriptedServer, refusal: Response, expected: type[ParrotError], words: str
) -> None:
    server.refusal = refusal
    error = await failure(engine)
    assert type(error) is expected
    assert words in str(error)
    if isinstance(error, QueueFull):
        assert error.retry_after_s == 7.0


async def test_a_prompt_that_is_too_long_there_is_too_long_here(engine: OpenAIServerEngine) -> None:
    with pytest.raises(PromptTooLong, match=r"prompt is too long.*512"):
        await collect(engine.generate(generate(Text("x" * 600))))


async def test_a_connection_that_breaks_amid_an_answer_is_a_lost_engine(
    engine: OpenAIServerEngine, server: ScriptedServer
) -> None:
    server.breaks_after = 12
    seen: list[Chunk] = []
    with pytest.raises(EngineLost):
        async for chunk in engine.generate(generate()):
            seen.append(chunk)
    assert "".join(chunk.text for chunk in seen) == "I am a model"


async def test_one_broken_connection_takes_no_other_answer_with_it(server: ScriptedServer) -> None:
    fleet = Fleet()
    member = fleet.add(await OpenAIServerEngine.connect(server.base_url))
    async with Manager(fleet) as manager, asyncio.timeout(60):
        server.pauses_at = 12
        prompt = ChatPrompt((Message("user", (Constant("who are you?"),)),))
        task = await manager.open_session().submit(Call(id=CallId("c"), prompt=prompt, output=VariableName("answer")))
        await anext(task.chunks())
        fleet.lost(member, EngineLost("a proxy cut another answer off"))
        await asyncio.sleep(0.05)  # what ends with the engine ends now
        server.pauses_at = None
        server.speaks.set()
        assert (await task.finished()).text == "I am a model, and this is all I say."


async def test_an_engine_that_retires_closes_when_its_last_answer_has_ended(
    engine: OpenAIServerEngine, server: ScriptedServer
) -> None:
    server.pauses_at = 8
    chunks = engine.generate(generate())
    await anext(chunks)
    retiring = asyncio.create_task(engine.retire())
    await asyncio.sleep(0)
    assert not retiring.done()
    await chunks.aclose()
    async with asyncio.timeout(60):
        await retiring
    assert type(await failure(engine)) is EngineLost


def test_a_server_that_is_slow_is_not_gone() -> None:
    slow = openai.APITimeoutError(request=None)  # type: ignore[arg-type]
    assert type(our_error("theirs", slow)) is EngineError
    slow.__cause__ = type("ConnectTimeout", (Exception,), {})()
    assert type(our_error("theirs", slow)) is EngineLost


async def test_leaving_early_hangs_up(engine: OpenAIServerEngine, server: ScriptedServer) -> None:
    server.pauses_at = 8
    chunks = engine.generate(generate())
    await anext(chunks)
    await chunks.aclose()
    assert engine.load().running == 0
    async with asyncio.timeout(60):
        await server.was_left.wait()


async def test_a_reader_who_is_cancelled_while_the_server_is_silent_leaves_nothing_behind(
    engine: OpenAIServerEngine, server: ScriptedServer
) -> None:
    server.speaks.clear()
    reader = asyncio.create_task(collect(engine.generate(generate())))
    async with asyncio.timeout(60):
        await server.was_asked.wait()
    reader.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reader
    assert engine.load().running == 0


async def test_behind_the_manager_it_serves_chats_without_a_tokenizer(server: ScriptedServer) -> None:
    fleet = Fleet()
    fleet.add(await OpenAIServerEngine.connect(server.base_url))
    async with Manager(fleet) as manager:
        assert manager.tokenizer() is None
        session = manager.open_session()
        prompt = ChatPrompt((Message.of("user", "who are you?"),))
        task = await session.submit(Call(id=CallId("c"), prompt=prompt, output=VariableName("answer")))
        result = await task.finished()
        assert result.text == "I am a model, and this is all I say."
        assert result.usage.output_tokens == len(result.text)
        assert server.asked[0]["seed"] == task.seed
        manager.check()


async def test_embeddings_are_the_servers_own(engine: OpenAIServerEngine, server: ScriptedServer) -> None:
    embedded = await engine.embed(Embed(inputs=(Text("a red parrot"), Text("the sea")), dimensions=8))
    assert embedded.vectors == (text_vector("a red parrot", 8), text_vector("the sea", 8))
    assert embedded.prompt_tokens == len("a red parrot") + len("the sea")
    asked = server.asked[-1]
    assert (asked["input"], asked["dimensions"]) == (["a red parrot", "the sea"], 8)
    for inputs, pooling in (((Text("a"), Tokens((65,))), None), ((Text("a"),), "mean"), ((CHAT,), None)):
        with pytest.raises(BadPrompt):
            await engine.embed(Embed(inputs=inputs, pooling=pooling))  # type: ignore[arg-type]


TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
OTHER = {"type": "function", "function": {"name": "sub", "parameters": {"type": "object"}}}


async def test_reasoning_and_calls_are_told_apart_as_the_server_does_it(
    engine: OpenAIServerEngine, server: ScriptedServer
) -> None:
    def part(index: int, arguments: str, **more: object) -> dict[str, object]:
        return {"index": index, "function": {"arguments": arguments, **more}}

    server.script = lambda prompt: "I add."
    server.deltas = [
        {"role": "assistant", "reasoning_content": "Two "},
        {"reasoning": "and two."},
        {"tool_calls": [part(0, "", name="add") | {"id": "c1", "type": "function"}]},
        {"tool_calls": [part(0, '{"a": 2, ')]},
        {"tool_calls": [part(0, '"b": 2}'), part(1, "", name="now")]},
    ]
    text, chunks = await collect(engine.generate(generate(sampling=ResolvedSampling(max_tokens=100))))
    assert text == "I add." and "".join(chunk.reasoning for chunk in chunks) == "Two and two."
    pieces = [piece for chunk in chunks for piece in chunk.calls]
    assert [piece.arguments for piece in pieces if piece.index == 0] == ["", '{"a": 2, ', '"b": 2}']
    calls = whole_calls(pieces)
    assert [(call.name, call.arguments) for call in calls] == [("add", '{"a": 2, "b": 2}'), ("now", "{}")]
    assert calls[0].id == "c1" and calls[1].id
    assert chunks[-1].finish is Finish.TOOL_CALLS


def test_calls_that_share_an_index_are_told_apart_by_their_ids() -> None:
    """Ollama gives every call the index 0; others give none."""
    reader, pieces = AnswerReader(), []
    for id, name, arguments in (("a", "add", '{"x": 1}'), ("b", "now", ""), (None, None, '{"y"'), ("b", None, ": 2}")):
        delta = {"tool_calls": [{"index": 0, "id": id, "function": {"name": name, "arguments": arguments}}]}
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        event = {"id": "x", "created": 0, "model": "m", "object": "chat.completion.chunk", "choices": [choice]}
        chunk = reader.read(ChatCompletionChunk.model_validate(event))
        pieces += [] if chunk is None else chunk.calls
    calls = whole_calls(pieces)
    assert [(one.id, one.name, one.arguments) for one in calls] == [("a", "add", '{"x": 1}'), ("b", "now", '{"y": 2}')]


def test_a_call_that_the_limit_cut_off_is_told_as_far_as_it_came() -> None:
    reader, told = AnswerReader(), []
    begun = {"index": 3, "function": {"name": "a", "arguments": "{"}}
    for choice in (
        {"index": 0, "delta": {"tool_calls": [begun]}, "finish_reason": None},
        {"index": 0, "delta": {}, "finish_reason": "length"},
    ):
        event = {"id": "x", "created": 0, "model": "m", "object": "chat.completion.chunk", "choices": [choice]}
        told.append(reader.read(ChatCompletionChunk.model_validate(event)))
    first, last = told[0], reader.end()
    assert first is not None and [(piece.index, piece.arguments) for piece in first.calls] == [(0, "{")]
    assert last is not None and last.calls == () and last.finish is Finish.LENGTH


async def test_what_the_template_is_told_and_how_many_calls_are_wanted_is_sent_on(
    engine: OpenAIServerEngine, server: ScriptedServer
) -> None:
    values = {"reasoning_effort": "low", "enable_thinking": False}
    asked = generate(Chat(CHAT.messages, (TOOL,), values), ResolvedSampling(max_tokens=100, top_k=3))
    await collect(engine.generate(replace(asked, is_parallel=False)))
    await collect(engine.generate(replace(asked, content=CHAT, is_parallel=False)))
    sent, plain = server.asked
    assert (sent["reasoning_effort"], sent["chat_template_kwargs"]) == ("low", {"enable_thinking": False})
    assert sent["parallel_tool_calls"] is False and sent["top_k"] == 3
    assert not plain.keys() & {"parallel_tool_calls", "reasoning_effort", "chat_template_kwargs"}


@pytest.mark.parametrize(
    ("form", "sent"),
    [
        (AnyJson(), {"response_format": {"type": "json_object"}}),
        (
            JsonSchema.of({"type": "object"}),
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
                }
            },
        ),
        (Regex("a+"), {"structured_outputs": {"regex": "a+"}}),
        (Choice(("a", "b")), {"structured_outputs": {"choice": ["a", "b"]}}),
        (Grammar("start: /a/"), {"structured_outputs": {"grammar": "start: /a/"}}),
        (
            ToolCalls.of([("add", {"type": "object"})], "hermes", False),
            {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
        ),
        (
            ToolCalls.of([("add", {"type": "object"})], "hermes", True, is_required=False),
            {"tools": [TOOL, OTHER], "tool_choice": None, "parallel_tool_calls": None},
        ),
        (
            ToolCalls.of([("add", {"type": "object"})], "hermes", True, is_required=False, answer=AnyJson()),
            {"tools": [TOOL, OTHER], "tool_choice": None, "response_format": {"type": "json_object"}},
        ),
    ],
)
async def test_forms_are_sent_in_the_words_of_the_server(
    engine: OpenAIServerEngine, server: ScriptedServer, form: OutputFormat, sent: dict[str, object]
) -> None:
    chat = Chat(({"role": "user", "content": "?"},), (TOOL, OTHER))
    await collect(engine.generate(generate(chat, ResolvedSampling(max_tokens=100, format=form))))
    assert {name: server.asked[-1].get(name) for name in sent} == sent
