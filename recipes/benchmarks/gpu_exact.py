"""Whole models on a device do what they should: our texts beside Hugging Face's, and launches that wait for nothing.

The invariant: what is wrong is raised; what is only slow is a row of the results that says so.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from .gpu_rows import GpuRow, Where
from .gpu_shapes import made, runner_of
from .gpu_steps import SAMPLINGS, Steps, answers

__all__ = ["launches_that_wait", "texts_against_transformers"]

TIE = 1e-4
"""Where the two largest logits are nearer than this, either token may be drawn."""


def texts_against_transformers(
    names: Sequence[str], tokens: int, under: Path, device: torch.device, where: Where
) -> Iterator[GpuRow]:
    """Greedy texts in float32. Differences where the two best logits are no tie are errors, and raised."""
    for name in names:
        place = made(name, torch.float32, under, device)
        drawn = random.Random(name)
        prompts = [[drawn.randrange(3, 500) for _ in range(length)] for length in (3, 17, 40)]
        runner = runner_of(place, device, 1024)
        ours = answers(runner, [(prompt, tokens) for prompt in prompts])
        eager = answers(runner, [(prompt, tokens) for prompt in prompts], enforce_eager=True, async_scheduling=False)
        if ours != eager:
            raise AssertionError(f"{name}: CUDA graphs and overlap change a text")
        del runner
        # "eager" is the only one that is right for all: older releases leave Gemma 2's soft cap out of "sdpa".
        model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, attn_implementation="eager")
        model = model.to(device).eval()
        ties = 0
        for prompt, mine in zip(prompts, ours, strict=True):
            ties += _differs(model, prompt, mine, name)
        yield GpuRow.of(where, "exactness", f"{name} float32 greedy", "ours", "texts that part at a tie", "1", [ties])


def _differs(model: Any, prompt: list[int], mine: list[int], name: str) -> bool:
    """Whether `mine` leaves what the model would write, at a tie."""
    with torch.inference_mode():
        ids = torch.tensor([prompt + mine], device=model.device)
        logits = model(ids).logits[0, len(prompt) - 1 : -1].double()
    best = logits.argmax(-1).tolist()
    if best == mine:
        return False
    at = next(number for number, (theirs, own) in enumerate(zip(best, mine, strict=True)) if theirs != own)
    gap = (logits[at, best[at]] - logits[at, mine[at]]).item()
    if gap > TIE:
        raise AssertionError(f"{name}: token {at} is {mine[at]}, transformers says {best[at]}, {gap} above it")
    return True


def launches_that_wait(name: str, tokens: int, under: Path, device: torch.device, where: Where) -> Iterator[GpuRow]:
    """Of each way to draw, how many launches of a run wait for the device; one that does ends the overlap of steps."""
    runner = runner_of(made(name, torch.float32, under, device), device, 1024)
    drawn = random.Random(name)
    asked = [([drawn.randrange(3, 500) for _ in range(length)], tokens) for length in (3, 17, 40)]
    for how, sampling in SAMPLINGS.items():
        # Steps of a size are compiled when they are met first and captured the second time. Both may wait.
        for times_met in range(3):
            steps = Steps(runner, are_watched=times_met == 2, enforce_eager=False, async_scheduling=True)
            steps.ask(asked, sampling=sampling)
            steps.run()
        waited = steps.launches.waited
        note = f"failed: {waited[0]}" if waited else "passed"
        yield GpuRow.of(
            where, "exactness", f"{name} launches, {how}", "ours", "launches that wait for the device", "1",
            [len(waited)], note if device.type == "cuda" else "not watched: no CUDA device",
        )  # fmt: skip
