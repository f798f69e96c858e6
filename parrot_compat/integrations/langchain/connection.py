"""Where a model is and how it is reached, and what its texts are drawn with: fields that the three classes share.

It knows names, defaults and one endpoint, and sends nothing.

The invariant: an instance is settings and nothing else. It can be pickled, copied and used from any thread,
process or event loop; nothing of a single run is stored in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import openai
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from parrot_compat.integrations import remote
from parrot_compat.integrations.given import Timeout, connect_and_read_s, plain_timeout
from parrot_compat.integrations.remote import environment_api_key, environment_base_url
from parrot_compat.integrations.requests import SAMPLING, TRANSPORT

from .arguments import field_arguments

__all__ = ["ParrotConnection", "ParrotSampling"]

CALL_SYNONYMS = {"model_name": "model", "max_completion_tokens": "max_tokens", "request_timeout": "timeout"}


class ParrotConnection(BaseModel):
    """A server, and a model of it."""

    model_config = ConfigDict(populate_by_name=True)

    model_name: str | None = Field(default=None, alias="model")
    """Served model; not given: the server's first."""
    base_url: str = Field(default_factory=environment_base_url)
    api_key: SecretStr = Field(default_factory=lambda: SecretStr(environment_api_key()))
    organization: str | None = None
    timeout: Timeout = None
    """Seconds without a byte from the server (`None` waits as long as it works), or those for connecting and these."""
    max_retries: int = 2
    """Of what can be tried again: no connection, 408, 409, 429 and 5xx; `Retry-After` is obeyed."""
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """More parameters of every request."""
    extra_body: dict[str, Any] | None = None
    """As `model_kwargs`; kept apart because LangChain's OpenAI classes do."""
    default_headers: dict[str, str] | None = Field(default=None, repr=False)
    default_query: dict[str, object] | None = Field(default=None, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _take_openai_arguments(cls, given: Any) -> Any:
        fields = {name: field.annotation for name, field in cls.model_fields.items()}
        fields |= {field.alias: field.annotation for field in cls.model_fields.values() if field.alias}
        return field_arguments(given, fields, cls.__name__) if isinstance(given, Mapping) else given

    @field_validator("timeout", mode="before")
    @classmethod
    def _take_httpx_timeout(cls, given: Any) -> Any:
        return plain_timeout(given)

    @property
    def model(self) -> str | None:
        return self.model_name

    @property
    def lc_secrets(self) -> dict[str, str]:
        return {"api_key": "PARROT_API_KEY"}

    @property
    def _endpoint(self) -> remote.Endpoint:
        connect_s, silence_s = connect_and_read_s(self.timeout)
        return remote.Endpoint(
            base_url=self.base_url,
            api_key=self.api_key.get_secret_value(),
            timeout_s=silence_s,
            connect_timeout_s=connect_s,
            max_retries=self.max_retries,
            organization=self.organization,
            headers=tuple((self.default_headers or {}).items()),
            query=tuple((self.default_query or {}).items()),
        )


class ParrotSampling(ParrotConnection):
    """A model that writes, and how it draws. What is not given is the server's: what the checkpoint's authors say."""

    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: list[str] | str | None = None
    stream_usage: bool = True

    def _request_params(self) -> dict[str, Any]:
        sampling = {name: getattr(self, name) for name in SAMPLING}
        given = {name: value for name, value in sampling.items() if value is not None and value != []}
        return {**given, **self.model_kwargs, **(self.extra_body or {})}

    def _deciding_params(self) -> dict[str, Any]:
        params = {"model_name": self.model_name, "base_url": self.base_url, **self._request_params()}
        # LangChain writes a call's own `stop`, or that it has none, over this one
        return params | ({"stop_of_model": params["stop"]} if "stop" in params else {})

    def _choices(self, kwargs: Mapping[str, Any]) -> Any:
        """How many answers a call asks for."""
        return {**self._request_params(), **kwargs, **(kwargs.get("extra_body") or {})}.get("n") or 1

    def _create_arguments(
        self, content: Mapping[str, Any], stop: list[str] | None, kwargs: Mapping[str, Any], *, stream: bool
    ) -> dict[str, Any]:
        """Arguments of the SDK's `create`. Everything but model and `content` travels in `extra_body`, so that a
        parameter which this version of the SDK has no name for is sent like any other."""
        call = {CALL_SYNONYMS.get(name, name): value for name, value in kwargs.items()}
        transport = {name: call.pop(name) for name in TRANSPORT if name in call}
        extra = call.pop("extra_body", None) or {}
        call.pop("stream", None)
        usage = call.pop("stream_usage", None)
        usage = self.stream_usage if usage is None else usage
        merged = {**self._request_params(), **call, **({"stop": stop} if stop else {}), **extra}
        body = {name: value for name, value in merged.items() if value is not None}
        if stream and body.get("n", 1) != 1:
            raise ValueError(f"n is {body['n']}: only one choice can be streamed")
        if stream and usage:
            body.setdefault("stream_options", {"include_usage": True})
        return {
            **content,
            "model": body.pop("model", self.model_name) or openai.omit,
            "stream": stream,
            "extra_body": body,
            **transport,
        }
