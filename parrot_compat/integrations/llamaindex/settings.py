"""The settings of LlamaIndex's Parrot classes, and the requests they make.

It knows names, defaults and one endpoint. What an app leaves open (model, context window) is the server's to say, and
asked when it is first needed. The invariant: an instance is settings and nothing else, so it can be pickled, copied
and used from any thread, process or event loop.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import openai
from llama_index.core.base.llms.types import ChatMessage, LLMMetadata, MessageRole
from llama_index.core.bridge.pydantic import BaseModel, Field, PrivateAttr, SecretStr, field_validator, model_validator
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW
from llama_index.core.llms.function_calling import FunctionCallingLLM

from parrot_compat.integrations import remote
from parrot_compat.integrations.given import Timeout, connect_and_read_s, plain_timeout
from parrot_compat.integrations.remote import environment_api_key, environment_base_url
from parrot_compat.integrations.requests import REQUEST_PARAMETERS, SAMPLING, TRANSPORT

from .arguments import field_arguments
from .tokens import count_by
from .wire import request_messages

__all__ = ["Connection", "ParrotSettings"]

ASK_AGAIN_S = 30.0
"""A server that did not say what its model is is asked again after this long, not at every call."""


class Connection(BaseModel):
    """Where the server is, as both of LlamaIndex's classes are told."""

    base_url: str = Field(default_factory=environment_base_url)
    """With the version. `api_base` is understood as well."""
    api_key: SecretStr = Field(default_factory=lambda: SecretStr(environment_api_key()), exclude=True, repr=False)
    timeout: Timeout = None
    """Seconds without a byte from the server (`None` waits as long as it works), or those for connecting and these."""
    max_retries: int = 2
    """Of what can be tried again: no connection, 408, 409, 429 and 5xx; `Retry-After` is obeyed."""
    default_headers: dict[str, str] | None = Field(default=None, exclude=True, repr=False)
    sent_parameters: ClassVar[frozenset[str]] = frozenset()
    """Arguments that are no fields, and go into every request."""

    @model_validator(mode="before")
    @classmethod
    def _take_openai_arguments(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        fields = {name: field.annotation for name, field in cls.model_fields.items()}
        fields |= {field.alias: field.annotation for field in cls.model_fields.values() if field.alias}
        return field_arguments(given, fields, cls.sent_parameters, cls.__name__)

    @field_validator("timeout", mode="before")
    @classmethod
    def _take_httpx_timeout(cls, given: Any) -> Any:
        return plain_timeout(given)

    @property
    def _endpoint(self) -> remote.Endpoint:
        connect_s, silence_s = connect_and_read_s(self.timeout)
        return remote.Endpoint(
            base_url=self.base_url,
            api_key=self.api_key.get_secret_value(),
            timeout_s=silence_s,
            connect_timeout_s=connect_s,
            max_retries=self.max_retries,
            headers=tuple((self.default_headers or {}).items()),
        )


class ParrotSettings(Connection, FunctionCallingLLM):
    """Everything of `ParrotLLM` that is decided before a call is made."""

    sent_parameters: ClassVar[frozenset[str]] = REQUEST_PARAMETERS
    model: str | None = None
    """Served model; not given: the server's first."""
    temperature: float | None = None
    """Sampling that is not given is the server's: what the checkpoint's authors recommend."""
    max_tokens: int | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: list[str] | str | None = None
    additional_kwargs: dict[str, Any] = Field(default_factory=dict)
    """More parameters of every request."""
    context_window: int | None = None
    """Tokens; not given: what the server says of the model."""
    is_function_calling_model: bool = True
    stream_usage: bool = True
    count_by_server: bool = True
    """Texts are split and packed by the tokens of the served model, unless the app has set a tokenizer of its own."""
    _card: Mapping[str, Any] | None = PrivateAttr(default=None)
    _asked_at: float | None = PrivateAttr(default=None)

    @classmethod
    def class_name(cls) -> str:
        return "parrot_llm"

    @property
    def metadata(self) -> LLMMetadata:
        """Of the served model. The first look at it asks the server, unless all of it is given."""
        card = self._model_card() if self.context_window is None or self.model is None else {}
        if self.count_by_server:
            # What LlamaIndex packs for a model it looks at first, and then it takes the tokenizer that is set.
            count_by(self._endpoint, self.model)
        return LLMMetadata(
            context_window=self.context_window or card.get("max_model_len") or DEFAULT_CONTEXT_WINDOW,
            num_output=self.max_tokens or -1,
            is_chat_model=True,
            is_function_calling_model=self.is_function_calling_model,
            model_name=self.model or card.get("id") or "unknown",
            system_role=MessageRole.SYSTEM,
        )

    def _model_card(self) -> Mapping[str, Any]:
        now = time.monotonic()
        if self._card is None and (self._asked_at is None or now - self._asked_at > ASK_AGAIN_S):
            self._asked_at = now
            self._card = remote.model_card(self._endpoint, self.model)
        return self._card or {}

    def _request(
        self, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any], *, stream: bool = False
    ) -> dict[str, Any]:
        """Arguments of the SDK's `create`. Everything but model and messages travels in `extra_body`, so that a
        parameter which this version of the SDK has no name for is sent like any other."""
        call = dict(kwargs)
        transport = {name: call.pop(name) for name in TRANSPORT if name in call}
        extra = call.pop("extra_body", None) or {}
        call.pop("stream", None)
        merged = {**self._sampling(), **call, **extra}
        body = {name: value for name, value in merged.items() if value is not None}
        if body.get("n", 1) != 1:
            raise ValueError(f"n is {body['n']}: LlamaIndex's responses hold one answer")
        if stream and self.stream_usage:
            body.setdefault("stream_options", {"include_usage": True})
        return {
            "messages": request_messages(messages),
            "model": body.pop("model", self.model) or openai.omit,
            "stream": stream,
            "extra_body": body,
            **transport,
        }

    def _sampling(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in SAMPLING}
        return {**{name: value for name, value in given.items() if value is not None}, **self.additional_kwargs}
