"""W10, an edit loop: draft → review → rewrite, three times, where a rewrite copies most of what it is given.

Models with random weights do not copy: with `--replay` a rewrite is the text before it with three sentences changed,
and a review quotes the three. Only then does the row say what drafting from variables is worth.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnablePassthrough

from ..clients import Client
from ..text import FreshText
from .workload import App, Round, Shape, Workload

__all__ = ["WORKLOAD"]

BRIEF, TEXT, REVIEW = 400, 600, 120
REWRITES = 3
SYSTEM = ("system", "{brief}")
DRAFT = "Write the text that the brief asks for."
REVIEWER = "The text:\n{text}\nName the three changes that would help it most."
REWRITER = "The text:\n{text}\nThe review:\n{review}\nMake these changes, and leave the rest as it is."


def _edit(client: Client, shape: Shape) -> Runnable[dict[str, str], str]:
    def step(template: str, tokens: int, name: str, streamed: bool = False) -> Runnable[dict[str, str], str]:
        prompt = ChatPromptTemplate.from_messages([SYSTEM, ("human", template)])
        return prompt | client.chat(shape.length(tokens), name=name, streamed=streamed) | StrOutputParser()

    chain: Runnable[Any, Any] = RunnablePassthrough.assign(text=step(DRAFT, TEXT, "draft"))
    for number in range(REWRITES):
        chain = chain | RunnablePassthrough.assign(review=step(REVIEWER, REVIEW, f"review-{number}"))
        if number < REWRITES - 1:
            chain = chain | RunnablePassthrough.assign(text=step(REWRITER, TEXT, f"rewrite-{number}"))
    return chain | step(REWRITER, TEXT, f"rewrite-{REWRITES - 1}", streamed=True)


def _documents(shape: Shape, text: FreshText, *, documents: int) -> Round:
    def document(number: int) -> App:
        values = {"brief": text.passage(shape.length(BRIEF))}

        async def run(client: Client) -> str:
            return await client.read(_edit(client, shape).astream(values, client.config))

        return App(key=f"document-{number}", run=run, says=_says(shape, text))

    return Round(apps=[document(number) for number in range(shape.count(documents))])


def _says(shape: Shape, text: FreshText) -> dict[str, str]:
    """What an editor would: each review quotes three sentences, and each rewrite has others in their place."""
    said = {"draft": text.passage(shape.length(TEXT))}
    sentences = re.split(r"(?<=[.:]) ", said["draft"])
    for number in range(REWRITES):
        places = [len(sentences) * part // 6 for part in (1, 3, 5)]
        quotes = " ".join(f"{sentences[place]!r} is weak." for place in places)
        said[f"review-{number}"] = f"{quotes} {text.passage(shape.length(REVIEW // 2))}"
        for place in places:
            sentences[place] = f"{text.passage(max(4, shape.length(20)))}."
        said[f"rewrite-{number}"] = " ".join(sentences)
    return said


WORKLOAD = Workload(
    name="w10",
    title="edit loop",
    variants={f"documents{documents}": partial(_documents, documents=documents) for documents in (1, 4, 8)},
    notes="Random weights do not copy: the gain of drafting from variables shows with recorded answers only.",
)
