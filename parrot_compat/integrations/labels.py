"""The session that calls belong to, said by the app: a label that travels with every call made in a block.

    with session("report 17"):
        agent.run(…)

It holds in the context (`contextvars`) that it was entered in, and in those that are copied of it inside. Around a
`yield` it may not reach the code behind it: where a framework takes the steps of a generator in contexts of their own,
the block belongs around the code that asks.

It knows a context variable and nothing of frameworks. The invariant: a label is never part of what a model is told, nor
of what a framework's cache looks at.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["current_session_label", "session"]

MAX_CHARACTERS = 256

_label: ContextVar[str | None] = ContextVar("parrot_session_label", default=None)


@contextmanager
def session(label: str) -> Iterator[None]:
    """Calls made in here are one run of the app. Errors: `ValueError` for a label that a server would refuse."""
    if not 1 <= len(label) <= MAX_CHARACTERS:
        raise ValueError(f"a session's label has 1 to {MAX_CHARACTERS} characters, this one has {len(label)}")
    outer = _label.get()
    _label.set(label)
    try:
        yield
    finally:
        # Not by its token: web frameworks take each step of a generator in a context of its own.
        if _label.get() == label:
            _label.set(outer)


def current_session_label() -> str | None:
    return _label.get()
