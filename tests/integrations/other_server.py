"""Another server: it speaks OpenAI's wire, does what a test tells it and keeps what it was sent.

ChatParrot promises to work with any such server. This one shows the bytes that left the client, gives the
answers that ours does not give yet (tool calls, faults inside a stream), and can hold requests back.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.integrations.strangers import is_a_stranger


@dataclass(frozen=True)
class Request:
    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]

    @property
    def text(self) -> str:
        return str(self.body["messages"][-1]["content"])


@dataclass(frozen=True)
class Reply:
    """`events` makes it a stream: objects become `data:` lines. `cut` breaks the connection after them."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    events: Iterator[Any] | None = None
    cut: bool = False


def completion(
    text: str | None = "hello", model: str = "other-model", finish: str = "stop", **message: Any
) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "system_fingerprint": "fp_1",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
        ],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 3,
            "total_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 4},
        },
    }


def chunk(finish: str | None = None, usage: dict[str, Any] | None = None, **delta: Any) -> dict[str, Any]:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}] if usage is None else []
    event = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "other-model"}
    return {**event, "choices": choices, **({"usage": usage} if usage else {})}


def echo(request: Request) -> Reply:
    """What it does unless told otherwise: say the last message back, in pieces if a stream is asked for."""
    if request.path.partition("?")[0].endswith("/chat/completions"):
        answer = completion(f"you said {request.text}", request.body.get("model", "other-model"))
        if not request.body.get("stream"):
            return Reply(answer)
        words = [chunk(content=word) for word in ("you ", "said ", request.text)]
        usage = [chunk(usage=answer["usage"])] if request.body.get("stream_options") else []
        return Reply(events=iter([chunk(role="assistant", content=""), *words, chunk("stop"), *usage]))
    return Reply(
        {"error": {"message": "no such path", "type": "invalid_request_error", "param": None, "code": None}}, 404
    )


class OtherServer:
    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answer: Callable[[Request], Reply] = echo
        self.capabilities = Reply({"detail": "Not Found"}, 404)
        """It has never heard of plans, whatever a test makes it answer to requests."""
        self.client_left = threading.Event()
        self.connections = 0

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            other = self

            def setup(self) -> None:
                super().setup()
                self.other.connections += 1

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                self._answer(Request(self.path, {name.lower(): value for name, value in self.headers.items()}, {}))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                self._answer(Request(self.path, {name.lower(): value for name, value in self.headers.items()}, body))

            def _answer(self, request: Request) -> None:
                if "/parrot" in request.path:
                    reply = self.other.capabilities
                else:
                    self.other.requests.append(request)
                    reply = self.other.answer(request)
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if reply.events is None:
                    data = json.dumps(reply.body).encode()
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                    return
                self.send_header("content-type", "text/event-stream")
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                self._stream(reply)

            def _stream(self, reply: Reply) -> None:
                try:
                    for event in reply.events or ():
                        self._chunk(f"data: {json.dumps(event)}\n\n".encode())
                    if not reply.cut:
                        self._chunk(b"data: [DONE]\n\n")
                        self._chunk(b"")
                except (BrokenPipeError, ConnectionResetError):
                    self.other.client_left.set()
                    self.close_connection = True
                if reply.cut:
                    self.close_connection = True

            def _chunk(self, data: bytes) -> None:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.flush()

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128  # a group of calls arrives at once

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that leaves is what some tests are about; nothing needs to be printed."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @contextmanager
    def running(self) -> Iterator[OtherServer]:
        is_a_stranger(self.url)
        thread = threading.Thread(target=self._server.serve_forever, args=(0.005,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    @property
    def last(self) -> Request:
        return self.requests[-1]
