"""Tokens of words have a blank before them, and some vocabularies' decoders take that of a text's first token: what is
told of tokens is what their text has."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from parrot_compat.core.call import TokenLogprobs
from parrot_compat.core.prompt import Chat, Text
from parrot_compat.server.openai.logprobs import ChatLogprobs, TextLogprobs, TokenWriter

pytest.importorskip("transformers")
from parrot_compat.gpu.text.tokenizer import HuggingFaceTokenizer
from tests.gpu.vocabularies import STYLES, save_vocabulary

TEXTS = ("The quick brown", " The quick", "  two  blanks ", "fox", "a\n b", "\n")
MORE = " fox jumps over  it."


@pytest.fixture(scope="module", params=STYLES)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(save_vocabulary(request.param, tmp_path_factory.mktemp("vocabulary") / request.param))


def drawn_of(tokenizer: HuggingFaceTokenizer) -> tuple[int, ...]:
    before = tokenizer.encode(Text("The quick brown"))
    return tokenizer.encode(Text("The quick brown" + MORE))[len(before) :]


def said(tokenizer: HuggingFaceTokenizer, prompt: tuple[int, ...], drawn: tuple[int, ...]) -> str:
    stream = tokenizer.text_stream()
    if prompt:
        stream.follow(prompt[-1])
    return stream.push(drawn) + stream.flush()


def scores(ids: tuple[int, ...]) -> list[TokenLogprobs]:
    return [TokenLogprobs(id, -1.0, ((id, -1.0),)) for id in ids]


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("text", TEXTS)
def test_every_token_of_a_completion_stands_at_its_offset(
    tokenizer: HuggingFaceTokenizer, text: str, echo: bool
) -> None:
    drawn = drawn_of(tokenizer)
    prompt = tokenizer.encode(Text(text))
    if echo and tokenizer.decode(prompt).startswith("<s>"):
        pytest.skip("Hugging Face reads its own <s> as text, which nobody wrote")
    told = TextLogprobs(TokenWriter(tokenizer), prompt)
    answer = said(tokenizer, prompt, drawn)
    parts = [told.told_of_prompt(prompt[0], scores(prompt[1:]), text)] if echo else []
    whole = text + answer if echo else answer
    parts += [told.told(scores((token,))) for token in drawn]
    tokens, offsets = ([item for part in parts for item in part[name]] for name in ("tokens", "text_offset"))
    controls = tokenizer._hf.all_special_tokens
    assert [
        (token, whole[offset:])
        for token, offset in zip(tokens, offsets, strict=True)
        if token not in controls and not whole[offset:].startswith(token)
    ] == []
    assert offsets[-1] + len(tokens[-1]) == len(whole)
    for part in parts:
        assert all(top is None or token in top for token, top in zip(part["tokens"], part["top_logprobs"], strict=True))


def test_the_bytes_of_a_chats_entries_are_its_content(tokenizer: HuggingFaceTokenizer) -> None:
    drawn = drawn_of(tokenizer)
    chat = tokenizer.encode(Chat(({"role": "user", "content": "The quick"},)))
    for prompt in (chat, tokenizer.encode(Text("The quick")), (tokenizer._hf.eos_token_id,)):
        told = ChatLogprobs(TokenWriter(tokenizer), prompt)
        entries = [entry for token in drawn for entry in told.told(scores((token,)))["content"]]
        assert b"".join(bytes(entry["bytes"]) for entry in entries).decode() == said(tokenizer, prompt, drawn)
        assert "".join(entry["token"] for entry in entries) == said(tokenizer, prompt, drawn)
        assert all(entry["top_logprobs"][0]["bytes"] == entry["bytes"] for entry in entries)


def test_a_control_token_that_a_client_wrote_stands_in_the_echo(tmp_path: Path) -> None:
    tokenizer = HuggingFaceTokenizer(save_vocabulary("llama2", tmp_path / "llama2"))
    text = "fox</s>quick"
    prompt = tokenizer.encode(Text(text))
    told = TextLogprobs(TokenWriter(tokenizer), prompt).told_of_prompt(prompt[0], scores(prompt[1:]), text)
    at = dict(zip(told["tokens"], told["text_offset"], strict=True))
    assert at["</s>"] == 3 and list(at.values())[-1] < len(text)


# ---- through the engine --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[openai.AsyncOpenAI]:
    pytest.importorskip("torch")
    pytest.importorskip("llguidance")
    from parrot_compat.settings import Settings
    from tests.gpu.models.tiny import save_tiny

    from .real import client_of, listening

    folder = save_vocabulary("phi3", tmp_path_factory.mktemp("phi3") / "tiny")
    vocabulary = HuggingFaceTokenizer(folder).vocabulary
    save_tiny("mistral", folder, vocab_size=vocabulary, bos_token_id=1, eos_token_id=2, max_position_embeddings=512)
    settings = Settings(
        model=str(folder), served_model_name=("tiny",), device="cpu", dtype="float32", kv_tokens=2048, max_model_len=256
    )
    async with listening(settings) as (url, _), client_of(url) as client:
        yield client


FORMED: Any = {"structured_outputs": {"regex": " [a-z]{2} [a-z]{3}"}}


async def test_a_completion_goes_on_in_the_middle_of_its_prompt(client: openai.AsyncOpenAI) -> None:
    asked: Any = {
        "model": "tiny",
        "prompt": "The quick brown",
        "max_tokens": 20,
        "echo": True,
        "logprobs": 1,
        "temperature": 0,
    }
    answer = await client.completions.create(**asked, extra_body=FORMED)
    (choice,) = answer.choices
    assert re.fullmatch("The quick brown [a-z]{2} [a-z]{3}", choice.text)
    assert choice.logprobs is not None
    tokens, offsets = choice.logprobs.tokens or [], choice.logprobs.text_offset or []
    found = [(token, at) for token, at in zip(tokens, offsets, strict=True) if token not in ("<s>", "</s>")]
    assert all(choice.text[at:].startswith(token) for token, at in found) and found
    (bare,) = (await client.completions.create(**asked | {"echo": False}, extra_body=FORMED)).choices
    assert choice.text == asked["prompt"] + bare.text
    stopped = await client.completions.create(**asked | {"echo": False, "stop": [bare.text[:2]]}, extra_body=FORMED)
    assert stopped.choices[0].text == "" and stopped.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("formed", [FORMED, {"structured_outputs": {"regex": "[a-z]{3} [a-z]{2}"}}])
async def test_the_entries_of_a_chat_add_up_to_its_content(client: openai.AsyncOpenAI, formed: Any) -> None:
    asked: Any = dict(
        model="tiny", messages=[{"role": "user", "content": "fox"}], logprobs=True, max_tokens=20, temperature=0
    )
    whole = (await client.chat.completions.create(**asked, extra_body=formed)).choices[0]
    assert re.fullmatch(formed["structured_outputs"]["regex"], whole.message.content or "")
    assert whole.logprobs is not None
    entries = [entry for entry in whole.logprobs.content or () if entry.token != "</s>"]
    assert b"".join(bytes(entry.bytes or ()) for entry in entries).decode() == whole.message.content
    streamed = [
        entry
        async for chunk in await client.chat.completions.create(**asked, extra_body=formed, stream=True)
        for choice in chunk.choices
        for entry in (choice.logprobs.content if choice.logprobs is not None else None) or ()
    ]
    assert streamed == whole.logprobs.content
