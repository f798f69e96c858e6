"""Embeddings of our engine against Hugging Face's hidden states, and beside other work."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from parrot_compat.core.engine import ContextId, Embed, Embedded, Pooling
from parrot_compat.core.engine_front import Command
from parrot_compat.core.errors import BadPrompt, EngineError
from parrot_compat.core.prompt import Tokens
from parrot_compat.gpu.batch import BatchRow
from parrot_compat.gpu.config import EngineConfig
from parrot_compat.gpu.models.families import FAMILIES
from parrot_compat.gpu.runner import ModelRunner
from parrot_compat.gpu.stepper import Stepper
from parrot_compat.gpu.wanted import Read, Wanted
from tests.gpu.paged_runner import (
    PagedEngine,
    PagedRunner,
    answer,
    drained,
    expected,
    generate,
    paged_stepper,
    prompt,
    resolved,
    started,
    state,
    tokenizer,
)

Checkpoint = Callable[[str], Path]
TEXTS = tuple(tuple(3 + (7 * at + at // 5 + 31 * length) % 250 for at in range(length)) for length in (1, 9, 40))


def embed(*texts: tuple[int, ...], **asked: Any) -> Embed:
    return Embed(inputs=tuple(map(Tokens, texts)), **asked)


@cache  # of checkpoints that nobody changes
def of_hugging_face(path: Path, pooling: Pooling) -> list[np.ndarray[Any, Any]]:
    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager", dtype=torch.float32).eval()
    vectors = []
    for text in TEXTS:
        with torch.inference_mode():
            states = model.base_model(torch.tensor([text])).last_hidden_state[0].double()
        pooled = states.mean(0) if pooling == "mean" else states[-1]
        vectors.append((pooled / pooled.norm()).numpy())
    return vectors


def computed(stepper: Stepper, asked: Embed) -> list[np.ndarray[Any, Any]]:
    """Step until every input of `asked` has its vector."""
    commands = [Command(n + 1, embed(text.ids, pooling=asked.pooling)) for n, text in enumerate(asked.inputs)]  # type: ignore[union-attr]
    answers: dict[int, np.ndarray[Any, Any]] = {}
    while len(answers) < len(asked.inputs):
        report = stepper.step(commands)
        commands = []
        for update in report.updates:
            assert isinstance(update.answer, Embedded), update.answer
            answers[update.command] = np.array(update.answer.vectors[0])
    stepper.check()
    return [answers[n + 1] for n in range(len(asked.inputs))]


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_vectors_are_hugging_faces_pooled_states_whatever_the_chunks(
    family: str, pooling: Pooling, tiny_checkpoint: Checkpoint
) -> None:
    path = tiny_checkpoint(family)
    right = of_hugging_face(path, pooling)
    for step_tokens in (512, 7):
        runner = ModelRunner(EngineConfig(model=str(path), device="cpu", kv_tokens=512, step_tokens=step_tokens))
        ours = computed(Stepper(runner, tokenizer().text_stream), embed(*TEXTS, pooling=pooling))
        for vector, expected_vector in zip(ours, right, strict=True):
            np.testing.assert_allclose(vector, expected_vector, atol=2e-5)
        assert not np.allclose(ours[1], ours[2], atol=1e-2), "the checkpoint's vectors must differ"


def test_the_checkpoint_says_how_it_is_pooled_and_the_mean_is_for_all_others(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = copytree(tiny_checkpoint("llama"), tmp_path / "stated")
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_lasttoken": True}))
    for folder, pooling in ((path, "last"), (tiny_checkpoint("llama"), "mean")):
        runner = ModelRunner(EngineConfig(model=str(folder), device="cpu", kv_tokens=64))
        assert runner.config.checkpoint.pooling == pooling


@pytest.mark.parametrize("pooling", ["mean", "last"])
async def test_embedding_beside_answers_disturbs_neither(pooling: Pooling) -> None:
    engine = await started()
    texts = [prompt(5 + 20 * salt, salt) for salt in range(5)]
    vectors, *answers = await asyncio.gather(
        engine.embed(embed(*texts, pooling=pooling)),
        *(answer(engine, salt + 1, texts[salt], 12) for salt in range(5)),
    )
    assert answers == [expected(text, 12) for text in texts]
    for text, vector in zip(texts, vectors.vectors, strict=True):
        states = [state(text[: end + 1]) for end in range(len(text))]
        pooled = np.mean(states, axis=0) if pooling == "mean" else states[-1]
        np.testing.assert_allclose(vector, pooled / np.linalg.norm(pooled), atol=1e-6)
    await drained(engine, *range(1, 6))
    await engine.close()


async def test_a_mean_reads_every_token_though_the_text_is_in_the_cache() -> None:
    engine = await started()
    await answer(engine, 1, prompt(64), 1)
    [mean] = (await engine.embed(embed(prompt(64), pooling="mean"))).vectors
    pooled = np.mean([state(prompt(64)[: end + 1]) for end in range(64)], axis=0)
    np.testing.assert_allclose(mean, pooled / np.linalg.norm(pooled), atol=1e-6)
    await drained(engine, 1)
    await engine.close()


def test_texts_that_begin_alike_are_read_in_one_step() -> None:
    runner = PagedRunner(resolved(step_tokens=256))
    stepper, texts = paged_stepper(runner), [prompt(16) + prompt(5, salt) for salt in range(1, 9)]
    vectors = computed(stepper, embed(*texts, pooling="mean"))
    assert [len(step) for step in runner.steps] == [8]
    for text, vector in zip(texts, vectors, strict=True):
        pooled = np.mean([state(text[: end + 1]) for end in range(21)], axis=0)
        np.testing.assert_allclose(vector, pooled / np.linalg.norm(pooled), atol=1e-6)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_text_whose_states_are_no_numbers_fails_alone(broken: float) -> None:
    class Breaks(PagedRunner):
        def _read(self, row: BatchRow, wanted: Wanted) -> Read:
            read = super()._read(row, wanted)
            if row.tokens[-1] == texts[1][-1]:
                assert read.states is not None
                read.states[3] = broken
            return read

    texts = [prompt(9), prompt(21, 1)]
    stepper = paged_stepper(Breaks(resolved()))
    updates = list(stepper.step([Command(n + 1, embed(text, pooling="mean")) for n, text in enumerate(texts)]).updates)
    stepper.check()
    answers = {update.command: update.answer for update in updates}
    assert isinstance(answers[2], EngineError) and "no numbers" in str(answers[2])
    assert isinstance(answers[1], Embedded) and not stepper.has_work
    pooled = np.mean([state(texts[0][: end + 1]) for end in range(9)], axis=0)
    np.testing.assert_allclose(answers[1].vectors[0], pooled / np.linalg.norm(pooled), atol=1e-6)


async def test_the_last_token_is_all_that_is_computed_where_the_text_is_in_the_cache() -> None:
    engine = await started()
    await answer(engine, 1, prompt(64), 1)
    before = len(engine.runner.steps)
    await engine.embed(embed(prompt(64), pooling="last"))
    assert [len(row.tokens) for step in engine.runner.steps[before:] for row in step] == [1]
    await engine.close()


def test_a_text_that_lost_its_pages_on_the_way_is_read_anew() -> None:
    """Pages for one: the answer, more urgent by its age, takes them from the text that is being read."""
    runner = PagedRunner(resolved(pages=20, step_tokens=4))
    stepper = paged_stepper(runner)
    text = prompt(60, 1)
    updates = [*stepper.step([Command(1, generate(1, prompt(10), 40))]).updates]
    updates += stepper.step([Command(2, embed(text, pooling="mean"))]).updates
    while stepper.has_work:
        updates += stepper.step([]).updates
    starts = [row.start for step in runner.steps for row in step if row.wanted is not None]
    assert starts.count(0) > 1, "it was never preempted"
    [read] = [update.answer for update in updates if isinstance(update.answer, Embedded)]
    pooled = np.mean([state(text[: end + 1]) for end in range(60)], axis=0)
    np.testing.assert_allclose(read.vectors[0], pooled / np.linalg.norm(pooled), atol=1e-6)


async def test_leaving_ends_the_work_and_what_cannot_be_embedded_is_refused() -> None:
    engine: PagedEngine = await started()
    engine.runner.gate.clear()
    asked = asyncio.ensure_future(engine.embed(embed(prompt(60), prompt(60, 1))))
    assert await asyncio.to_thread(engine.runner.inside.wait, 30)
    asked.cancel()
    engine.runner.gate.set()
    for bad, field in ((embed(()), "input"), (embed(prompt(3), dimensions=9), "dimensions")):
        with pytest.raises(BadPrompt) as refusal:
            await engine.embed(bad)
        assert refusal.value.param == field
    await engine.free(ContextId(1))
    await drained(engine)
    await engine.close()
