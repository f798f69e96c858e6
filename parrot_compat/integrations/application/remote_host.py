"""A server as the host of an app: the verbs of `Host` as requests to `/v1/parrot/sessions`.

It knows the wire and the openai SDK's connections, and nothing of templates or of who waits for what.

The invariant: a request whose answer was lost is sent again only where that changes nothing on the server: where it
reads, or carries an id that the server knows it by.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast
from urllib.parse import quote

import openai

from parrot_compat.core.call import ObjectiveKind
from parrot_compat.core.errors import ParrotError, UnknownSession
from parrot_compat.core.shown import shown_url
from parrot_compat.integrations.chunks import chunks
from parrot_compat.integrations.remote import Endpoint, async_client, environment_api_key, environment_base_url

from .application import Application
from .host import NotAParrotServer, ServerUnreachable
from .remote_errors import error_of, tree_errors
from .request import Bound, Request

__all__ = ["RemoteHost", "connect"]

_PAUSES_S = (0.1, 0.5)
"""Before a request is sent again whose answer was lost on the way."""

_LAST_WORD_S = 5.0
"""For telling a server what still runs there and is not wanted: when the application closes, or after a lost answer."""


def connect(
    base_url: str | None = None,
    *,
    api_key: str | None = None,
    timeout_s: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> Application:
    """The application that a server runs. What is not given comes from `PARROT_BASE_URL` and `PARROT_API_KEY`.

    `timeout_s` is how long the server may be silent; `None` waits as long as it works.
    """
    endpoint = Endpoint(
        base_url=base_url or environment_base_url(),
        api_key=api_key or environment_api_key(),
        timeout_s=timeout_s,
        max_retries=0,
        headers=tuple((headers or {}).items()),
    )
    return Application(RemoteHost(endpoint), name=f"application at {shown_url(endpoint.base_url)}")


class RemoteHost:
    """Implements `Host`."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._root = f"{endpoint.root_url}/v1/parrot/sessions"
        self._open: set[str] = set()

    async def start(self) -> None:
        """Nothing: a server that is not there is told of by the first request."""

    async def close(self) -> None:
        """Sessions that somebody still holds; connections are closed by their loop."""
        with suppress(TimeoutError):  # the server is gone or busy: it forgets them by itself
            async with asyncio.timeout(_LAST_WORD_S):
                await asyncio.gather(*map(self.close_session, tuple(self._open)), return_exceptions=True)

    # ---- sessions --------------------------------------------------------------------------------------

    async def open_session(self, name: str | None, ttl_s: float | None) -> str:
        body = {"name": name, "ttl_s": ttl_s}
        id = _id(await self._ask("POST", "", {field: value for field, value in body.items() if value is not None}))
        self._open.add(id)
        return id

    async def close_session(self, session: str) -> None:
        try:
            await self._ask("DELETE", _path(session))
        except UnknownSession:
            self._open.discard(session)
            raise
        self._open.discard(session)

    async def cancel(self, session: str) -> None:
        await self._ask("POST", _path(session, "cancel"), {})

    async def describe(self, session: str) -> dict[str, Any]:
        return dict(await self._ask("GET", _path(session)))

    # ---- calls -----------------------------------------------------------------------------------------

    async def submit(
        self, session: str, request: Request, bindings: Sequence[Mapping[str, str | Bound]]
    ) -> list[dict[str, str]]:
        body: dict[str, Any] = {
            "template": request.template,
            "form": request.form,
            "function": request.function,
            "model": request.model,
            "objective": request.objective,
            "outputs": {name: request.output(name).wire() for name in request.parsed.outputs},
        }
        given = {field: value for field, value in body.items() if value is not None}
        many = [{name: _binding(value) for name, value in bound.items()} for bound in bindings]
        variables: list[dict[str, str]] = []
        sent: list[str] = []
        try:
            for some in chunks(many, len(request.parsed.outputs)):
                sent.append(uuid.uuid4().hex)
                body = {**given, "bindings": some, "id": sent[-1]}
                answer = await self._ask("POST", _path(session, "calls"), body, is_repeatable=True)
                variables += [dict(made) for made in answer["variables"]]
        except Exception as error:
            # some were accepted, or may have been where an answer was lost: it is all of them or none
            if variables or isinstance(error, ServerUnreachable):
                await self._take_back(session, sent)
            raise
        return variables

    async def _take_back(self, session: str, requests: Sequence[str]) -> None:
        """End what these have begun, as far as the server can be told."""
        with suppress(ParrotError, TimeoutError):
            async with asyncio.timeout(_LAST_WORD_S):
                await self._ask("POST", _path(session, "cancel"), {"requests": requests}, is_repeatable=True)

    # ---- variables -------------------------------------------------------------------------------------

    async def add_variable(self, session: str, name: str | None, text: str | None) -> str:
        body = {"name": name, "text": text}
        given = {field: value for field, value in body.items() if value is not None}
        return _id(await self._ask("POST", _path(session, "variables"), given))

    async def write(self, session: str, variable: str, text: str) -> None:
        await self._ask("PUT", _path(session, "variables", variable), {"text": text})

    async def read(self, session: str, variable: str, *, wait_s: float, objective: ObjectiveKind | None) -> str | None:
        silence_s = self._endpoint.timeout_s  # the server must not be silent for longer because we asked it to wait
        asked: dict[str, object] = {
            "wait": wait_s if silence_s is None else min(wait_s, silence_s / 2), **_purpose(objective)
        }  # fmt: skip
        answer = await self._ask("GET", _path(session, "variables", variable), query=asked)
        if answer["state"] == "failed":
            raise error_of(answer["error"], status=200)
        return answer["text"] if answer["state"] == "ready" else None

    async def stream(self, session: str, variable: str, *, objective: ObjectiveKind | None) -> AsyncGenerator[str]:
        client = await async_client(self._endpoint)
        url = self._root + _path(session, "variables", variable, "stream")
        with tree_errors():
            events = await client.get(
                url,
                cast_to=object,
                stream=True,
                stream_cls=openai.AsyncStream[object],
                options={"params": _purpose(objective)},
            )
            async with events:
                async for event in events:
                    match cast("Mapping[str, Any]", event):
                        case {"type": "parrot:chunk", "text": str(text)}:
                            yield text
                        case {"type": "parrot:done"}:
                            return
        raise ServerUnreachable("the stream of the variable ended before its text did")

    # ---- inside ----------------------------------------------------------------------------------------

    async def _ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, object] | None = None,
        is_repeatable: bool = False,
    ) -> Mapping[str, Any]:
        for pause_s in _PAUSES_S if is_repeatable or method == "GET" else ():
            with suppress(ServerUnreachable):
                return await self._once(method, path, body, query)
            await asyncio.sleep(pause_s)
        return await self._once(method, path, body, query)

    async def _once(
        self, method: str, path: str, body: object, query: Mapping[str, object] | None
    ) -> Mapping[str, Any]:
        client = await async_client(self._endpoint)
        with tree_errors():
            match method:
                case "GET":
                    answer = await client.get(self._root + path, cast_to=object, options={"params": query or {}})
                case "POST":
                    answer = await client.post(self._root + path, cast_to=object, body=body)
                case "PUT":
                    answer = await client.put(self._root + path, cast_to=object, body=body)
                case _:
                    answer = await client.delete(self._root + path, cast_to=object)
        if not isinstance(answer, Mapping):
            raise NotAParrotServer(f"{self._root}{path} answered {answer!r:.80}")
        return answer


def _path(*steps: str) -> str:
    return "".join("/" + quote(step, safe="") for step in steps)


def _purpose(objective: ObjectiveKind | None) -> dict[str, object]:
    return {} if objective is None else {"objective": objective}


def _binding(value: str | Bound) -> object:
    if isinstance(value, str):
        return value
    transform = {"transform": list(value.transforms)} if value.transforms else {}
    return {"variable": value.variable, **transform}


def _id(answer: Mapping[str, Any]) -> str:
    found = answer.get("id")
    if not isinstance(found, str):
        raise NotAParrotServer(f"it answered {answer!r:.80} where an id was expected")
    return found
