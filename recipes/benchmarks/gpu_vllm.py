"""Our engine beside vLLM's on one device, by one method (`gpu_rates`): ours, vLLM, and ours again.

One after the other, because one device does not hold both: each takes the 0.9 of the memory that is its default, and
with a share each the KV of the larger model's 256 rows would not fit. vLLM has a process of its own, with which all
that it took goes; ours comes before and behind it, so that a device that changed meanwhile shows. Taking more turns
would cost vLLM's start, a minute or two, each time.

The invariant: both read the same folder and the same prompts and draw the same number of tokens, greedily. Neither
makes text of them; vLLM's numbers include its own way from the caller to the engine's process.

    python -m recipes.benchmarks.gpu_vllm FOLDER LOAD FILE     vLLM alone (what the suite starts): JSON into FILE
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoConfig

from .gpu_budget import Budget
from .gpu_cases import give_back
from .gpu_models import LANES, kv_tokens
from .gpu_rates import Asked, Rate, rates
from .gpu_rows import ROOT, GpuRow, Where
from .gpu_shapes import Load, made, runner_of
from .gpu_steps import answers

__all__ = ["main", "vllm"]

BEYOND = 64
"""Tokens of a context beyond the longest sequence."""


def vllm(
    names: Sequence[str], load: Load, under: Path, device: torch.device, where: Where, budget: Budget
) -> Iterator[GpuRow]:
    """Rates of both, how much faster ours is, and by how much ours changed while vLLM was measured."""
    if find_spec("vllm") is None:
        budget.left_out.append("all of it, because vllm is not installed here")
        return
    for number, name in enumerate(names):
        if not budget.allows(name):
            continue
        place = made(name, torch.bfloat16 if device.type == "cuda" else torch.float32, under, device)
        first_turn = budget.share(1 / (3 * (len(names) - number)))
        before = _ours(place, load, device, first_turn)
        budget.left_out += [f"{name} {case}" for case in first_turn.left_out]
        if not before:
            continue
        same = _measured(load, before)  # what the first turn had no time for, the others leave out too
        theirs, after = _theirs(place, same), _ours(place, same, device, Budget())
        for first, rate, second in zip(before, theirs, after, strict=True):
            assert (first.case, first.metric) == (rate.case, rate.metric) == (second.case, second.metric)
            row = partial(GpuRow.of, where, "vllm", f"{name} {rate.case}")
            ours = first.values + second.values
            yield row("vllm", rate.metric, "tokens/s", rate.values)
            yield row("ours", rate.metric, "tokens/s", ours)
            yield row("ours / vllm", rate.metric, "ratio", [statistics.median(ours) / statistics.median(rate.values)])
            drift = statistics.median(second.values) / statistics.median(first.values)
            yield row("ours, after / before", rate.metric, "ratio", [drift])


def _measured(load: Load, found: Sequence[Rate]) -> Load:
    """The load without what is not among `found`."""
    rows = tuple(rows for rows in load.rows if any(rate.case.startswith(f"{rows} rows") for rate in found))
    return replace(load, rows=rows, sequences=load.sequences if found and "sequences" in found[-1].case else 0)


def _ours(place: Path, load: Load, device: torch.device, budget: Budget) -> list[Rate]:
    runner = runner_of(place, device, kv_tokens(load, device), max_model_len=_longest(load))
    run = partial(answers, runner, **LANES["ours"])
    found = list(rates(run, load, runner.config.checkpoint.vocab_size, budget))
    del runner, run
    give_back(device)
    return found


def _theirs(place: Path, load: Load) -> list[Rate]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rates.json"
        command = [sys.executable, "-m", "recipes.benchmarks.gpu_vllm", str(place), json.dumps(asdict(load)), str(file)]
        subprocess.run(command, cwd=ROOT, check=True)
        return [Rate(**line) for line in json.loads(file.read_text(encoding="utf-8"))]


def main(argv: Sequence[str] | None = None) -> int:
    place, load, file = sys.argv[1:] if argv is None else argv
    found = _of_vllm(Path(place), Load(**json.loads(load)))
    Path(file).write_text(json.dumps([asdict(rate) for rate in found]), encoding="utf-8")
    return 0


def _of_vllm(place: Path, load: Load) -> list[Rate]:
    """Its defaults, prefix caching on."""
    from vllm import LLM, SamplingParams

    model = LLM(str(place), skip_tokenizer_init=True, enable_prefix_caching=True, max_model_len=_longest(load))
    greedy = partial(SamplingParams, temperature=0, ignore_eos=True, detokenize=False)

    def generate(asked: Asked) -> None:
        prompts = [{"prompt_token_ids": prompt} for prompt, _ in asked]
        model.generate(prompts, [greedy(max_tokens=out) for _, out in asked], use_tqdm=False)

    return list(rates(generate, load, AutoConfig.from_pretrained(place).vocab_size, Budget()))


def _longest(load: Load) -> int:
    return max(2 * load.lengths[1], load.rate_prompt + load.rate_outputs[1]) + BEYOND


if __name__ == "__main__":
    raise SystemExit(main())
