"""Any OpenAI-compatible server (vLLM, SGLang, llama.cpp, …) as a text engine.

It knows nothing of how that server tokenises, caches or schedules: contexts are advisory (filling, truncating and
freeing do nothing there, every generate sends its whole prompt), and exactness is the server's own.

    engine = await OpenAIServerEngine.connect("http://127.0.0.1:8001/v1")

The invariant: whoever reads an answer gets its end or an error of ours. What the server says is wrong with a request
is the caller's; a server that cannot be reached is a lost engine.
"""

from __future__ import annotations

import asyncio
import ipaddress
import sys
from array import array
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

import openai

from ..engine import Chunk, ContextId, Embed, Embedded, EngineInfo, EngineLoad, Fill, Filled, Generate
from ..errors import BadPrompt, EngineError, EngineLost, NoEngineForModel
from ..prompt import Chat
from ..shown import shown_error, shown_url
from .openai_answers import AnswerReader
from .openai_requests import chat_request, completion_request, embedding_request, is_refusal, our_error, usage_of

__all__ = ["OpenAIServerEngine", "Upstream"]

Result = TypeVar("Result")

_NO_KEY = "none"  # the SDK wants a key; servers without keys ignore it
_MOST_CALLS = 900
"""With the server at a time, of the 1,000 connections that the SDK opens: what waits for one waits in no tenant's turn,
and fails after `silence_s`. The others are for embeddings and looks. What is more waits in our queue."""
_REFUSALS = 3  # in a row: one alone may be a proxy that is just reading its configuration again


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """Where a server is, and how long it may be silent."""

    base_url: str = field(repr=False)
    api_key: str | None = field(default=None, repr=False)
    connect_s: float = 5.0
    """A server that is there answers a connection at once."""
    silence_s: float = 600.0
    """Between two events of an answer: a long prompt keeps even a good server busy for minutes."""
    look_s: float = 5.0
    """While nothing runs there: so often it is asked for its models, to know that it is there."""

    @property
    def is_local(self) -> bool:
        """On this machine, where a proxy that the environment names for the outside world has no business."""
        host = urlsplit(self.base_url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    def client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self.api_key or _NO_KEY,
            max_retries=0,  # the manager decides what is tried again, and where
            timeout=openai.Timeout(self.silence_s, connect=self.connect_s),
            http_client=openai.DefaultAsyncHttpxClient(trust_env=not self.is_local),
        )


class OpenAIServerEngine:
    """Made by `connect`. Several may share one server, one for each model."""

    def __init__(self, client: openai.AsyncOpenAI, info: EngineInfo, look_s: float) -> None:
        self._client = client
        self._info = info
        self._look_s = look_s
        self._running = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._reading: set[asyncio.Future[Any]] = set()
        self._closed = asyncio.Event()

    @classmethod
    async def connect(
        cls, upstream: Upstream | str, *, model: str | None = None, name: str | None = None
    ) -> OpenAIServerEngine:
        """An engine for `model`, or for the first one that the server lists; `name` is the engine's in the fleet.

        Errors: `EngineLost` (nobody answers), `NoEngineForModel`, `EngineError`.
        """
        upstream = Upstream(base_url=upstream) if isinstance(upstream, str) else upstream
        url = shown_url(upstream.base_url)
        try:
            client = upstream.client()
        except Exception as error:  # of the HTTP library that the SDK has
            raise EngineError(f"{url!r} is no URL of a server: {shown_error(error)}") from error
        try:
            listed = await _listed(client, url, name or url)
            chosen = listed.get(model) if model is not None else next(iter(listed.values()), None)
            if chosen is None:
                served = ", ".join(map(repr, listed)) or "nothing"
                raise NoEngineForModel(f"{url} does not list {model!r}; it lists {served}")
        except BaseException:
            await client.close()
            raise
        limit = (chosen.model_extra or {}).get("max_model_len")
        info = EngineInfo(
            name=name or f"{url} {chosen.id}",
            model=chosen.id,
            context_tokens=limit if isinstance(limit, int) and limit > 0 else sys.maxsize,  # it will say so by itself
            takes="text",
            max_rows=_MOST_CALLS,
            obeys_formats=True,  # or says that it does not
        )
        return cls(client, info, upstream.look_s)

    # ---- the port --------------------------------------------------------------------------------------

    @property
    def info(self) -> EngineInfo:
        return self._info

    async def fill(self, fill: Fill) -> Filled:
        """Nothing is held there that we could name: the server's own prefix cache does what it does."""
        self._must_be_open()
        return Filled(tokens=0, cached_tokens=0)

    async def generate(self, generate: Generate) -> AsyncGenerator[Chunk, None]:
        self._must_be_open()
        if generate.sampling.prompt_logprobs is not None:
            raise BadPrompt("another server does not tell log probabilities of a prompt", param="prompt_logprobs")
        self._began()
        stream: Any = None
        try:
            stream = await self._or_closed(self._ask(generate))
            reader = AnswerReader()
            while (event := await self._or_closed(_next(stream))) is not None:
                if (chunk := reader.read(event)) is not None:
                    yield chunk
            if (last := reader.end()) is None:
                raise EngineError(f"the server behind engine {self._info.name!r} ended without saying why")
            if generate.sampling.logprobs is not None and reader.has_text and not reader.has_logprobs:
                raise EngineError(f"the server behind engine {self._info.name!r} tells no log probabilities")
            yield last
        finally:
            self._over()
            if stream is not None:
                await stream.close()

    async def embed(self, embed: Embed) -> Embedded:
        """What the server's own `/v1/embeddings` gives, pooled and scaled as it does it."""
        self._must_be_open()
        if not embed.inputs:
            return Embedded(vectors=(), prompt_tokens=0)
        request = embedding_request(self._info.model, embed)
        self._began()
        try:
            answer = await self._or_closed(self._client.embeddings.create(**request))
        finally:
            self._over()
        vectors = {one.index: array("f", one.embedding) for one in answer.data}
        if sorted(vectors) != list(range(len(embed.inputs))):
            raise EngineError(f"the server behind engine {self._info.name!r} did not give one vector for each input")
        ordered = tuple(vectors[index] for index in sorted(vectors))
        return Embedded(vectors=ordered, prompt_tokens=usage_of(answer.usage).prompt_tokens)

    async def truncate(self, context: ContextId, tokens: int) -> None:
        self._must_be_open()

    async def free(self, context: ContextId) -> None:
        self._must_be_open()

    def load(self) -> EngineLoad:
        """What we have there; others may use the server too."""
        return EngineLoad(running=self._running)

    async def close(self) -> None:
        self._closed.set()
        for reading in self._reading:
            reading.cancel()
        await self._client.close()

    async def retire(self) -> None:
        """Close once the answers that run here have ended: the connection that broke was one of them only."""
        try:
            await self._is_idle.wait()
        finally:
            await self.close()

    async def lost(self) -> EngineLost:
        """When nobody is at the server's address, or this was closed. A server that is slow or answers with an error is
        there. While it has calls of ours it is not looked for: one of them that breaks tells."""
        refusals = 0
        while refusals < _REFUSALS:
            try:
                async with asyncio.timeout(self._look_s):
                    await self._closed.wait()
                return EngineLost(f"engine {self._info.name!r} was closed")
            except TimeoutError:
                if self._is_idle.is_set():
                    refusals = refusals + 1 if await self._is_refused() else 0
        return EngineLost(f"the server behind engine {self._info.name!r} cannot be reached: nobody is there")

    # ---- inside ----------------------------------------------------------------------------------------

    def _began(self) -> None:
        self._running += 1
        self._is_idle.clear()

    def _over(self) -> None:
        self._running -= 1
        if not self._running:
            self._is_idle.set()

    async def _ask(self, generate: Generate) -> Any:
        info, content = self._info, generate.content
        if isinstance(content, Chat):
            chat = chat_request(info.model, content, generate.sampling, info.context_tokens, generate.is_parallel)
            return await self._client.chat.completions.create(**chat)
        completion = completion_request(info.model, content, generate.sampling, info.context_tokens)
        return await self._client.completions.create(**completion)

    async def _or_closed(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Wait for the server, or for our own `close`, whichever comes first."""
        reading = asyncio.ensure_future(work)
        self._reading.add(reading)
        try:
            await asyncio.wait((reading,))  # close cancels the reading, not us
        except asyncio.CancelledError:
            await _hang_up(reading)
            raise
        finally:
            self._reading.discard(reading)
            if not reading.done():
                reading.cancel()
                await asyncio.wait((reading,))  # the stream under it cannot be closed while it is being read
        self._must_be_open()
        try:
            return reading.result()
        except asyncio.CancelledError:
            raise EngineLost(f"the connection to engine {self._info.name!r} was given up") from None
        except Exception as error:
            raise our_error(self._info.name, error) from error

    async def _is_refused(self) -> bool:
        async def look() -> None:
            await self._client.models.list(timeout=self._look_s)

        try:
            await self._or_closed(look())
        except EngineLost as loss:
            return is_refusal(loss.__cause__)
        except Exception:
            return False  # whatever it says, it is there
        return False

    def _must_be_open(self) -> None:
        if self._closed.is_set():
            raise EngineLost(f"engine {self._info.name!r} is gone: it was closed")


async def _listed(client: openai.AsyncOpenAI, url: str, name: str) -> dict[str, openai.types.Model]:
    """The models that a server lists, by name. Errors: `EngineLost`, `EngineError` and others of `our_error`."""
    try:
        return {card.id: card for card in (await client.models.list()).data}
    except openai.NotFoundError as error:
        raise _no_list(url) from error
    except openai.OpenAIError as error:
        raise our_error(name, error) from error
    except Exception as error:  # the SDK checks nothing: to it a web page is a str, and any JSON a list of models
        raise _no_list(url) from error


def _no_list(url: str) -> EngineError:
    return EngineError(f"{url} does not list models as OpenAI's API does; does the URL end in /v1?")


async def _hang_up(reading: asyncio.Future[Any]) -> None:
    """Of what has come in the turn in which its reader was cancelled, nobody else knows."""
    if reading.done() and not reading.cancelled() and reading.exception() is None:
        close = getattr(reading.result(), "close", None)
        if close is not None:
            await close()


async def _next(stream: Any) -> Any:
    """The next event of an answer, `None` after the last."""
    return await anext(stream, None)
