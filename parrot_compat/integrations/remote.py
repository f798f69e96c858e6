"""The client's end of a server: where it is, and the HTTP clients that speak to it.

It knows the openai SDK and nothing of LangChain or LlamaIndex. Clients live here, in registries keyed by
endpoint, and never inside a framework's objects: those are pickled, copied and moved between threads,
processes and event loops, which an open connection cannot follow.

The invariant: an asynchronous client is only ever used in the event loop it was made in, and any client only
in the process it was made in.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import weakref
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast
from urllib.parse import urlsplit

import openai

from .process_lock import ProcessLock

__all__ = [
    "DEFAULT_BASE_URL",
    "Endpoint",
    "async_client",
    "client",
    "environment_api_key",
    "environment_base_url",
    "model_card",
    "token_ids",
]

DEFAULT_BASE_URL = "http://127.0.0.1:8000/v1"
CONNECT_TIMEOUT_S = 10.0
CARD_TIMEOUT_S = 5.0
CLIENTS_KEPT = 64


def environment_base_url() -> str:
    """Where an app's server is that says nothing of it. A variable that is empty is not set."""
    return os.environ.get("PARROT_BASE_URL") or DEFAULT_BASE_URL


def environment_api_key() -> str:
    """The SDK sends no request without a key: `none` is one that a server without keys takes."""
    return os.environ.get("PARROT_API_KEY") or "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server as one app reaches it. Equal endpoints share connections."""

    base_url: str
    """With the version: `http://127.0.0.1:8000/v1`."""
    api_key: str = field(repr=False)
    timeout_s: float | None = None
    """`None` waits as long as the server works; a server that cannot be reached fails within seconds anyway."""
    connect_timeout_s: float | None = None
    """`None`: as long as for anything else, or ten seconds where that has no limit."""
    max_retries: int = 2
    organization: str | None = None
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    query: tuple[tuple[str, object], ...] = field(default=(), repr=False, hash=False)
    """Not hashed: its values may be lists."""

    @property
    def root_url(self) -> str:
        """Where the paths outside OpenAI's API begin (`/tokenize`, `/health`)."""
        return self.base_url.rstrip("/").removesuffix("/v1")

    @property
    def server(self) -> Endpoint:
        """The server, and who asks it, whatever the patience of who asks. Texts of one call can go into another
        where this is equal."""
        return replace(self, timeout_s=None, connect_timeout_s=None, max_retries=0)

    @property
    def is_local(self) -> bool:
        """On this machine, where a proxy that the environment names for the outside world has no business."""
        host = urlsplit(self.base_url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    def arguments(self) -> dict[str, Any]:
        """What the SDK's client is made with."""
        connect_s = self.connect_timeout_s or self.timeout_s or CONNECT_TIMEOUT_S
        return {
            "base_url": self.base_url,
            "api_key": self.api_key,
            # How long a request waits for a connection of ours to be free says nothing about the server.
            "timeout": openai.Timeout(self.timeout_s, connect=connect_s, pool=None),
            "max_retries": self.max_retries,
            "organization": self.organization,
            "default_headers": dict(self.headers) or None,
            "default_query": dict(self.query) or None,
        }


_lock = ProcessLock()
_clients: OrderedDict[tuple[int, Endpoint], openai.OpenAI] = OrderedDict()
_async_clients: dict[asyncio.AbstractEventLoop, OrderedDict[Endpoint, _LoopClient]] = {}


def client(endpoint: Endpoint) -> openai.OpenAI:
    """The client for this endpoint in this process; threads share it."""
    key = (os.getpid(), endpoint)  # a forked child must not write into its parent's connections
    with _lock:
        found = _clients.get(key)
        if found is None:
            transport = openai.DefaultHttpxClient(trust_env=not endpoint.is_local)
            found = _clients[key] = openai.OpenAI(http_client=transport, **endpoint.arguments())
            weakref.finalize(found, transport.close)
        _clients.move_to_end(key)
        while len(_clients) > CLIENTS_KEPT:
            # Not closed here: a call may still be using it. It is closed when nobody holds it any more.
            _clients.popitem(last=False)
    return found


async def async_client(endpoint: Endpoint) -> openai.AsyncOpenAI:
    """The client for this endpoint in the running event loop. It is closed when the loop shuts down."""
    loop = asyncio.get_running_loop()
    with _lock:
        for closed in [known for known in _async_clients if known.is_closed()]:
            del _async_clients[closed]
        clients = _async_clients.setdefault(loop, OrderedDict())
    found = clients.get(endpoint)
    if found is None:
        found = clients[endpoint] = _LoopClient(endpoint)
        await found.guard.__anext__()
    clients.move_to_end(endpoint)
    while len(clients) > CLIENTS_KEPT:
        clients.popitem(last=False)
    return found.client


class _LoopClient:
    """An asynchronous client that its loop closes.

    A loop closes the asynchronous generators begun in it before it ends (`shutdown_asyncgens`, which
    `asyncio.run` calls): the one public hook at which connections can still be closed in their own loop.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        # The SDK's own transport closes itself in whichever loop runs when it is collected; this one does not.
        transport = openai.DefaultAsyncHttpxClient(trust_env=not endpoint.is_local)
        self.client = openai.AsyncOpenAI(http_client=transport, **endpoint.arguments())
        self.guard = self._close_at_the_end(self.client)
        # A call may still be using it when it is not kept here any more: the guard goes when the client does.
        self.client.parrot_guard = self.guard  # type: ignore[attr-defined]

    @staticmethod
    async def _close_at_the_end(client: openai.AsyncOpenAI) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await client.close()


def token_ids(
    endpoint: Endpoint,
    model: str | None,
    content: str | list[dict[str, Any]],
    tools: Sequence[Mapping[str, Any]] = (),
) -> list[int]:
    """Ids, from the server, that a raw prompt or a conversation would run as: a raw prompt with the special tokens
    that its tokenizer begins texts with, a conversation with everything its chat template adds."""
    body: dict[str, Any] = {"model": model} if model else {}
    body |= {"prompt": content} if isinstance(content, str) else {"messages": content}
    if tools:
        body["tools"] = list(tools)
    url = f"{endpoint.root_url}/tokenize"
    try:
        answer = client(endpoint).post(url, cast_to=object, body=body)
    except openai.NotFoundError as error:
        if error.code != "model_not_found":
            error.add_note(f"{url} is where tokens are counted, and this server does not have it")
        raise
    return list(cast("Mapping[str, Any]", answer)["tokens"])


def model_card(endpoint: Endpoint, model: str | None) -> Mapping[str, Any] | None:
    """What `/v1/models` says of a model (of the first one where none is named); `None` if nothing can be learned."""
    try:
        page = client(endpoint).with_options(timeout=CARD_TIMEOUT_S, max_retries=0).models.list()
    except openai.APIError:
        return None
    cards = [card.model_dump() for card in page.data or ()]  # some answer every path with something else
    return next((card for card in cards if model is None or card["id"] == model), None)
