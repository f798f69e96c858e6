"""Contexts in any order of everything, with the content of every slot simulated.

Each slot remembers which text it was written for. Whatever is shared, copied, evicted, dropped or taken over, slots
[0, computed) of every context must hold exactly its own tokens' content: a stale page, a page written while shared, or
one shared wrongly is seen at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from parrot_compat.gpu.kv.context import Context
from parrot_compat.gpu.kv.contexts import Contexts
from parrot_compat.gpu.kv.pages import OutOfPages, PagePool
from parrot_compat.gpu.kv.radix import RadixTree
from tests.gpu.kv.stateful import THOROUGH

namespaces = st.sampled_from(["", "tenant"])
texts = st.lists(st.sampled_from([0, 0, 0, 1]), max_size=9)
short_texts = st.lists(st.integers(0, 1), min_size=1, max_size=3)
Content = tuple[str, tuple[int, ...]]
"""What KV depends on: the namespace (so that sharing across is seen) and every token up to its own."""


@dataclass
class Row:
    context: Context
    start: int
    upto: int


class ContextsMachine(RuleBasedStateMachine):
    @initialize(
        pages=st.sampled_from([12, 40, 7, 4, 3, 2]),
        size=st.sampled_from([4, 3, 2, 1]),
        caching=st.sampled_from([True, True, True, False]),
    )
    def new_engine(self, pages: int, size: int, caching: bool) -> None:
        self.pool = PagePool(pages, size)
        self.tree = RadixTree(self.pool) if caching else None
        self.contexts = Contexts(self.pool, self.tree)
        self.slots: list[Content | None] = [None] * (pages * size)
        self.texts: dict[int, Content] = {}
        self.seen: set[Content] = set()
        self.next_id = 0

    # -- the world around: slots, and what a step does to them

    def slot(self, context: Context, position: int) -> int:
        size = self.pool.page_size
        return context.pages[position // size] * size + position % size

    def copy(self, pairs: tuple[tuple[int, int], ...]) -> None:
        size = self.pool.page_size
        for source, target in pairs:
            self.slots[target * size : (target + 1) * size] = self.slots[source * size : (source + 1) * size]

    def write(self, row: Row) -> None:
        for position in range(row.start, row.upto):
            namespace, tokens = self.texts[row.context.id]
            self.slots[self.slot(row.context, position)] = (namespace, tokens[: position + 1])

    def draw(self, data: st.DataObject) -> Context:
        return self.contexts.get(data.draw(st.sampled_from(sorted(self.texts))))

    def add(self, content: Content) -> int:
        self.next_id += 1
        self.texts[self.next_id] = content
        return self.next_id

    def state(self) -> object:
        """Everything that `OutOfPages` must leave as it was."""
        held = [(context.id, tuple(context.pages), context.computed) for context in self.contexts]
        return held, self.pool.free, self.pool.idle_pages(), [self.pool.is_cached(p) for p in range(self.pool.pages)]

    def run(self, context: Context) -> None:
        """Compute all of a context in one step of its own, as far as the pool can hold it, preempting others."""
        upto = min(len(context.tokens), self.pool.pages * self.pool.page_size)
        row = Row(context, self.contexts.match(context), upto)
        pairs = self.reserve(context, upto)
        for other in self.contexts:
            if pairs is None and other is not context:
                self.contexts.drop(other)
                pairs = self.reserve(context, upto)
        assert pairs is not None
        self.copy(pairs)
        self.write(row)
        self.commit(row)

    def commit(self, row: Row) -> None:
        self.contexts.commit(row.context, row.upto)
        assert row.context.computed == row.upto
        self.seen.add((row.context.namespace, tuple(row.context.tokens[: row.upto])))

    def reserve(self, context: Context, upto: int) -> tuple[tuple[int, int], ...] | None:
        before = self.state()
        try:
            return self.contexts.reserve(context, upto)
        except OutOfPages:
            assert self.state() == before
            others_hold = any(other.pages for other in self.contexts if other is not context)
            assert others_hold or self.pool.pages_for(upto) > self.pool.pages, "refused though alone"
            return None

    # -- what an engine may ask

    @rule(namespace=namespaces, tokens=texts, keep_last=st.booleans())
    def open(self, namespace: str, tokens: list[int], keep_last: bool) -> None:
        context = self.contexts.open(self.add((namespace, tuple(tokens))), namespace, tokens, keep_last=keep_last)
        assert not keep_last or not tokens or context.computed < len(tokens)

    @precondition(lambda self: self.texts)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        parent = self.draw(data)
        child = self.contexts.fork(self.add(self.texts[parent.id]), parent.id)
        assert child.computed >= parent.computed and child.tokens == parent.tokens

    @precondition(lambda self: self.texts)
    @rule(data=st.data(), more=texts, keep_last=st.sampled_from([None, False, True]))
    def extend(self, data: st.DataObject, more: list[int], keep_last: bool | None) -> None:
        context = self.draw(data)
        namespace, tokens = self.texts[context.id]
        self.texts[context.id] = namespace, tokens + tuple(more)
        self.contexts.extend(context, more, keep_last=keep_last)
        assert not context.keep_last or not context.tokens or context.computed < len(context.tokens)

    @precondition(lambda self: self.texts)
    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        """Plan rows; preempt where pages run out, also rows planned already; fork and free in between; run; commit."""
        rows: list[Row] = []
        copies: list[tuple[int, int]] = []
        for id in data.draw(st.lists(st.sampled_from(sorted(self.texts)), unique=True, max_size=4)):
            context = self.contexts.get(id)
            start = self.contexts.match(context)
            upto = data.draw(st.just(len(context.tokens)) | st.integers(start, len(context.tokens)))
            pairs = self.reserve(context, upto)
            if pairs is None:
                victim = self.draw(data)
                self.contexts.drop(victim)
                rows = [row for row in rows if row.context is not victim]
                continue
            copies += pairs
            rows.append(Row(context, start, upto))
        self.copy(tuple(copies))
        if rows and data.draw(st.booleans()):
            parent = data.draw(st.sampled_from(rows)).context
            self.contexts.fork(self.add(self.texts[parent.id]), parent.id)
        for row in rows:
            self.write(row)
        for row in rows:
            self.commit(row)

    @rule(namespace=namespaces, tokens=texts, answer=texts, keep=st.booleans())
    def generate(self, namespace: str, tokens: list[int], answer: list[int], keep: bool) -> None:
        """A whole call: prefill, then one token after another."""
        id = self.add((namespace, tuple(tokens)))
        context = self.contexts.open(id, namespace, tokens, keep_last=True)
        self.run(context)
        for token in answer:
            self.texts[id] = namespace, (*self.texts[id][1], token)
            self.contexts.extend(context, [token])
            self.run(context)
        if not keep:
            self.contexts.free(id)
            del self.texts[id]

    @precondition(lambda self: self.texts)
    @rule(data=st.data(), ends=st.lists(short_texts, min_size=2, max_size=4))
    def branch(self, data: st.DataObject, ends: list[list[int]]) -> None:
        """One prompt, several texts that go on from it, the parent's own last."""
        parent = self.draw(data)
        self.run(parent)
        children = [self.contexts.fork(self.add(self.texts[parent.id]), parent.id) for _ in ends[1:]]
        for context, end in zip([*children, parent], ends, strict=True):
            namespace, tokens = self.texts[context.id]
            self.texts[context.id] = namespace, tokens + tuple(end)
            self.contexts.extend(context, end)
            self.run(context)

    @precondition(lambda self: self.texts)
    @rule(data=st.data(), back=st.integers(0, 5), more=texts)
    def cut_and_go_on(self, data: st.DataObject, back: int, more: list[int]) -> None:
        """Truncate, often into a shared page, then write on from there."""
        context = self.draw(data)
        namespace, tokens = self.texts[context.id]
        self.run(context)
        kept = tokens[: max(0, len(tokens) - back)]
        self.contexts.truncate(context, len(kept))
        self.contexts.extend(context, more)
        self.texts[context.id] = namespace, kept + tuple(more)
        self.run(context)

    @precondition(lambda self: self.texts)
    @rule(data=st.data(), fails=st.booleans())
    def step_that_comes_to_nothing(self, data: st.DataObject, fails: bool) -> None:
        """Planned and not run: copies are carried out all the same. Failed: they may not have been, so drop."""
        context = self.draw(data)
        pairs = self.reserve(context, data.draw(st.integers(context.computed, len(context.tokens))))
        if pairs is None:
            return
        if fails:
            self.contexts.drop(context)
        else:
            self.copy(pairs)

    @precondition(lambda self: self.texts)
    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        context = self.draw(data)
        keep = data.draw(st.integers(0, len(context.tokens)))
        namespace, tokens = self.texts[context.id]
        self.texts[context.id] = namespace, tokens[:keep]
        before = context.computed
        self.contexts.truncate(context, keep)
        assert context.computed == min(before, keep)

    @precondition(lambda self: self.texts)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        context = self.draw(data)
        self.contexts.drop(context)
        assert context.computed == 0 and not context.pages

    @precondition(lambda self: self.texts)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        id = self.draw(data).id
        del self.texts[id]
        self.contexts.free(id)
        self.contexts.free(id)

    @rule(count=st.integers(0, 4))
    def evict(self, count: int) -> None:
        if self.tree is not None:
            self.tree.evict(count)

    # -- what must always hold

    @invariant()
    def every_context_reads_its_own_text(self) -> None:
        for id, (namespace, tokens) in self.texts.items():
            context = self.contexts.get(id)
            assert context.namespace == namespace and tuple(context.tokens) == tokens
            for position in range(context.computed):
                assert self.slots[self.slot(context, position)] == (namespace, tokens[: position + 1])

    @invariant()
    def the_cache_holds_what_it_says(self) -> None:
        if self.tree is None:
            assert self.pool.idle == 0
            return
        size = self.pool.page_size
        for namespace, tokens in self.seen:
            pages = self.tree.match(namespace, tokens)
            held = [self.slots[page * size + offset] for page in pages for offset in range(size)]
            self.pool.release(pages)
            assert held == [(namespace, tokens[: position + 1]) for position in range(len(held))]

    @invariant()
    def the_books_agree(self) -> None:
        self.contexts.check()
        assert self.contexts.free_pages == self.pool.free + self.pool.idle
        assert len(self.contexts) == len(self.texts)

    def teardown(self) -> None:
        if not hasattr(self, "contexts"):
            return
        for id in list(self.texts):
            self.contexts.free(id)
        self.contexts.check()
        assert self.pool.held == 0 and self.pool.free + self.pool.idle == self.pool.pages


TestContextsInAnyOrder = ContextsMachine.TestCase
TestContextsInAnyOrder.settings = THOROUGH
