"""W1, chain summary: some 65 dependent calls for one article (figures 11a and 11b of the paper)."""

from __future__ import annotations

from functools import partial

from ..clients import Client
from ..text import FreshText
from .summaries import inputs, part_first_refine, refine
from .workload import App, Round, Shape, Workload

__all__ = ["CALLS", "WORKLOAD", "chain_app"]

CALLS = 65


def chain_app(
    shape: Shape, text: FreshText, key: str, *, part: int = 1024, out: int = 50, part_first: bool = False
) -> App:
    """One article, read to its end."""
    calls = shape.count(CALLS, least=3)
    values = inputs(text, calls, shape.length(part))
    chain = part_first_refine if part_first else refine

    async def run(client: Client) -> str:
        built = chain(client, calls, shape.length(out))
        return await client.read(built.astream(values, client.config))

    return App(key=key, run=run)


def _article(shape: Shape, text: FreshText, *, part: int = 1024, out: int = 50, part_first: bool = False) -> Round:
    return Round(apps=[chain_app(shape, text, "article", part=part, out=out, part_first=part_first)])


def _llamaindex(shape: Shape, text: FreshText) -> Round:
    """The same article by LlamaIndex's `refine`."""
    from .llama_summaries import refine_app  # here: LlamaIndex takes seconds to import, and this variant alone needs it

    return Round(apps=[refine_app(shape, text, "article", parts=shape.count(CALLS, least=3), part=1024, out=50)])


WORKLOAD = Workload(
    name="w01",
    title="chain (refine) summary",
    variants={"part1024-out50": _article}
    | {f"part1024-out{out}": partial(_article, out=out) for out in (25, 75, 100)}
    | {f"part{part}-out50": partial(_article, part=part) for part in (512, 1536, 2048)}
    | {"part-first": partial(_article, part_first=True), "llamaindex": _llamaindex},
    llamaindex=frozenset({"llamaindex"}),
    notes="LangChain's own refine prompt has the new part after the summary; part-first turns them round.",
)
