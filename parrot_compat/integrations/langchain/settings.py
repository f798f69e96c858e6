"""The settings of a Parrot chat model, and the request they make of a conversation.

It knows names, defaults and one endpoint, and sends nothing. Messages are translated in `wire`.

The invariant: an instance is settings and nothing else. It can be pickled, copied and used from any thread,
process or event loop; nothing of a single run is stored in it or in its identifying parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import openai
from langchain_core.language_models import BaseChatModel, ModelProfile
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import BaseMessage
from langchain_core.utils import from_env, secret_from_env
from pydantic import ConfigDict, Field, SecretStr, model_validator

from parrot_compat import __version__
from parrot_compat.integrations import remote

from .arguments import field_arguments
from .wire import MODEL_PROVIDER, request_messages

__all__ = ["ParrotSettings"]

DEFAULT_BASE_URL = "http://127.0.0.1:8000/v1"
SAMPLING = ("temperature", "max_tokens", "top_p", "top_k", "seed", "stop")
TRANSPORT = ("timeout", "extra_headers", "extra_query")
CALL_SYNONYMS = {"model_name": "model", "max_completion_tokens": "max_tokens", "request_timeout": "timeout"}


class ParrotSettings(BaseChatModel):
    """Everything of `ChatParrot` that is decided before a call is made."""

    model_config = ConfigDict(populate_by_name=True)

    model_name: str | None = Field(default=None, alias="model")
    """Served model; not given: the server's first."""
    base_url: str = Field(default_factory=from_env("PARROT_BASE_URL", default=DEFAULT_BASE_URL))
    api_key: SecretStr = Field(default_factory=secret_from_env("PARROT_API_KEY", default="none"))
    organization: str | None = None
    temperature: float | None = None
    """Sampling that is not given is the server's: what the checkpoint's authors recommend."""
    max_tokens: int | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: list[str] | str | None = None
    timeout: float | None = None
    """Seconds without a byte from the server; `None` waits as long as it works."""
    max_retries: int = 2
    """Of what can be tried again: no connection, 408, 409, 429 and 5xx; `Retry-After` is obeyed."""
    streaming: bool | None = None
    """True: `invoke` streams inside. False: `stream` does not stream."""
    stream_usage: bool = True
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """More parameters of every request."""
    extra_body: dict[str, Any] | None = None
    """As `model_kwargs`; kept apart because `ChatOpenAI` does."""
    default_headers: dict[str, str] | None = Field(default=None, repr=False)
    default_query: dict[str, object] | None = Field(default=None, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _take_openai_arguments(cls, given: Any) -> Any:
        names = set(cls.model_fields) | {field.alias for field in cls.model_fields.values() if field.alias}
        return field_arguments(given, names) if isinstance(given, Mapping) else given

    @model_validator(mode="after")
    def _set_parrot_version(self) -> Self:
        self._add_version("parrot-compat", __version__)
        if self.profile is None:
            # Left out of the instance, it is asked of the server when it is first read (`__getattr__`).
            self.__dict__.pop("profile", None)
        return self

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name != "profile":
                return super().__getattr__(name)
            card = remote.model_card(self._endpoint, self.model_name) or {}
            if not card.get("max_model_len"):
                return None
            self.profile = ModelProfile(max_input_tokens=card["max_model_len"], text_inputs=True, text_outputs=True)
            return self.profile

    # ---- what it is ------------------------------------------------------------------------------

    @property
    def model(self) -> str | None:
        return self.model_name

    @property
    def _llm_type(self) -> str:
        return "parrot-chat"

    @property
    def lc_secrets(self) -> dict[str, str]:
        return {"api_key": "PARROT_API_KEY"}

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """All that decides an answer, and nothing else: LangChain's cache keys are made of it."""
        return {"model_name": self.model_name, "base_url": self.base_url, **self._request_params()}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = MODEL_PROVIDER
        stops = stop or kwargs.get("stop") or self.stop
        if stops:
            params["ls_stop"] = [stops] if isinstance(stops, str) else list(stops)
        return params

    def _request(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any], *, stream: bool = False
    ) -> dict[str, Any]:
        """Arguments of the SDK's `create`. Everything but model and messages travels in `extra_body`, so that a
        parameter which this version of the SDK has no name for is sent like any other."""
        call = {CALL_SYNONYMS.get(name, name): value for name, value in kwargs.items()}
        transport = {name: call.pop(name) for name in TRANSPORT if name in call}
        extra = call.pop("extra_body", None) or {}
        call.pop("stream", None)
        usage = call.pop("stream_usage", self.stream_usage)
        merged = {**self._request_params(), **call, **({"stop": stop} if stop else {}), **extra}
        body = {name: value for name, value in merged.items() if value is not None}
        if stream and body.get("n", 1) != 1:
            raise ValueError(f"n is {body['n']}: only one choice can be streamed")
        if stream and usage:
            body.setdefault("stream_options", {"include_usage": True})
        return {
            "messages": request_messages(messages),
            "model": body.pop("model", self.model_name) or openai.omit,
            "stream": stream,
            "extra_body": body,
            **transport,
        }

    def _request_params(self) -> dict[str, Any]:
        sampling = {name: getattr(self, name) for name in SAMPLING}
        given = {name: value for name, value in sampling.items() if value is not None and value != []}
        return {**given, **self.model_kwargs, **(self.extra_body or {})}

    @property
    def _endpoint(self) -> remote.Endpoint:
        return remote.Endpoint(
            base_url=self.base_url,
            api_key=self.api_key.get_secret_value(),
            timeout_s=self.timeout,
            max_retries=self.max_retries,
            organization=self.organization,
            headers=tuple((self.default_headers or {}).items()),
            query=tuple((self.default_query or {}).items()),
        )
