"""W5, four apps with long prompts of their own, used by many: Poisson arrivals, 1:1:1:1 (figure 16)."""

from __future__ import annotations

import random
from functools import partial

from ..clients import Client
from ..text import FreshText
from .workload import App, Round, Shape, Workload, arrivals

__all__ = ["WORKLOAD"]

REQUESTS = 300
APPS = {
    "productivity": (7437, 7, 704),
    "image": (1116, 8, 89),
    "programming": (1694, 4, 631),
    "data-analysis": (2031, 4, 416),
}
"""Tokens of the shared prompt, of a query, and of an answer."""


def _mixed(shape: Shape, text: FreshText) -> Round:
    prompts = {name: text.passage(shape.length(shared)) for name, (shared, _, _) in APPS.items()}
    drawn = random.Random("w05 mix")
    due = arrivals(shape.rate, "w05")
    apps = []
    for number in range(shape.count(REQUESTS, least=8)):
        name = drawn.choice(list(APPS))
        _, query, out = APPS[name]
        question = text.passage(query)  # not scaled: a query of less than four tokens is none
        run = partial(_request, system=prompts[name], question=question, out=shape.length(out), name=name)
        apps.append(App(key=f"{name}-{number}", run=run, due_s=next(due)))
    return Round(apps=apps)


async def _request(client: Client, *, system: str, question: str, out: int, name: str) -> str:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    return await client.ask(messages, out, name=name, awaited=True)


WORKLOAD = Workload(
    name="w05",
    title="four apps with shared prompts",
    variants={"poisson": _mixed},
    open_loop=frozenset({"poisson"}),
    notes="The rate is requests per second of all four together.",
)
