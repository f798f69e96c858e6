"""The bodies of POST /tokenize and POST /detokenize, with vLLM's field names.

They know nothing of the tokenizer. The invariant: /tokenize has a prompt or messages, never both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from parrot_compat.core.prompt import Content, Text
from parrot_compat.server.bodies import Items, Schema
from parrot_compat.server.errors import invalid, not_supported_yet

from .chat_schema import ChatMessage, chat_prompt
from .sampling_schema import TokenId, ignored_fields
from .tools import MOST_TOOLS, Tool

__all__ = ["DetokenizeRequest", "TokenizeRequest"]

_NOT_YET: Mapping[str, tuple[Any, ...]] = {
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "return_token_strs": (False,),
}

MAX_TEXTS = 4096


class TokenizeRequest(Schema):
    model: Annotated[str, Field(max_length=512)] | None = None
    prompt: str | Annotated[Items[str], Field(min_length=1, max_length=MAX_TEXTS)] | None = None
    """A list is many texts at once, each by itself: `tokens` is then a list of lists."""
    messages: Annotated[Items[ChatMessage], Field(min_length=1)] | None = None
    tools: Annotated[Items[Tool], Field(max_length=MOST_TOOLS)] | None = None
    """Told with the messages, as where an answer is made that may call them."""
    add_special_tokens: bool | None = None
    """As the endpoints do it: true for a prompt, false for messages, whose template writes its own."""

    def contents(self) -> list[Content]:
        """What is to be tokenised: one, or as many as the prompt has texts. Errors: `ApiError` 400."""
        if (self.prompt is None) == (self.messages is None):
            raise invalid("prompt", "send either it or messages")
        own = self.prompt is not None
        if self.add_special_tokens not in (None, own):
            raise not_supported_yet("add_special_tokens", f"it is {str(own).lower()} here, as where text is generated")
        if self.prompt is None:
            return [chat_prompt(self.messages or [], tools=self.tools).bind({})]
        if self.tools:
            raise invalid("tools", "they go with messages, not with a prompt")
        return [Text(text) for text in ([self.prompt] if isinstance(self.prompt, str) else self.prompt)]

    def ignored(self) -> list[str]:
        return ignored_fields(self, _NOT_YET)


class DetokenizeRequest(Schema):
    model: Annotated[str, Field(max_length=512)] | None = None
    tokens: Items[TokenId]
