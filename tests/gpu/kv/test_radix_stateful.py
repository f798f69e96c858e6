"""The radix tree in any order of insert, match, let go, evict and take, against a dictionary of prefixes."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from parrot_compat.gpu.kv.pages import PagePool
from parrot_compat.gpu.kv.radix import RadixTree
from tests.gpu.kv.stateful import THOROUGH

Prefix = tuple[str, tuple[int, ...]]
"""A namespace and all tokens up to the end of a page: what the page holds."""

namespaces = st.sampled_from(["", "tenant"])
texts = st.lists(st.integers(0, 1), max_size=9)


@dataclass
class Held:
    namespace: str
    tokens: list[int]
    pages: list[int]


class RadixMachine(RuleBasedStateMachine):
    @initialize(pages=st.integers(1, 14), size=st.integers(1, 3))
    def new_tree(self, pages: int, size: int) -> None:
        self.size = size
        self.pool = PagePool(pages, size)
        self.tree = RadixTree(self.pool)
        self.known: dict[Prefix, int] = {}
        self.released: dict[int, tuple[int, int]] = {}  # page -> (when, how deep): larger goes later, deeper first
        self.holders: list[Held] = []
        self.now = 0

    def prefixes(self, namespace: str, tokens: list[int]) -> list[Prefix]:
        ends = range(self.size, len(tokens) + 1, self.size)
        return [(namespace, tuple(tokens[:end])) for end in ends]

    def expected(self, namespace: str, tokens: list[int]) -> list[int]:
        pages = []
        for prefix in self.prefixes(namespace, tokens):
            if prefix not in self.known:
                break
            pages.append(self.known[prefix])
        return pages

    def let_go(self, pages: list[int], depth: int = 0) -> None:
        self.now += 1
        self.pool.release(pages)
        for index, page in enumerate(pages):
            self.released[page] = (self.now, -(depth + index))

    @rule(namespace=namespaces, tokens=texts)
    def match(self, namespace: str, tokens: list[int]) -> None:
        pages = self.tree.match(namespace, tokens)
        assert pages == self.expected(namespace, tokens)
        self.holders.append(Held(namespace, tokens[: len(pages) * self.size], pages))

    @rule(namespace=namespaces, tokens=texts)
    def insert(self, namespace: str, tokens: list[int]) -> None:
        prefixes = self.prefixes(namespace, tokens)
        if len(prefixes) > self.pool.free:
            return
        mine = self.pool.allocate(len(prefixes))
        pages = self.tree.insert(namespace, tokens, mine)
        for prefix, page in zip(prefixes, mine, strict=True):
            self.known.setdefault(prefix, page)
        assert pages == self.expected(namespace, tokens) and len(pages) == len(prefixes)
        self.holders.append(Held(namespace, tokens[: len(pages) * self.size], pages))

    @precondition(lambda self: self.holders)
    @rule(data=st.data(), more=texts)
    def match_below(self, data: st.DataObject, more: list[int]) -> None:
        held = data.draw(st.sampled_from(self.holders))
        below = held.pages[-1] if held.pages else None
        found = self.tree.match(held.namespace, more, below=below)
        assert held.pages + found == self.expected(held.namespace, held.tokens + more)
        held.tokens = held.tokens + more[: len(found) * self.size]
        held.pages = held.pages + found

    @precondition(lambda self: self.holders)
    @rule(data=st.data(), more=texts)
    def insert_below(self, data: st.DataObject, more: list[int]) -> None:
        held = data.draw(st.sampled_from(self.holders))
        count = len(more) // self.size
        if count > self.pool.free:
            return
        mine = self.pool.allocate(count)
        pages = self.tree.insert(held.namespace, more, mine, below=held.pages[-1] if held.pages else None)
        grown = held.tokens + more[: count * self.size]
        prefixes = self.prefixes(held.namespace, grown)[len(held.pages) :]
        for prefix, page in zip(prefixes, mine, strict=True):
            self.known.setdefault(prefix, page)
        held.tokens, held.pages = grown, held.pages + pages
        assert held.pages == self.expected(held.namespace, grown)

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def let_go_of_an_end(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(self.holders))
        keep = data.draw(st.integers(0, len(held.pages)))
        self.let_go(held.pages[keep:], keep)
        held.pages, held.tokens = held.pages[:keep], held.tokens[: keep * self.size]
        if not held.pages:
            self.holders.remove(held)

    @rule(count=st.integers(0, 5))
    def evict(self, count: int) -> None:
        idle = sorted(self.idle(), key=self.released.__getitem__)
        gone = set(idle[:count])
        assert self.tree.evict(count) == len(gone)
        self.known = {prefix: page for prefix, page in self.known.items() if page not in gone}

    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        lonely = [held for held in self.holders if held.pages and self.pool.references(held.pages[-1]) == 1]
        if not lonely:
            return
        held = data.draw(st.sampled_from(lonely))
        page = held.pages[-1]
        namespace, tokens = next(prefix for prefix, known in self.known.items() if known == page)
        self.tree.take(page)
        self.known = {
            prefix: known
            for prefix, known in self.known.items()
            if not (prefix[0] == namespace and prefix[1][: len(tokens)] == tokens)
        }
        assert self.pool.is_writable(page)
        self.pool.release([page])
        held.pages, held.tokens = held.pages[:-1], held.tokens[: -self.size]

    def idle(self) -> set[int]:
        return set(self.known.values()) - {page for held in self.holders for page in held.pages}

    @invariant()
    def agrees(self) -> None:
        self.pool.check()
        self.tree.check()
        assert len(self.tree) == len(self.known)
        assert self.tree.evictable == len(self.idle())
        assert self.pool.free + len(self.known) == self.pool.pages
        for page in range(self.pool.pages):
            assert self.pool.references(page) == sum(page in held.pages for held in self.holders)


TestRadixTreeInAnyOrder = RadixMachine.TestCase
TestRadixTreeInAnyOrder.settings = THOROUGH
