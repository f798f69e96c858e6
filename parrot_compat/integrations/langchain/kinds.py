"""Which of LangChain's classes a runnable is, exactly. A subclass may do anything, so it is not its parent."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables.base import RunnableBinding

__all__ = ["kind_of"]


def kind_of(runnable: Any) -> type:
    """`RunnableParallel[dict]` is `RunnableParallel` with types said; pydantic makes a class of its own of it."""
    kind = type(runnable)
    generic = getattr(kind, "__pydantic_generic_metadata__", None)
    origin = generic.get("origin") if generic else None
    if isinstance(origin, type):
        return origin
    # LangChain's own subclass for chat models; it only narrows types.
    is_own = kind.__module__.startswith("langchain_core.") and issubclass(kind, RunnableBinding)
    return RunnableBinding if is_own else kind
