"""Contexts: the life of each sequence's KV, from its first token to `free`.

They know token ids and pages; nothing of steps, sampling, models or tensors. One thread uses them, between two steps.
Invariant: slots [0, computed) of a context's pages hold the KV of exactly its own tokens, and no page is written that
anybody else can read.

    tokens:   0 ......... cut ........ computed ........... reserved ...... len(tokens)
    pages:    [  the tree's   ][ tail ][       ours        ][  no page yet  ]

    [0, cut)             full pages, cut = computed rounded down to a page. In the tree and perhaps in other contexts,
                         so never written. We let go in `truncate`, `drop`, `free`; then they stay as evictable
                         cache. (Without a tree: shared with our forks only, and free when the last lets go.)
    [cut, computed)      part of a page. Ours alone, or shared with forks and whoever has the same text, or the tree's
                         if a full page was cut short: `reserve` copies it before it is written, unless ours alone.
    [computed, reserved) whole pages of ours, not written yet. Free again in `match`, `truncate`, `drop`, `free`.

The way of a sequence:  open or fork -> extend -> (match, reserve, copy pages, run, commit)* -> free.
`drop` gives up the pages at any time between two steps; afterwards the way goes on at `match`.
A step that failed, or was planned and whose page copies were not carried out, must `drop` its contexts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from parrot_compat.core.errors import ContextLost

from .begun import BegunPages
from .context import Context
from .pages import OutOfPages, PagePool
from .radix import RadixTree

__all__ = ["Contexts", "PageCopies"]

WORTH_A_COPY = 4
"""A page that another has begun is taken over for so many tokens, or for all that are left to compute."""

PageCopies = tuple[tuple[int, int], ...]
"""(source, target) pages to copy in all layers, in the order in which they were returned, before the step writes.
A source may be evicted by the next `reserve`, so order matters and gathering all of a step's copies is fine."""


class Contexts:
    """All contexts of an engine. Without a tree (prefix caching off) only forks share pages."""

    def __init__(self, pool: PagePool, tree: RadixTree | None) -> None:
        self._pool = pool
        self._tree = tree
        self._contexts: OrderedDict[int, Context] = OrderedDict()
        self._begun = BegunPages(pool.page_size)

    def __len__(self) -> int:
        return len(self._contexts)

    def holds(self, id: int) -> bool:
        """Whether there is a context of this id."""
        return id in self._contexts

    def __iter__(self) -> Iterator[Context]:
        """All contexts, the longest unused (`reserve`) first: the order in which to drop those that nothing runs on."""
        return iter(tuple(self._contexts.values()))

    @property
    def free_pages(self) -> int:
        """Pages that can be had without taking any from a context."""
        return self._pool.free + self._pool.idle

    def open(self, id: int, namespace: str, tokens: Sequence[int] = (), *, keep_last: bool = False) -> Context:
        """A new context. What the tree knows of `tokens` is computed at once."""
        return self._add(Context(id=id, namespace=namespace, tokens=list(tokens), keep_last=keep_last))

    def fork(self, id: int, parent_id: int) -> Context:
        """A new context that holds what its parent holds now. Either may be freed first. Errors: `ContextLost`."""
        parent = self.get(parent_id)
        pages = parent.pages.front(self._pool.pages_for(parent.computed))
        self._pool.retain(pages)
        return self._add(
            Context(
                id=id,
                namespace=parent.namespace,
                tokens=list(parent.tokens),
                pages=pages,
                computed=parent.computed,
                salt=parent.salt,
            )
        )

    def get(self, id: int) -> Context:
        """Errors: `ContextLost`."""
        try:
            return self._contexts[id]
        except KeyError:
            raise ContextLost(f"context {id} is not in this engine: it was freed, or never was here") from None

    def extend(
        self,
        context: Context,
        tokens: Sequence[int],
        *,
        keep_last: bool | None = None,
        is_read: bool | None = None,
        salt: str | None = None,
    ) -> None:
        """Append tokens, not computed yet. `keep_last`, `is_read` and `salt` hold until they are given again; `None`
        leaves them as they are. A context that is read, or gets another salt, is computed from its first token on."""
        context.tokens += tokens
        changes_nothing = keep_last is None and is_read is None and salt is None
        if changes_nothing and context.computed == self._computable(context):
            return  # as while drawing, token by token
        if keep_last is not None:
            context.keep_last = keep_last
        if is_read is not None:
            context.is_read = is_read
        if is_read or salt not in (None, context.salt):
            self._cut(context, 0)
        if salt is not None:
            context.salt = salt
        if context.computed > self._computable(context):
            self._cut(context, self._computable(context))
        self.match(context)

    def was_read(self, context: Context) -> None:
        """All that somebody wanted of its tokens is known: from now on it takes over what the tree has."""
        context.is_read = False

    def match(self, context: Context) -> int:
        """Take over what the tree has learnt of the tokens not computed yet; returns `computed`.

        Call it before planning the next step of a context that waited: another may have computed the same text by now.
        A page that we had begun gives way to the tree's full one, or to one that another has begun and filled further.
        """
        full, computable = context.computed // self._pool.page_size, self._computable(context)
        if self._tree is None or context.is_read or computable <= context.computed:
            return context.computed
        # The last page may be cut short by keep_last: it is found whole, and copied when its last token is computed.
        size = self._pool.page_size
        found = self._tree.match(
            context.root,
            context.tokens,
            below=context.pages[full - 1] if full else None,
            start=full * size,
            stop=self._pool.pages_for(computable) * size,
        )
        if found:
            self._pool.release(context.pages[full:])
            context.pages[full:] = found
            self._begun.leave(context)
            context.computed = min((full + len(found)) * size, computable)
        self._share_begun_page(context, computable)
        return context.computed

    def reserve(self, context: Context, upto: int) -> PageCopies:
        """Give slots [computed, upto) pages that are ours alone; returns the page copies to do first.

        Evicts cache as needed. `OutOfPages` changes nothing. When all other contexts have given up their pages, a
        context as long as the pool still succeeds.
        """
        pool, tail = self._pool, context.computed // self._pool.page_size
        assert context.computed <= upto <= len(context.tokens), f"reserve [{context.computed}, {upto})"
        missing = max(0, pool.pages_for(upto) - len(context.pages))
        writes_tail = upto > context.computed and context.computed % pool.page_size > 0
        copies: PageCopies = ()
        if not writes_tail or pool.is_writable(context.pages[tail]):
            if missing:
                context.pages += self._allocate(missing)
        elif self._tree is not None and self.free_pages == missing and pool.references(context.pages[tail]) == 1:
            # Only the cache reads the tail, and no page is left to copy it to. What is below it in the tree is idle.
            self._tree.take(context.pages[tail])
            context.pages += self._allocate(missing)
        else:
            target, *added = self._allocate(missing + 1)
            source, context.pages[tail] = context.pages[tail], target
            context.pages += added
            pool.release([source])
            copies = ((source, target),)
        self._contexts.move_to_end(context.id)
        return copies

    def reserve_ahead(self, context: Context, upto: int) -> bool:
        """Give slots [computed, upto) pages although the tokens behind the last are not drawn yet, if there are any.

        The last token's own slot is reserved already, so what is added here is whole pages that are ours alone.
        """
        missing = max(0, self._pool.pages_for(upto) - len(context.pages))
        if missing > self.free_pages:
            return False
        context.pages += self._allocate(missing)
        return True

    def commit(self, context: Context, computed: int) -> None:
        """The KV of tokens [0, computed) is in the pages now. Full pages become known to the tree.

        Where another context computed the same page first, ours is freed and `pages` has that one instead.
        """
        size = self._pool.page_size
        assert context.computed <= computed <= len(context.tokens), f"commit {context.computed} -> {computed}"
        assert self._pool.pages_for(computed) <= len(context.pages), "committed more than was reserved"
        known, full = context.computed // size, computed // size
        context.computed = computed
        if self._tree is None or (known == full and self._begun.has(context)):
            return
        if known < full:
            context.pages[known:full] = self._tree.insert(
                context.root,
                context.tokens[known * size : full * size],
                context.pages[known:full],
                below=context.pages[known - 1] if known else None,
            )
        self._begun.enter(context)

    def truncate(self, context: Context, tokens: int) -> None:
        """Keep the first `tokens` tokens. What is cut off stays as evictable cache where it was computed."""
        del context.tokens[tokens:]
        self._cut(context, min(context.computed, tokens))

    def drop(self, context: Context) -> None:
        """Give back all pages and keep the tokens, to be matched or computed again. Full pages stay as cache."""
        self._cut(context, 0)

    def free(self, id: int) -> None:
        """Forget a context. Full pages stay as evictable cache. Idempotent."""
        context = self._contexts.pop(id, None)
        if context is not None:
            self._cut(context, 0)

    def _add(self, context: Context) -> Context:
        assert context.id not in self._contexts, f"context {context.id} is in this engine already"
        self._contexts[context.id] = context
        self.match(context)
        return context

    def _share_begun_page(self, context: Context, computable: int) -> None:
        """Take over the page that another has begun with the same text. Whoever writes into it next copies it."""
        found = self._begun.find(context, computable)
        if found is None or (found[1] < computable and found[1] - context.computed < WORTH_A_COPY):
            return
        page, upto = found
        full = context.computed // self._pool.page_size
        self._begun.leave(context)
        self._pool.retain([page])
        self._pool.release(context.pages[full:])
        context.pages[full:] = [page]
        context.computed = upto

    def _computable(self, context: Context) -> int:
        """Most tokens that may count as computed before the next step."""
        # One token short of the end: the last must be computed to have logits.
        return max(0, len(context.tokens) - 1) if context.keep_last else len(context.tokens)

    def _cut(self, context: Context, computed: int) -> None:
        """Let go of all pages that hold nothing of tokens [0, computed), reserved ones too."""
        self._begun.leave(context)
        needed = self._pool.pages_for(computed)
        self._pool.release(context.pages[needed:])
        del context.pages[needed:]
        context.computed = computed

    def _allocate(self, count: int) -> list[int]:
        short = count - self._pool.free
        if count > self.free_pages:
            raise OutOfPages(
                f"{count} KV pages needed, {self._pool.free} free and {self._pool.idle} evictable of {self._pool.pages}"
            )
        if short > 0 and self._tree is not None:
            self._tree.evict(short)
        return self._pool.allocate(count)

    def check(self) -> None:
        """Assert that pool, tree and contexts agree; the references of every page are counted again from scratch."""
        self._pool.check()
        if self._tree is not None:
            self._tree.check()
            self._begun.check(self._contexts)
        references = [0] * self._pool.pages
        for id, context in self._contexts.items():
            assert context.id == id
            self._check_context(context)
            for page in context.pages:
                references[page] += 1
        for page, counted in enumerate(references):
            held = self._pool.references(page)
            assert held == counted, f"page {page} has {held} holders, {counted} contexts"
        if not self._contexts:
            cached = len(self._tree) if self._tree is not None else 0
            assert self._pool.free + cached == self._pool.pages, "pages are lost"

    def _check_context(self, context: Context) -> None:
        pool, size = self._pool, self._pool.page_size
        assert 0 <= context.computed <= len(context.tokens)
        context.pages.check()
        assert len(set(context.pages)) == len(context.pages), f"context {context.id} holds a page twice"
        full, used = context.computed // size, pool.pages_for(context.computed)
        assert used <= len(context.pages), f"context {context.id}: {context.computed} tokens, pages {context.pages}"
        for page in context.pages[used:]:
            assert pool.is_writable(page), f"context {context.id}: reserved page {page} is shared"
        if self._tree is not None:
            known = self._tree.match(context.root, context.tokens, stop=full * size)
            pool.release(known)
            assert known == context.pages[:full], f"context {context.id} holds other pages than the tree's"
