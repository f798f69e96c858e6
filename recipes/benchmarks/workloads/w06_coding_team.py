"""W6, a coding team: architect → N coders → N reviewers → N revisers, and review and revise three times more.

Each call has the size that the paper recorded of MetaGPT (figure 17): 1.1k tokens for a coder, 4.2k for a reviewer,
5.3k to 6.0k for a reviser, prompt and answer together, whatever N is. Files come in packages of four: whoever works on
one sees the design and all four.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnablePassthrough

from ..clients import Client
from ..text import FreshText
from .workload import App, Round, Shape, Workload

__all__ = ["WORKLOAD"]

PACKAGE = 4
TASK, BRIEF, CONVENTIONS = 180, 100, 1200
DESIGN, CODE, REVIEW = 500, 500, 320
"""Tokens of the architect's design, of a file, and of a review."""
REPEATS = 3

SYSTEM = ("system", "{brief}")
ARCHITECT = "The task:\n{task}\nWrite the design: the files, and what each of them is for."
CODER = "The design:\n{design}\nWrite file %d."
FILES = "The design:\n{design}\nThe conventions:\n{conventions}\nThe files of the package:\n%s\n"
REVIEWER = FILES + "Review file %d. Be specific."
REVISER = FILES + "The reviews:\n%s\nRewrite file %d as its review asks."


def _team(client: Client, files: int, shape: Shape) -> Runnable[dict[str, str], str]:
    def step(template: str, tokens: int, name: str, streamed: bool = False) -> Runnable[dict[str, str], str]:
        prompt = ChatPromptTemplate.from_messages([SYSTEM, ("human", template)])
        return prompt | client.chat(shape.length(tokens), name=name, streamed=streamed) | StrOutputParser()

    def package(file: int, kind: str) -> str:
        """All of its package, by name: the same text, in the same order, for each of the four."""
        first = file - file % PACKAGE
        mates = range(first, min(first + PACKAGE, files))
        return "\n".join(f"# {kind} {mate}\n{{{kind}_{mate}}}" for mate in mates)

    def together(kind: str, steps: list[Runnable[dict[str, str], str]]) -> Runnable[Any, Any]:
        return RunnablePassthrough.assign(**{f"{kind}_{file}": made for file, made in enumerate(steps)})

    every = range(files)
    chain: Runnable[Any, Any] = RunnablePassthrough.assign(design=step(ARCHITECT, DESIGN, "architect"))
    chain = chain | together("file", [step(CODER % file, CODE, f"code-{file}") for file in every])
    for turn in range(1 + REPEATS):
        reviews = [step(REVIEWER % (package(file, "file"), file), REVIEW, f"review{turn}-{file}") for file in every]
        chain = chain | together("review", reviews)
        rewrites = [
            step(REVISER % (package(file, "file"), package(file, "review"), file), CODE, f"revise{turn}-{file}")
            for file in every
        ]
        chain = chain | together("file", rewrites)
    return chain | _join(files)


def _join(files: int) -> Runnable[Any, str]:
    """The project as one text: what the app's user waits for."""
    whole = "\n".join(f"# file {file}\n{{file_{file}}}" for file in range(files))
    return ChatPromptTemplate.from_messages([("human", whole)]) | (lambda prompt: prompt.messages[0].text)


def _project(shape: Shape, text: FreshText, *, files: int) -> Round:
    values = {
        "brief": text.passage(shape.length(BRIEF)),
        "task": text.passage(shape.length(TASK)),
        "conventions": text.passage(shape.length(CONVENTIONS)),
    }
    many = shape.count(files, least=2)

    async def run(client: Client) -> str:
        return str(await _team(client, many, shape).ainvoke(values, client.config))

    return Round(apps=[App(key="project", run=run)])


WORKLOAD = Workload(
    name="w06",
    title="multi-agent coding",
    variants={f"files{files}": partial(_project, files=files) for files in (4, 8, 12, 16)},
)
