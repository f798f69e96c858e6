"""Planted faults in what is read of tokens (vectors, log probabilities), in growing rope scalings and behind the probe.

Each is a mistake that an engine like this one makes, patched into the live code: the checks of the tests beside this
one must find it. (`tests/identity/faults.py` plants those that show in drawn tokens.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from parrot_compat.core.errors import ModelRefused
from parrot_compat.gpu.batch import Batch
from parrot_compat.gpu.config import EngineConfig, ResolvedConfig
from parrot_compat.gpu.kernels import Positions
from parrot_compat.gpu.kv.context import Context
from parrot_compat.gpu.kv.contexts import Contexts
from parrot_compat.gpu.layers.rotary import GrowingRotary
from parrot_compat.gpu.models import transformers_models
from parrot_compat.gpu.models.decoder import FastDecoder
from parrot_compat.gpu.reading import Read, Reading, Score
from parrot_compat.gpu.runner import ModelRunner
from parrot_compat.gpu.sequence import Sequence as Sequence_
from tests.gpu import test_embeddings as vectors
from tests.gpu import test_growing_rope as ropes
from tests.gpu import test_prompt_logprobs as scores
from tests.gpu.models.tiny import save_tiny

Patch = pytest.MonkeyPatch
Checkpoint = Callable[[str], Path]


# ---- the mistakes --------------------------------------------------------------------------------------


def the_last_chunk_is_all_that_is_read(patch: Patch) -> None:
    def take(self: Sequence_, read: Read) -> None:
        self._states, self._scores = read.states, list(read.logprobs)

    patch.setattr(Sequence_, "take_read", take)


def what_is_cached_is_not_read(patch: Patch) -> None:
    right = Contexts.extend

    def extend(self: Contexts, context: Context, tokens: Sequence[int], **options: Any) -> None:
        right(self, context, tokens, **{**options, "is_read": False})

    patch.setattr(Contexts, "extend", extend)


def states_are_taken_before_the_last_norm(patch: Patch) -> None:
    def unnormed(self: FastDecoder, x: Tensor, mixed: Tensor) -> Tensor:
        return x + mixed

    patch.setattr(FastDecoder, "_last_normed", unnormed)


def a_token_is_scored_where_it_stands_instead_of_before(patch: Patch) -> None:
    right = Sequence_.reading_after

    def reading(self: Sequence_, computed: int) -> Reading | None:
        found, start = right(self, computed), self.context.computed
        if not isinstance(found, Score):
            return found
        return replace(found, targets=tuple(self.context.tokens[start : start + len(found.targets)]))

    patch.setattr(Sequence_, "reading_after", reading)


def the_length_of_a_prompt_is_not_in_the_caches_key(patch: Patch) -> None:
    patch.setattr(ResolvedConfig, "salt", lambda self, prompt_tokens: "")


def frequencies_are_those_of_the_chunk(patch: Patch) -> None:
    right = GrowingRotary.places

    def places(self: GrowingRotary, batch: Batch) -> Positions:
        return right(self, replace(batch, prompt_tokens=batch.attention.kv_lengths))

    patch.setattr(GrowingRotary, "places", places)


# ---- the checks ------------------------------------------------------------------------------------------


def check_vectors(path: Path) -> None:
    runner = ModelRunner(EngineConfig(model=str(path), device="cpu", kv_tokens=512, step_tokens=7, page_size=4))
    stepper = vectors.Stepper(runner, vectors.tokenizer().text_stream)
    right = vectors.of_hugging_face(path, "mean")
    for _ in range(2):  # the second time the texts are in the cache
        ours = vectors.computed(stepper, vectors.embed(*vectors.TEXTS, pooling="mean"))
        for vector, expected in zip(ours, right, strict=True):
            np.testing.assert_allclose(vector, expected, atol=2e-5)


def check_scores(path: Path) -> None:
    stepper, right = scores.stepper_of(path, step_tokens=7), scores.of_hugging_face(path)
    for context in (1, 2):
        [chunks] = scores.answers(stepper, scores.generate(context)).values()
        scores.check(scores.told(chunks), right)


def check_rope(path: Path) -> None:
    stepper = ropes.stepper_of(path, step_tokens=7)
    for context, length in enumerate((100, 60, 130)):
        [tokens] = ropes.drawn(stepper, ropes.generate(context + 1, ropes.text(length)))
        assert tokens == ropes.of_hugging_face(path, ropes.text(length))


@pytest.mark.parametrize(
    ("plant", "check"),
    [
        (the_last_chunk_is_all_that_is_read, check_vectors),
        (what_is_cached_is_not_read, check_vectors),
        (states_are_taken_before_the_last_norm, check_vectors),
        (the_last_chunk_is_all_that_is_read, check_scores),
        (what_is_cached_is_not_read, check_scores),
        (a_token_is_scored_where_it_stands_instead_of_before, check_scores),
    ],
    ids=lambda value: value.__name__,
)
def test_a_fault_in_reading_is_found(
    plant: Callable[[Patch], None],
    check: Callable[[Path], None],
    tiny_checkpoint: Checkpoint,
    monkeypatch: Patch,
) -> None:
    check(tiny_checkpoint("llama"))
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check(tiny_checkpoint("llama"))


@pytest.mark.parametrize("plant", [the_length_of_a_prompt_is_not_in_the_caches_key, frequencies_are_those_of_the_chunk])
def test_a_fault_in_a_growing_scaling_is_found(
    plant: Callable[[Patch], None], tmp_path: Path, monkeypatch: Patch
) -> None:
    family, changes = ropes.SHAPES["dynamic"]
    path = save_tiny(family, tmp_path, **changes)
    check_rope(path)
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check_rope(path)


@pytest.mark.parametrize("fault", ["a key too few", "no window", "the scale of another head"])
def test_the_probe_finds_what_is_wrong_with_an_attention(fault: str, tmp_path: Path, monkeypatch: Patch) -> None:
    right = transformers_models.attend

    def attend(layer: int, query: Any, key: Any, value: Any, storage: Any, inputs: Any, **options: Any) -> Tensor:
        if fault == "a key too few":
            inputs = replace(inputs, kv_lengths=tuple(max(1, length - 1) for length in inputs.kv_lengths))
        elif fault == "no window":
            options["window"] = None
        else:
            options["scale"] *= 1.2
        return right(layer, query, key, value, storage, inputs, **options)

    path = save_tiny("olmo3", tmp_path)
    ModelRunner(EngineConfig(model=str(path), device="cpu", kv_tokens=64))
    monkeypatch.setattr(transformers_models, "attend", attend)
    with pytest.raises(ModelRefused, match=r"gives other logits over paged KV|does not run over paged KV"):
        ModelRunner(EngineConfig(model=str(path), device="cpu", kv_tokens=64))
