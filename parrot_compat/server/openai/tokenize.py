"""POST /tokenize and POST /detokenize: the exact ids that a prompt would have, and back.

They know nothing of calls. The invariant: the ids are those that the generating endpoints would run.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from parrot_compat.core.prompt import Tokens
from parrot_compat.core.rendering import about_tokens
from parrot_compat.server.bodies import read_body
from parrot_compat.server.hints import Hints
from parrot_compat.server.json_values import written
from parrot_compat.server.serving import Serving, send_json, tenant_of
from parrot_compat.server.sse import while_connected

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
        encode, contents = serving.tokenizer(card.name).encode, body.contents()

        def answer() -> bytes:
            ids = [encode(content) for content in contents]
            told = {"count": sum(map(len, ids)), "max_model_len": card.context_tokens}
            return written({**told, "tokens": ids if isinstance(body.prompt, list) else ids[0]})

        work = serving.encoder.run(tenant_of(request), sum(map(about_tokens, contents)), answer)
        return send_json(await while_connected(request.receive, work), hints.headers())

    @routes.post("/detokenize", summary="Text of token ids", tags=["tokenizer"])
    async def detokenize(request: Request) -> Response:
        body = await read_body(request, DetokenizeRequest, serving.limits)
        hints = Hints()
        hints.ignored(*ignored_fields(body, {}))
        card = serving.card(body.model)
        tokenizer = serving.tokenizer(card.name)

        def answer() -> bytes:
            ids = tokenizer.encode(Tokens(tuple(body.tokens))) if body.tokens else ()  # refuses unknown ids
            return written({"prompt": tokenizer.decode(ids, skip_special_tokens=False)})

        work = serving.encoder.run(tenant_of(request), len(body.tokens), answer)
        return send_json(await while_connected(request.receive, work), hints.headers())

    return routes
