"""What the endpoints of OpenAI's API share: the way from a request to its tasks, and the words of the answer.

It knows nothing of prompts or of the shape of any one answer. The calls of a request are made in its room
(`parrot.rooms`): a session of its own, or one that it names.

The invariant: every answer of one request tells the same identity.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from parrot_compat.core.call import Sampling, Usage
from parrot_compat.core.errors import BadPrompt, NoEngineForModel
from parrot_compat.core.manager import Manager, ModelCard
from parrot_compat.core.output_format import ToolStyle
from parrot_compat.core.prompt import Tokens
from parrot_compat.core.tokenizer import Templated, Tokenizer, ToolStyled
from parrot_compat.server.errors import ApiError, invalid
from parrot_compat.server.limits import RequestLimits
from parrot_compat.server.parrot.directory import Directory
from parrot_compat.server.repeats import Repeats

from .logprobs import TokenWriter
from .tools import Tool, ToolUse

__all__ = ["AnswerHead", "Serving", "cached_tokens", "send_json", "tenant_of", "usage_of"]


_TIERS = {"auto": "default", "default": "default", "flex": "flex", "priority": "priority", "fast": "priority"}
"""What was asked for, and what it is called when it is served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerHead:
    """The identity of one answer: what its head tells, the same in every chunk of a stream."""

    id: str
    object: str
    model: str
    fingerprint: str
    tier: str | None = None
    """The service tier, where one was asked for."""
    created: int = field(default_factory=lambda: int(time.time()))

    def head(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": self.object,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        } | ({} if self.tier is None else {"service_tier": self.tier})


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What stands behind the endpoints."""

    manager: Manager
    directory: Directory
    limits: RequestLimits
    fingerprint: str
    keep_alive_s: float
    tool_style: ToolStyle | None = None
    """`None`: what the checkpoint's chat template shows."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Other names of served models."""
    repeats: Repeats = field(default_factory=Repeats)

    def card(self, model: str | None) -> ModelCard:
        """The model asked for, by any of its names. Errors: `NoEngineForModel`."""
        cards = self.manager.models()
        for card in cards:
            if model is None or self.aliases.get(model, model) == card.name:
                return card
        served = ", ".join(map(repr, self.cards())) or "none"
        raise NoEngineForModel(f"model {model!r} is not served here; served: {served}")

    def cards(self) -> dict[str, ModelCard]:
        """Every name that can be asked for."""
        cards = {card.name: card for card in self.manager.models()}
        return cards | {alias: cards[name] for alias, name in self.aliases.items() if name in cards}

    def tokenizer(self, model: str) -> Tokenizer:
        """Errors: `ApiError` 400 where the model is served by a text engine, which tokenises by itself."""
        tokenizer = self.manager.tokenizer(model)
        if tokenizer is None:
            raise ApiError(
                f"model {model!r} is served by another server, whose tokenizer is not known here",
                code="tokenizer_unknown",
                param="model",
            )
        return tokenizer

    def writer(self, model: str) -> TokenWriter:
        """Tells what the tokens of answers write."""
        return TokenWriter(self.manager.tokenizer(model))

    def template_variables(self, model: str) -> frozenset[str] | None:
        """What the model's chat template can be told; `None` where another server has it."""
        tokenizer = self.manager.tokenizer(model)
        if tokenizer is None:
            return None
        return tokenizer.template_variables if isinstance(tokenizer, Templated) else frozenset()

    def tool_style_of(self, model: str) -> ToolStyle:
        tokenizer = self.manager.tokenizer(model)
        return self.tool_style or (tokenizer.tool_style if isinstance(tokenizer, ToolStyled) else "hermes")

    def offered(self, model: str, tools: list[Tool] | None, use: ToolUse | None) -> list[Tool] | None:
        """The tools that the prompt tells of. Another server would call those that it is told of, so it is told of what
        may be called; ours are read by the model as it was trained, whatever may be called, and stay cached."""
        if self.manager.tokenizer(model) is not None:
            return tools
        return None if use is None else [tool for tool in tools or () if use.may_call(tool.function.name)]

    def check_tokens(self, model: str, sampling: Sampling) -> None:
        """Errors: `ApiError` 400 for a bias on a token that the model does not have."""
        tokenizer = self.manager.tokenizer(model) if sampling.logit_bias else None
        if tokenizer is not None:
            try:
                tokenizer.encode(Tokens(tuple(token for token, _ in sampling.logit_bias)))
            except BadPrompt as error:
                raise invalid("logit_bias", error.message) from None

    def answer(self, prefix: str, object: str, model: str, tier: Any = None) -> AnswerHead:
        """`tier` as the request asks for one."""
        id = f"{prefix}-{uuid.uuid4().hex}"
        tier = _TIERS.get(tier) if isinstance(tier, str) else None
        return AnswerHead(id=id, object=object, model=model, fingerprint=self.fingerprint, tier=tier)


def tenant_of(request: Request) -> str:
    tenant: str = request.state.tenant
    return tenant


def usage_of(usages: Sequence[Usage], choices: int = 1) -> dict[str, Any]:
    """OpenAI's usage of all choices together. `usages` come `choices` to a prompt, which is counted once."""
    prompt_tokens = sum(usage.prompt_tokens for usage in usages[::choices])
    output_tokens = sum(usage.output_tokens for usage in usages)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": prompt_tokens + output_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens(usages, choices)},
    } | _answer_details(usages)


def cached_tokens(usages: Sequence[Usage], choices: int = 1) -> int:
    """Of all prompts. `usages` come `choices` to a prompt: what its first reader computed was not cached."""
    by_prompt = [usages[start : start + choices] for start in range(0, len(usages), choices)]
    return sum(min(usage.cached_tokens for usage in group) for group in by_prompt)


def _answer_details(usages: Sequence[Usage]) -> dict[str, Any]:
    """What the answers were used for, where that is counted: of models that think before they answer."""
    counted = [usage.reasoning_tokens for usage in usages if usage.reasoning_tokens is not None]
    return {"completion_tokens_details": {"reasoning_tokens": sum(counted)}} if counted else {}


def send_json(data: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """JSON in ASCII: whatever a model says (lone surrogates from an upstream too) can be sent."""
    body = json.dumps(data, separators=(",", ":")).encode()
    return Response(body, media_type="application/json", headers=dict(headers or {}))
