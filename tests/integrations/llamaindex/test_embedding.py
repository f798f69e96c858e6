from __future__ import annotations

import asyncio
import pickle

import pytest
from llama_index.core import Document, VectorStoreIndex

from parrot_compat.integrations.errors import ParrotNotFoundError
from parrot_compat.integrations.llamaindex import ParrotEmbedding
from tests.integrations.other_server import OtherServer, Reply, Request
from tests.integrations.served import Served


def vectors(request: Request) -> Reply:
    """Counts letters; the last text comes first, as a server may do it."""
    found = [
        {"object": "embedding", "index": index, "embedding": [float(text.count(letter)) for letter in "abc"]}
        for index, text in enumerate(request.body["input"])
    ]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return Reply({"object": "list", "model": "e", "data": found[::-1], "usage": usage})


def test_vectors_come_back_in_the_order_of_their_texts(other: OtherServer) -> None:
    other.answer = vectors
    model = ParrotEmbedding(base_url=other.url, model="e", dimensions=3, embed_batch_size=2)
    expected = [[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0]]
    assert model.get_text_embedding_batch(["a", "bb", "ccc"]) == expected
    assert [len(request.body["input"]) for request in other.requests] == [2, 1]
    assert asyncio.run(model.aget_text_embedding_batch(["a", "bb", "ccc"])) == expected
    assert model.get_query_embedding("a") == asyncio.run(model.aget_query_embedding("a")) == expected[0]
    assert other.last.body == {"input": ["a"], "model": "e", "dimensions": 3, "encoding_format": "float"}
    assert pickle.loads(pickle.dumps(model)).get_text_embedding("a") == expected[0]


def test_model_name_is_understood_as_llamaindex_calls_it(other: OtherServer) -> None:
    assert ParrotEmbedding(base_url=other.url, model_name="e").model == "e"
    assert ParrotEmbedding(base_url=other.url, model="e").model_name == "e"


def test_failures_have_their_classes(other: OtherServer) -> None:
    with pytest.raises(ParrotNotFoundError):
        ParrotEmbedding(base_url=other.url, max_retries=0).get_text_embedding("a")


def test_an_index_finds_a_text_by_its_own_words(real: Served) -> None:
    model = ParrotEmbedding(base_url=real.url)
    texts = ["Parrots repeat what they hear.", "Rivers run to the sea.", "Servers answer requests."]
    index = VectorStoreIndex.from_documents([Document(text=text) for text in texts], embed_model=model)
    for text in texts:
        assert index.as_retriever(similarity_top_k=1).retrieve(text)[0].text == text
