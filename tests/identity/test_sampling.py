"""Seeded sampling draws what our own engine draws with every optimisation off, whatever else is in the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.gpu.config import EngineConfig
from parrot_compat.gpu.drawing import sampler
from parrot_compat.gpu.drawing.draw import Draw
from parrot_compat.gpu.sequence import Sequence
from parrot_compat.gpu.step_rows import StepRows
from tests.gpu.at_once import at_once

from .bench import PAGE_SIZE, Bench
from .checkpoints import FAMILIES
from .measure import Lab
from .port import Client, greedy, started

TOKENS = 32
RECIPES = (
    {"temperature": 1.0},
    {"temperature": 0.7, "top_p": 0.8},
    {"temperature": 1.3, "top_k": 20},
    {"temperature": 0.9, "top_p": 0.95, "top_k": 50, "min_p": 0.02},
    {"temperature": 0.0},
)
Asked = tuple[tuple[int, ...], ResolvedSampling]


def questions(bench: Bench) -> list[Asked]:
    """Half of the prompts share a trunk; every recipe of sampling has its neighbours in every other."""
    trunk = bench.tokens(PAGE_SIZE * 2 + 3)
    prompts = [(trunk if number % 2 else ()) + bench.tokens(bench.random.randint(1, 40)) for number in range(20)]
    return [
        (prompt, ResolvedSampling(max_tokens=TOKENS, seed=1000 + number, ignore_eos=True, **RECIPES[number % 5]))
        for number, prompt in enumerate(prompts)
    ]


async def drawn(client: Client, asked: list[Asked]) -> list[tuple[int, ...]]:
    answers = await at_once(
        client.engine, *(client.ask(prompt, TOKENS, sampling=sampling) for prompt, sampling in asked)
    )
    return [answer.output for answer in answers]


async def everything_off(bench: Bench, asked: list[Asked]) -> list[tuple[int, ...]]:
    plain = bench.config(max_rows=1, step_tokens=512, enable_prefix_caching=False)
    async with started(plain) as client:
        return [(await client.ask(prompt, TOKENS, sampling=sampling)).output for prompt, sampling in asked]


def engines(bench: Bench) -> dict[str, EngineConfig]:
    return {
        "all in one batch": bench.config(max_rows=32),
        "small chunks": bench.config(max_rows=5, step_tokens=7),
        "preempted": bench.config(max_rows=8, kv_tokens=PAGE_SIZE * 16),
    }


@pytest.mark.parametrize("shape", FAMILIES)
async def test_a_seeded_text_is_the_same_in_any_company(lab: Lab, shape: str) -> None:
    bench = lab.bench(shape, "sampling")
    asked = questions(bench)
    expected = await everything_off(bench, asked)
    for name, config in engines(bench).items():
        async with started(config) as client:
            assert await drawn(client, asked) == expected, name
            assert await drawn(client, asked[::-1]) == expected[::-1], f"{name}, again with the prefixes cached"
            if name == "preempted":
                assert client.preemptions > 0


async def test_another_seed_draws_another_text_and_greedy_needs_none(lab: Lab) -> None:
    bench = lab.bench("llama", "seeds")
    prompt = bench.tokens(20)
    async with started(bench.config()) as client:
        warm = [ResolvedSampling(max_tokens=TOKENS, temperature=1.0, seed=seed, ignore_eos=True) for seed in (1, 2, 1)]
        first, other, again = await drawn(client, [(prompt, sampling) for sampling in warm])
        assert first == again and first != other
        cold = await client.ask(prompt, TOKENS, sampling=greedy(TOKENS))
        assert cold.output == lab.oracle("llama").output(prompt, TOKENS)


def one_stream_for_all(patch: pytest.MonkeyPatch) -> None:
    """Random numbers that come in the order of the rows."""
    stream = Random(0)
    patch.setattr(sampler, "uniform", lambda seed, index: stream.random())


def index_forgotten_in_preemption(patch: pytest.MonkeyPatch) -> None:
    """A sequence that is computed again counts its draws from there."""
    preempt, draw_after = StepRows._preempt, Sequence.draw_after
    forgotten: dict[int, int] = {}

    def preempted(self: StepRows, sequence: Sequence) -> None:
        forgotten[id(sequence)] = len(sequence.drawn)
        preempt(self, sequence)

    def drawn_after(self: Sequence, computed: int) -> Draw | None:
        draw = draw_after(self, computed)
        return draw and replace(draw, index=draw.index - forgotten.get(id(self), 0))

    patch.setattr(StepRows, "_preempt", preempted)
    patch.setattr(Sequence, "draw_after", drawn_after)


@pytest.mark.parametrize("fault", [one_stream_for_all, index_forgotten_in_preemption])
async def test_a_fault_planted_in_the_random_numbers_is_found(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, fault: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """The test of the test above."""
    bench = lab.bench("qwen2", "sampling")
    asked = questions(bench)
    expected = await everything_off(bench, asked)
    fault(monkeypatch)
    async with started(engines(bench)["preempted"]) as client:
        assert await drawn(client, asked) != expected
