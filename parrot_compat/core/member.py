"""An engine in the fleet: what an engine may do besides its verbs, and what the manager keeps of it.

It knows nothing of other engines or of which task should go where.

The invariant: the numbers kept of a member are those of the work it has.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, runtime_checkable

from .block_cache import BlockCache
from .engine import Engine
from .errors import EngineLost
from .placement import EngineView
from .tokenizer import Tokenizer

__all__ = ["Member", "Mortal", "Restart", "Retiring"]

_HOME_TOKENS = 2**21  # remembered of an engine: more than most hold
_NEW_SHARE = 0.2  # of a moving average that the newest value makes

Restart = Callable[[], Awaitable[Engine]]
"""Makes a fresh engine, started, in place of a lost one. May raise: it is tried again, later and later."""


@runtime_checkable
class Mortal(Protocol):
    """An engine that says when it is gone, so that the fleet need not find out by a call that fails."""

    async def lost(self) -> EngineLost:
        """Returns when the engine is gone, by itself or because it was closed."""
        ...


@runtime_checkable
class Retiring(Protocol):
    """An engine that can be lost to new work and still end what runs in it: the server behind one broken connection."""

    async def retire(self) -> None:
        """As `close`, when what runs has ended."""
        ...


class Member:
    """An engine in the fleet and what the manager knows of it, kept from what it sees and from `load()`."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer | None, restart: Restart | None) -> None:
        self.engine = engine
        self.info = engine.info
        self.tokenizer = tokenizer
        self.restart = restart
        self.is_lost = False
        self.rows = 0
        self.waiting_tokens = 0
        self.homes = BlockCache(min(_HOME_TOKENS, engine.info.capacity_tokens or _HOME_TOKENS))
        """What its cache holds, as far as can be known from what it was given: no more than fits."""
        # Guesses until the first call has shown better; they only need to be of the right order.
        self.prefill_tokens_s = 1000.0
        self.step_s = 0.03
        self.call_s = 1.0

    @property
    def free_rows(self) -> int | None:
        """Tasks it may be given now; `None` is no limit."""
        return None if self.info.max_rows is None else max(0, self.info.max_rows - self.rows)

    @property
    def context_tokens(self) -> int | None:
        """`None`: a text engine judges lengths by itself."""
        return self.info.context_tokens if self.info.takes == "tokens" else None

    def view(self) -> EngineView:
        load = self.engine.load()
        return EngineView(
            name=self.info.name,
            context_tokens=self.context_tokens,
            rows=max(self.rows, load.running + load.waiting),  # others may use it too
            waiting_tokens=max(self.waiting_tokens, load.waiting_tokens),
            prefill_tokens_s=self.prefill_tokens_s,
            step_s=load.step_s if load.step_s is not None else self.step_s,
            call_s=self.call_s,
            max_rows=self.info.max_rows,
            given=self.rows,
            homes=self.homes.blocks,
        )

    def begin(self, new_tokens: int, blocks: Sequence[int]) -> None:
        self.rows += 1
        self.waiting_tokens += new_tokens
        self.homes.remember(blocks)

    def prefilled(self, new_tokens: int, tokens_ahead: int, seconds: float) -> None:
        """The first token came, `seconds` after the start, with `tokens_ahead` to compute in front."""
        self.waiting_tokens -= new_tokens
        if seconds > 0 and new_tokens > 0:
            self.prefill_tokens_s = _average(self.prefill_tokens_s, (new_tokens + tokens_ahead) / seconds)

    def decoded(self, steps: int, seconds: float) -> None:
        if steps > 0 and seconds > 0:
            self.step_s = _average(self.step_s, seconds / steps)

    def end(self, seconds: float, tokens_not_computed: int) -> None:
        self.rows -= 1
        self.waiting_tokens -= tokens_not_computed
        self.call_s = _average(self.call_s, seconds)

    def check(self) -> None:
        assert self.rows >= 0 and self.waiting_tokens >= 0, (self.rows, self.waiting_tokens)
        assert self.rows or not self.waiting_tokens, "tokens wait in an engine that runs nothing"
        self.homes.check()


def _average(old: float, new: float) -> float:
    return (1 - _NEW_SHARE) * old + _NEW_SHARE * new
