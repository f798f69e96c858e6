"""W2, chain summary under load: beside background requests (figure 12a), and many chains at once (figure 12b)."""

from __future__ import annotations

import itertools
from functools import partial

from ..clients import Client
from ..text import FreshText
from .w01_refine import chain_app
from .workload import App, Build, Round, Shape, Workload, arrivals

__all__ = ["WORKLOAD"]

BACKGROUND_TOKENS, BACKGROUND_OUT = 512, 50
MOST_BACKGROUND = 600


def _beside_background(shape: Shape, text: FreshText) -> Round:
    """One chain; requests of 512 → 50 tokens arrive at `rate` per second for as long as it runs."""
    apps = [chain_app(shape, text, "article")]
    due = itertools.islice(arrivals(shape.rate, "w02"), shape.count(MOST_BACKGROUND, least=8))
    for number, due_s in enumerate(due):
        question = text.passage(shape.length(BACKGROUND_TOKENS))
        run = partial(_request, question=question, out=shape.length(BACKGROUND_OUT))
        apps.append(App(key=f"background-{number}", run=run, due_s=due_s, group="background"))
    return Round(apps=apps)


async def _request(client: Client, *, question: str, out: int) -> str:
    return await client.ask([{"role": "user", "content": question}], out, name="background", awaited=True)


def _many(shape: Shape, text: FreshText, *, chains: int) -> Round:
    """So many chains at once, on articles of their own; parts of 2048."""
    many = shape.count(chains, least=2)
    return Round(apps=[chain_app(shape, text, f"article-{number}", part=2048) for number in range(many)])


_BACKGROUND: dict[str, Build] = {"background": _beside_background}
WORKLOAD = Workload(
    name="w02",
    title="chain summary under load",
    variants={"chains10": partial(_many, chains=10)}
    | _BACKGROUND
    | {f"chains{chains}": partial(_many, chains=chains) for chains in (15, 20, 25)},
    open_loop=frozenset({"background"}),
    notes="The rate is that of the background requests.",
)
