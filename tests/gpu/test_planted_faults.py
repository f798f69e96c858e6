"""Planted faults in what is read of tokens (vectors, log probabilities), in growing rope scalings and behind the probe.

Each is a mistake that an engine like this one makes, patched into the live code: the checks of the tests beside this
one must find it. (`tests/identity/faults.py` plants those that show in drawn tokens.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from parrot_compat.core.call import TokenLogprobs
from parrot_compat.core.errors import ModelRefused
from parrot_compat.gpu.batch import Batch
from parrot_compat.gpu.config import EngineConfig, ResolvedConfig
from parrot_compat.gpu.kernels import Positions
from parrot_compat.gpu.kv.context import Context
from parrot_compat.gpu.kv.contexts import Contexts
from parrot_compat.gpu.layers.rotary import GrowingRotary
from parrot_compat.gpu.models import transformers_models
from parrot_compat.gpu.models.decoder import FastDecoder
from parrot_compat.gpu.runner import ModelRunner
from parrot_compat.gpu.sequence import Sequence as Sequence_
from parrot_compat.gpu.wanted import Read, Score, Wanted
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
    right = Sequence_.wanted_after

    def wanted(self: Sequence_, computed: int) -> Wanted | None:
        found, start = right(self, computed), self.context.computed
        if not isinstance(found, Score):
            return found
        return replace(found, targets=tuple(self.context.tokens[start : start + len(found.targets)]))

    patch.setattr(Sequence_, "wanted_after", wanted)


def what_was_read_before_the_pages_went_is_kept(patch: Patch) -> None:
    right = Sequence_.found_cached

    def found_cached(self: Sequence_, now_s: float) -> None:
        kept = self._scores
        right(self, now_s)
        self._scores = kept

    patch.setattr(Sequence_, "found_cached", found_cached)


def the_length_of_a_prompt_is_not_in_the_caches_key(patch: Patch) -> None:
    patch.setattr(ResolvedConfig, "salt", lambda self, prompt_tokens: "")


def frequencies_are_those_of_the_chunk(patch: Patch) -> None:
    right = GrowingRotary.places

    def places(self: GrowingRotary, batch: Batch) -> Positions:
        return right(self, replace(batch, prompt_tokens=batch.attention.kv_lengths))

    patch.setattr(GrowingRotary, "places", places)


# ---- the checks ------------------------------------------------------------------------------------------


Comparison = Callable[[], None]
"""Raises `AssertionError` where what was computed is not Hugging Face's. All is computed before: an engine that a fault
breaks has not been found to be wrong."""


def check_vectors(path: Path) -> Comparison:
    runner = ModelRunner(EngineConfig(model=str(path), device="cpu", kv_tokens=512, step_tokens=7, page_size=4))
    stepper = vectors.Stepper(runner, vectors.tokenizer().text_stream)
    right = vectors.of_hugging_face(path, "mean")
    asked = vectors.embed(*vectors.TEXTS, pooling="mean")
    ours = [vectors.computed(stepper, asked) for _ in range(2)]  # the second time the texts are in the cache
    return lambda: np.testing.assert_allclose(ours, [right, right], atol=2e-5)


def check_scores(path: Path) -> Comparison:
    stepper, right = scores.stepper_of(path, step_tokens=7), scores.of_hugging_face(path)
    ours = [scores.told(scores.answers(stepper, scores.generate(context))[1]) for context in (1, 2)]
    return partial(_compare_scores, ours, right)


def check_scores_of_a_prompt_that_lost_its_pages(path: Path) -> Comparison:
    ours, right = scores.told(scores.preempted(path, kv_tokens=52).chunks), scores.of_hugging_face(path)
    return partial(_compare_scores, [ours], right)


def _compare_scores(ours: Sequence[tuple[TokenLogprobs, ...]], right: Tensor) -> None:
    for told in ours:
        scores.check(told, right)


def check_rope(path: Path) -> Comparison:
    stepper = ropes.stepper_of(path, step_tokens=7)
    texts = [ropes.text(length) for length in (100, 60, 130)]
    ours = [ropes.drawn(stepper, ropes.generate(context, text)) for context, text in enumerate(texts, 1)]

    def compare() -> None:
        assert ours == [[ropes.of_hugging_face(path, text)] for text in texts]

    return compare


@pytest.mark.parametrize(
    ("plant", "check"),
    [
        (the_last_chunk_is_all_that_is_read, check_vectors),
        (what_is_cached_is_not_read, check_vectors),
        (states_are_taken_before_the_last_norm, check_vectors),
        (the_last_chunk_is_all_that_is_read, check_scores),
        (what_is_cached_is_not_read, check_scores),
        (a_token_is_scored_where_it_stands_instead_of_before, check_scores),
        (what_was_read_before_the_pages_went_is_kept, check_scores_of_a_prompt_that_lost_its_pages),
    ],
    ids=lambda value: value.__name__,
)
def test_a_fault_in_reading_is_found(
    plant: Callable[[Patch], None],
    check: Callable[[Path], Comparison],
    tiny_checkpoint: Checkpoint,
    monkeypatch: Patch,
) -> None:
    path = tiny_checkpoint("llama")
    check(path)()
    plant(monkeypatch)
    compare = check(path)
    with pytest.raises(AssertionError):
        compare()


@pytest.mark.parametrize("plant", [the_length_of_a_prompt_is_not_in_the_caches_key, frequencies_are_those_of_the_chunk])
def test_a_fault_in_a_growing_scaling_is_found(
    plant: Callable[[Patch], None], tmp_path: Path, monkeypatch: Patch
) -> None:
    family, changes = ropes.SHAPES["dynamic"]
    path = save_tiny(family, tmp_path, **changes)
    check_rope(path)()
    plant(monkeypatch)
    compare = check_rope(path)
    with pytest.raises(AssertionError):
        compare()


@pytest.mark.parametrize("fault", ["a key too few", "no window", "the scale of another head", "no numbers"])
def test_the_probe_finds_what_is_wrong_with_an_attention(fault: str, tmp_path: Path, monkeypatch: Patch) -> None:
    right = transformers_models.attend

    def attend(layer: int, query: Any, key: Any, value: Any, storage: Any, inputs: Any, **options: Any) -> Tensor:
        if fault == "a key too few":  # of later chunks: every query is left with some
            chunks = zip(inputs.kv_lengths, pairwise(inputs.query_starts), strict=True)
            lengths = [length - (length > end - start) for length, (start, end) in chunks]
            inputs = replace(inputs, kv_lengths=tuple(lengths))
        elif fault == "no window":
            options["window"] = None
        elif fault == "the scale of another head":
            options["scale"] *= 1.2
        attended = right(layer, query, key, value, storage, inputs, **options)
        return torch.full_like(attended, torch.nan) if fault == "no numbers" else attended

    path = save_tiny("olmo3", tmp_path)
    ModelRunner(EngineConfig(model=str(path), device="cpu", kv_tokens=64))
    monkeypatch.setattr(transformers_models, "attend", attend)
    with pytest.raises(ModelRefused, match="gives other logits over paged KV"):
        ModelRunner(EngineConfig(model=str(path), device="cpu", kv_tokens=64))
