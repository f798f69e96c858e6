"""The body of POST /v1/completions, and the prompts that it stands for.

It knows nothing of tokens beyond their being numbers: the vocabulary is core's affair.

The invariant: prompts keep their order, and every one of them becomes exactly one prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from parrot_compat.core.call import MOST_LOGPROBS, Sampling
from parrot_compat.core.prompt import Constant, Prompt, TextPrompt, TokensPrompt
from parrot_compat.server.bodies import Items
from parrot_compat.server.errors import invalid, not_supported_yet
from parrot_compat.server.limits import RequestLimits

from .sampling_schema import NOT_YET, SamplingRequest, TokenId, ignored_fields, one_of

__all__ = ["CompletionRequest"]

MAX_TOKENS = 16
"""Of a text whose request names no limit, as OpenAI's server and vLLM have it; chats go on to their end."""

_COMPLETION_NOT_YET: Mapping[str, tuple[Any, ...]] = {
    **NOT_YET,
    "response_format": ({"type": "text"},),
    "add_special_tokens": (True,),
    "max_completion_tokens": (),  # it is max_tokens here, in OpenAI's API too
}


class CompletionRequest(SamplingRequest):
    prompt: Annotated[
        str | Items[str] | Items[TokenId] | Items[Items[TokenId]],
        one_of("a string, a list of strings, a list of token ids, or a list of such lists"),
    ]
    echo: bool | None = None
    suffix: str | None = None
    best_of: Annotated[int, Field(ge=1)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    """Of the likeliest tokens, besides the drawn one's own; with `echo` of the prompt's tokens too."""
    prompt_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    """vLLM's: of the prompt's tokens, in a field of their own."""
    max_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """0 with `echo`: what is asked is about the prompt. Not given: 16."""

    @property
    def drawn(self) -> int:
        """Answers to each prompt, of which the best `n` are given."""
        return max(self.n or 1, self.best_of or 1)

    @property
    def chooses(self) -> bool:
        return self.drawn > (self.n or 1)

    def most_tokens(self) -> int:
        return MAX_TOKENS if self.max_tokens is None else self.max_tokens

    def told_logprobs(self) -> int | None:
        return 0 if self.logprobs is None and self.chooses else self.logprobs

    def sampling(self, choice: int = 0) -> Sampling:
        asked = [most for most in (self.prompt_logprobs, self.logprobs if self.echo else None) if most is not None]
        return replace(SamplingRequest.sampling(self, choice), prompt_logprobs=max(asked, default=None))

    def samplings(self) -> list[Sampling]:
        """Of the answers to each prompt, one form and one set of biases for all. The prompt's tokens are told once for
        all of them; in a stream each tells them."""
        first = self.sampling()
        told = first.prompt_logprobs if self.stream else None
        others = [replace(first, seed=self.seed_of(choice), prompt_logprobs=told) for choice in range(1, self.drawn)]
        return [first, *others]

    def check(self, limits: RequestLimits) -> None:
        SamplingRequest.check(self, limits)
        prompts = self.prompts()
        if not prompts or any(isinstance(prompt, TokensPrompt) and not prompt.ids for prompt in prompts):
            raise invalid("prompt", "an empty list says nothing")
        if self.drawn > limits.choices:
            raise invalid("best_of", f"at most {limits.choices} choices, not {self.best_of}")
        calls = len(prompts) * self.drawn
        if calls > limits.calls:
            asked = f"{len(prompts)} prompts with {self.drawn} answers to each are {calls} calls"
            raise invalid("prompt", f"{asked}; one request has at most {limits.calls}")
        if self.suffix:
            raise not_supported_yet("suffix", "no model here fills in the middle")
        if self.max_tokens == 0 and not self.echo:
            raise invalid("max_tokens", "0 draws nothing, which says something only with echo")
        if self.prompt_logprobs is not None and self.stream:
            raise invalid("prompt_logprobs", "not told in a stream; echo with logprobs is")
        if self.best_of is not None and self.best_of < (self.n or 1):
            raise invalid("best_of", f"{self.best_of} is less than n, which is {self.n}")
        if self.chooses and self.stream:
            raise invalid("best_of", "the best of several is known when all have ended: no stream")

    def prompts(self) -> list[Prompt]:
        prompt = self.prompt
        if isinstance(prompt, str):
            return [TextPrompt((Constant(prompt),))]
        if prompt and isinstance(prompt[0], int):
            return [TokensPrompt(tuple(token for token in prompt if isinstance(token, int)))]
        return [
            TextPrompt((Constant(item),)) if isinstance(item, str) else TokensPrompt(tuple(item))
            for item in prompt
            if not isinstance(item, int)
        ]

    def texts(self) -> list[str | None]:
        """Of each prompt its text; `None` where it is token ids."""
        return [
            prompt.segments[0].text
            if isinstance(prompt, TextPrompt) and isinstance(prompt.segments[0], Constant)
            else None
            for prompt in self.prompts()
        ]

    def ignored(self) -> list[str]:
        """Fields without effect. Errors: `ApiError` 400 for those that cannot be left without."""
        fields = ignored_fields(self, _COMPLETION_NOT_YET)
        if self.stream_options is not None:
            fields += ignored_fields(self.stream_options, {}, "stream_options.")
        return fields
