"""What stands behind every endpoint, whichever API it belongs to: the models and what is known of them, the limits,
the sessions that have names, the answers that may be asked for again, the tokenizers' own work.

It knows nothing of what is asked or of the shape of any one answer.

The invariant: whatever a model is called by, one card answers for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from parrot_compat.core.call import Sampling
from parrot_compat.core.errors import BadPrompt, NoEngineForModel
from parrot_compat.core.manager import Manager, ModelCard
from parrot_compat.core.output_format import ToolStyle
from parrot_compat.core.prompt import Tokens
from parrot_compat.core.tokenizer import Templated, Tokenizer, ToolStyled

from .encoder import Encoder
from .errors import ApiError, invalid
from .limits import RequestLimits
from .repeats import Repeats
from .sessions.directory import Directory

__all__ = ["Serving", "send_json", "tenant_of"]


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
    encoder: Encoder = field(default_factory=Encoder)

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

    def template_variables(self, model: str) -> frozenset[str] | None:
        """What the model's chat template can be told; `None` where another server has it."""
        tokenizer = self.manager.tokenizer(model)
        if tokenizer is None:
            return None
        return tokenizer.template_variables if isinstance(tokenizer, Templated) else frozenset()

    def tool_style_of(self, model: str) -> ToolStyle:
        tokenizer = self.manager.tokenizer(model)
        return self.tool_style or (tokenizer.tool_style if isinstance(tokenizer, ToolStyled) else "hermes")

    def check_tokens(self, model: str, sampling: Sampling) -> None:
        """Errors: `ApiError` 400 for a bias on a token that the model does not have."""
        tokenizer = self.manager.tokenizer(model) if sampling.logit_bias else None
        if tokenizer is not None:
            try:
                tokenizer.encode(Tokens(tuple(token for token, _ in sampling.logit_bias)))
            except BadPrompt as error:
                raise invalid("logit_bias", error.message) from None


def tenant_of(request: Request) -> str:
    tenant: str = request.state.tenant
    return tenant


def send_json(data: Mapping[str, Any] | bytes, headers: Mapping[str, str] | None = None) -> Response:
    """What is `written` already is sent as it is."""
    body = data if isinstance(data, bytes) else _dumped(data)
    return Response(body, media_type="application/json", headers=dict(headers or {}))


def _dumped(data: Mapping[str, Any]) -> bytes:
    """In UTF-8: escaped, most letters of the world would take twice or three times as much."""
    try:
        return json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate, from an upstream: it can be said in ASCII
        return json.dumps(data, separators=(",", ":")).encode()
