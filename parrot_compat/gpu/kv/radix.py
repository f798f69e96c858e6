"""The radix tree: finds the pages that hold the KV of a text's beginning.

It knows token ids, page numbers and namespaces; nothing of contexts, models or tensors. A cached page is reached by one
path only, whose tokens are the whole text from its first token to the page's last: KV depends on all of them.
Invariants: nothing is shared between two namespaces; only full pages are in the tree; whoever holds a page of the tree
holds the pages above it too, so that an idle page never has a held one below it.

Who owns what: the tree marks its pages as cached in the pool and holds none of them. Contexts hold them; a page that no
context holds is idle, and `evict` gives it back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from .pages import PagePool

__all__ = ["RadixTree"]

PageTokens = tuple[int, ...]
"""The tokens of one full page: what a page is looked up by, below a given page."""


class _Node:
    """An edge of one or more pages and the node at its end. Roots have no pages.

    `children` is keyed by the first page of the child's edge: two children may begin with the same token, not page.
    Edges are cut where texts part and are not joined again when one of the two is evicted: a walk costs the same.
    """

    __slots__ = ("children", "namespace", "pages", "parent", "tokens")

    def __init__(
        self, namespace: str, parent: _Node | None = None, tokens: Iterable[PageTokens] = (), pages: Iterable[int] = ()
    ) -> None:
        self.namespace = namespace
        self.parent = parent
        self.tokens = list(tokens)
        self.pages = list(pages)
        self.children: dict[PageTokens, _Node] = {}


class RadixTree:
    """All cached texts, by namespace. A walk costs one dictionary or tuple comparison per page of the text.

    `below`, where a method takes it, is a page of the tree to start from instead of the root: `tokens` are then the
    tokens after that page. So the cost of extending a long text is that of the extension.
    """

    def __init__(self, pool: PagePool) -> None:
        self._pool = pool
        self._roots: dict[str, _Node] = {}
        self._node_of: dict[int, _Node] = {}

    def __len__(self) -> int:
        """Pages in the tree, idle or held."""
        return len(self._node_of)

    def __contains__(self, page: int) -> bool:
        return page in self._node_of

    @property
    def evictable(self) -> int:
        """Pages that `evict` can free at once: all that are idle, since no idle page has a held one below it."""
        return self._pool.idle

    def match(
        self,
        namespace: str,
        tokens: Sequence[int],
        below: int | None = None,
        *,
        start: int = 0,
        stop: int | None = None,
    ) -> list[int]:
        """The full pages of the longest known beginning of `tokens`, held for the caller, who must release them.

        `start`, `stop`: only tokens [start, stop) count. No more of them is cut out than is compared.
        """
        pages: list[int] = []
        found = self._start(namespace, below)
        if found is None:
            return pages
        node, depth = found
        size, end = self._pool.page_size, len(tokens) if stop is None else min(stop, len(tokens))
        for at in range(start, end - size + 1, size):
            [page_tokens] = self._full_pages(tokens[at : at + size])
            if depth < len(node.pages):
                if node.tokens[depth] != page_tokens:
                    break
            else:
                child = node.children.get(page_tokens)
                if child is None:
                    break
                node, depth = child, 0
            pages.append(node.pages[depth])
            depth += 1
        self._pool.retain(pages)
        return pages

    def insert(
        self, namespace: str, tokens: Sequence[int], pages: Sequence[int], below: int | None = None
    ) -> list[int]:
        """Make the full pages of `tokens`, which the caller holds in `pages`, known; return those to use from now on.

        Where the tree has a page for the same text already, that one is canonical: the caller's hold moves from its
        duplicate to it, and the duplicate is free if nobody else holds it.
        """
        canonical = self.match(namespace, tokens, below)
        known = len(canonical)
        self._pool.release(pages[:known])
        unknown = list(self._full_pages(tokens[known * self._pool.page_size :]))
        added = list(pages[known : known + len(unknown)])
        if added:
            self._append(namespace, canonical[-1] if canonical else below, unknown, added)
        return canonical + added

    def evict(self, count: int) -> int:
        """Free up to `count` pages, least recently held first, every text from its end. Returns how many were freed."""
        for evicted in range(count):
            page = self._pool.next_idle
            if page is None:
                return evicted
            self._remove_last(page)
        return count

    def take(self, page: int) -> None:
        """Forget a page and all that is below it, so that its only holder may write it without copying it first."""
        assert self._pool.references(page) == 1, f"page {page} is read by others"
        node = self._node_of[page]
        for leaf in _leaves_first(node):
            while leaf.pages and leaf.pages[-1] != page:
                self._remove_last(leaf.pages[-1])
        self._remove_last(page)

    def _full_pages(self, tokens: Sequence[int]) -> Iterator[PageTokens]:
        size = self._pool.page_size
        for start in range(0, len(tokens) - size + 1, size):
            yield tuple(tokens[start : start + size])

    def _start(self, namespace: str, below: int | None) -> tuple[_Node, int] | None:
        """The node to walk from and how many pages of its edge lie behind."""
        if below is None:
            root = self._roots.get(namespace)
            return None if root is None else (root, 0)
        node = self._node_of[below]
        # Texts grow at their end, so `below` is nearly always the last page of its edge.
        return node, len(node.pages) if node.pages[-1] == below else node.pages.index(below) + 1

    def _append(self, namespace: str, last: int | None, tokens: list[PageTokens], pages: list[int]) -> None:
        """Put new pages below `last`: the page where the walk fell off the tree, or the root."""
        found = self._start(namespace, last)
        if found is None:
            node, depth = self._roots.setdefault(namespace, _Node(namespace)), 0
        else:
            node, depth = found
        if depth < len(node.pages):
            node = self._split(node, depth)
        if node.parent is not None and not node.children:
            node.tokens += tokens
            node.pages += pages
        else:
            child = _Node(namespace, node, tokens, pages)
            node.children[tokens[0]] = child
            node = child
        for page in pages:
            self._node_of[page] = node
            self._pool.cache(page)

    def _split(self, node: _Node, depth: int) -> _Node:
        """Cut an edge after `depth` pages; returns the new upper node. `node` keeps the lower part and its children."""
        assert node.parent is not None and 0 < depth < len(node.pages)
        upper = _Node(node.namespace, node.parent, node.tokens[:depth], node.pages[:depth])
        node.parent.children[upper.tokens[0]] = upper
        node.parent, node.tokens, node.pages = upper, node.tokens[depth:], node.pages[depth:]
        upper.children[node.tokens[0]] = node
        for page in upper.pages:
            self._node_of[page] = upper
        return upper

    def _remove_last(self, page: int) -> None:
        """Forget one page that ends a text, and the nodes that this leaves empty."""
        node = self._node_of.pop(page)
        assert node.pages[-1] == page and not node.children, f"page {page} goes before pages below it"
        node.pages.pop()
        first = node.tokens[0]
        node.tokens.pop()
        self._pool.uncache(page)
        if node.pages:
            return
        assert node.parent is not None
        del node.parent.children[first]
        if node.parent.parent is None and not node.parent.children:
            del self._roots[node.namespace]

    def check(self) -> None:
        """Assert the shape of the tree, its bookkeeping, and that idle pages are evicted from the ends inwards."""
        seen: dict[int, _Node] = {}
        age = {page: order for order, page in enumerate(self._pool.idle_pages())}
        for namespace, root in self._roots.items():
            assert root.parent is None and not root.pages and not root.tokens, f"root of {namespace!r} has pages"
            assert root.children, f"root of {namespace!r} is empty"
            pending: list[tuple[_Node, int | None]] = [(root, None)]
            while pending:
                node, above = pending.pop()
                assert node.namespace == namespace
                _check_node(node, self._pool.page_size)
                for page in node.pages:
                    assert page not in seen, f"page {page} is in the tree twice"
                    seen[page] = node
                    if above is not None and above in age:
                        assert page in age and age[page] < age[above], f"page {above} goes before page {page} below it"
                    above = page
                pending += [(child, above) for child in node.children.values()]
        assert seen == self._node_of, "the tree's index of pages disagrees with the tree"
        for page in range(self._pool.pages):
            assert self._pool.is_cached(page) == (page in seen), f"page {page}: the pool disagrees about being cached"


def _check_node(node: _Node, page_size: int) -> None:
    assert len(node.tokens) == len(node.pages)
    assert node.parent is None or node.pages, "an edge without pages"
    assert all(len(tokens) == page_size for tokens in node.tokens), "a page that is not full"
    for first, child in node.children.items():
        assert child.parent is node and child.tokens[0] == first, "a child under a wrong key"


def _leaves_first(node: _Node) -> list[_Node]:
    """The nodes of a subtree, every node after all that are below it."""
    order = [node]
    for visited in order:
        order += visited.children.values()
    return order[::-1]
