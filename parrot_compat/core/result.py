"""A result: what a call came to, once it is over and went well.

It is a plain fact, put together from the chunks of the answer; it knows nothing of who reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .call import Finish, Logprobs, TokenLogprobs, Usage
from .engine import Chunk
from .tool_calls import ToolCall, whole_calls

__all__ = ["TaskResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """What a call came to. Times are seconds of the manager's clock."""

    text: str
    """The answer itself: the value of the call's output."""
    tokens: tuple[int, ...]
    """Drawn ids; empty from text engines."""
    finish: Finish
    usage: Usage
    engine: str
    submitted_s: float
    started_s: float
    first_token_s: float
    finished_s: float
    logprobs: tuple[Logprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    stop: str | None = None
    """The stop string that ended it, where one did and the engine says so."""

    @classmethod
    def of(cls, chunks: Sequence[Chunk], **facts: Any) -> TaskResult:
        """What the chunks say together; `facts` are the other fields."""
        return cls(
            text="".join(chunk.text for chunk in chunks),
            tokens=tuple(token for chunk in chunks for token in chunk.tokens),
            logprobs=tuple(item for chunk in chunks for item in chunk.logprobs),
            prompt_logprobs=tuple(item for chunk in chunks for item in chunk.prompt_logprobs),
            reasoning="".join(chunk.reasoning for chunk in chunks),
            calls=whole_calls(piece for chunk in chunks for piece in chunk.calls),
            stop=chunks[-1].stop if chunks else None,
            **facts,
        )
