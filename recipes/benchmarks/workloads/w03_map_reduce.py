"""W3, map-reduce summary: some 60 parallel calls and one that reads their answers (figures 13a and 13b)."""

from __future__ import annotations

from functools import partial

from ..clients import Client
from ..text import FreshText
from .summaries import inputs, map_reduce
from .workload import App, Round, Shape, Workload

__all__ = ["MAPS", "WORKLOAD", "map_reduce_app"]

MAPS = 60


def map_reduce_app(
    shape: Shape, text: FreshText, key: str, *, part: int = 1024, out: int = 50, due_s: float = 0.0, group: str = "app"
) -> App:
    maps = shape.count(MAPS, least=3)
    values = inputs(text, maps, shape.length(part))

    async def run(client: Client) -> str:
        chain = map_reduce(client, maps, shape.length(out))
        return await client.read(chain.astream(values, client.config))

    return App(key=key, run=run, due_s=due_s, group=group)


def _article(shape: Shape, text: FreshText, *, part: int = 1024, out: int = 50) -> Round:
    return Round(apps=[map_reduce_app(shape, text, "article", part=part, out=out)])


def _llamaindex(shape: Shape, text: FreshText) -> Round:
    """The same article by LlamaIndex's `tree_summarize`."""
    from .llama_summaries import tree_app  # here: LlamaIndex takes seconds to import, and this variant alone needs it

    return Round(apps=[tree_app(shape, text, "article", parts=shape.count(MAPS, least=3), part=1024, out=50)])


WORKLOAD = Workload(
    name="w03",
    title="map-reduce summary",
    variants={"part1024-out50": _article}
    | {f"part1024-out{out}": partial(_article, out=out) for out in (25, 75, 100)}
    | {f"part{part}-out50": partial(_article, part=part) for part in (512, 1536, 2048)}
    | {"llamaindex": _llamaindex},
    llamaindex=frozenset({"llamaindex"}),
)
