"""A small OpenAI-compatible server that is not ours: what an existing vLLM looks like from outside, and its troubles.

It answers by a script, streams, counts in characters, and can be told to fail. It runs on a socket of this process.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.core.engines.char_tokenizer import CharTokenizer
from parrot_compat.core.engines.script import Script, answer
from parrot_compat.core.engines.word_vectors import text_vector
from parrot_compat.core.prompt import Chat, Content, Text, Tokens


class ScriptedServer:
    def __init__(self, script: Script, context_tokens: int | None = 512) -> None:
        self.script = script
        self.context_tokens = context_tokens
        self.asked: list[dict[str, Any]] = []
        """Every request body, as it came."""
        self.was_asked = asyncio.Event()
        self.was_left = asyncio.Event()
        """A reader went before the end of its answer."""
        self.refusal: Response | None = None
        self.usage: dict[str, Any] = {}
        """Said beside the counts."""
        self.tells_logprobs = True
        """Where they are asked for: one of -0.5 for each character."""
        self.deltas: list[dict[str, Any]] = []
        """Said before the text of a chat, each in an event of its own."""
        self.reason: str | None = None
        """Why an answer ended; `None`: as it did."""
        self.breaks_after: int | None = None
        """Characters of an answer after which the connection is dropped."""
        self.pauses_at: int | None = None
        """Characters of an answer before which the server falls silent until it `speaks`."""
        self.speaks = asyncio.Event()
        self.speaks.set()
        self.base_url = ""
        self.tokenizer = CharTokenizer()

    @property
    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/models", self.models),
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/completions", self.completion, methods=["POST"]),
                Route("/v1/embeddings", self.embeddings, methods=["POST"]),
            ]
        )

    async def models(self, request: Request) -> Response:
        limit = {} if self.context_tokens is None else {"max_model_len": self.context_tokens}
        cards = [{"id": name, "object": "model", "created": 0, "owned_by": "them"} | limit for name in ("big", "small")]
        return JSONResponse({"object": "list", "data": cards})

    async def chat(self, request: Request) -> Response:
        body = await request.json()

        def said(text: str) -> dict[str, Any]:
            told = {"delta": {"content": text}}
            if not body.get("logprobs") or not self.tells_logprobs:
                return told
            return told | {"logprobs": _chat_logprobs(text, body.get("top_logprobs", 0))}

        return self._answer(body, Chat(tuple(body["messages"])), said)

    async def completion(self, request: Request) -> Response:
        body = await request.json()
        prompt = body["prompt"]
        content = Text(prompt) if isinstance(prompt, str) else Tokens(tuple(prompt))

        def said(text: str) -> dict[str, Any]:
            top = body.get("logprobs")
            told = {} if top is None or not self.tells_logprobs else {"logprobs": _text_logprobs(text, top)}
            return {"text": text} | told

        return self._answer(body, content, said)

    async def embeddings(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        if self.refusal is not None:
            return self.refusal
        texts = [one if isinstance(one, str) else self.tokenizer.decode(one) for one in body["input"]]
        data = [
            {"object": "embedding", "index": index, "embedding": list(text_vector(text, body.get("dimensions")))}
            for index, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": sum(map(len, texts)), "total_tokens": sum(map(len, texts))}
        # in any order: the index says which is whose
        return JSONResponse({"object": "list", "data": data[::-1], "model": body["model"], "usage": usage})

    def _answer(self, body: dict[str, Any], content: Content, choice: Any) -> Response:
        self.asked.append(body)
        self.was_asked.set()
        if self.refusal is not None:
            return self.refusal
        prompt = self.tokenizer.encode(content)
        limit = self.context_tokens or 1_000_000
        if len(prompt) >= limit:
            message = f"This model's maximum context length is {limit} tokens, your request has {len(prompt)}"
            return JSONResponse({"error": {"message": message, "code": "context_length_exceeded"}}, 400)
        sampling = ResolvedSampling(
            max_tokens=body.get("max_tokens", limit),
            stop=tuple(body.get("stop", ())),
            ignore_eos=body.get("ignore_eos", False),
        )
        said = answer(self.script, self.tokenizer.decode(prompt), sampling, limit - len(prompt))
        return StreamingResponse(self._stream(said, len(prompt), choice), media_type="text/event-stream")

    async def _stream(self, said: Any, prompt_tokens: int, choice: Any) -> AsyncIterator[str]:
        text = self.tokenizer.decode(said.ids)
        is_done = False
        try:
            for delta in self.deltas:
                yield _event(choices=[{"index": 0, "finish_reason": None, "delta": delta}])
            for at in range(0, len(text), 4):
                if at == self.pauses_at:
                    self.speaks.clear()
                await self.speaks.wait()
                if self.breaks_after is not None and at >= self.breaks_after:
                    raise RuntimeError("pulling the plug")
                yield _event(choices=[{"index": 0, "finish_reason": None} | choice(text[at : at + 4])])
                await asyncio.sleep(0)
            reason = self.reason or ("tool_calls" if self.deltas else said.finish.value)
            yield _event(choices=[{"index": 0, "finish_reason": reason} | choice("")])
            usage = {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": said.drawn,
                "total_tokens": prompt_tokens + said.drawn,
                "prompt_tokens_details": {"cached_tokens": prompt_tokens // 2},
            } | self.usage
            yield _event(choices=[], usage=usage)
            yield "data: [DONE]\n\n"
            is_done = True
        finally:
            if not is_done:
                self.was_left.set()


def _chat_logprobs(text: str, top: int) -> dict[str, Any]:
    def entry(character: str, logprob: float = -0.5) -> dict[str, Any]:
        return {"token": character, "logprob": logprob, "bytes": list(character.encode())}

    most = [("?", -1.5)][: max(0, top - 1)]
    content = [{**entry(one), "top_logprobs": [entry(one), *(entry(*other) for other in most)][:top]} for one in text]
    return {"content": content, "refusal": None}


def _text_logprobs(text: str, top: int) -> dict[str, Any]:
    return {
        "tokens": list(text),
        "token_logprobs": [-0.5] * len(text),
        "top_logprobs": [dict([(one, -0.5), ("?", -1.5)][:top]) for one in text] if top else None,
        "text_offset": list(range(len(text))),
    }


def _event(**fields: Any) -> str:
    return f"data: {json.dumps({'id': 'x', 'object': 'chunk', 'created': 0, 'model': 'big'} | fields)}\n\n"


@asynccontextmanager
async def serving(server: ScriptedServer, port: int = 0) -> AsyncIterator[ScriptedServer]:
    """Serve on a free port, or on this one, until the block ends."""
    config = uvicorn.Config(server.app, lifespan="off", log_level="critical", timeout_graceful_shutdown=1)
    uvicorn_server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", port)) as listener:  # it listens from here on: nobody has to wait
        server.base_url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        running = asyncio.create_task(uvicorn_server.serve(sockets=[listener]))
        try:
            yield server
        finally:
            server.speaks.set()
            uvicorn_server.should_exit = True
            await running
