"""Whole models on a device: how fast our steps are, beside the device's limits.

Checkpoints have random weights and the shapes of real models; they are written once into a folder of the caller's.
The invariant: every lane draws the same number of tokens after the same prompts.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import torch
from transformers import AutoConfig

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.core.errors import ModelRefused
from parrot_compat.gpu.models.plan import DecoderPlan, plan_decoder
from parrot_compat.gpu.runner import ModelRunner

from .gpu_budget import Budget
from .gpu_cases import Cases, give_back
from .gpu_rates import mixed_rate
from .gpu_rows import GpuRow, Where
from .gpu_shapes import Load, made, runner_of
from .gpu_shared import shared_steps
from .gpu_steps import GREEDY, SAMPLINGS, Steps, answers, decode_s, prefill_s

__all__ = ["LANES", "engine", "kv_tokens", "prompt_flops"]

LANES: dict[str, dict[str, bool]] = {
    "ours": {"enforce_eager": False, "async_scheduling": True},
    "ours, no overlap": {"enforce_eager": False, "async_scheduling": False},
    "ours, no graphs": {"enforce_eager": True, "async_scheduling": True},
    "ours, neither": {"enforce_eager": True, "async_scheduling": False},
}
"""How steps are taken: without a device there are no graphs, and overlap only changes the order of the work."""
MOST_ABLATED_ROWS = 64
"""The prompts of more rows take longer than the decode that is measured."""
SAMPLED = ("sampled", "sampled, top_p 0.9")
MIXED_S = {"qwen3-0.6b": 30.0, "llama-8b": 50.0}
"""About how long the mixed run takes: twice its 144,000 tokens at the rates of docs/gpu.md, and graphs captured."""


def engine(
    names: Sequence[str],
    load: Load,
    limits: tuple[float, float],
    under: Path,
    device: torch.device,
    where: Where,
    budget: Budget,
) -> Iterator[GpuRow]:
    """Steps as the engine takes them, scheduling, pages and prefixes included; text and transport are not. `limits`:
    bytes/s and flop/s of the device."""
    cases = Cases("engine", device, where, budget)
    for name in names:
        rows = partial(_model, name, load, limits, under, cases, is_first=name == names[0])
        yield from cases.of(name, rows, _setup_s(name))
    cases.end()


def _model(
    name: str, load: Load, limits: tuple[float, float], under: Path, cases: Cases, *, is_first: bool
) -> Iterator[GpuRow]:
    device, where = cases.device, cases.where
    place = made(name, torch.bfloat16 if device.type == "cuda" else torch.float32, under, device)
    longest = max(load.context, *load.prompts) + 1024
    runner = runner_of(place, device, kv_tokens(load, device), max_model_len=longest)
    yield from shared_steps(name, runner, load, cases)
    yield from _steps(name, runner, load, limits, cases)
    case = f"{name} {load.sequences} sequences"
    yield from cases.of(case, partial(_mixed, case, runner, load, where), MIXED_S.get(name, 0.0))
    del runner
    give_back(device)
    if is_first:
        rows = partial(deterministic, name, place, load, device, where)
        yield from cases.of(f"{name} deterministic", rows, _setup_s(name))


def _mixed(case: str, runner: ModelRunner, load: Load, where: Where) -> Iterator[GpuRow]:
    rate = mixed_rate(partial(answers, runner, **LANES["ours"]), load, runner.config.checkpoint.vocab_size)
    yield GpuRow.of(where, "engine", case, "ours", "output rate", "tokens/s", [rate])


def _setup_s(name: str) -> float:
    """About how long it takes until the first step of a shape can be timed: it is written, read and warmed up."""
    return 0.0 if name.startswith("tiny") else 60.0


def _steps(name: str, runner: ModelRunner, load: Load, limits: tuple[float, float], cases: Cases) -> Iterator[GpuRow]:
    """Of decode in all lanes, and of prompts."""
    facts, dtype = runner.config.checkpoint, getattr(torch, runner.config.dtype)
    plan = plan_decoder(AutoConfig.from_pretrained(facts.path))
    assert plan is not None
    weights = _product_bytes(plan, dtype)
    token_bytes = 2 * facts.layers * facts.kv_heads * facts.head_dim * dtype.itemsize
    for rows, system, changed, sampling in _lanes(load):
        case = f"{name} decode {rows} rows {load.context} context"
        row = partial(GpuRow.of, cases.where, "engine", case, system)
        at_best_s = (weights + rows * load.context * token_bytes) / limits[0]
        lane = partial(_decode, row, runner, load, rows, changed, sampling, at_best_s)
        yield from cases.of(f"{case}, {system}", lane)
    for prompt in load.prompts:
        case = f"{name} prefill {prompt}"
        row = partial(GpuRow.of, cases.where, "engine", case, "ours")
        at_best_s = prompt_flops(plan, prompt) / limits[1]
        yield from cases.of(case, partial(_prefill, row, runner, load, prompt, at_best_s))


def _decode(
    row: Callable[..., GpuRow], runner: ModelRunner, load: Load, rows: int, changed: dict[str, bool],
    sampling: ResolvedSampling, at_best_s: float,
) -> Iterator[GpuRow]:  # fmt: skip
    taken = decode_s(Steps(runner, **changed), rows, load, sampling)
    yield row("rate", "tokens/s", [rows / t for t in taken])
    yield row("share of memory rate", "1", [at_best_s / t for t in taken])


def _prefill(
    row: Callable[..., GpuRow], runner: ModelRunner, load: Load, prompt: int, at_best_s: float
) -> Iterator[GpuRow]:
    taken = prefill_s(runner, prompt, runner.device, load.tries)
    yield row("rate", "tokens/s", [prompt / t for t in taken])
    # "share of products", in older rows, is of all weights for every token, the head's too, and of no attention.
    yield row("share of products, attention included", "1", [at_best_s / t for t in taken])


def _lanes(load: Load) -> Iterator[tuple[int, str, dict[str, bool], ResolvedSampling]]:
    """(rows, system, how steps are taken, how tokens are drawn); greedy where the system does not say otherwise. Lanes
    without a mechanism come last: a budget may leave them out."""
    for rows in load.rows:
        yield rows, "ours", LANES["ours"], GREEDY
        for name in SAMPLED if rows in load.sampled_rows else ():
            yield rows, f"ours, {name}", LANES["ours"], SAMPLINGS[name]
    for rows, (system, changed) in product(load.rows, LANES.items()):
        if system != "ours" and rows <= MOST_ABLATED_ROWS:
            yield rows, system, changed, GREEDY


def deterministic(name: str, place: Path, load: Load, device: torch.device, where: Where) -> Iterator[GpuRow]:
    """What `deterministic` costs: the middle of the decodes and the first prompt, and whether it holds."""
    longest = max(load.context, *load.prompts) + 1024
    try:
        runner = runner_of(place, device, kv_tokens(load, device), max_model_len=longest, deterministic=True)
    except ModelRefused:
        if device.type == "cuda":
            raise
        return  # a trial, on a CPU without kernels of ours
    rows, prompt = load.rows[len(load.rows) // 2], load.prompts[0]
    taken = decode_s(Steps(runner), rows, load)
    case = f"{name} decode {rows} rows {load.context} context"
    yield GpuRow.of(where, "engine", case, "ours, deterministic", "rate", "tokens/s", [rows / t for t in taken])
    taken = prefill_s(runner, prompt, device, load.tries)
    rates = [prompt / t for t in taken]
    yield GpuRow.of(where, "engine", f"{name} prefill {prompt}", "ours, deterministic", "rate", "tokens/s", rates)
    drawn = random.Random(3)
    asked = [([drawn.randrange(3, 500) for _ in range(20 + 7 * number)], 24) for number in range(12)]
    together, alone = answers(runner, asked), [answers(runner, [each])[0] for each in asked]
    differ = sum(one != other for one, other in zip(together, alone, strict=True))
    if differ:
        raise AssertionError(f"{name}: {differ} of 12 deterministic texts hang on their neighbours")
    yield GpuRow.of(where, "engine", f"{name} 12 texts", "ours, deterministic", "texts changed by neighbours", "1", [0])
    del runner
    give_back(device)


def kv_tokens(load: Load, device: torch.device) -> int | None:
    """A CUDA device has its own memory, of which the engine takes its share."""
    return None if device.type == "cuda" else load.kv_tokens


def _product_bytes(plan: DecoderPlan, dtype: torch.dtype) -> int:
    """Of the weights that a step multiplies with: all but the embedding, unless that is the head as well."""
    sizes = {name: math.prod(shape) for name, shape in plan.tensors()}
    unused = 0 if plan.is_tied else sizes["model.embed_tokens.weight"]
    return (sum(sizes.values()) - unused) * dtype.itemsize


def prompt_flops(plan: DecoderPlan, prompt: int) -> int:
    """Multiplications and additions of the products of a step that reads a prompt. The head, and what stands behind the
    last layer's attention, are for its last token only."""
    weights = {name: math.prod(shape) for name, shape in plan.layer_tensors() if len(shape) == 2}
    behind = sum(size for name, size in weights.items() if "o_proj" in name or "mlp." in name)
    once = behind + plan.vocabulary * plan.hidden
    for_each = len(plan.layers) * sum(weights.values()) - behind
    pairs = sum(_visible_pairs(prompt, layer.window or prompt) for layer in plan.layers)
    return 2 * (prompt * for_each + once) + 4 * plan.heads * plan.dim * pairs


def _visible_pairs(prompt: int, window: int) -> int:
    """Of a query and a key that it sees: those up to its own, the last `window` of them."""
    whole = min(prompt, window)
    return whole * (whole + 1) // 2 + (prompt - whole) * whole
