"""A server that takes plans, exactly as the wire says, with answers that are a function of the messages.

It stands in for the whole path behind the wire, so that the client's side can be tested alone: what it was
sent, in which order, what it generated and how often, and what happens when it fails, hesitates or forgets.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from parrot_compat.integrations.langchain.planner import planner


def answer_to(body: dict[str, Any]) -> str:
    """Greedy and deterministic; stop words are obeyed, so that a wrong parameter shows."""
    text = json.dumps([body["messages"], body.get("seed"), body.get("temperature")], sort_keys=True)
    words = ["ans", *hashlib.sha1(text.encode()).hexdigest()[:12]]
    said = "-".join(words)
    for stop in [body["stop"]] if isinstance(body.get("stop"), str) else body.get("stop") or []:
        said = said.split(stop)[0]
    return said


def error(status: int, message: str, code: str | None = None) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)


@dataclass(eq=False)
class Call:
    id: str
    request: dict[str, Any]
    done: asyncio.Event = field(default_factory=asyncio.Event)
    body: dict[str, Any] | None = None
    text: str | None = None
    failure: str | None = None
    nonce: str | None = None
    claimed: bool = False
    generated: bool = False


@dataclass(eq=False)
class Graph:
    id: str
    nonce: str
    calls: dict[str, Call]
    pushes: asyncio.Queue[dict[str, Any] | None] = field(default_factory=asyncio.Queue)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    closed: bool = False
    taken: tuple[str, ...] = ()


class PlanServer:
    """`delay(text)` seconds are taken over the answer to a prompt that ends with `text`."""

    def __init__(self) -> None:
        self.graphs: list[Graph] = []
        self.posted: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []
        """Chat requests as they came."""
        self.generations: list[str] = []
        """Last message of every prompt that was generated for, in order."""
        self.closes: list[tuple[str, tuple[str, ...]]] = []
        self.delay: Callable[[str], float] = lambda text: 0.0
        self.fails: Callable[[str], bool] = lambda text: "FAIL" in text
        self.refuse: int | None = None
        """Status with which plans are refused."""
        self.cut_after: int | None = None
        """Pushes after which the line of a plan breaks."""
        self.garble = False
        """Push requests that are not those that were planned."""
        self.hold = threading.Event()
        """Unset: no answer is generated."""
        self.hold.set()
        self._closing = threading.Condition()
        self._numbers = itertools.count()
        self._generated: list[dict[str, Any]] = []
        self.app = self._routes()

    def forget(self) -> None:
        """As it was when it was made, for the next test."""
        planner.book.reset()
        for kept in (self.graphs, self.posted, self.requests, self.generations, self.closes, self._generated):
            kept.clear()  # type: ignore[attr-defined]
        self.delay = lambda text: 0.0
        self.fails = lambda text: "FAIL" in text
        self.refuse, self.cut_after, self.garble = None, None, False
        self.hold.set()

    def all_closed(self) -> bool:
        """Wait until the app's side has said of every plan that it is over."""
        with self._closing:
            return self._closing.wait_for(lambda: all(graph.closed for graph in self.graphs), timeout=10)

    def generated(self) -> list[str]:
        """Every request that was generated for, planned or asked, in no order."""
        return sorted(json.dumps(body, sort_keys=True) for body in self._generated)

    # ---- what it is asked ------------------------------------------------------------------------

    def _routes(self) -> FastAPI:
        app = FastAPI()
        app.get("/v1/parrot")(self._capabilities)
        app.post("/v1/parrot/graphs")(self._submit)
        app.post("/v1/parrot/graphs/{graph_id}/close")(self._close)
        app.post("/v1/chat/completions")(self._chat)
        return app

    async def _capabilities(self) -> dict[str, Any]:
        return {"object": "parrot.capabilities", "v": 1, "version": "0.1.0", "levels": ["plan", "claim"]}

    async def _submit(self, request: Request) -> Response:
        body = await request.json()
        self.posted.append(body)
        if self.refuse is not None:
            return error(self.refuse, "no plans here", "unknown_url" if self.refuse == 404 else None)
        calls = {call["id"]: Call(call["id"], call["request"]) for call in body["calls"]}
        graph = Graph(f"graph-{next(self._numbers)}", body.get("nonce", ""), calls)
        self.graphs.append(graph)
        names = [{"id": call, "variable": f"var-{call}"} for call in calls]
        accepted = {"type": "parrot:accepted", "graph": graph.id, "session": "session-1", "calls": names}
        graph.pushes.put_nowait(accepted)
        graph.tasks = [asyncio.create_task(self._run(graph, call)) for call in calls.values()]
        asyncio.create_task(self._finish(graph))  # noqa: RUF006 - it ends with the graph
        return StreamingResponse(self._events(graph), media_type="text/event-stream")

    async def _events(self, graph: Graph) -> AsyncIterator[bytes]:
        number = 0
        while (push := await graph.pushes.get()) is not None:
            yield f"data: {json.dumps({**push, 'sequence_number': number})}\n\n".encode()
            if number == self.cut_after:
                raise ConnectionResetError("cut")
            number += 1

    async def _close(self, graph_id: str, request: Request) -> dict[str, Any]:
        taken = tuple((await request.json())["taken"])
        self.closes.append((graph_id, taken))
        for graph in self.graphs:
            if graph.id == graph_id:
                graph.taken, graph.closed = taken, True
                for task in graph.tasks:
                    task.cancel()
        with self._closing:
            self._closing.notify_all()
        return {"object": "parrot.graph.closed", "taken": len(taken), "claimed": 0, "cancelled": 0, "wasted_tokens": 0}

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(body)
        hint = body.pop("parrot", None) or {}
        streamed, options = body.pop("stream", False), body.pop("stream_options", None) or {}
        call = self._claimed(hint, body)
        receipt = {"parrot": {"claimed": call is not None}} if hint else {}
        if call is not None:
            await call.done.wait()
            failure, text = call.failure, call.text
        else:
            failure, text = await self._generate(body)
        if failure is not None:
            return error(500, failure, "engine_error")
        completion = self._completion(body, text or "") | receipt
        if not streamed:
            return JSONResponse(completion)
        return StreamingResponse(self._chunks(completion, options), media_type="text/event-stream")

    # ---- what it does ----------------------------------------------------------------------------

    def _claimed(self, hint: dict[str, Any], body: dict[str, Any]) -> Call | None:
        for graph in self.graphs:
            call = graph.calls.get(hint.get("claim", ""))
            if call is None or graph.closed:
                continue
            same = call.body == body and call.nonce in (None, hint["nonce"])
            if same:
                call.nonce, call.claimed = hint["nonce"], True
                return call
        return None

    async def _run(self, graph: Graph, call: Call) -> None:
        try:
            body = await self._resolved(graph, call.request)
            call.body = body
            call.failure, call.text = await self._generate(body)
            call.generated = True
        except UpstreamFailed as reason:
            call.failure = str(reason)
        call.done.set()
        if call.failure is not None:
            problem = {"message": call.failure, "type": "server_error", "param": None, "code": "engine_error"}
            graph.pushes.put_nowait({"type": "parrot:failed", "call": call.id, "error": problem})
        else:
            pushed = {**body, "seed": 12345} if self.garble else body
            completion = self._completion(body, call.text or "")
            graph.pushes.put_nowait(
                {"type": "parrot:call", "call": call.id, "request": pushed, "completion": completion}
            )

    async def _finish(self, graph: Graph) -> None:
        await asyncio.gather(*graph.tasks, return_exceptions=True)
        graph.pushes.put_nowait({"type": "parrot:done", "graph": graph.id, "wasted_tokens": 0})
        graph.pushes.put_nowait(None)

    async def _resolved(self, graph: Graph, request: dict[str, Any]) -> dict[str, Any]:
        messages = []
        for message in request["messages"]:
            content = message["content"]
            if isinstance(content, list) and any(part["type"] == "parrot:ref" for part in content):
                pieces = []
                for part in content:
                    if part["type"] == "text":
                        pieces.append(part["text"])
                        continue
                    upstream = graph.calls[part["call"]]
                    await upstream.done.wait()
                    if upstream.text is None:
                        raise UpstreamFailed(f"the call that {upstream.id} reads has failed")
                    pieces.append(upstream.text)
                content = "".join(pieces)
            messages.append({**message, "content": content})
        return {**request, "messages": messages}

    async def _generate(self, body: dict[str, Any]) -> tuple[str | None, str | None]:
        prompt = str(body["messages"][-1]["content"])
        self.generations.append(prompt)
        self._generated.append(body)
        while not self.hold.is_set():  # noqa: ASYNC110 - set from the test's thread
            await asyncio.sleep(0.002)
        await asyncio.sleep(self.delay(prompt))
        if self.fails(prompt):
            return f"the engine failed on {prompt[:20]!r}", None
        return None, answer_to(body)

    def _completion(self, body: dict[str, Any], text: str) -> dict[str, Any]:
        prompt = sum(len(str(message["content"])) for message in body["messages"])
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": body.get("model", "tiny"),
            "system_fingerprint": "fp",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text, "refusal": None},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": prompt, "completion_tokens": len(text), "total_tokens": prompt + len(text)},
        }

    async def _chunks(self, completion: dict[str, Any], options: dict[str, Any]) -> AsyncIterator[bytes]:
        text = completion["choices"][0]["message"]["content"]
        head = {name: completion[name] for name in ("id", "created", "model", "system_fingerprint")}
        head["object"] = "chat.completion.chunk"
        deltas: list[tuple[dict[str, Any], str | None]] = [({"role": "assistant", "content": ""}, None)]
        deltas += [({"content": text[at : at + 4]}, None) for at in range(0, len(text), 4)]
        deltas += [({}, "stop")]
        receipt = {"parrot": completion["parrot"]} if "parrot" in completion else {}
        for number, (delta, finish) in enumerate(deltas):
            last = receipt if number == len(deltas) - 1 else {}
            choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
            yield f"data: {json.dumps({**head, 'choices': [choice], **last})}\n\n".encode()
            await asyncio.sleep(0)
        if options.get("include_usage"):
            yield f"data: {json.dumps({**head, 'choices': [], 'usage': completion['usage']})}\n\n".encode()
        yield b"data: [DONE]\n\n"

    # ---- life ------------------------------------------------------------------------------------

    @contextmanager
    def running(self) -> Iterator[PlanServer]:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
            server = uvicorn.Server(uvicorn.Config(self.app, log_level="critical", lifespan="off"))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
            thread.start()
            try:
                while not server.started:
                    threading.Event().wait(0.005)
                yield self
            finally:
                self.hold.set()
                server.should_exit = server.force_exit = True
                thread.join(10)

    @property
    def planned(self) -> int:
        return sum(len(graph.calls) for graph in self.graphs)

    @property
    def wasted(self) -> int:
        """Planned calls that were generated and that nobody took."""
        return sum(
            call.generated and not call.claimed and call.id not in graph.taken
            for graph in self.graphs
            for call in graph.calls.values()
        )


class UpstreamFailed(Exception):
    pass
