"""Log probabilities of a prompt's tokens: Hugging Face's numbers, whatever the chunks and whatever is cached."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from parrot_compat.core.call import ResolvedSampling, TokenLogprobs
from parrot_compat.core.engine import Chunk, ContextId, Fill, Generate
from parrot_compat.core.engine_front import Command
from parrot_compat.core.errors import EngineError
from parrot_compat.core.prompt import Tokens
from parrot_compat.gpu.config import EngineConfig
from parrot_compat.gpu.models.families import FAMILIES
from parrot_compat.gpu.runner import ModelRunner
from parrot_compat.gpu.sequence import Sequence
from parrot_compat.gpu.step import PlannedRow
from parrot_compat.gpu.step_rows import Row
from parrot_compat.gpu.stepper import Stepper
from parrot_compat.gpu.wanted import Read
from tests.gpu.paged_runner import tokenizer

Checkpoint = Callable[[str], Path]
TEXT = tuple(3 + (7 * at + at // 5) % 250 for at in range(40))
TOP = 3


def generate(context: int, text: tuple[int, ...] = TEXT, max_tokens: int = 4, **fields: object) -> Generate:
    sampling = ResolvedSampling(max_tokens=max_tokens, prompt_logprobs=TOP, logprobs=TOP, ignore_eos=True)
    return Generate(context=ContextId(context), content=Tokens(text), sampling=sampling, **fields)  # type: ignore[arg-type]


def stepper_of(path: Path, **asked: int) -> Stepper:
    runner = ModelRunner(EngineConfig(model=str(path), device="cpu", page_size=4, **({"kv_tokens": 512} | asked)))  # type: ignore[arg-type]
    return Stepper(runner, tokenizer().text_stream)


def answers(stepper: Stepper, *verbs: Generate | Fill) -> dict[int, list[Chunk]]:
    """Of each generate its chunks."""
    commands = [Command(number + 1, verb) for number, verb in enumerate(verbs)]
    told: dict[int, list[Chunk]] = {}
    while commands or stepper.has_work:
        report, commands = stepper.step(commands), []
        for update in report.updates:
            assert not isinstance(update.answer, Exception), update.answer
            if isinstance(update.answer, Chunk):
                told.setdefault(update.command, []).append(update.answer)
    stepper.check()
    return told


def told(chunks: list[Chunk]) -> tuple[TokenLogprobs, ...]:
    assert not any(chunk.prompt_logprobs for chunk in chunks[1:]), "they come with the first chunk"
    return chunks[0].prompt_logprobs


def check(scores: tuple[TokenLogprobs, ...], right: torch.Tensor, text: tuple[int, ...] = TEXT) -> None:
    assert [item.token for item in scores] == list(text[1:])
    for at, item in enumerate(scores):
        assert item.logprob == pytest.approx(float(right[at, item.token]), abs=2e-4)
        top = right[at].topk(TOP)
        assert [token for token, _ in item.top] == top.indices.tolist()
        assert [logprob for _, logprob in item.top] == pytest.approx(top.values.tolist(), abs=2e-4)


@cache  # of checkpoints that nobody changes
def of_hugging_face(path: Path, text: tuple[int, ...] = TEXT) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager", dtype=torch.float32).eval()
    with torch.inference_mode():
        logprobs: torch.Tensor = model(torch.tensor([text])).logits[0].float().log_softmax(-1)
    return logprobs


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_they_are_hugging_faces_whatever_the_chunks(family: str, tiny_checkpoint: Checkpoint) -> None:
    path = tiny_checkpoint(family)
    right = of_hugging_face(path)
    drawn = []
    for step_tokens in (512, 7):
        [chunks] = answers(stepper_of(path, step_tokens=step_tokens), generate(1)).values()
        check(told(chunks), right)
        drawn.append([chunk.tokens for chunk in chunks])
    assert drawn[0] == drawn[1]


def test_asking_changes_no_token_and_a_prompt_that_is_cached_is_read_all_the_same(tiny_checkpoint: Checkpoint) -> None:
    path = tiny_checkpoint("llama")
    stepper, right = stepper_of(path), of_hugging_face(path)
    plain = Generate(
        context=ContextId(1), content=Tokens(TEXT), sampling=ResolvedSampling(max_tokens=4, ignore_eos=True)
    )
    [before] = answers(stepper, plain).values()
    [chunks] = answers(stepper, generate(2)).values()
    check(told(chunks), right)
    assert [chunk.tokens for chunk in chunks] == [chunk.tokens for chunk in before]
    [nothing] = answers(stepper, generate(3, max_tokens=0)).values()
    check(told(nothing), right)
    assert not any(chunk.prompt_logprobs for chunk in before)


def test_what_a_context_held_before_is_prompt_too(tiny_checkpoint: Checkpoint) -> None:
    path = tiny_checkpoint("qwen2")
    fill = Fill(context=ContextId(1), content=Tokens(TEXT[:21]))
    told_of = answers(stepper_of(path), fill, generate(1, TEXT[21:]), generate(2, TEXT[21:], parent=ContextId(1)))
    check(told(told_of[2]), of_hugging_face(path))
    said = tuple(token for chunk in told_of[2] for token in chunk.tokens)
    parent = (*TEXT, *said)  # the fork waited for nobody: it took its parent as far as it was drawn
    scores = told(told_of[3])
    text = (*TEXT[:21], *[item.token for item in scores][20:])
    assert text[-19:] == TEXT[21:] and text[:-19] == parent[: len(text) - 19]
    check(scores, of_hugging_face(path, text), text)


@dataclass
class Preempted:
    chunks: list[Chunk]
    lost: list[tuple[int, int]]
    """Each time that it lost its pages: how many of its tokens were computed, how many drawn."""
    starts: list[tuple[int, int]]
    """Each time that it started: where its first row begins, how many of its tokens were drawn."""


def preempted(path: Path, kv_tokens: int) -> Preempted:
    """`TEXT` and 12 tokens behind it, beside an older answer that takes its pages away."""
    stepper = stepper_of(path, kv_tokens=kv_tokens, max_model_len=kv_tokens, step_tokens=4)
    preempt, lost = stepper._rows._preempt, []
    prepare, starts = stepper._rows._prepare, []

    def noting(sequence: Sequence) -> None:
        assert sequence.id == 2, "the older one stays"
        lost.append((sequence.context.computed, len(sequence.drawn)))
        preempt(sequence)

    def noting_starts(sequence: Sequence, planned: PlannedRow) -> Row:
        is_new = not sequence.is_started
        row = prepare(sequence, planned)
        if is_new and sequence.id == 2:
            starts.append((row[1].start, len(sequence.drawn)))
        return row

    stepper._rows._preempt = noting  # type: ignore[method-assign]
    stepper._rows._prepare = noting_starts  # type: ignore[method-assign]
    other = Generate(
        context=ContextId(9), content=Tokens(TEXT[:9]), sampling=ResolvedSampling(max_tokens=40, ignore_eos=True)
    )
    told_of = answers(stepper, other, generate(1, max_tokens=12))
    return Preempted(told_of[2], lost, starts)


@pytest.mark.parametrize(("kv_tokens", "is_read_when_it_goes"), [(52, True), (64, False)])
def test_a_prompt_that_lost_its_pages_is_told_once(
    kv_tokens: int, is_read_when_it_goes: bool, tiny_checkpoint: Checkpoint
) -> None:
    path = tiny_checkpoint("llama")
    found = preempted(path, kv_tokens)
    assert any(computed > 0 and (drawn == 0) is is_read_when_it_goes for computed, drawn in found.lost), found.lost
    assert all((start > 0) is (drawn > 0) for start, drawn in found.starts), "who has read it goes on from the cache"
    assert any(drawn > 0 for _, drawn in found.starts) or is_read_when_it_goes
    check(told(found.chunks), of_hugging_face(path))
    [alone] = answers(stepper_of(path), generate(1, max_tokens=12)).values()
    assert [chunk.tokens for chunk in found.chunks] == [chunk.tokens for chunk in alone]
    for chunk, right in zip(found.chunks, alone, strict=True):
        assert chunk.logprobs[0].logprob == pytest.approx(right.logprobs[0].logprob, abs=2e-4)  # type: ignore[union-attr]


@pytest.mark.parametrize("max_tokens", [0, 4])
def test_a_prompt_whose_log_probabilities_are_no_numbers_fails_alone(
    max_tokens: int, tiny_checkpoint: Checkpoint
) -> None:
    path, broken = tiny_checkpoint("llama"), 255
    runner = ModelRunner(EngineConfig(model=str(path), device="cpu", page_size=4, kv_tokens=512))
    stepper, right = Stepper(runner, tokenizer().text_stream), of_hugging_face(path)
    runner._decoder.embedding = runner._decoder.embedding.clone()  # type: ignore[union-attr]
    runner._decoder.embedding[broken] = torch.nan  # type: ignore[union-attr]
    texts = [TEXT, (*TEXT[:20], broken, *TEXT[20:])]
    commands = [Command(n, generate(n, text, max_tokens=max_tokens)) for n, text in enumerate(texts, 1)]
    said: dict[int, object] = {}
    while commands or stepper.has_work:
        report, commands = stepper.step(commands), []
        for update in report.updates:
            said.setdefault(update.command, update.answer)
    stepper.check()
    assert broken not in TEXT and isinstance(said[2], EngineError)
    assert ("no numbers" if max_tokens == 0 else "cannot be drawn") in str(said[2])
    assert isinstance(said[1], Chunk)
    check(said[1].prompt_logprobs, right)


def test_a_token_that_cannot_come_is_a_log_probability_of_minus_infinity_and_no_fault() -> None:
    assert Read(logprobs=(TokenLogprobs(3, -math.inf, ((4, 0.0), (5, -math.inf))),)).is_usable
    assert not Read(logprobs=(TokenLogprobs(3, -1.0), TokenLogprobs(3, math.nan))).is_usable
