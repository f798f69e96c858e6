"""The apps whose round trips are counted: a chain, a map-reduce, and those of the recipes, as these make them.

Each takes a model and some parts of text, asks, and says what it was answered. Nothing is timed here.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable

from parrot_compat.integrations.langchain import ChatParrot, Stats, stats

# recipes are scripts: they find one another in their own folder
sys.path.insert(0, str(Path(__file__).parents[1]))

from batch_folder import digest
from copilot import copilot
from edit_loop import edit_loop

__all__ = ["APPS", "Ask", "counted"]

Ask = Callable[[ChatParrot, Sequence[str]], Awaitable[str]]

FILES_AT_ONCE = 4
TOOL_TOKENS = 120
"""A call of a tool is longer than the answers of the others."""
PROMPT_WORDS = 60
"""Of a template of LlamaIndex's, and some to spare."""
ROOM = 4096

COUNTS: list[Callable[[], Stats]] = [stats]
"""Of the planner of each framework."""


def counted() -> Counter[str]:
    """How answers have come so far, and how many planned calls were in vain."""
    names = ("pushed", "claimed", "direct", "wasted")
    return Counter({name: sum(getattr(count(), name) for count in COUNTS) for name in names})


async def chain(llm: ChatParrot, parts: Sequence[str]) -> str:
    first = ChatPromptTemplate.from_template("{part}\n\nSummarise it.").partial(part=parts[0])
    steps: Runnable[Any, Any] = first | llm | StrOutputParser()
    for part in parts[1:]:
        more = ChatPromptTemplate.from_template("{part}\n\nSummary so far: {summary}\n\nGive the new summary.")
        steps = steps | more.partial(part=part) | llm | StrOutputParser()
    return str(await steps.ainvoke({}))


async def map_reduce(llm: ChatParrot, parts: Sequence[str]) -> str:
    """All but the last part are mapped; the reduce call has the last one, and so text of its own."""
    read_one = ChatPromptTemplate.from_template("{part}\n\nSummarise it.") | llm | StrOutputParser()
    read_all: Runnable[Any, str] = (
        ChatPromptTemplate.from_template("{part}\n\nSummaries: {summaries}\n\nPut them together.").partial(
            part=parts[-1]
        )
        | llm
        | StrOutputParser()
    )
    return await (read_one.map() | "\n".join | read_all).ainvoke([{"part": part} for part in parts[:-1]])


async def edit(llm: ChatParrot, parts: Sequence[str]) -> str:
    return await edit_loop(llm, max(1, (len(parts) - 1) // 2)).ainvoke({"subject": parts[0]})


async def users(llm: ChatParrot, parts: Sequence[str]) -> str:
    return "\n".join(await copilot(llm, parts[0]).abatch([{"question": part} for part in parts]))


async def files(llm: ChatParrot, parts: Sequence[str]) -> str:
    texts: list[Any] = [{"text": part} for part in parts[: max(2, len(parts) // 2)]]
    return str(await digest(llm).abatch(texts, {"max_concurrency": FILES_AT_ONCE}))


async def reviewed(llm: ChatParrot, parts: Sequence[str]) -> str:
    return await review(llm).ainvoke(parts[0])


async def agent(llm: ChatParrot, parts: Sequence[str]) -> str:
    roomy = llm.model_copy(update={"max_tokens": TOOL_TOKENS, "extra_body": None})
    # in a thread: the recipe's middleware is for agents that are invoked so
    said = await asyncio.to_thread(make_agent(roomy).invoke, {"messages": [("human", parts[0])]})
    return str(said["messages"][-1].text)


async def tree(llm: ChatParrot, parts: Sequence[str]) -> str:
    """Two parts fit one prompt, counted by words."""
    room = PROMPT_WORDS + 2 * len(parts[0].split()) + (llm.max_tokens or 0)
    return await synthesized(llm, parts, "tree_summarize", room)


async def refined(llm: ChatParrot, parts: Sequence[str]) -> str:
    return await synthesized(llm, parts, "refine", ROOM)


async def synthesized(llm: ChatParrot, parts: Sequence[str], mode: str, room: int) -> str:
    """With LlamaIndex, whose own calls run side by side where they can."""
    settings = {"temperature": 0, "max_tokens": llm.max_tokens, "additional_kwargs": dict(llm.extra_body or {})}
    model = ParrotLLM(base_url=llm.base_url, max_retries=0, count_by_server=False, **settings)
    helper = PromptHelper(room, num_output=llm.max_tokens or 0, chunk_overlap_ratio=0, tokenizer=str.split)
    synthesizer = get_response_synthesizer(
        llm=model, response_mode=ResponseMode(mode), prompt_helper=helper, use_async=True
    )
    return str(await synthesizer.aget_response("What is it about?", list(parts)))


APPS: dict[str, Ask] = {
    "chain": chain,
    "map-reduce": map_reduce,
    "edit loop": edit,
    "copilot": users,
    "batch job, 4 at once": files,
}
with suppress(ImportError):  # langchain-openai, of the extra `bench`
    from existing_app import review

    APPS["two readers and an editor"] = reviewed
with suppress(ImportError):  # langchain, of the extra `dev`
    from agent import make_agent

    APPS["agent with a tool"] = agent
with suppress(ImportError):  # of the extra `llamaindex`
    from llama_index.core.indices.prompt_helper import PromptHelper
    from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer

    from parrot_compat.integrations.llamaindex import ParrotLLM
    from parrot_compat.integrations.llamaindex import stats as llamaindex_stats

    APPS |= {"LlamaIndex tree": tree, "LlamaIndex refine": refined}
    COUNTS.append(llamaindex_stats)
