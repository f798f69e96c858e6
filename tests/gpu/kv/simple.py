"""A pool, a tree and contexts for tests that take one step after another."""

from __future__ import annotations

from parrot_compat.gpu.kv.context import Context
from parrot_compat.gpu.kv.contexts import Contexts, PageCopies
from parrot_compat.gpu.kv.pages import PagePool
from parrot_compat.gpu.kv.radix import RadixTree

SIZE = 4


class Kv:
    """A pool, a tree and contexts, and an engine's way of running one of them."""

    def __init__(self, pages: int = 16, caching: bool = True) -> None:
        self.pool = PagePool(pages, SIZE)
        self.tree = RadixTree(self.pool) if caching else None
        self.contexts = Contexts(self.pool, self.tree)
        self.next_id = 0

    def open(self, tokens: list[int], namespace: str = "", keep_last: bool = False) -> Context:
        self.next_id += 1
        return self.contexts.open(self.next_id, namespace, tokens, keep_last=keep_last)

    def fork(self, parent: Context) -> Context:
        self.next_id += 1
        return self.contexts.fork(self.next_id, parent.id)

    def run(self, context: Context, upto: int | None = None) -> PageCopies:
        upto = len(context.tokens) if upto is None else upto
        copies = self.contexts.reserve(context, upto)
        self.contexts.commit(context, upto)
        self.contexts.check()
        return copies

    def free(self, *contexts: Context) -> None:
        for context in contexts:
            self.contexts.free(context.id)
        self.contexts.check()

    def computed(self, tokens: list[int], namespace: str = "") -> Context:
        context = self.open(tokens, namespace)
        self.run(context)
        return context


def numbers(count: int, start: int = 0) -> list[int]:
    return list(range(start, start + count))
