"""POST /tokenize and POST /detokenize: the exact ids that a prompt would have, and back.

They know nothing of calls. The invariant: the ids are those that the generating endpoints would run.
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response

from parrot_compat.core.prompt import Tokens
from parrot_compat.server.bodies import read_body
from parrot_compat.server.hints import Hints
from parrot_compat.server.serving import Serving, send_json

from .sampling_schema import ignored_fields
from .tokenize_schema import DetokenizeRequest, TokenizeRequest

__all__ = ["router"]


def router(serving: Serving) -> APIRouter:
    routes = APIRouter()

    @routes.post("/tokenize", summary="Token ids of a prompt or of messages", tags=["tokenizer"])
    async def tokenize(request: Request) -> Response:
        body = await read_body(request, TokenizeRequest, serving.limits)
        hints = Hints()
        hints.ignored(*body.ignored())
        card = serving.card(body.model)
        # in a thread: a long text takes long, and others stream meanwhile
        encode, contents = serving.tokenizer(card.name).encode, body.contents()
        ids = await asyncio.to_thread(lambda: [list(encode(content)) for content in contents])
        answer = {"count": sum(map(len, ids)), "max_model_len": card.context_tokens}
        return send_json({**answer, "tokens": ids if isinstance(body.prompt, list) else ids[0]}, hints.headers())

    @routes.post("/detokenize", summary="Text of token ids", tags=["tokenizer"])
    async def detokenize(request: Request) -> Response:
        body = await read_body(request, DetokenizeRequest, serving.limits)
        hints = Hints()
        hints.ignored(*ignored_fields(body, {}))
        card = serving.card(body.model)
        tokenizer = serving.tokenizer(card.name)

        def text() -> str:
            ids = tokenizer.encode(Tokens(tuple(body.tokens))) if body.tokens else ()  # refuses unknown ids
            return tokenizer.decode(ids, skip_special_tokens=False)

        return send_json({"prompt": await asyncio.to_thread(text)}, hints.headers())

    return routes
