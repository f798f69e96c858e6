"""A result: what a call came to, once it is over and went well.

It is a plain fact, read off the whole answer; it knows nothing of who reads it.
"""

from __future__ import annotations

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
    """The answer itself: the value of the call's output, if it was not refused."""
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
    refusal: str = ""
    """What was said instead of an answer; the output has it too, so that who reads it is not told an empty text."""
    calls: tuple[ToolCall, ...] = ()
    stop: str | None = None
    """The stop string that ended it, where one did and the engine says so."""

    @classmethod
    def of(cls, whole: Chunk, **facts: Any) -> TaskResult:
        """What an answer that is joined to one chunk says; `facts` are the other fields."""
        return cls(
            text=whole.text,
            tokens=whole.tokens,
            logprobs=whole.logprobs,
            prompt_logprobs=whole.prompt_logprobs,
            reasoning=whole.reasoning,
            refusal=whole.refusal,
            calls=whole_calls(whole.calls),
            stop=whole.stop,
            **facts,
        )
