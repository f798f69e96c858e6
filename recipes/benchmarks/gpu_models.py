"""Whole models on a device: our steps beside Hugging Face's text, beside the roofline, and beside vLLM.

Checkpoints have random weights and the shapes of real models; they are written once into a folder of the caller's.
The invariant: every system reads the same folder and the same prompts, and generates the same number of tokens.
"""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from parrot_compat.gpu.models.plan import plan_decoder

from .gpu_rows import GpuRow, Where
from .gpu_shapes import Load, made, runner_of
from .gpu_steps import Steps, answers, decode_s, prefill_s

__all__ = ["engine", "mixed_rate", "texts_against_transformers", "vllm"]

Asked = Sequence[tuple[list[int], int]]
"""(prompt, output tokens) of each sequence."""

LANES: dict[str, dict[str, bool]] = {
    "ours": {"enforce_eager": False, "async_scheduling": True},
    "ours, no overlap": {"enforce_eager": False, "async_scheduling": False},
    "ours, no graphs": {"enforce_eager": True, "async_scheduling": True},
    "ours, neither": {"enforce_eager": True, "async_scheduling": False},
}
"""How steps are taken: without a device there are no graphs, and overlap only changes the order of the work."""
MOST_ABLATED_ROWS = 64
"""The prompts of more rows take longer than the decode that is measured."""
TIE = 1e-4
"""Where the two largest logits are nearer than this, either token may be drawn."""

# ---- right -------------------------------------------------------------------------------------------------


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


# ---- fast --------------------------------------------------------------------------------------------------


def engine(
    names: Sequence[str], load: Load, limits: tuple[float, float], under: Path, device: torch.device, where: Where
) -> Iterator[GpuRow]:
    """The runner's steps: the engine without scheduler and text. `limits`: bytes/s and flop/s of the device."""
    row = partial(GpuRow.of, where, "engine")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    for name in names:
        place = made(name, dtype, under, device)
        runner = runner_of(
            place, device, _kv_tokens(load, device), max_model_len=max(load.context, *load.prompts) + 1024
        )
        facts = runner.config.checkpoint
        weights = _product_bytes(place, dtype)
        token_bytes = 2 * facts.layers * facts.kv_heads * facts.head_dim * dtype.itemsize
        for rows, (system, changed) in product(load.rows, LANES.items()):
            if system != "ours" and rows > MOST_ABLATED_ROWS:
                continue
            taken = decode_s(Steps(runner, **changed), rows, load)
            case = f"{name} decode {rows} rows {load.context} context"
            yield row(case, system, "rate", "tokens/s", [rows / t for t in taken])
            read = weights + rows * load.context * token_bytes
            yield row(case, system, "share of memory rate", "1", [read / t / limits[0] for t in taken])
        for prompt in load.prompts:
            taken = prefill_s(runner, prompt, device, load.tries)
            work = 2 * prompt * weights / dtype.itemsize  # the head's, for one token only, is a few percent of it
            yield row(f"{name} prefill {prompt}", "ours", "rate", "tokens/s", [prompt / t for t in taken])
            yield row(
                f"{name} prefill {prompt}", "ours", "share of products", "1", [work / t / limits[1] for t in taken]
            )
        rate = mixed_rate(partial(answers, runner, **LANES["ours"]), load, facts.vocab_size)
        yield row(f"{name} {load.sequences} sequences", "ours", "output rate", "tokens/s", [rate])
        del runner
        _give_back(device)
        if name == names[0]:
            yield from deterministic(name, place, load, device, where)


def mixed_rate(run: Callable[[Asked], object], load: Load, vocabulary: int) -> float:
    """Output tokens per second of the mixed run, the same way for every system: once over other prompts of the same
    shape, which is not counted (kernels are compiled, graphs captured), then once over prompts that no cache knows."""
    run(load.mixed(vocabulary, seed=1))
    asked = load.mixed(vocabulary)
    began = time.perf_counter()
    run(asked)
    return sum(out for _, out in asked) / (time.perf_counter() - began)


def deterministic(name: str, place: Path, load: Load, device: torch.device, where: Where) -> Iterator[GpuRow]:
    """What `deterministic` costs: the middle of the decodes and the first prompt, and whether it holds."""
    longest = max(load.context, *load.prompts) + 1024
    runner = runner_of(place, device, _kv_tokens(load, device), max_model_len=longest, deterministic=True)
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
    _give_back(device)


def _kv_tokens(load: Load, device: torch.device) -> int | None:
    """A CUDA device has its own memory, of which the engine takes its share."""
    return None if device.type == "cuda" else load.kv_tokens


def _product_bytes(place: Path, dtype: torch.dtype) -> int:
    """Of the weights that a step multiplies with: all but the embedding, unless that is the head as well."""
    plan = plan_decoder(AutoConfig.from_pretrained(place))
    assert plan is not None
    sizes = {name: math.prod(shape) for name, shape in plan.tensors()}
    unused = 0 if plan.is_tied else sizes["model.embed_tokens.weight"]
    return (sum(sizes.values()) - unused) * dtype.itemsize


def vllm(names: Sequence[str], load: Load, under: Path, device: torch.device, where: Where) -> Iterator[GpuRow]:
    """The mixed run through vLLM's own engine in this process, its defaults, prefix caching on."""
    if find_spec("vllm") is None:
        print("vllm is not installed here: its part is left out")
        return
    for name in names:
        place = made(name, torch.bfloat16 if device.type == "cuda" else torch.float32, under, device)
        rate, case = _vllm_rate(place, load), f"{name} {load.sequences} sequences"
        yield GpuRow.of(where, "vllm", case, "vllm", "output rate", "tokens/s", [rate])
        _give_back(device)


def _vllm_rate(place: Path, load: Load) -> float:
    from vllm import LLM, SamplingParams

    length = 2 * load.lengths[1] + 64
    model = LLM(str(place), skip_tokenizer_init=True, enable_prefix_caching=True, max_model_len=length)
    greedy = partial(SamplingParams, temperature=0, ignore_eos=True, detokenize=False)

    def generate(asked: Asked) -> None:
        prompts = [{"prompt_token_ids": prompt} for prompt, _ in asked]
        model.generate(prompts, [greedy(max_tokens=out) for _, out in asked], use_tqdm=False)

    return mixed_rate(generate, load, AutoConfig.from_pretrained(place).vocab_size)


def _give_back(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
