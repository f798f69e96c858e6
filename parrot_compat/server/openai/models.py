"""GET /v1/models and /v1/models/{id}: what is served here.

It knows nothing of engines beyond their model cards. The invariant: every name listed can be asked for.
"""

from __future__ import annotations

import sys
from typing import Any

from fastapi import APIRouter, Response

from parrot_compat.core.manager import ModelCard

from .serving import Serving, send_json

__all__ = ["router"]


def router(serving: Serving, created: int) -> APIRouter:
    """`created` is when this server began: a checkpoint does not say when it was made."""
    routes = APIRouter()

    @routes.get("/v1/models", summary="List the models", tags=["OpenAI"])
    async def list_models() -> Response:
        return send_json(
            {"object": "list", "data": [_model(name, card, created) for name, card in serving.cards().items()]}
        )

    @routes.get("/v1/models/{model:path}", summary="Describe one model", tags=["OpenAI"])
    async def retrieve_model(model: str) -> Response:
        return send_json(_model(model, serving.card(model), created))

    return routes


def _model(name: str, card: ModelCard, created: int) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "parrot_compat",
        # an upstream need not say
        "max_model_len": card.context_tokens if card.context_tokens < sys.maxsize else None,
        "capabilities": {"structured_output": card.obeys_formats, "tool_calling": card.obeys_formats},
    }
