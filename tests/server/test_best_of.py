"""Of many answers the likeliest are given, and all of them are counted."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace

from parrot_compat.core.engine import Chunk, Generate
from parrot_compat.core.engines.scripted import ScriptedEngine

from .live import live, send


class Doubting(ScriptedEngine):
    """The greater the seed, the surer it is of each token: seed 12 is told as -0.88."""

    async def generate(self, generate: Generate) -> AsyncGenerator[Chunk, None]:
        async for chunk in super().generate(generate):
            score = generate.sampling.seed / 100 - 1
            yield replace(chunk, logprobs=tuple(replace(item, logprob=score) for item in chunk.logprobs))


ASKED = {"prompt": "count", "max_tokens": 4, "seed": 10}


async def test_the_likeliest_answers_are_given_best_first() -> None:
    async with live(engine_type=Doubting) as server:
        reply = await send(server, "POST", "/v1/completions", ASKED | {"n": 2, "best_of": 5, "logprobs": 0})
        told = [choice["logprobs"]["token_logprobs"][0] for choice in reply.json()["choices"]]
        assert told == [-0.86, -0.87]
        assert [choice["index"] for choice in reply.json()["choices"]] == [0, 1]
        assert reply.json()["usage"]["completion_tokens"] == 5 * 4


async def test_each_prompt_has_its_own_best_and_log_probabilities_are_told_to_who_asks() -> None:
    async with live(engine_type=Doubting) as server:
        asked = ASKED | {"prompt": ["count", "capital of France"], "best_of": 3, "echo": True}
        choices = (await send(server, "POST", "/v1/completions", asked)).json()["choices"]
        assert [choice["text"] for choice in choices] == ["countone ", "capital of FrancePari"]
        assert all(choice["logprobs"] is None for choice in choices)
