"""A call: one LLM call of an app, with its prompt, its sampling and what comes back.

These are plain immutable facts. They know nothing of sessions, engines or HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, NewType

from .output_format import OutputFormat, ReasoningStyle, ToolStyle
from .prompt import Prompt

__all__ = [
    "Call",
    "CallId",
    "Finish",
    "Logprobs",
    "ObjectiveKind",
    "Reading",
    "ResolvedSampling",
    "Sampling",
    "StageLabel",
    "TokenLogprobs",
    "Usage",
    "VariableName",
    "WrittenLogprobs",
]

CallId = NewType("CallId", str)
VariableName = NewType("VariableName", str)

ObjectiveKind = Literal["latency", "throughput", "background"]
"""What a call should be quick at. latency: its own answer; throughput: the last answer of many; background: nothing."""


class Finish(StrEnum):
    """Why a generation ended by itself. Cancels and failures are errors, not finishes."""

    STOP = "stop"
    """The model ended its turn, or a stop string or stop token came."""
    LENGTH = "length"
    """`max_tokens` were drawn, or the context is full."""
    TOOL_CALLS = "tool_calls"
    """It called tools, and waits for what they say."""
    CONTENT_FILTER = "content_filter"
    """The server that ran the model withheld the rest. No engine of ours does."""


REPETITION_PENALTIES = (0.01, 100.0)
"""Beyond these a logit could become infinite, which nothing can be drawn from."""
PENALTIES = (-2.0, 2.0)
LOGIT_BIASES = (-100.0, 100.0)
MOST_LOGPROBS = 20

# fields a checkpoint has defaults for
_DEFAULTED = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """What was asked. `None` is "not asked": the checkpoint's generation_config.json decides (`resolve`)."""

    max_tokens: int | None = None
    """Most tokens to draw; not asked: the rest of the context."""
    min_tokens: int = 0
    """End-of-sequence and stop tokens are not drawn before this many tokens."""
    temperature: float | None = None
    """0 is greedy."""
    top_p: float | None = None
    top_k: int | None = None
    """0 keeps all."""
    min_p: float | None = None
    """Tokens less likely than this share of the likeliest one are dropped."""
    repetition_penalty: float | None = None
    """Above 1, tokens of the prompt and of the output so far are less likely; 1 changes nothing."""
    presence_penalty: float = 0.0
    """Taken off the logit of every token that is in the output already."""
    frequency_penalty: float = 0.0
    """Taken off the logit of a token as often as it is in the output already."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(token, what is added to its logit), each token once, in ascending order."""
    logprobs: int | None = None
    """Tell the log probability of each drawn token, and of this many of the likeliest ones; `None`: tell nothing."""
    prompt_logprobs: int | None = None
    """The same for each token of the prompt but the first; then all of it is computed, whatever is in a cache."""
    seed: int | None = None
    stop: tuple[str, ...] = ()
    """Strings that end the text; they are not part of it."""
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    format: OutputFormat | None = None
    """What form the text must have. An engine that cannot hold it to that is not asked."""

    def resolve(self, defaults: Sampling, *, room: int, seed: int) -> ResolvedSampling:
        """Decide every field. `room` is the tokens left in the context; `seed` is drawn by the caller once per call."""

        def choose(name: str, last: float) -> float:
            asked, default = getattr(self, name), getattr(defaults, name)
            return asked if asked is not None else default if default is not None else last

        wanted = self.max_tokens if self.max_tokens is not None else defaults.max_tokens
        return ResolvedSampling(
            max_tokens=room if wanted is None else min(wanted, room),
            min_tokens=self.min_tokens,
            temperature=float(choose("temperature", 1.0)),
            top_p=float(choose("top_p", 1.0)),
            top_k=int(choose("top_k", 0)),
            min_p=float(choose("min_p", 0.0)),
            repetition_penalty=float(choose("repetition_penalty", 1.0)),
            presence_penalty=float(self.presence_penalty),
            frequency_penalty=float(self.frequency_penalty),
            logit_bias=self.logit_bias,
            logprobs=self.logprobs,
            prompt_logprobs=self.prompt_logprobs,
            seed=self.seed if self.seed is not None else seed,
            stop=self.stop,
            stop_token_ids=self.stop_token_ids,
            ignore_eos=self.ignore_eos,
            format=self.format,
            asked=tuple(name for name in _DEFAULTED if getattr(self, name) is not None),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedSampling:
    """What was decided: every field has a value. This is all that an engine learns about sampling."""

    max_tokens: int
    min_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    seed: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    format: OutputFormat | None = None
    asked: tuple[str, ...] = ()
    """Those of the fields above that the caller asked for, where a text engine has defaults of its own."""

    @property
    def has_penalties(self) -> bool:
        """What is drawn depends on which tokens there are already."""
        return self.repetition_penalty != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """A token's natural log probability where it stands, by the model's logits as they are: before bias, penalties,
    temperature and filters. -inf is possible."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens with theirs, likeliest first, as many as were asked for."""


@dataclass(frozen=True, slots=True)
class WrittenLogprobs:
    """The same of a text engine, which tells what a token writes and not its id. Whether bias and temperature are
    in it is that server's affair."""

    written: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...] = ()


Logprobs = TokenLogprobs | WrittenLogprobs


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one call. `cached_tokens` of the `prompt_tokens` were not computed again."""

    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int | None = None
    """Of the output; `None` where nobody counts them."""
    waited_s: float = field(default=0.0, compare=False)
    """Inside the engine, before the first step in which it took part; 0 where an engine does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What is read out of a model's text that is no part of the answer itself."""

    tools: ToolStyle | None = None
    """How it writes calls of tools; `None`: what looks like one is text."""
    reasoning: ReasoningStyle | None = None
    """`None`: as the model's chat template shows it."""
    names: tuple[str, ...] | None = None
    """Of the tools that may be called, where not all that the prompt tells of may: a call of another stays text."""
    is_parallel: bool = True
    """False: at most one call of a tool, and the answer ends with it."""
    is_first: bool = False
    """An answer that does not begin with a call has none: it is JSON, which may quote one."""
    schemas: Mapping[str, Any] = field(default_factory=dict)
    """Of the tools' arguments, by name, where the model writes these as plain text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLabel:
    """What an app says of calls that it makes in parallel and whose answers it needs together."""

    name: str
    size: int | None = None
    """How many calls it will be; `None`: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One LLM call: `prompt` in, the variable `output` out."""

    id: CallId
    prompt: Prompt
    output: VariableName
    sampling: Sampling = field(default_factory=Sampling)
    model: str | None = None
    """Served model name; `None` takes the fleet's first."""
    function: str | None = None
    """Name of the function (template) that made this call, for people and for learned lengths."""
    function_output: str | None = None
    """Which of its function's outputs it draws: a text and the verdict behind it have lengths of their own."""
    objective: ObjectiveKind | None = None
    """What the app says of this call; `None`: deduced from the graph."""
    stage: StageLabel | None = None
    reading: Reading = field(default_factory=Reading)
