"""ParrotEmbeddings, with langchain-tests' own suites, against a server that computes vectors of texts."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from parrot_compat.integrations.langchain import ParrotEmbeddings
from parrot_compat.integrations.langchain.errors import ParrotConnectionError, ParrotNotFoundError

from ..other_server import OtherServer, Reply, Request
from ..served import MODELS, Served


def vector(text: str, size: int) -> list[float]:
    """Of its words: texts with the same words are near each other."""
    drawn = [0.0] * size
    for word in text.lower().split():
        drawn[hashlib.sha1(word.encode()).digest()[0] % size] += 1.0
    return drawn


def embedded(request: Request) -> Reply:
    if not request.path.endswith("/embeddings"):
        return Reply({"error": {"message": "no such path", "type": "x", "param": None, "code": None}}, 404)
    size = request.body.get("dimensions", 64)
    data = [
        {"object": "embedding", "index": index, "embedding": vector(text, size)}
        for index, text in enumerate(request.body["input"])
    ]
    # a server need not keep the order: the index says which is which
    return Reply({"object": "list", "model": "e", "data": data[::-1], "usage": {"prompt_tokens": 1, "total_tokens": 1}})


@pytest.fixture
def vectors(other: OtherServer) -> Iterator[OtherServer]:
    other.answer = embedded
    yield other


class TestStandardUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return ParrotEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "some-model"}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        environment = {"PARROT_API_KEY": "the key", "PARROT_BASE_URL": "http://elsewhere:1/v1"}
        return environment, {}, {"api_key": "the key", "base_url": "http://elsewhere:1/v1"}


class TestStandardIntegration(EmbeddingsIntegrationTests):
    @pytest.fixture(autouse=True)
    def _at_a_server(self, vectors: OtherServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PARROT_BASE_URL", vectors.url)

    @property
    def embeddings_class(self) -> type[Embeddings]:
        return ParrotEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "e"}


async def test_long_lists_are_several_requests_and_one_answer_in_order(vectors: OtherServer) -> None:
    embeddings = ParrotEmbeddings(base_url=vectors.url, chunk_size=3)
    texts = [f"text number {number}" for number in range(10)]
    expected = [vector(text, 64) for text in texts]
    assert embeddings.embed_documents(texts) == expected
    assert sorted(len(request.body["input"]) for request in vectors.requests) == [1, 3, 3, 3]
    assert await embeddings.aembed_documents(texts) == expected
    assert embeddings.embed_documents([]) == await embeddings.aembed_documents([]) == []


async def test_a_call_says_its_own_chunk_size_and_fields_as_with_openais_class(vectors: OtherServer) -> None:
    embeddings = ParrotEmbeddings(base_url=vectors.url)
    embeddings.embed_documents(["a", "b", "c"], chunk_size=2, user="me")
    assert sorted(len(request.body["input"]) for request in vectors.requests) == [1, 2]
    assert all(request.body["user"] == "me" for request in vectors.requests)
    await embeddings.aembed_documents(["a"], 1, user="you")
    assert vectors.last.body["user"] == "you"
    await embeddings.aembed_query("a", user="they")
    assert vectors.last.body["user"] == "they"
    eight = ParrotEmbeddings(base_url=vectors.url, dimensions=8)
    eight.embed_query("a", dimensions=4, timeout=20, extra_headers={"x-a": "1"}, extra_body={"user": "we"})
    assert vectors.last.body["dimensions"] == 4 and vectors.last.body["user"] == "we"
    assert "timeout" not in vectors.last.body and vectors.last.headers["x-a"] == "1"
    eight.embed_query("a", dimensions=None, user=None, request_timeout=20)
    assert vectors.last.body["dimensions"] == 8 and not {"user", "request_timeout"} & vectors.last.body.keys()


def test_what_is_set_is_sent_and_nothing_else(vectors: OtherServer) -> None:
    ParrotEmbeddings(base_url=vectors.url, model="e", dimensions=8, model_kwargs={"user": "me"}).embed_query("hi")
    sent = {"dimensions": 8, "user": "me"}
    assert vectors.last.body == {"input": ["hi"], "model": "e", "encoding_format": "float", **sent}
    ParrotEmbeddings(base_url=vectors.url).embed_query("hi")
    assert vectors.last.body == {"input": ["hi"], "encoding_format": "float"}


def test_what_openais_class_takes_is_taken(vectors: OtherServer) -> None:
    with pytest.warns(UserWarning, match="'check_embedding_ctx_length' has no effect on ParrotEmbeddings"):
        embeddings = ParrotEmbeddings(openai_api_base=vectors.url, check_embedding_ctx_length=False)
    assert embeddings.embed_query("hi") == vector("hi", 64)
    assert "check_embedding_ctx_length" not in vectors.last.body


def test_a_vector_store_finds_what_is_near(vectors: OtherServer) -> None:
    texts = ["parrots repeat words", "rivers run to the sea", "servers answer calls"]
    store = InMemoryVectorStore.from_texts(texts, ParrotEmbeddings(base_url=vectors.url))
    assert store.similarity_search("the sea and rivers", k=1)[0].page_content == texts[1]


def test_errors_are_langchains_and_come_alone(other: OtherServer) -> None:
    with pytest.raises(ParrotNotFoundError):
        ParrotEmbeddings(base_url=other.url, chunk_size=1).embed_documents(["a", "b"])
    with pytest.raises(ParrotNotFoundError):
        asyncio.run(ParrotEmbeddings(base_url=other.url, chunk_size=1).aembed_documents(["a", "b"]))
    with pytest.raises(ParrotConnectionError):
        ParrotEmbeddings(base_url="http://127.0.0.1:9/v1", max_retries=0).embed_query("a")


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_is_equal_and_works(vectors: OtherServer, copied: Any) -> None:
    embeddings = ParrotEmbeddings(base_url=vectors.url)
    embeddings.embed_query("hi")
    assert copied(embeddings) == embeddings and copied(embeddings).embed_query("hi") == vector("hi", 64)


async def test_our_own_server_answers_too(ours: Served) -> None:
    embeddings = ParrotEmbeddings(base_url=ours.url, model=MODELS[0])
    one, two = embeddings.embed_documents(["parrots repeat words", "rivers run to the sea"])
    assert len(one) == len(two) > 0 and one != two
    assert await embeddings.aembed_query("parrots repeat words") == pytest.approx(one)
