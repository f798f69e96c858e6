"""The engine port: runs token ids (or text) through a model on forkable contexts.

An engine knows no variables, sessions or tenants; what it is told of them is opaque: `namespace` (cache
scope: nothing is reused across two of them), `flow` (what fairness counts) and `slack_s` (how long this work
can wait without anybody noticing).

The invariant: what an engine keeps, shares, evicts or recomputes never changes the tokens it draws.
"""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Literal, NewType, Protocol, runtime_checkable

from .call import Finish, Logprobs, ResolvedSampling, Sampling, TokenLogprobs, Usage
from .prompt import Content
from .tool_calls import CallPiece

__all__ = [
    "Chunk",
    "ContextId",
    "Embed",
    "Embedded",
    "Engine",
    "EngineInfo",
    "EngineLoad",
    "Fill",
    "Filled",
    "Generate",
    "Hurries",
    "Pooling",
    "Pours",
    "Scope",
]

ContextId = NewType("ContextId", int)
"""Text already inside an engine. Ids are drawn by the fleet and never used twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What an engine is, asked once when it joins the fleet."""

    name: str
    model: str
    """Served model name."""
    context_tokens: int
    """Most tokens of prompt and output together."""
    takes: Literal["tokens", "text"] = "tokens"
    """A text engine renders and tokenises by itself: exactness is its own, contexts are advisory."""
    capacity_tokens: int | None = None
    """Tokens of KV that fit at once; `None` if the engine does not say."""
    max_rows: int | None = None
    """Sequences that run at once; `None` if the engine does not say."""
    page_size: int = 1
    """Tokens that are shared or evicted as one."""
    defaults: Sampling = field(default_factory=Sampling)
    """Sampling of the checkpoint's generation_config.json."""
    obeys_formats: bool = False
    """It holds an answer to the form that its sampling asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLoad:
    """A snapshot for placement; reading it never blocks."""

    running: int = 0
    """Sequences that take part in steps."""
    waiting: int = 0
    """Sequences accepted and not yet started."""
    waiting_tokens: int = 0
    """Prompt tokens not yet computed."""
    free_tokens: int | None = None
    """KV tokens free or evictable at once."""
    step_s: float | None = None
    """Moving average of one step, seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What an engine is told of where work comes from. All of it is opaque to the engine."""

    namespace: str = ""
    flow: str = ""
    slack_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """Make `context` hold `content` after what it (or its `parent`) holds.

    A `context` the engine does not know yet begins as a fork of `parent`, or empty.
    """

    context: ContextId
    content: Content
    parent: ContextId | None = None
    scope: Scope = field(default_factory=Scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """`tokens` are in the context now; `cached_tokens` of the ones just added were not computed again."""

    tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Generate:
    """Extend (or fork, then extend) `context` by `content`, then draw. The output stays in the context."""

    context: ContextId
    content: Content
    sampling: ResolvedSampling
    parent: ContextId | None = None
    scope: Scope = field(default_factory=Scope)
    is_parallel: bool = True
    """False: at most one call of a tool is wanted, which a text engine that tells calls apart is told."""
    marks: tuple[str, ...] = ()
    """Control tokens that the text shows, by name; what is none in this vocabulary is text anyway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A stretch of output. `text` never splits a character and holds back what may become a stop string.

    The last chunk, and only the last, has `finish` and `usage`. `tokens` is empty from text engines.
    """

    text: str = ""
    tokens: tuple[int, ...] = ()
    finish: Finish | None = None
    usage: Usage | None = None
    logprobs: tuple[Logprobs, ...] = ()
    """One for each of `tokens` where the sampling asked for them, else empty; of a text engine as they come."""
    reasoning: str = ""
    """What comes before the answer, where it is told apart: by a text engine, else by `reading.Reader`."""
    refusal: str = ""
    """What a text engine says instead of an answer, where it tells that apart."""
    calls: tuple[CallPiece, ...] = ()
    """What there is of calls of tools, told apart likewise."""
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    """On the first chunk, where the sampling asked for them: one for each token of the prompt but the first."""
    prompt: Usage | None = None
    """On the first chunk, of engines that know it then: the prompt's tokens, and which were not computed again."""
    stop: str | None = None
    """On the last chunk: the stop string that ended the text; `None` where none did, or a text engine did not say."""


Pooling = Literal["mean", "last"]
"""How the states of a text's tokens become one vector: their mean, or the last token's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embed:
    """One vector for each of `inputs`, each read alone and in no context: the model's last states (after its last norm)
    are pooled, cut to the first `dimensions` numbers and scaled to length 1."""

    inputs: tuple[Content, ...]
    pooling: Pooling | None = None
    """`None`: what the checkpoint states (sentence-transformers' `1_Pooling/config.json`), else the mean."""
    dimensions: int | None = None
    """`None`: all that the model has."""
    scope: Scope = field(default_factory=Scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    vectors: tuple[array[float], ...]
    """Of 32-bit floats ("f"), in the order of the inputs."""
    prompt_tokens: int
    """Of all inputs together."""


class Engine(Protocol):
    """Fill, Generate, Embed, truncate, free. Every implementation passes `tests/core/engine_contract.py`."""

    @property
    def info(self) -> EngineInfo: ...

    async def fill(self, fill: Fill) -> Filled:
        """Errors: `PromptTooLong`, `ContextLost` (parent unknown), `EngineLost`. Cancelling stops the work."""
        ...

    def generate(self, generate: Generate) -> AsyncIterator[Chunk]:
        """Errors as `fill`, raised from the iterator. Closing the iterator stops the work and frees its rows."""
        ...

    async def embed(self, embed: Embed) -> Embedded:
        """All inputs or none. Errors: `PromptTooLong`, `BadPrompt`, `EngineLost`. Cancelling stops the work."""
        ...

    async def truncate(self, context: ContextId, tokens: int) -> None:
        """Keep the first `tokens` tokens. Errors: `ContextLost`."""
        ...

    async def free(self, context: ContextId) -> None:
        """Forget a context; what it held stays reusable cache until evicted. Idempotent."""
        ...

    def load(self) -> EngineLoad: ...

    async def close(self) -> None:
        """Stop. Work still inside fails with `EngineLost`. Idempotent."""
        ...


@runtime_checkable
class Hurries(Protocol):
    """An engine that orders its work by slack, and can be told that there is less of it than was thought."""

    def hurry(self, context: ContextId, slack_s: float) -> None:
        """What is at work on the context, or waits to be, has this much slack, counted from when it came, if it had
        more. It raises nothing, does not block, and does nothing where there is no such work."""
        ...


@runtime_checkable
class Pours(Protocol):
    """An engine that can hand chunks on where it gets them: to wake a task for every token of every row is dear."""

    async def pour(self, generate: Generate, take: Callable[[Chunk], bool]) -> None:
        """As `generate`, with each chunk given to `take`, which says whether more is wanted: where not, the work is
        stopped. Errors: as `generate`, and what `take` raises. Cancelling stops the work."""
        ...
