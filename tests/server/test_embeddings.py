"""Embeddings by OpenAI's own client: floats and base64, one input and many, texts and token ids."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Mapping
from typing import Any

import openai
import pytest

from parrot_compat.server.json_values import written
from parrot_compat.server.openai import embeddings

from .live import Live, send, until

MODEL = "org/scripted"


@pytest.fixture
async def lenient(client: openai.AsyncOpenAI) -> openai.AsyncOpenAI:
    """Asks for base64 by itself and decodes it; when it validates answers strictly it refuses its own base64."""
    return openai.AsyncOpenAI(base_url=client.base_url, api_key="none", max_retries=0)


async def test_each_input_has_a_vector_of_length_one(client: openai.AsyncOpenAI) -> None:
    texts = ["a red fox", "a red fox", "stocks fell"]
    reply = await client.embeddings.create(model=MODEL, input=texts, encoding_format="float")
    vectors = [item.embedding for item in reply.data]
    assert [item.index for item in reply.data] == [0, 1, 2] and reply.model == MODEL
    assert all(math.isclose(math.hypot(*vector), 1, rel_tol=1e-5) for vector in vectors)
    assert vectors[0] == vectors[1] != vectors[2]
    assert reply.usage.prompt_tokens == reply.usage.total_tokens == len("a red foxa red foxstocks fell")


async def test_floats_base64_and_token_ids_tell_the_same_vector(
    client: openai.AsyncOpenAI, lenient: openai.AsyncOpenAI
) -> None:
    text = "a red fox"
    ids = list(map(ord, text))
    plain = await client.embeddings.create(model=MODEL, input=text, encoding_format="float")
    for given in (text, ids, [ids], [text]):
        reply = await lenient.embeddings.create(model=MODEL, input=given)  # type: ignore[arg-type]
        assert reply.data[0].embedding == plain.data[0].embedding


async def test_fewer_dimensions_are_the_first_ones_at_length_one(lenient: openai.AsyncOpenAI) -> None:
    whole = (await lenient.embeddings.create(model=MODEL, input="a red fox jumps")).data[0].embedding
    short = (await lenient.embeddings.create(model=MODEL, input="a red fox jumps", dimensions=16)).data[0].embedding
    length = math.hypot(*whole[:16])
    assert short == pytest.approx([value / length for value in whole[:16]], abs=1e-6)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": [[]]}, "input[0]"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": ["a", 1]}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": [2**31]}, "input"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": 10**6}, "dimensions"),
        ({"encoding_format": "int8"}, "encoding_format"),
    ],
)
async def test_what_is_wrong_is_refused_by_name(server: Live, change: dict[str, Any], param: str) -> None:
    reply = await send(server, "POST", "/v1/embeddings", {"input": "a", **change})
    assert reply.status == 400 and reply.error["param"] == param


async def test_a_text_longer_than_the_context_says_so(server: Live) -> None:
    reply = await send(server, "POST", "/v1/embeddings", {"input": "x" * 5000})
    assert reply.status == 400 and reply.error["code"] == "context_length_exceeded"


async def test_fields_without_effect_are_named(server: Live) -> None:
    reply = await send(server, "POST", "/v1/embeddings", {"input": "a", "user": "u", "truncate": True})
    assert reply.status == 200 and reply.headers["x-parrot-ignored"] == "truncate"


async def test_while_a_large_answer_is_written_others_are_answered(
    server: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may = threading.Event(), threading.Event()

    def slowly(data: Mapping[str, Any]) -> bytes:
        begun.set()
        assert may.wait(120)
        return written(data)

    monkeypatch.setattr(embeddings, "written", slowly)
    asked: dict[str, Any] = {"input": [f"text {number}" for number in range(500)]}
    async with asyncio.timeout(120):
        large = asyncio.create_task(send(server, "POST", "/v1/embeddings", asked))
        await until(begun.is_set)
        small = (await send(server, "POST", "/v1/embeddings", {"input": "text 7"})).json()
        may.set()
        vectors = (await large).json()["data"]
    assert len(vectors) == 500 and vectors[7]["embedding"] == small["data"][0]["embedding"]
