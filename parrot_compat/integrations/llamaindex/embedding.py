"""`ParrotEmbedding`: LlamaIndex's embedding model of a parrot_compat server, or of any OpenAI-compatible one.

It knows LlamaIndex's interface and `/v1/embeddings`. The invariant: the vectors of one batch come back in the order of
its texts, whatever order the server answers in.
"""

from __future__ import annotations

from typing import Any

import openai
from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from llama_index.core.bridge.pydantic import Field
from openai.types import CreateEmbeddingResponse

from parrot_compat.integrations import remote
from parrot_compat.integrations.errors import sdk_errors

from .settings import Connection

__all__ = ["ParrotEmbedding"]


class ParrotEmbedding(Connection, BaseEmbedding):
    """Takes the place of LlamaIndex's `OpenAIEmbedding`.

    ```python
    Settings.embed_model = ParrotEmbedding(base_url="http://127.0.0.1:8000/v1")
    ```
    """

    model: str | None = None
    """Served model; not given: the server's first."""
    dimensions: int | None = None
    """Of shortened vectors, where the server shortens them."""
    additional_kwargs: dict[str, Any] = Field(default_factory=dict)
    """More parameters of every request."""

    def __init__(self, **given: Any) -> None:
        if given.get("model") is None and given.get("model_name") not in (None, "unknown"):
            given["model"] = given["model_name"]  # as LlamaIndex's own classes are told
        if given.get("model") is not None:
            given["model_name"] = given["model"]
        super().__init__(**given)

    @classmethod
    def class_name(cls) -> str:
        return "parrot_embedding"

    def _get_query_embedding(self, query: str) -> Embedding:
        return self._get_text_embeddings([query])[0]

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return (await self._aget_text_embeddings([query]))[0]

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        with sdk_errors():
            return _vectors(remote.client(self._endpoint).embeddings.create(**self._request(texts)))

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        with sdk_errors():
            client = await remote.async_client(self._endpoint)
            return _vectors(await client.embeddings.create(**self._request(texts)))

    def _request(self, texts: list[str]) -> dict[str, Any]:
        return {
            "input": texts,
            "model": self.model or openai.omit,
            "dimensions": self.dimensions or openai.omit,
            "encoding_format": "float",
            "extra_body": self.additional_kwargs,
        }


def _vectors(answer: CreateEmbeddingResponse) -> list[Embedding]:
    return [found.embedding for found in sorted(answer.data, key=lambda found: found.index)]
