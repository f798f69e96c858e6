"""The encoder: work of tokenizers that clients ask for by itself, to count or to read, and not for a call.

It has threads of its own, since those of the event loop are there for the prompts of calls, and limits of its own: no
engine slows down who asks for nothing else. It knows nothing of HTTP, nor of what the work is.

The invariant: what is counted waits for a thread or has one; what nobody waits for any more gets none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from parrot_compat.core.admission import Admission, Limits
from parrot_compat.core.threads import Threads

__all__ = ["LIMITS", "Encoder"]

Result = TypeVar("Result")

LIMITS = Limits(open_calls=4096, open_calls_per_tenant=256, open_prompt_tokens=2**24)
"""Of what waits and runs here. So many tokens are half a minute's work for a fast tokenizer."""
_THREADS = 2


class Encoder:
    def __init__(self, limits: Limits | None = None, *, is_shared: bool = False) -> None:
        """`is_shared`: there are several tenants, none of which may have all of it."""
        limits = limits or LIMITS
        self._admission = Admission(limits.shared() if is_shared else limits)
        self._threads = Threads(_THREADS, "encoder")

    @property
    def open(self) -> int:
        """What waits and what runs."""
        return self._admission.open_calls

    async def run(self, tenant: str, tokens: int, work: Callable[[], Result]) -> Result:
        """`work`, in a thread; `tokens` is about how many it reads. Errors: `TooManyCalls`, `QueueFull`,
        `PromptTooLong`, and those of `work`."""
        self._admission.admit(tenant, 1, tokens)
        return await self._threads.run(work, over=lambda: self._admission.release(tenant, 1, tokens))
