"""Admission: how many calls may be open or planned, for a tenant and in the whole server, and how large together; and
how much a tenant's open sessions may keep.

It knows nothing of what the calls do.

The invariant: the open calls counted, and the tokens of their prompts, are exactly those admitted and not yet released.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, replace

from .errors import CallerError, PromptTooLong, QueueFull, SessionFull, TooManyCalls

__all__ = ["Admission", "Limits"]

_LITTLE = 100  # times what a session keeps is within the limit: it is not the one that has filled it
_CEILING = 2  # times the limit: what was let in goes on so far
_CEILING_PER_TENANT = 1.5  # times a tenant's share, which is half of all: a quarter is left to the others


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    open_calls: int = 200_000
    """Accepted and not over, in the whole server: beyond, `QueueFull`. One takes a few kilobytes beside its prompt."""
    open_prompt_tokens: int = 2**25
    """Of all calls that are open, in the whole server: beyond, `QueueFull`. Calls that were let in before their inputs
    were there fail with it beyond twice as many. A token is held as an id of 36 bytes and as text, twice: about 64
    bytes, so 33 million of them are 2 GiB (4096 prompts of 8192 tokens)."""
    open_calls_per_tenant: int | None = None
    """Beyond, `TooManyCalls`. `None`: only the server's limit holds."""
    open_prompt_tokens_per_tenant: int | None = None
    """Beyond, `TooManyCalls`; calls that were let in before their inputs were there fail with it beyond half as many
    more. `None`: only the server's limit holds."""
    planned_calls_per_tenant: int = 10_000
    """In plans that have not ended, whether they have run or not: beyond, `TooManyCalls`."""
    kept_bytes_per_tenant: int = 2**30
    """About, of calls that are over, of variables and of requests in plans that have not ended, in sessions that are
    open: beyond, `SessionFull`. Sessions that keep less than 1 % of it may go on, and new ones begin, until all keep
    twice as much."""
    name_chars: int = 512
    """Of a tenant, session, call or variable: longer ones are a mistake or an attack."""

    def shared(self) -> Limits:
        """For several tenants: none has more than half of the tokens, however long its calls wait. Where there is only
        one, it has nobody to leave room for."""
        return replace(self, open_prompt_tokens_per_tenant=self.open_prompt_tokens // 2)


class Admission:
    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._open: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        self._planned: Counter[str] = Counter()
        self._kept: Counter[str] = Counter()
        self._total = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def open_calls(self) -> int:
        return self._total

    @property
    def prompt_tokens(self) -> int:
        """Of the calls that are open; a guess of those whose prompts are not made yet."""
        return self._tokens.total()

    def allowance(self, tenant: str) -> tuple[int, int]:
        """How many calls a tenant may have open, and how many more; what others have open is told only where it leaves
        less than that."""
        here, of_tenant = self.limits.open_calls, self.limits.open_calls_per_tenant
        most = here if of_tenant is None else min(here, of_tenant)
        return most, max(0, min(most - self._open[tenant], here - self._total))

    def admit(self, tenant: str, calls: int, prompt_tokens: int) -> None:
        """`prompt_tokens` of all of them together, as far as they are known. Errors: `QueueFull`, `TooManyCalls`,
        and `PromptTooLong` where they would be too much for an idle server; then nothing is counted."""
        if self._total + calls > self.limits.open_calls:
            limit = self.limits.open_calls
            raise QueueFull(f"{calls} more calls would make {self._total + calls} open here; the limit is {limit}")
        of_tenant, most = self._open[tenant] + calls, self.limits.open_calls_per_tenant
        if most is not None and of_tenant > most:
            raise TooManyCalls(f"{calls} more calls would make {of_tenant} open for this tenant; the limit is {most}")
        self._must_have_room(tenant, calls, prompt_tokens)
        self._open[tenant] = of_tenant
        self._total += calls
        self._count(tenant, prompt_tokens)
        if self._total:
            self._idle.clear()

    def grow(self, tenant: str, prompt_tokens: int) -> None:
        """The prompt of a call that is open has so many more tokens than it was admitted with. It stays, and what comes
        after it may be refused. Errors: `TooManyCalls` beyond one and a half times the tenant's share, `QueueFull`
        beyond twice the limit; then nothing is counted."""
        share = self.limits.open_prompt_tokens_per_tenant
        if prompt_tokens > 0 and share is not None:
            of_tenant, most = self._tokens[tenant] + prompt_tokens, int(_CEILING_PER_TENANT * share)
            if of_tenant > most:
                brought = f"what its inputs have brought would make {of_tenant} prompt tokens for this tenant"
                raise TooManyCalls(f"{brought}; the most is {most}")
        tokens, most = self.prompt_tokens + prompt_tokens, _CEILING * self.limits.open_prompt_tokens
        if prompt_tokens > 0 and tokens > most:
            raise QueueFull(f"what its inputs have brought would make {tokens} prompt tokens here; the most is {most}")
        self._count(tenant, prompt_tokens)

    def admit_plan(self, tenant: str, calls: int) -> None:
        """Errors: `TooManyCalls`; then nothing is counted."""
        planned, most = self._planned[tenant] + calls, self.limits.planned_calls_per_tenant
        if planned > most:
            raise TooManyCalls(f"{calls} more calls would make {planned} planned for this tenant; the limit is {most}")
        self._planned[tenant] = planned

    def release_plan(self, tenant: str, calls: int) -> None:
        self._planned[tenant] -= calls
        if not self._planned[tenant]:
            del self._planned[tenant]

    def kept_bytes(self, tenant: str) -> int:
        return self._kept[tenant]

    def let_keep(self, tenant: str, size: int, *, own: int | None = None) -> None:
        """`own` is what the session keeps itself that asks for `size` more: one that keeps little goes on beyond the
        limit, up to twice as much. Errors: `SessionFull`, where the limit is reached or `size` more would be beyond."""
        kept, most = self._kept[tenant], self.limits.kept_bytes_per_tenant
        is_little = own is not None and (own + size) * _LITTLE < most
        if kept + size >= _CEILING * most or not (is_little or (kept < most and kept + size <= most)):
            raise SessionFull(
                f"the open sessions of this tenant keep {kept} bytes of calls and variables, and {size} more are asked"
                f" for; the limit is {most}. Close sessions that are done, or begin another one for each run"
            )

    def keep(self, tenant: str, size: int) -> None:
        """So much more is kept, or less."""
        self._kept[tenant] += size
        if not self._kept[tenant]:
            del self._kept[tenant]

    def check_name(self, kind: str, name: str, *, least: int = 1) -> None:
        """Names are kept and logged. Any characters will do. Errors: `CallerError`."""
        most = self.limits.name_chars
        if not least <= len(name) <= most:
            raise CallerError(f"the name of a {kind} has {least} to {most} characters, not {len(name)}: {name[:40]!r}")

    def release(self, tenant: str, calls: int, prompt_tokens: int) -> None:
        self._total -= calls
        self._count(tenant, -prompt_tokens)
        self._open[tenant] -= calls
        if not self._open[tenant]:
            del self._open[tenant]  # tenants come and go; what is kept of them must not add up
        if not self._total:
            self._idle.set()

    async def idle(self) -> None:
        """Returns when no call is open."""
        await self._idle.wait()

    def check(self) -> None:
        assert self._total == self._open.total() >= 0
        assert self._tokens.keys() <= self._open.keys()
        counted = (self._open, self._tokens, self._planned, self._kept)
        assert all(count > 0 for counts in counted for count in counts.values())
        assert self._idle.is_set() == (self._total == 0)

    # ---- inside ----------------------------------------------------------------------------------------

    def _must_have_room(self, tenant: str, calls: int, prompt_tokens: int) -> None:
        """Errors: those of `admit` about tokens."""
        limit, share = self.limits.open_prompt_tokens, self.limits.open_prompt_tokens_per_tenant
        at_once = limit if share is None else min(limit, share)
        if prompt_tokens > at_once:
            raise PromptTooLong(
                f"the prompts of {calls} calls have {prompt_tokens} tokens; at once {at_once} are taken"
            )
        made = f"the prompts of {calls} more calls would make"
        if share is not None and (tokens := self._tokens[tenant] + prompt_tokens) > share:
            raise TooManyCalls(f"{made} {tokens} tokens for this tenant; the limit is {share}")
        if (tokens := self.prompt_tokens + prompt_tokens) > limit:
            raise QueueFull(f"{made} {tokens} tokens here; the limit is {limit}")

    def _count(self, tenant: str, prompt_tokens: int) -> None:
        self._tokens[tenant] += prompt_tokens
        if not self._tokens[tenant]:
            del self._tokens[tenant]
