"""A checkpoint that calls tools as Mistral's newer models do, by control tokens: real engine, real forms, stock SDK."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

pytest.importorskip("torch")
pytest.importorskip("llguidance")

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "unit": {"enum": ["m", "s"]}},
    "required": ["a", "unit"],
}
TOOLS: Any = [
    {"type": "function", "function": {"name": "measure", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "now"}},
]
ASKED: Any = {"model": "tiny", "tools": TOOLS, "max_tokens": 100, "temperature": 1.0}
QUESTION: Any = {"role": "user", "content": "How long?"}


def checkpoint(folder: Path) -> Path:
    from parrot_compat.gpu.text.tokenizer import HuggingFaceTokenizer
    from tests.gpu.models.tiny import save_tiny
    from tests.gpu.vocabularies import save_vocabulary

    tokenizer = HuggingFaceTokenizer(save_vocabulary("mistral_args", folder))
    names = {f"{name}_token_id": getattr(tokenizer._hf, f"{name}_token_id") for name in ("bos", "eos")}
    return save_tiny("mistral", folder, vocab_size=tokenizer.vocabulary, max_position_embeddings=2048, **names)


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[openai.AsyncOpenAI]:
    from parrot_compat.settings import Settings

    from .real import client_of, listening

    settings = Settings(
        model=str(checkpoint(tmp_path_factory.mktemp("mistral") / "tiny")),
        served_model_name=("tiny",),
        device="cpu",
        dtype="float32",
        kv_tokens=8192,
        max_model_len=1024,
    )
    async with listening(settings) as (url, _), client_of(url) as client:
        yield client


async def test_a_required_call_is_whole_valid_and_told_the_same_in_a_stream(client: openai.AsyncOpenAI) -> None:
    for seed in range(3):
        asked = {**ASKED, "messages": [QUESTION], "tool_choice": "required", "seed": seed}
        whole = (await client.chat.completions.create(**asked)).choices[0]
        calls: Any = whole.message.tool_calls
        assert calls and whole.message.content is None and whole.finish_reason == "tool_calls"
        pieces: list[Any] = []
        async for chunk in await client.chat.completions.create(**asked, stream=True):
            assert not chunk.choices[0].delta.content
            pieces += chunk.choices[0].delta.tool_calls or []
        for index, call in enumerate(calls):
            own = [piece for piece in pieces if piece.index == index]
            assert own[0].function.name == call.function.name
            assert "".join(piece.function.arguments for piece in own) == call.function.arguments
            arguments = json.loads(call.function.arguments)
            assert call.function.name == "now" or arguments["unit"] in ("m", "s")


async def test_a_named_call_is_that_call_and_the_only_one(client: openai.AsyncOpenAI) -> None:
    named = {"type": "function", "function": {"name": "measure"}}
    reply = await client.chat.completions.create(**ASKED, messages=[QUESTION], tool_choice=named)
    calls: Any = reply.choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["measure"]
    assert len(calls[0].id) == 9 and calls[0].id.isalnum()


async def test_the_history_of_a_call_goes_into_the_next_prompt_by_its_control_tokens(
    client: openai.AsyncOpenAI,
) -> None:
    reply = await client.chat.completions.create(**ASKED, messages=[QUESTION], tool_choice="required", seed=1)
    message = reply.choices[0].message
    answers: Any = [{"role": "tool", "tool_call_id": call.id, "content": "5 m"} for call in message.tool_calls or []]
    history: Any = [QUESTION, message.model_dump(exclude_none=True), *answers]
    asked = {**ASKED, "max_tokens": 4, "tool_choice": "none"}
    told = await client.chat.completions.create(**asked, messages=history, extra_body={"return_token_ids": True})
    ids: Any = told.to_dict()["prompt_token_ids"]
    url = str(client.base_url).removesuffix("v1/")
    written = await client.post(f"{url}detokenize", cast_to=object, body={"model": "tiny", "tokens": ids})
    text = written["prompt"]  # type: ignore[index]
    assert all(f"[TOOL_CALLS]{call.function.name}[ARGS]{{" in text for call in message.tool_calls or [])  # type: ignore[union-attr]
    assert text.endswith("[TOOL_RESULTS]5 m[/TOOL_RESULTS]")
