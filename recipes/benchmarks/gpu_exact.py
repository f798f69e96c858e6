"""Whole models on a device do what they should: our texts beside Hugging Face's, and launches that wait for nothing.

The invariant: what is wrong is raised; what is only slow is a row of the results that says so.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from parrot_compat.gpu.kernels.costs import DeviceCosts
from parrot_compat.gpu.runner import ModelRunner

from .gpu_budget import Budget
from .gpu_rows import GpuRow, Where
from .gpu_shapes import made, runner_of
from .gpu_steps import SAMPLINGS, Steps, answers

__all__ = ["launches_that_wait", "over_a_prefix", "texts_against_transformers", "texts_over_a_prefix"]

TOGETHER_OR_NOT: dict[str, dict[str, bool]] = {
    "together": {"share_prefixes": True, "enforce_eager": False},
    "together, no graphs": {"share_prefixes": True, "enforce_eager": True},
    "apart": {"share_prefixes": False, "enforce_eager": False},
}
WORTH_IT = DeviceCosts(
    device="one that reads slowly", dtype="float32", memory_bytes_per_s=1.0, cache_bytes_per_s=1e12, cache_bytes=0,
    products_per_s=1e12, launch_s=0.0, versions="", commit="", date="",
)  # fmt: skip
"""Every prefix is worth being read together, however short."""
TIE = 1e-4
"""Where the two largest logits are nearer than this, either token may be drawn."""


def texts_against_transformers(
    names: Sequence[str], tokens: int, under: Path, device: torch.device, where: Where, budget: Budget
) -> Iterator[GpuRow]:
    """Greedy texts in float32. Differences where the two best logits are no tie are errors, and raised."""
    for name in names:
        if not budget.allows(f"{name} beside transformers"):
            continue
        place = made(name, torch.float32, under, device)
        drawn = random.Random(name)
        prompts = [[drawn.randrange(3, 500) for _ in range(length)] for length in (3, 17, 40)]
        runner = runner_of(place, device, 1024)
        ours = answers(runner, [(prompt, tokens) for prompt in prompts])
        eager = answers(runner, [(prompt, tokens) for prompt in prompts], enforce_eager=True, async_scheduling=False)
        if ours != eager:
            raise AssertionError(f"{name}: CUDA graphs and overlap change a text")
        del runner
        ties = _ties(_transformers(place, device), prompts, ours, name)
        yield GpuRow.of(where, "exactness", f"{name} float32 greedy", "ours", "texts that part at a tie", "1", [ties])


def _transformers(place: Path, device: torch.device) -> Any:
    # "eager" is the only one that is right for all: older releases leave Gemma 2's soft cap out of "sdpa".
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, attn_implementation="eager")
    return model.to(device).eval()


def _ties(model: Any, prompts: Sequence[list[int]], ours: Sequence[list[int]], name: str) -> int:
    return sum(_differs(model, prompt, mine, name) for prompt, mine in zip(prompts, ours, strict=True))


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


@dataclass(frozen=True, slots=True)
class Told:
    """How the texts over a prefix were drawn, and what they are."""

    texts: list[list[int]]
    shared: list[int]
    """Of each launch, how many prefixes its rows read together."""


def over_a_prefix(runner: ModelRunner, front: list[int], prompts: Sequence[list[int]], tokens: int) -> dict[str, Told]:
    """Greedy texts whose `prompts` begin with `front`, which is computed once: read together, with graphs
    and without, and apart."""
    if runner.sharing is not None:
        tiling = replace(runner.sharing.tiling, split_keys=1)  # or so short a prefix would be left to what follows
        runner.sharing = replace(runner.sharing, costs=WORTH_IT, tiling=tiling)
    found = {}
    for system, changed in TOGETHER_OR_NOT.items():
        steps = Steps(runner, async_scheduling=True, **changed)
        steps.know(front)
        steps.ask([(prompt, tokens) for prompt in prompts])
        found[system] = Told(steps.run()[1:], steps.launches.shared)
    return found


def texts_over_a_prefix(
    name: str, tokens: int, under: Path, device: torch.device, where: Where, budget: Budget
) -> Iterator[GpuRow]:
    """The same texts whether a prefix is read together by a replayed graph or kernel by kernel, and, but for ties,
    those of transformers; so are those that are read apart."""
    if not budget.allows(f"{name} over a prefix"):
        return
    place = made(name, torch.float32, under, device)
    runner = runner_of(place, device, 2048)
    drawn = random.Random(name)
    front, *own = ([drawn.randrange(3, 500) for _ in range(length)] for length in (64, 3, 17, 40, 5))
    prompts = [front + each for each in own]
    told = over_a_prefix(runner, front, prompts, tokens)
    if told["together"].texts != told["together, no graphs"].texts:
        raise AssertionError(f"{name}: CUDA graphs change a text over a shared prefix")
    if device.type == "cuda":
        _check_shared(name, told, 0 if runner.graphs is None else len(runner.graphs))
    model = _transformers(place, device)
    for system, each in told.items():
        row = partial(GpuRow.of, where, "exactness", f"{name} float32 over a prefix", f"ours, {system}")
        yield row("texts that part at a tie", "1", [_ties(model, prompts, each.texts, name)])
        yield row("launches that share a prefix", "1", [sum(count > 0 for count in each.shared)])


def _check_shared(name: str, told: Mapping[str, Told], sizes: int) -> None:
    """`sizes` of steps that have a graph: it is replayed when they are met for the third time."""
    launches = {system: sum(count > 0 for count in each.shared) for system, each in told.items()}
    if launches["apart"] or not launches["together, no graphs"]:
        raise AssertionError(f"{name}: prefixes are not read together where they should be: {launches}")
    if not sizes or launches["together"] <= 2 * sizes:
        raise AssertionError(
            f"{name}: nothing says that a graph with a shared prefix was replayed: {launches}, {sizes}"
        )


def launches_that_wait(
    name: str, tokens: int, under: Path, device: torch.device, where: Where, budget: Budget
) -> Iterator[GpuRow]:
    """Of each way to draw, how many launches of a run wait for the device; one that does ends the overlap of steps."""
    if not budget.allows("launches that wait"):
        return
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
