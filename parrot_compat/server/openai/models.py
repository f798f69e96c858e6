"""GET /v1/models and /v1/models/{id}: what is served here.

It knows nothing of engines beyond their model cards. The invariant: every name listed can be asked for.
"""

from __future__ import annotations

import sys
from typing import Any

from fastapi import APIRouter, Response

from parrot_compat.core.manager import ModelCard
from parrot_compat.server.serving import Serving, send_json

from .tools import calls_or_json

__all__ = ["router"]


def router(serving: Serving, created: int) -> APIRouter:
    """`created` is when this server began: a checkpoint does not say when it was made."""
    routes = APIRouter()

    @routes.get("/v1/models", summary="List the models", tags=["OpenAI"])
    async def list_models() -> Response:
        return send_json(
            {"object": "list", "data": [_model(serving, name, card, created) for name, card in serving.cards().items()]}
        )

    @routes.get("/v1/models/{model:path}", summary="Describe one model", tags=["OpenAI"])
    async def retrieve_model(model: str) -> Response:
        return send_json(_model(serving, model, serving.card(model), created))

    return routes


def _model(serving: Serving, name: str, card: ModelCard, created: int) -> dict[str, Any]:
    can = {"structured_output": card.obeys_formats, "tool_calling": card.obeys_formats}
    # one answer may be calls or have a form: what agents ask of a model that has tools
    can["structured_output_with_tools"] = card.obeys_formats and calls_or_json(serving.tool_style_of(card.name))
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "parrot_compat",
        # an upstream need not say
        "max_model_len": card.context_tokens if card.context_tokens < sys.maxsize else None,
        "capabilities": can,
    }
