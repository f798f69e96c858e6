"""LlamaIndex' OpenAILike: chat, complete, streams, tools, structured output, a query engine with our embeddings."""

from __future__ import annotations

import os
from typing import Any

import pytest
from llama_index.core import Document, SummaryIndex, VectorStoreIndex
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

URL, MODEL = os.environ["CONFORMANCE_URL"], os.environ["CONFORMANCE_MODEL"]
ASKED = [ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="How far is it?")]


class Distance(BaseModel):
    """A distance."""

    count: int
    is_far: bool


@pytest.fixture(scope="module")
def llm() -> OpenAILike:
    return OpenAILike(
        model=MODEL,
        api_base=URL,
        api_key="none",
        is_chat_model=True,
        is_function_calling_model=True,
        should_use_structured_outputs=True,
        context_window=2048,
        max_tokens=64,
        temperature=0.0,
        max_retries=0,
    )


def test_a_stream_says_what_the_whole_answer_says(llm: OpenAILike) -> None:
    whole = llm.chat(ASKED).message.content
    assert whole and [*llm.stream_chat(ASKED)][-1].message.content == whole


async def test_the_async_twins_say_the_same(llm: OpenAILike) -> None:
    assert (await llm.achat(ASKED)).message.content == llm.chat(ASKED).message.content
    *_, last = [piece async for piece in await llm.astream_chat(ASKED)]
    assert last.message.content == llm.chat(ASKED).message.content


def test_plain_completion(llm: OpenAILike) -> None:
    text = OpenAILike(model=MODEL, api_base=URL, api_key="none", is_chat_model=False, max_tokens=8, temperature=0.0)
    assert text.complete("Once upon a time").text
    assert llm.complete("Once upon a time").text


def test_a_tool_that_is_required_is_called(llm: OpenAILike) -> None:
    def measure(count: int) -> str:
        """Measures."""
        return f"{count} m"

    tool = FunctionTool.from_defaults(measure)
    reply = llm.chat_with_tools([tool], user_msg="How far?", tool_required=True)
    calls: list[Any] = llm.get_tool_calls_from_response(reply)
    assert calls[0].tool_name == "measure" and isinstance(calls[0].tool_kwargs["count"], int)


def test_structured_output(llm: OpenAILike) -> None:
    assert isinstance(llm.as_structured_llm(Distance).complete("How far?").raw, Distance)


@pytest.mark.parametrize("mode", ["tree_summarize", "refine", "compact", "accumulate"])
def test_query_engines_answer(llm: OpenAILike, mode: str) -> None:
    index = SummaryIndex.from_documents([Document(text=f"It is {far} m to {far}. " * 12) for far in range(3)])
    assert str(index.as_query_engine(llm=llm, response_mode=mode).query("How far is it?"))


def test_embeddings_find_what_is_near(llm: OpenAILike) -> None:
    embedding = OpenAILikeEmbedding(model_name=MODEL, api_base=URL, api_key="none", max_retries=0)
    texts = ["Parrots repeat what they hear.", "The train leaves at noon."]
    index = VectorStoreIndex.from_documents([Document(text=text) for text in texts], embed_model=embedding)
    (found,) = index.as_retriever(similarity_top_k=1, embed_model=embedding).retrieve(texts[1])
    assert found.get_content() == texts[1]
