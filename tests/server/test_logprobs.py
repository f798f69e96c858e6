"""Log probabilities and penalties on both endpoints, through OpenAI's own client with strict validation.

The scripted engine is sure of what it says: each token's log probability is 0, and it knows no alternative.
"""

from __future__ import annotations

import math
from typing import Any

import openai
import pytest

from parrot_compat.core.call import Sampling, TokenLogprobs
from parrot_compat.core.engines.char_tokenizer import CharTokenizer
from parrot_compat.server.openai.chat_schema import ChatRequest
from parrot_compat.server.openai.completions_schema import CompletionRequest
from parrot_compat.server.openai.logprobs import ChatLogprobs, TextLogprobs, TokenWriter

from .live import Live, events_of, send

MODEL = "org/scripted"
SNOW = "雪 ☃"
CHAT: Any = [{"role": "user", "content": "snow"}]


class ByteTokenizer(CharTokenizer):
    """A token is a byte: characters are parts of tokens put together."""

    def token_bytes(self, token: int) -> bytes:
        return bytes([token])

    text_bytes = token_bytes


@pytest.mark.parametrize(("asked", "told"), [({}, 0), ({"top_logprobs": 0}, 0), ({"top_logprobs": 3}, 1)])
async def test_a_chat_tells_every_tokens_log_probability(
    client: openai.AsyncOpenAI, asked: dict[str, Any], told: int
) -> None:
    answer = await client.chat.completions.create(model=MODEL, messages=CHAT, logprobs=True, max_tokens=3, **asked)
    (choice,) = answer.choices
    assert choice.logprobs is not None and choice.logprobs.content is not None
    entries = choice.logprobs.content
    assert [entry.token for entry in entries] == list(SNOW) == list(choice.message.content or "")
    assert [bytes(entry.bytes or ()) for entry in entries] == [character.encode() for character in SNOW]
    assert all(entry.logprob == 0.0 and len(entry.top_logprobs) == told for entry in entries)
    assert answer.usage is not None and answer.usage.completion_tokens == len(entries)


async def test_a_chat_that_does_not_ask_is_told_none(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model=MODEL, messages=CHAT, logprobs=False, top_logprobs=0)
    assert answer.choices[0].logprobs is None


async def test_a_streamed_chat_tells_what_the_whole_one_does_also_of_text_held_back(client: openai.AsyncOpenAI) -> None:
    asked: Any = dict(model=MODEL, messages=CHAT, logprobs=True, top_logprobs=1, max_tokens=3, n=2, stop=["☃ no"])
    whole = await client.chat.completions.create(**asked)
    chunks = [chunk async for chunk in await client.chat.completions.create(**asked, stream=True)]
    for expected in whole.choices:
        assert expected.logprobs is not None
        streamed = [
            entry
            for chunk in chunks
            for choice in chunk.choices
            if choice.index == expected.index and choice.logprobs is not None
            for entry in choice.logprobs.content or ()
        ]
        assert [entry.to_dict() for entry in streamed] == [
            entry.to_dict() for entry in expected.logprobs.content or ()
        ] and streamed


async def test_a_completion_tells_tokens_alternatives_and_offsets(client: openai.AsyncOpenAI, server: Live) -> None:
    answer = await client.completions.create(model=MODEL, prompt="snow", logprobs=2, max_tokens=3)
    told = answer.choices[0].logprobs
    assert told is not None
    assert told.tokens == list(SNOW) and told.token_logprobs == [0.0] * 3
    assert told.text_offset == [0, 1, 2]
    assert told.top_logprobs == [{character: 0.0} for character in SNOW]

    asked = {"prompt": "snow", "logprobs": 2, "max_tokens": 3, "stream": True}
    pieces = [
        chunk["choices"][0]["logprobs"] for chunk in events_of(await send(server, "POST", "/v1/completions", asked))
    ]
    assert {name: [item for piece in pieces for item in piece[name]] for name in pieces[0]} == told.to_dict()


async def test_zero_logprobs_of_a_completion_tell_the_drawn_token(client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(model=MODEL, prompt="snow", logprobs=0, max_tokens=1)
    told = answer.choices[0].logprobs
    assert told is not None and told.tokens == ["雪"] and told.top_logprobs == [{"雪": 0.0}]


def test_parts_of_characters_are_told_by_their_bytes_and_offsets_count_whole_characters() -> None:
    snow = "雪!".encode()
    drawn = [TokenLogprobs(byte, -0.5, ((byte, -0.5), (33, -2.0))) for byte in snow]

    entries = ChatLogprobs(TokenWriter(ByteTokenizer())).told(drawn)["content"]
    assert b"".join(bytes(entry["bytes"]) for entry in entries) == snow
    assert entries[0]["token"] == "\N{REPLACEMENT CHARACTER}"

    told = TextLogprobs(TokenWriter(ByteTokenizer())).told(drawn)
    assert told["text_offset"] == [0, 0, 0, 1]
    assert told["top_logprobs"][0] == {"\N{REPLACEMENT CHARACTER}": -0.5, "!": -2.0}


def test_minus_infinity_is_told_as_the_least_number_that_openai_tells() -> None:
    drawn = [TokenLogprobs(97, -math.inf, ((98, 0.0), (97, -math.inf)))]
    writer = TokenWriter(CharTokenizer())
    assert ChatLogprobs(writer).told(drawn)["content"][0]["logprob"] == -9999.0
    assert TextLogprobs(writer).told(drawn)["token_logprobs"] == [-9999.0]


def test_what_is_asked_is_what_the_engine_learns() -> None:
    every = {
        "presence_penalty": 0.5,
        "frequency_penalty": -2,
        "repetition_penalty": 1.2,
        "logit_bias": {"70": 100, "5": -100},
    }
    expected = dict(
        presence_penalty=0.5, frequency_penalty=-2.0, repetition_penalty=1.2, logit_bias=((5, -100.0), (70, 100.0))
    )
    chat = ChatRequest.model_validate({"messages": CHAT, "logprobs": True, "top_logprobs": 20, **every})
    assert chat.sampling() == Sampling(**expected, logprobs=20)
    text = CompletionRequest.model_validate({"prompt": "x", "logprobs": 5, "max_tokens": 7, **every})
    assert text.sampling() == Sampling(**expected, logprobs=5, max_tokens=7)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_bias_on_a_token_that_the_model_has_not_is_refused_before_the_first_byte(
    client: openai.AsyncOpenAI, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model=MODEL, messages=CHAT, stream=stream, logit_bias={"1999999999": 1})
    assert caught.value.param == "logit_bias"


async def test_an_echoed_prompt_tells_its_own_tokens_before_what_was_drawn(server: Live) -> None:
    """The first token has none: null, as OpenAI answers, which its SDK's own types do not foresee."""
    asked = dict(prompt="snow", logprobs=2, echo=True, max_tokens=3)
    whole = await send(server, "POST", "/v1/completions", {**asked, "n": 2})
    for choice in whole.json()["choices"]:
        assert choice["text"] == "snow" + SNOW
        assert choice["logprobs"] == {
            "tokens": list("snow" + SNOW),
            "token_logprobs": [None, *[0.0] * 6],
            "top_logprobs": [None, *({character: 0.0} for character in "now" + SNOW)],
            "text_offset": list(range(7)),
        }
    streamed = events_of(await send(server, "POST", "/v1/completions", {**asked, "stream": True}))
    pieces = [chunk["choices"][0]["logprobs"] for chunk in streamed]
    together = {name: [item for piece in pieces for item in piece[name]] for name in pieces[0]}
    assert together == whole.json()["choices"][0]["logprobs"]
    assert "".join(chunk["choices"][0]["text"] for chunk in streamed) == "snow" + SNOW


async def test_with_echo_nothing_need_be_drawn(server: Live, client: openai.AsyncOpenAI) -> None:
    asked = dict(prompt="snow", logprobs=0, echo=True, max_tokens=0)
    answer = (await send(server, "POST", "/v1/completions", asked)).json()
    (choice,) = answer["choices"]
    assert choice["text"] == "snow" and choice["finish_reason"] == "length"
    assert choice["logprobs"]["token_logprobs"] == [None, 0.0, 0.0, 0.0]
    assert answer["usage"]["completion_tokens"] == 0
    with pytest.raises(openai.BadRequestError) as caught:
        await client.completions.create(model=MODEL, prompt="snow", max_tokens=0)
    assert caught.value.param == "max_tokens"


async def test_prompt_logprobs_are_told_by_token_id_as_vllm_does(client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(
        model=MODEL, prompt="snow", max_tokens=3, extra_body={"prompt_logprobs": 1}
    )
    told = answer.choices[0].model_extra["prompt_logprobs"]  # type: ignore[index]
    assert told[0] is None and answer.choices[0].logprobs is None
    assert told[1:] == [{str(ord(c)): {"logprob": 0.0, "rank": 1, "decoded_token": c}} for c in "now"]
    with pytest.raises(openai.BadRequestError) as caught:
        await client.completions.create(model=MODEL, prompt="snow", stream=True, extra_body={"prompt_logprobs": 1})
    assert caught.value.param == "prompt_logprobs"


def test_a_control_token_takes_no_place_in_the_text() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    from parrot_compat.gpu.text.text_stream import TextDecoder

    vocabulary = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "b": 1}, []))
    vocabulary.decoder = tokenizers.decoders.ByteLevel()
    vocabulary.add_special_tokens(["<|bos|>"])
    decoder: Any = TextDecoder(vocabulary)
    decoder.decode = vocabulary.decode

    def offsets(echo: str, *ids: int) -> list[int]:
        told = TextLogprobs(TokenWriter(decoder)).told_of_prompt(
            ids[0], [TokenLogprobs(id, -1.0) for id in ids[1:]], echo
        )
        assert told["tokens"] == ["ab"[id] if id < 2 else "<|bos|>" for id in ids]
        return list(told["text_offset"])

    assert offsets("ab", 2, 0, 1) == [0, 0, 1]
    assert offsets("a<|bos|>b", 0, 2, 1) == [0, 1, 8], "where the client has written its name, it is in the echo"
