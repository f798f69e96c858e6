"""`ParrotEmbeddings`: the vectors of a server's `/embeddings`, as LangChain's `Embeddings`.

It knows LangChain's interface and the SDK's `embeddings`. Texts are sent as they are: nothing is cut, cleaned or
averaged here, and a text that is too long for the model is the server's error.

The invariant: one vector for each text, in the order of the texts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import openai
from langchain_core.embeddings import Embeddings
from openai.types import CreateEmbeddingResponse
from pydantic import Field

from parrot_compat.integrations import remote
from parrot_compat.integrations.requests import TRANSPORT

from .connection import CALL_SYNONYMS, ParrotConnection
from .errors import sdk_errors
from .groups import run_together

__all__ = ["ParrotEmbeddings"]


class ParrotEmbeddings(ParrotConnection, Embeddings):
    """Takes the place of `OpenAIEmbeddings`: same arguments, same methods, another server.

    ```python
    store = InMemoryVectorStore.from_texts(chapters, ParrotEmbeddings(base_url="http://127.0.0.1:8000/v1"))
    ```
    """

    dimensions: int | None = Field(default=None, ge=1)
    """Of each vector; not given: the model's own."""
    chunk_size: int = Field(default=256, ge=1)
    """Texts of one request; a longer list is several requests at once."""

    def embed_documents(self, texts: list[str], chunk_size: int | None = None, **kwargs: Any) -> list[list[float]]:
        """`kwargs` are more fields of the requests."""
        chunks = list(self._chunks(texts, chunk_size))
        vectors = run_together(len(chunks), lambda index: self._asked(chunks[index], kwargs)) if chunks else []
        return [vector for some in vectors for vector in some]

    def embed_query(self, text: str, **kwargs: Any) -> list[float]:
        return self._asked([text], kwargs)[0]

    async def aembed_documents(
        self, texts: list[str], chunk_size: int | None = None, **kwargs: Any
    ) -> list[list[float]]:
        asking = [asyncio.create_task(self._aasked(chunk, kwargs)) for chunk in self._chunks(texts, chunk_size)]
        try:
            return [vector for some in await asyncio.gather(*asking) for vector in some]
        finally:  # the first failure is the app's; what it makes needless is not asked any more
            for request in asking:
                request.cancel()

    async def aembed_query(self, text: str, **kwargs: Any) -> list[float]:
        return (await self._aasked([text], kwargs))[0]

    # ---- inside ------------------------------------------------------------------------------------------

    def _chunks(self, texts: Sequence[str], chunk_size: int | None) -> Iterator[list[str]]:
        size = chunk_size or self.chunk_size
        for start in range(0, len(texts), size):
            yield list(texts[start : start + size])

    def _request(self, texts: list[str], given: Mapping[str, Any]) -> dict[str, Any]:
        own = {} if self.dimensions is None else {"dimensions": self.dimensions}
        asked = {CALL_SYNONYMS.get(name, name): value for name, value in given.items()}
        transport = {name: asked.pop(name) for name in TRANSPORT if name in asked}
        asked |= asked.pop("extra_body", None) or {}
        said = {name: value for name, value in asked.items() if value is not None}
        more = {**self.model_kwargs, **(self.extra_body or {}), **own, **said}
        # plain numbers: the SDK would ask for base64, which not every server can
        return {
            "input": texts,
            "model": more.pop("model", self.model_name) or openai.omit,
            "encoding_format": "float",
            "extra_body": more,
            **transport,
        }

    def _asked(self, texts: list[str], given: Mapping[str, Any]) -> list[list[float]]:
        create = partial(remote.client(self._endpoint).embeddings.create, **self._request(texts, given))
        with sdk_errors():
            return _vectors(create())

    async def _aasked(self, texts: list[str], given: Mapping[str, Any]) -> list[list[float]]:
        client = await remote.async_client(self._endpoint)
        with sdk_errors():
            return _vectors(await client.embeddings.create(**self._request(texts, given)))


def _vectors(answer: CreateEmbeddingResponse) -> list[list[float]]:
    return [item.embedding for item in sorted(answer.data, key=lambda item: item.index)]
