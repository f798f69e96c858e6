"""Limits of one request.

They know nothing of what is asked. The invariant: a request that is refused for one of them is told which it is.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RequestLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """The most that one request may ask."""

    head_bytes: int = 64 * 2**10
    """The request line and the headers."""
    head_s: float = 60.0
    """Until they are there, from the opening of a connection, or from the first byte behind another request."""
    body_bytes: int = 32 * 2**20
    open_body_bytes: int = 2**31
    """Of the bodies of all requests that are not answered yet, in the whole server; where there are several tenants,
    none has more than half of it. Prompts are counted in tokens (`core.admission.Limits`), and no body of prompts alone
    is refused for this first: 33 million tokens are some 134 million characters, 0.8 GiB as the longest escapes. What
    this bounds is what is no prompt, and bodies that do not come to their end."""
    pace_bytes: int = 2**16
    pace_s: float = 60.0
    """Of a body that comes, and of an answer that is read: so many bytes in so many seconds, or what there is left. A
    kilobyte a second goes over the worst of lines; less only makes the server hold what there is."""
    choices: int = 128
    """Answers (`n`) to one prompt."""
    calls: int = 2048
    """Prompts times choices of one /v1/completions request; planned calls of one graph."""
    stop_strings: int = 64
    stop_characters: int = 1024
    sessions: int = 10_000
    """That one tenant may have open by name."""
    session_ttl_s: float = 600.0
    """How long a session that was named lives after its last use, where nothing else was asked."""
