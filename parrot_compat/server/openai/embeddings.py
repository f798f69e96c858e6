"""POST /v1/embeddings: texts in, a vector of length 1 for each of them out.

It knows nothing of how a text becomes a vector. The invariant: vector `i` is that of input `i`.
"""

from __future__ import annotations

import asyncio
import base64
import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from parrot_compat.server.bodies import Raw, read_raw
from parrot_compat.server.hints import Hints
from parrot_compat.server.json_values import written
from parrot_compat.server.serving import Serving, send_json, tenant_of
from parrot_compat.server.sse import while_connected

from .embeddings_schema import EmbeddingRequest

__all__ = ["router"]

_AT_ONCE = 4096
"""Numbers that are written on the event loop: 3 ms as decimals."""


def router(serving: Serving) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/embeddings", summary="Turn texts into vectors", tags=["OpenAI"])
    async def create_embedding(request: Request) -> Response:
        raw = Raw(await read_raw(request, serving.limits))
        return await serving.repeats.once(request, tenant_of(request), raw, lambda: answered(request, raw))

    async def answered(request: Request, raw: Raw) -> Response:
        body = raw.parse(EmbeddingRequest)
        hints = Hints()
        hints.ignored(*body.ignored())
        contents, card = body.contents(), serving.card(body.model)
        model, is_base64 = body.model or card.name, body.encoding_format == "base64"
        work = serving.manager.embed(
            contents, model=card.name, tenant=tenant_of(request), pooling=body.pooling, dimensions=body.dimensions
        )
        del body  # it may wait for long; what else was said with the inputs is of no use any more
        embedded = await while_connected(request.receive, work)
        usage = {"prompt_tokens": embedded.prompt_tokens, "total_tokens": embedded.prompt_tokens}
        about = {"model": model, "usage": usage}
        if sum(map(len, embedded.vectors)) <= _AT_ONCE:
            return send_json(_answer(embedded.vectors, about, is_base64), hints.headers())
        data = await asyncio.to_thread(lambda: written(_answer(embedded.vectors, about, is_base64)))
        return send_json(data, hints.headers())

    return routes


def _answer(vectors: Sequence[array[float]], about: Mapping[str, Any], is_base64: bool) -> dict[str, Any]:
    said = _base64 if is_base64 else list
    data = [{"object": "embedding", "index": index, "embedding": said(vector)} for index, vector in enumerate(vectors)]
    return {"object": "list", "data": data, **about}


def _base64(vector: array[float]) -> str:
    """Little-endian float32, as OpenAI writes it."""
    if sys.byteorder == "big":
        vector = array("f", vector)
        vector.byteswap()
    return base64.b64encode(vector.tobytes()).decode()
