"""The settings of a Parrot chat model, and the request they make of a conversation.

It knows names, defaults and one endpoint, and sends nothing. Messages are translated in `wire`.

The invariant: an instance is settings and nothing else. It can be pickled, copied and used from any thread,
process or event loop; nothing of a single run is stored in it or in its identifying parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from langchain_core.language_models import BaseChatModel, ModelProfile
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import BaseMessage
from pydantic import model_validator

from parrot_compat import __version__
from parrot_compat.integrations import servers

from .connection import ParrotSampling
from .structured import wire_format
from .wire import MODEL_PROVIDER, request_messages

__all__ = ["ParrotSettings"]


class ParrotSettings(ParrotSampling, BaseChatModel):
    """Everything of `ChatParrot` that is decided before a call is made."""

    streaming: bool | None = None
    """True: `invoke` streams inside. False: `stream` does not stream."""

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
            card = servers.model_card(self._endpoint, self.model_name)
            if card is None:
                return None  # it may be told later
            if not card.get("max_model_len"):
                self.profile = None
                return None
            self.profile = ModelProfile(max_input_tokens=card["max_model_len"], text_inputs=True, text_outputs=True)
            if can := card.get("capabilities"):  # agents choose by it how to ask for structured output
                tools = bool(can.get("tool_calling"))
                self.profile["tool_calling"] = self.profile["tool_choice"] = tools
                # an agent that asks for it asks for it with its tools
                structured = can.get("structured_output_with_tools", can.get("structured_output"))
                self.profile["structured_output"] = bool(structured)
            return self.profile

    # ---- what it is ------------------------------------------------------------------------------

    @property
    def _llm_type(self) -> str:
        return "parrot-chat"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """All that decides an answer, and nothing else: LangChain's cache keys are made of it."""
        return self._deciding_params()

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
        """Arguments of the SDK's `create`."""
        request = self._create_arguments({"messages": request_messages(messages)}, stop, kwargs, stream=stream)
        body = request["extra_body"]
        if "response_format" in body:
            body["response_format"] = wire_format(body["response_format"])
        return request
