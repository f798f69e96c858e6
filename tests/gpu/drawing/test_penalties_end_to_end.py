"""Penalties, bias and log probabilities through the whole engine, against Hugging Face's own `generate`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.core.engine import Chunk, ContextId, Generate
from parrot_compat.core.errors import BadPrompt
from parrot_compat.core.output_format import JsonSchema
from parrot_compat.core.prompt import Chat, Tokens
from parrot_compat.gpu.config import EngineConfig
from parrot_compat.gpu.engine import TorchEngine
from parrot_compat.gpu.models.builtin import checkpoint
from parrot_compat.gpu.step_rows import StepRows
from parrot_compat.gpu.text.tokenizer import HuggingFaceTokenizer
from tests.core.engine_contract import collect, settle
from tests.gpu.at_once import at_once

TOKENS = 24
LENGTHS = (1, 7, 18, 40)
Checkpoint = Callable[[str], Path]


def prompts() -> list[list[int]]:
    chooser = random.Random(4)
    return [[chooser.randrange(3, 256) for _ in range(length)] for length in LENGTHS]


def hugging_face(path: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager", dtype=torch.float32).eval()


def generated(model: Any, prompt: list[int], **asked: Any) -> list[int]:
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=TOKENS,
            do_sample=False,
            eos_token_id=None,
            **asked,
        )
    return [int(token) for token in out[0, len(prompt) :]]


async def started(path: Path, **config: Any) -> TorchEngine:
    engine = TorchEngine(EngineConfig(model=str(path), device="cpu", page_size=4, threads=1, **config))
    await engine.start()
    return engine


async def answers(engine: TorchEngine, **asked: Any) -> list[list[Chunk]]:
    sampling = ResolvedSampling(max_tokens=TOKENS, ignore_eos=True, **asked)
    verbs = [
        Generate(context=ContextId(number), content=Tokens(tuple(prompt)), sampling=sampling)
        for number, prompt in enumerate(prompts(), start=1)
    ]
    chunks = [chunks for _, chunks in await at_once(engine, *(collect(engine.generate(verb)) for verb in verbs))]
    for verb in verbs:
        await engine.free(verb.context)
    await settle(engine)
    return chunks


def tokens_of(chunks: list[Chunk]) -> list[int]:
    return [token for chunk in chunks for token in chunk.tokens]


@pytest.mark.parametrize("kv_tokens", [4096, 96])
async def test_greedy_with_a_repetition_penalty_equals_hugging_face_generate_also_when_preempted(
    tiny_checkpoint: Checkpoint, kv_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_checkpoint("qwen3")
    preempted = []
    preempt = StepRows._preempt
    monkeypatch.setattr(StepRows, "_preempt", lambda self, sequence: (preempted.append(1), preempt(self, sequence)))
    model = hugging_face(path)
    expected = [generated(model, prompt, repetition_penalty=1.4) for prompt in prompts()]
    assert expected != [generated(model, prompt) for prompt in prompts()]

    engine = await started(path, kv_tokens=kv_tokens)
    try:
        assert [tokens_of(chunks) for chunks in await answers(engine, repetition_penalty=1.4)] == expected
    finally:
        await engine.close()
    assert bool(preempted) == (kv_tokens == 96)


async def test_presence_and_frequency_and_bias_equal_a_plain_loop_over_hugging_face_logits(
    tiny_checkpoint: Checkpoint,
) -> None:
    path = tiny_checkpoint("qwen3")
    model = hugging_face(path)
    asked: dict[str, Any] = {
        "presence_penalty": 0.9,
        "frequency_penalty": 0.3,
        "logit_bias": ((5, 3.0), (17, -100.0)),
    }

    def looped(prompt: list[int], presence_penalty: float, frequency_penalty: float, logit_bias: Any) -> list[int]:
        output: list[int] = []
        for _ in range(TOKENS):
            with torch.no_grad():
                logits = model(torch.tensor([prompt + output])).logits[0, -1].float()
            for token, value in logit_bias:
                logits[token] += value
            for token in set(output):
                logits[token] -= frequency_penalty * output.count(token)
                logits[token] -= presence_penalty
            output.append(int(logits.argmax()))
        return output

    engine = await started(path, kv_tokens=4096)
    try:
        told = await answers(engine, **asked)
    finally:
        await engine.close()
    expected = [looped(prompt, **asked) for prompt in prompts()]
    assert [tokens_of(chunks) for chunks in told] == expected
    for left_out in ({"presence_penalty": 0.0}, {"frequency_penalty": 0.0}, {"logit_bias": ()}):
        assert [looped(prompt, **asked | left_out) for prompt in prompts()] != expected, f"{left_out} is not seen"


async def test_log_probabilities_equal_log_softmax_of_hugging_face_logits(tiny_checkpoint: Checkpoint) -> None:
    path = tiny_checkpoint("qwen3")
    model = hugging_face(path)
    engine = await started(path, kv_tokens=4096)
    try:
        told = await answers(engine, logprobs=4)
        plain = await answers(engine)
    finally:
        await engine.close()
    assert all(not chunk.logprobs for chunks in plain for chunk in chunks)
    for prompt, chunks, unasked in zip(prompts(), told, plain, strict=True):
        drawn = tokens_of(chunks)
        assert drawn == tokens_of(unasked)
        assert [item.token for chunk in chunks for item in chunk.logprobs] == drawn
        with torch.inference_mode():
            expected = model(torch.tensor([prompt + drawn])).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
        for place, item in enumerate(item for chunk in chunks for item in chunk.logprobs):
            assert item.logprob == pytest.approx(float(expected[place, item.token]), abs=1e-4)
            best = expected[place].topk(4)
            assert [logprob for _, logprob in item.top] == pytest.approx(best.values.tolist(), abs=1e-4)
            assert item.top[0][0] == item.token


async def test_a_bias_on_a_token_that_is_not_there_is_refused_and_the_engine_goes_on(
    tiny_checkpoint: Checkpoint,
) -> None:
    engine = await started(tiny_checkpoint("qwen3"), kv_tokens=4096)
    try:
        with pytest.raises(BadPrompt, match="logit_bias"):
            await answers(engine, logit_bias=((10**9, 1.0),))
        assert all(len(tokens_of(chunks)) == TOKENS for chunks in await answers(engine, repetition_penalty=1.1))
    finally:
        await engine.close()


async def test_a_token_that_a_form_puts_in_place_of_the_drawn_one_is_told_with_its_own_log_probability() -> None:
    pytest.importorskip("llguidance")
    path = checkpoint("tiny")
    chat = Chat(({"role": "user", "content": "Repeat: " + "a parrot is a bird " * 6},))
    prompt = HuggingFaceTokenizer(path).encode(chat)
    asked: Any = {
        "max_tokens": 12,
        "format": JsonSchema.of({"type": "array", "items": {"type": "string"}, "minItems": 1}),
    }
    engine = TorchEngine(EngineConfig(model=str(path), device="cpu", threads=1, kv_tokens=1024))
    await engine.start()
    try:
        sampling = ResolvedSampling(logprobs=0, **asked)
        verb = Generate(context=ContextId(1), content=Tokens(tuple(prompt)), sampling=sampling)
        text, chunks = await collect(engine.generate(verb))
    finally:
        await engine.close()
    model = hugging_face(path)
    drawn = tokens_of(chunks)
    with torch.inference_mode():
        wanted = model(torch.tensor([[*prompt, *drawn]])).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
    told = [item for chunk in chunks for item in chunk.logprobs]
    assert [item.token for item in told] == drawn
    own = [float(wanted[place, token]) for place, token in enumerate(drawn)]
    assert [item.logprob for item in told] == pytest.approx(own, abs=1e-3)
    json.loads(text)  # it was closed in time, so a token came that was not drawn
    assert min(own) < -3
