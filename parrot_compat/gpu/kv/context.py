"""A context: the tokens of a sequence and where their keys and values are.

It knows numbers only; nothing of pools, trees or tensors. What holds of it is said, and kept, in `contexts`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .page_list import PageList

__all__ = ["Context"]


@dataclass(slots=True, kw_only=True, eq=False)
class Context:
    """What a sequence's KV is and where. Read by anyone, changed by `Contexts` only."""

    id: int
    namespace: str
    tokens: list[int] = field(default_factory=list)
    pages: PageList = field(default_factory=PageList)
    computed: int = 0
    """Tokens whose KV is in `pages`."""
    keep_last: bool = False
    """Whether the last token is always left to be computed, so that there are logits to draw the next one from."""
    salt: str = ""
    """What the keys and values hang on beside the tokens; nothing is shared between two of them."""
    is_read: bool = False
    """Somebody reads the states of its tokens: none of them is taken over from the tree, all are computed."""

    @property
    def root(self) -> str:
        """Where in the tree its text begins."""
        return f"{self.salt}\0{self.namespace}" if self.salt else self.namespace
