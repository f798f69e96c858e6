"""Rotary scalings, above all those that grow: Hugging Face's tokens on both sides of the original length."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.core.engine import Chunk, ContextId, Fill, Generate
from parrot_compat.core.engine_front import Command
from parrot_compat.core.prompt import Tokens
from parrot_compat.gpu.config import EngineConfig
from parrot_compat.gpu.runner import ModelRunner
from parrot_compat.gpu.stepper import Stepper
from tests.gpu.models.tiny import save_tiny
from tests.gpu.paged_runner import tokenizer

ORIGINAL = 64
DRAWN = 24
PLAIN = {"rope_type": "default", "rope_theta": 10000.0}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0 + 0.1 * number for number in range(8)],
    "long_factor": [1.5 + 0.4 * number for number in range(8)],
    "original_max_position_embeddings": ORIGINAL,
}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("llama", {"rope_parameters": LINEAR, "max_position_embeddings": ORIGINAL}),
    "dynamic": ("llama", {"rope_parameters": DYNAMIC, "max_position_embeddings": ORIGINAL}),
    "longrope": ("llama", {"rope_parameters": LONGROPE}),
    "phi3": ("phi3", {"rope_parameters": LONGROPE, "original_max_position_embeddings": ORIGINAL}),
}
CROSSING = (50, 60, 64)
"""Prompts whose answers cross the original length."""
LENGTHS = (9, 30, *CROSSING, 65, 66, 100, 130)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = tmp_path_factory.mktemp("ropes")
    return {name: save_tiny(family, made / name, **changes) for name, (family, changes) in SHAPES.items()}


def text(length: int, salt: int = 0) -> tuple[int, ...]:
    return tuple(3 + (7 * at + at * at // 5 + 13 * salt) % 250 for at in range(length))


@cache
def of_hugging_face(path: Path, ids: tuple[int, ...]) -> tuple[int, ...]:
    # A model of its own for each text: transformers' dynamic scaling remembers the longest one it has seen.
    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager", dtype=torch.float32).eval()
    asked = torch.tensor([ids])
    with torch.inference_mode():
        out = model.generate(
            asked, attention_mask=torch.ones_like(asked), max_new_tokens=DRAWN, do_sample=False, eos_token_id=None
        )
    return tuple(out[0, len(ids) :].tolist())


def stepper_of(path: Path, **asked: int) -> Stepper:
    config = EngineConfig(model=str(path), device="cpu", page_size=4, **({"kv_tokens": 4096} | asked))  # type: ignore[arg-type]
    return Stepper(ModelRunner(config), tokenizer().text_stream)


def generate(context: int, ids: tuple[int, ...], parent: int | None = None) -> Generate:
    return Generate(
        context=ContextId(context),
        content=Tokens(ids),
        sampling=ResolvedSampling(max_tokens=DRAWN, ignore_eos=True),
        parent=None if parent is None else ContextId(parent),
    )


def drawn(stepper: Stepper, *verbs: Generate | Fill) -> list[tuple[int, ...]]:
    """Of each generate its tokens."""
    commands = [Command(number + 1, verb) for number, verb in enumerate(verbs)]
    told: dict[int, tuple[int, ...]] = {n + 1: () for n, verb in enumerate(verbs) if isinstance(verb, Generate)}
    while commands or stepper.has_work:
        report, commands = stepper.step(commands), []
        for update in report.updates:
            assert not isinstance(update.answer, Exception), update.answer
            if isinstance(update.answer, Chunk):
                told[update.command] += update.answer.tokens
    stepper.check()
    return list(told.values())


@pytest.mark.parametrize("shape", SHAPES)
def test_tokens_equal_hugging_face_below_above_and_across_the_original_length(
    shape: str, folders: dict[str, Path]
) -> None:
    # transformers computes a text of Phi-3 anew when it crosses; we go on (docs/status.md).
    lengths = [length for length in LENGTHS if shape != "phi3" or length not in CROSSING]
    expected = [of_hugging_face(folders[shape], text(length)) for length in lengths]
    for step_tokens in (512, 7):
        verbs = [generate(number + 1, text(length)) for number, length in enumerate(lengths)]
        assert drawn(stepper_of(folders[shape], step_tokens=step_tokens), *verbs) == expected


@pytest.mark.parametrize("shape", ["linear", "dynamic", "longrope"])
def test_a_scaling_that_is_left_out_would_be_seen(shape: str, folders: dict[str, Path], tmp_path: Path) -> None:
    """The test of the test above."""
    family, changes = SHAPES[shape]
    plain = save_tiny(family, tmp_path, **changes | {"rope_parameters": PLAIN})
    for length in (100, 130):
        assert of_hugging_face(plain, text(length)) != of_hugging_face(folders[shape], text(length))


@pytest.mark.parametrize("shape", ["dynamic", "longrope"])
def test_a_prefix_that_was_computed_in_a_text_of_another_length_is_not_taken_for_it(
    shape: str, folders: dict[str, Path]
) -> None:
    """One text in the cache, its longer and shorter versions after it; and forks of a filled context."""
    stepper = stepper_of(folders[shape])
    for context, length in enumerate((100, 60, 130, 66, 100)):
        [tokens] = drawn(stepper, generate(context + 1, text(length)))
        assert tokens == of_hugging_face(folders[shape], text(length))
    fill = Fill(context=ContextId(1), content=Tokens(text(70)))
    first, second = drawn(
        stepper_of(folders[shape]), fill, generate(2, text(30, 1), parent=1), generate(3, text(9, 2), parent=1)
    )
    assert first == of_hugging_face(folders[shape], text(70) + text(30, 1))
    assert second == of_hugging_face(folders[shape], text(70) + text(9, 2))
