"""Whole models on a device do what they should: our texts beside Hugging Face's, the same bits however a text is cut
where that was asked, and launches that wait for nothing.

The invariant: what is wrong fails its case; what is only slow is a row of the results that says so.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.gpu.batch import Batch, BatchRow
from parrot_compat.gpu.drawing.draw import Draw
from parrot_compat.gpu.kv.storage import KvStorage
from parrot_compat.gpu.models.decoder import FastDecoder, why_not_deterministic
from parrot_compat.gpu.runner import ModelRunner

from .gpu_cases import Cases
from .gpu_rows import GpuRow, Where
from .gpu_shapes import made, runner_of
from .gpu_shared import Told, over_a_prefix
from .gpu_steps import GREEDY, SAMPLINGS, Steps, answers

__all__ = ["bits_however_cut", "launches_that_wait", "texts_against_transformers", "texts_over_a_prefix"]

TIE = 1e-4
"""Where the two largest logits are nearer than this, either token may be drawn."""
PAGE = 16
CUT_TOKENS = 300
"""Of the text that is cut: several tiles of queries, and blocks of keys with a mask and without."""
CUTS: Mapping[str, Sequence[int]] = {
    "whole": (300,), "in chunks of 7": (7,) * 42 + (6,), "in chunks of 64": (64,) * 4 + (44,),
    "with 12 tokens drawn": (288,) + (1,) * 12,
}  # fmt: skip
"""Tokens of each step."""


def texts_against_transformers(names: Sequence[str], tokens: int, under: Path, cases: Cases) -> Iterator[GpuRow]:
    """Greedy texts in float32. Differences where the two best logits are no tie are errors."""
    for name in names:
        rows = partial(_beside_transformers, name, tokens, under, cases.device, cases.where)
        yield from cases.of(f"{name} beside transformers", rows)


def _beside_transformers(name: str, tokens: int, under: Path, device: torch.device, where: Where) -> Iterator[GpuRow]:
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


def texts_over_a_prefix(name: str, tokens: int, under: Path, cases: Cases) -> Iterator[GpuRow]:
    """The same texts whether a prefix is read together by a replayed graph or kernel by kernel, and, but for ties,
    those of transformers; so are those that are read apart."""
    rows = partial(_over_a_prefix, name, tokens, under, cases.device, cases.where)
    yield from cases.of(f"{name} over a prefix", rows)


def _over_a_prefix(name: str, tokens: int, under: Path, device: torch.device, where: Where) -> Iterator[GpuRow]:
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
        yield row("launches that share a prefix", "1", [each.launches])


def _check_shared(name: str, told: Mapping[str, Told], sizes: int) -> None:
    """`sizes` of steps that have a graph: it is replayed when they are met for the third time."""
    launches = {system: each.launches for system, each in told.items()}
    if launches["apart"] or not launches["together, no graphs"]:
        raise AssertionError(f"{name}: prefixes are not read together where they should be: {launches}")
    if not sizes or launches["together"] <= 2 * sizes:
        raise AssertionError(
            f"{name}: nothing says that a graph with a shared prefix was replayed: {launches}, {sizes}"
        )


def bits_however_cut(names: Sequence[str], under: Path, cases: Cases) -> Iterator[GpuRow]:
    """Of a deterministic decoder: in whatever steps a text is computed, and whatever is beside it, its logits, keys and
    values are the same bits. A difference is an error."""
    for name in names:
        for dtype in (torch.bfloat16, torch.float32):
            case = f"{name} {str(dtype).removeprefix('torch.')} bits however cut"
            yield from cases.of(case, partial(_however_cut, case, name, dtype, under, cases.device, cases.where))


def _however_cut(
    case: str, name: str, dtype: torch.dtype, under: Path, device: torch.device, where: Where
) -> Iterator[GpuRow]:
    decoder = FastDecoder.load(made(name, dtype, under, device), dtype, device, deterministic=True)
    why = why_not_deterministic(decoder, dtype, device)
    if device.type == "cuda" and why is not None:
        raise AssertionError(f"{name}: {why}")
    if decoder is not None and why is None:
        differ = _cuts_that_differ(decoder, name, dtype, device)
        if differ:
            raise AssertionError(f"{case}: {', '.join(differ)} differ")
    note = "" if why is None else f"not tried: {why}"
    yield GpuRow.of(where, "exactness", case, "ours, deterministic", "cuts that change a bit", "1", [0], note)


def _cuts_that_differ(decoder: FastDecoder, name: str, dtype: torch.dtype, device: torch.device) -> list[str]:
    drawn = random.Random(name)
    text, other = ([drawn.randrange(3, 500) for _ in range(CUT_TOKENS)] for _ in range(2))
    plan, pages = decoder.plan, -(-CUT_TOKENS // PAGE)

    def storage() -> KvStorage:
        return KvStorage(len(plan.layers), 2 * pages, PAGE, plan.kv_heads, plan.dim, dtype, device)

    alone = storage()
    row = BatchRow(tokens=text, start=0, pages=range(pages), draw=Draw(sampling=GREEDY, index=0))
    logits = torch.cat([*decoder.all_logits(Batch.build([row], PAGE, device), alone)])
    found = []
    for cut, steps in CUTS.items():
        held, end = storage(), 0
        for number, tokens in enumerate(steps):
            # Beside it another text goes on: a chunk, then a token in each step.
            begin = 0 if number == 0 else 19 + number
            beside = replace(row, tokens=other[begin : 20 + number], start=begin, pages=range(pages, 2 * pages))
            mine = replace(row, tokens=text[end : end + tokens], start=end)
            end += tokens
            behind = decoder.logits(Batch.build([beside, mine], PAGE, device), held)
            assert behind is not None
            if not torch.equal(behind[1], logits[end - 1]):
                found.append(f"logits of token {end - 1} {cut}")
                break
        for layer, pairs in enumerate(zip((*held.keys, *held.values), (*alone.keys, *alone.values), strict=True)):
            if not torch.equal(*(slots[:CUT_TOKENS] for slots in pairs)):
                found.append(f"{'keys' if layer < len(plan.layers) else 'values'} {cut}")
                break
    return found


def launches_that_wait(name: str, tokens: int, under: Path, cases: Cases) -> Iterator[GpuRow]:
    """Of each way to draw, how many launches of a run wait for the device; one that does ends the overlap of steps."""
    yield from cases.of("launches that wait", partial(_launches, name, tokens, under, cases))


def _launches(name: str, tokens: int, under: Path, cases: Cases) -> Iterator[GpuRow]:
    runner = runner_of(made(name, torch.float32, under, cases.device), cases.device, 1024)
    drawn = random.Random(name)
    asked = [([drawn.randrange(3, 500) for _ in range(length)], tokens) for length in (3, 17, 40)]
    for how, sampling in SAMPLINGS.items():
        case = f"{name} launches, {how}"
        yield from cases.of(case, partial(_watched, case, runner, asked, sampling, cases.where))


def _watched(
    case: str, runner: ModelRunner, asked: Sequence[tuple[list[int], int]], sampling: ResolvedSampling, where: Where
) -> Iterator[GpuRow]:
    # Steps of a size are compiled when they are met first and captured the second time. Both may wait.
    for times_met in range(3):
        steps = Steps(runner, are_watched=times_met == 2, enforce_eager=False, async_scheduling=True)
        steps.ask(asked, sampling=sampling)
        steps.run()
    waited = steps.launches.waited
    note = f"failed: {waited[0]}" if waited else "passed"
    yield GpuRow.of(
        where, "exactness", case, "ours", "launches that wait for the device", "1",
        [len(waited)], note if runner.device.type == "cuda" else "not watched: no CUDA device",
    )  # fmt: skip
