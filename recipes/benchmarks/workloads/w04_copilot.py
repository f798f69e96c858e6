"""W4, a copilot with a long shared system prompt: 64 requests, some 5,100 of 6,200 prompt tokens shared (figure 14).

Prompt lengths follow the quantiles of the 288 that the paper recorded; output lengths their least, mean and most.
"""

from __future__ import annotations

import itertools
import random
from functools import partial

from ..clients import Client
from ..text import FreshText
from .workload import App, Round, Shape, Workload

__all__ = ["WORKLOAD"]

REQUESTS, SHARED = 64, 5107
PROMPT_QUANTILES = ((0.0, 5224), (0.1, 5310), (0.5, 6146), (0.9, 6827), (0.99, 7361), (1.0, 7492))
LEAST_OUT, MEAN_OUT, MOST_OUT = 183, 331, 800


def _lengths(number: int) -> list[tuple[int, int]]:
    """Tokens of prompt and of output of each request; the same in every round."""
    drawn = random.Random("w04 lengths")
    return [(_quantile(drawn.random()), _out(drawn)) for _ in range(number)]


def _quantile(at: float) -> int:
    for (left, low), (right, high) in itertools.pairwise(PROMPT_QUANTILES):
        if at <= right:
            return round(low + (high - low) * (at - left) / (right - left))
    raise AssertionError(at)


def _out(drawn: random.Random) -> int:
    return min(MOST_OUT, round(LEAST_OUT + drawn.expovariate(1 / (MEAN_OUT - LEAST_OUT))))


def _batch(shape: Shape, text: FreshText, *, at_once: int) -> Round:
    system = text.passage(shape.length(SHARED))
    apps = []
    for number, (prompt, out) in enumerate(_lengths(shape.count(REQUESTS, least=4))):
        question = text.passage(shape.length(prompt - SHARED))
        run = partial(_request, system=system, question=question, out=shape.length(out))
        apps.append(App(key=f"request-{number}", run=run))
    return Round(apps=apps, at_once=shape.count(at_once, least=2))


async def _request(client: Client, *, system: str, question: str, out: int) -> str:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    return await client.ask(messages, out, name="copilot", awaited=True)


WORKLOAD = Workload(
    name="w04",
    title="copilot, long shared system prompt",
    variants={f"batch{at_once}": partial(_batch, at_once=at_once) for at_once in (16, 8, 32, 64)},
)
