"""The request fields that /v1/chat/completions and /v1/completions share, and what becomes of all others.

It knows nothing of prompts. A field is acted on, refused by name (`NOT_YET`), or listed in the receipt as
ignored; a value that asks for nothing (`length_penalty: 1`) is none of these.

The invariant: no field that would change the answer is dropped in silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from parrot_compat.core.call import LOGIT_BIASES, PENALTIES, REPETITION_PENALTIES, Sampling
from parrot_compat.core.errors import BadSchema
from parrot_compat.core.output_format import OutputFormat
from parrot_compat.server.amounts import at_most
from parrot_compat.server.bodies import Items, Schema
from parrot_compat.server.errors import invalid, not_supported_yet
from parrot_compat.server.limits import RequestLimits
from parrot_compat.server.sessions.object_schema import ParrotObject

from .format_schema import StructuredOutputs

__all__ = ["NOT_YET", "LimitedRequest", "SamplingRequest", "StreamOptions", "ignored_fields", "one_of"]

NOT_YET: Mapping[str, tuple[Any, ...]] = {
    # field: the values that ask for nothing
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "json_schema": (),  # llama.cpp's words for a form
    "grammar": ("",),
    "regex": ("",),  # SGLang's
    "ebnf": ("",),
    "use_beam_search": (False,),
    "length_penalty": (1,),
    "bad_words": ([],),
    "allowed_token_ids": (),
    "prompt_logprobs": (),
    "truncate_prompt_tokens": (),
    "include_stop_str_in_output": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "return_tokens_as_token_ids": (False,),
    "logits_processors": ([],),
    "cache_salt": (),
    "kv_transfer_params": (),
}
"""Fields that change the answer (or who may share work with it) and are not served yet."""


def one_of(what: str) -> WrapValidator:
    """A union that, when no branch fits, says `what` it wants instead of what each branch thought."""

    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError(f"should be {what}") from None

    return WrapValidator(validate)


class StreamOptions(Schema):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    """vLLM's: each chunk has the usage so far, where the last one has that of the whole."""
    include_obfuscation: bool | None = None
    """Random padding against size analysis; TLS in front of us may do that."""


Stop = Annotated[str | Items[str] | None, one_of("a string or a list of strings")]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
TokenName = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,9})$")]
"""A token id as a JSON object's key."""
Penalty = Annotated[float, Field(ge=PENALTIES[0], le=PENALTIES[1])]
RepetitionPenalty = Annotated[float, Field(ge=REPETITION_PENALTIES[0], le=REPETITION_PENALTIES[1])]
Bias = Annotated[float, Field(ge=LOGIT_BIASES[0], le=LOGIT_BIASES[1])]
MOST_BIASES = 1024


class SamplingRequest(Schema):
    """What both generating endpoints take."""

    model: Annotated[str, Field(max_length=512)] | None = None
    """Served model name; left out, the first that is served."""
    n: Annotated[int, Field(ge=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    min_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: RepetitionPenalty | None = None
    logit_bias: Annotated[dict[TokenName, Bias], Field(max_length=MOST_BIASES), at_most(MOST_BIASES)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop = None
    stop_token_ids: Annotated[Items[TokenId], Field(max_length=256)] | None = None
    ignore_eos: bool | None = None
    return_token_ids: bool | None = None
    structured_outputs: StructuredOutputs | None = None
    parrot: ParrotObject | None = None
    # hints of other servers; whatever is in them, they fail no call (`asking` reads them)
    priority: Any = None
    service_tier: Any = None
    nvext: Any = None

    def check(self, limits: RequestLimits) -> None:
        """What no single field can know. Errors: `ApiError` 400."""
        if self.stream_options is not None and not self.stream:
            raise invalid("stream_options", "only allowed with stream: true")
        if (self.n or 1) > limits.choices:
            raise invalid("n", f"at most {limits.choices} choices, not {self.n}")
        most = self.most_tokens()
        if most is not None and (self.min_tokens or 0) > most:
            raise invalid("min_tokens", f"{self.min_tokens} is more than the {most} of max_tokens")
        stops = self.stop_strings()
        if len(stops) > limits.stop_strings:
            raise invalid("stop", f"at most {limits.stop_strings} strings, not {len(stops)}")
        if any(not 1 <= len(stop) <= limits.stop_characters for stop in stops):
            raise invalid("stop", f"each string has 1 to {limits.stop_characters} characters")

    def most_tokens(self) -> int | None:
        return self.max_tokens

    def tells_usage(self) -> bool:
        """Of a stream."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def tells_usage_always(self) -> bool:
        return self.tells_usage() and bool(self.stream_options and self.stream_options.continuous_usage_stats)

    def told_logprobs(self) -> int | None:
        """How many of the likeliest tokens are told with each drawn one; `None`: nothing is told. Each endpoint has a
        field of its own for it."""
        return None

    def stop_strings(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def seed_of(self, choice: int) -> int | None:
        """With a seed, each of `n` choices has its own: seed, seed + 1, … Clients that always send one say -1 for none,
        as to vLLM and llama.cpp."""
        return None if self.seed is None or self.seed == -1 else (self.seed + choice) % 2**63

    def sampling(self, choice: int = 0) -> Sampling:
        """The sampling of one choice. Who makes several keeps all but the seed of the first: a form may be large."""
        return Sampling(
            max_tokens=self.most_tokens(),
            min_tokens=self.min_tokens or 0,
            temperature=self.temperature,
            # top_p 0 keeps the likeliest token alone, and so does any share this small
            top_p=None if self.top_p is None else max(self.top_p, 1e-6),
            top_k=None if self.top_k is None else max(self.top_k, 0),
            min_p=self.min_p,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            repetition_penalty=self.repetition_penalty,
            logit_bias=tuple(sorted((int(token), bias) for token, bias in (self.logit_bias or {}).items())),
            logprobs=self.told_logprobs(),
            seed=self.seed_of(choice),
            stop=self.stop_strings(),
            stop_token_ids=tuple(self.stop_token_ids or ()),
            ignore_eos=bool(self.ignore_eos),
            format=self.output_format(),
        )

    def format_field(self) -> str:
        """Where a form was asked for."""
        return "structured_outputs"

    @contextmanager
    def naming_format(self) -> Iterator[None]:
        """A form that no engine can hold an answer to is refused by the field that asked for it."""
        try:
            yield
        except BadSchema as error:
            raise invalid(self.format_field(), error.message, "invalid_schema") from None

    def output_format(self) -> OutputFormat | None:
        """Errors: `ApiError` 400, `BadSchema`."""
        return None if self.structured_outputs is None else self.structured_outputs.format()


class LimitedRequest(SamplingRequest):
    """Of chats: their limit has two names."""

    max_completion_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None

    def most_tokens(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    def check(self, limits: RequestLimits) -> None:
        SamplingRequest.check(self, limits)
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            both = f"{self.max_completion_tokens} and max_tokens {self.max_tokens} disagree; send one"
            raise invalid("max_completion_tokens", both)


def ignored_fields(request: Schema, refused: Mapping[str, tuple[Any, ...]] = NOT_YET, path: str = "") -> list[str]:
    """Names of the fields of `request` without effect. Errors: `ApiError` 400 for one that cannot be left without."""
    ignored = []
    for name, value in (request.model_extra or {}).items():
        if value is None:
            continue
        if name not in refused:
            ignored.append(path + name)
        elif not any(value == noop for noop in refused[name]):
            raise not_supported_yet(path + name)
    return ignored
