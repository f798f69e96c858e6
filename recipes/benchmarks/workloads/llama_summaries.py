"""The two summaries as LlamaIndex's users write them: `tree_summarize` and `refine` over the parts of one document.

LlamaIndex packs the text by itself. A tree's pieces are as long as a part, by the tokens of the checkpoint counted word
by word, as LlamaIndex counts, and it has as many levels as its summaries need; a chain reads one part with each call.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from llama_index.core.response_synthesizers import ResponseMode

from ..clients import Client
from ..llama_client import synthesizer
from ..text import FreshText
from .workload import App, Shape

__all__ = ["refine_app", "tree_app"]

OPENING_TOKENS = 24
QUERY = "What is this document about?"
UNCUT = 2
"""Times a part: more than a part ever has by LlamaIndex's own count."""


def tree_app(shape: Shape, text: FreshText, key: str, *, parts: int, part: int, out: int) -> App:
    """Its last call is streamed, the others are nobody's to read."""
    return _app(shape, text, key, ResponseMode.TREE_SUMMARIZE, parts, part, out)


def refine_app(shape: Shape, text: FreshText, key: str, *, parts: int, part: int, out: int) -> App:
    """Nothing is streamed: LlamaIndex would stream every call of the chain."""
    return _app(shape, text, key, ResponseMode.REFINE, parts, part, out)


def _app(shape: Shape, text: FreshText, key: str, mode: ResponseMode, parts: int, part: int, out: int) -> App:
    is_tree = mode is ResponseMode.TREE_SUMMARIZE
    opening = text.passage(OPENING_TOKENS)
    chunks = [text.passage(shape.length(part)) for _ in range(parts)]

    async def run(client: Client) -> str:
        made = synthesizer(
            client,
            mode,
            opening=opening,
            max_tokens=shape.length(out),
            piece_tokens=shape.length(part) if is_tree else UNCUT * shape.length(part),
            count=text.ids,
            streaming=is_tree,
        )
        answer = await made.aget_response(QUERY, chunks)
        if isinstance(answer, str):
            return answer
        assert isinstance(answer, AsyncIterator)
        said = await client.read(answer)
        client.calls[-1].first = client.first_text
        return said

    return App(key=key, run=run)
