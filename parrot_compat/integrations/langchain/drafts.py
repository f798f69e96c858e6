"""Calls as the symbolic run finds them: the body that the app will send, with references for unknown texts.

It knows the chat model's own request, and no runnables. The invariant: the body is made by the model itself from real
messages, so it is the app's own, field by field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.globals import get_llm_cache
from langchain_core.messages import BaseMessage

from parrot_compat.integrations.plans.calls import body_of
from parrot_compat.integrations.plans.drafting import Drafting, answers_as_ours

from .settings import ParrotSettings

__all__ = ["can_be_planned", "draft_body"]

NOT_OF_THE_REQUEST = ("ls_structured_output_format", "structured_output_format")
DECIDING = (
    *("invoke", "stream", "generate", "_generate", "_stream"),
    *("ainvoke", "astream", "agenerate", "_agenerate", "_astream"),
)
"""What between an app's call and our server deals with messages and answers."""


def can_be_planned(model: ParrotSettings) -> bool:
    """Something between the app and the server (a cache, a limiter) would see calls that it does not expect, or
    not see calls that it does."""
    if model.rate_limiter is not None or not answers_as_ours(type(model), DECIDING, "langchain_core"):
        return False
    return model.cache is False or (model.cache is None and get_llm_cache() is None)


def draft_body(
    model: ParrotSettings, messages: list[BaseMessage], arguments: Mapping[str, Any], drafting: Drafting
) -> tuple[dict[str, Any], tuple[str, ...]] | None:
    """(body with references, ids of the calls it reads), or `None` if this call cannot be planned."""
    given = {name: value for name, value in arguments.items() if name not in NOT_OF_THE_REQUEST}
    stop = given.pop("stop", None)
    body = body_of(model._request(messages, stop, given))
    if body is None or body.get("n", 1) != 1:
        return None
    return drafting.referring(body)
