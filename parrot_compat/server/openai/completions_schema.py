"""The body of POST /v1/completions, and the prompts that it stands for.

It knows nothing of tokens beyond their being numbers: the vocabulary is core's affair.

The invariant: prompts keep their order, and every one of them becomes exactly one prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from parrot_compat.core.prompt import Constant, Prompt, TextPrompt, TokensPrompt
from parrot_compat.server.errors import invalid, not_supported_yet
from parrot_compat.server.limits import Limits

from .sampling_schema import NOT_YET, SamplingRequest, TokenId, ignored_fields, one_of

__all__ = ["CompletionRequest"]

_COMPLETION_NOT_YET: Mapping[str, tuple[Any, ...]] = {
    **NOT_YET,
    "response_format": ({"type": "text"},),
    "add_special_tokens": (True,),
}


class CompletionRequest(SamplingRequest):
    prompt: Annotated[
        str | list[str] | list[TokenId] | list[list[TokenId]],
        one_of("a string, a list of strings, a list of token ids, or a list of such lists"),
    ]
    echo: bool | None = None
    suffix: str | None = None
    best_of: Annotated[int, Field(ge=1)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    """Of the likeliest tokens, besides the drawn one's own."""

    def told_logprobs(self) -> int | None:
        return self.logprobs

    def check(self, limits: Limits) -> None:
        SamplingRequest.check(self, limits)
        prompts = self.prompts()
        if not prompts or any(isinstance(prompt, TokensPrompt) and not prompt.ids for prompt in prompts):
            raise invalid("prompt", "an empty list says nothing")
        calls = len(prompts) * (self.n or 1)
        if calls > limits.calls:
            asked = f"{len(prompts)} prompts with n = {self.n or 1} are {calls} calls"
            raise invalid("prompt", f"{asked}; one request has at most {limits.calls}")
        if self.suffix:
            raise not_supported_yet("suffix", "no model here fills in the middle")
        if self.echo and self.logprobs is not None:
            raise not_supported_yet("logprobs", "an echoed prompt's own tokens have none")
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise not_supported_yet("best_of", "only n answers are drawn, and all of them are given")

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
            fields += ignored_fields(self.stream_options, {"continuous_usage_stats": (False,)}, "stream_options.")
        return fields
