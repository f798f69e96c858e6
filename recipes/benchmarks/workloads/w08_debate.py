"""W8, debate and judge: N debaters speak for some rounds about one shared brief, then a judge decides."""

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

BRIEF, STATEMENT, VERDICT = 2048, 200, 300
ROUNDS = 3
SYSTEM = ("system", "{brief}")
SPEAK = "%sYou are debater %d. Answer the others, and make your case in round %d."
JUDGE = "%sYou are the judge. Weigh what was said, and decide."


def _debate(client: Client, debaters: int, shape: Shape) -> Runnable[dict[str, str], str]:
    def step(template: str, tokens: int, name: str, streamed: bool = False) -> Runnable[dict[str, str], str]:
        prompt = ChatPromptTemplate.from_messages([SYSTEM, ("human", template)])
        return prompt | client.chat(shape.length(tokens), name=name, streamed=streamed) | StrOutputParser()

    def said(rounds: int) -> str:
        return "".join(f"Debater {d}: {{said_{r}_{d}}}\n" for r in range(rounds) for d in range(debaters))

    chain: Runnable[Any, Any] = RunnablePassthrough()
    for number in range(ROUNDS):
        speakers = {
            f"said_{number}_{debater}": step(
                SPEAK % (said(number), debater, number), STATEMENT, f"round{number}-{debater}"
            )
            for debater in range(debaters)
        }
        chain = chain | RunnablePassthrough.assign(**speakers)
    return chain | step(JUDGE % said(ROUNDS), VERDICT, "judge", streamed=True)


def _case(shape: Shape, text: FreshText, *, debaters: int) -> Round:
    values = {"brief": text.passage(shape.length(BRIEF))}
    many = shape.count(debaters, least=2)

    async def run(client: Client) -> str:
        return await client.read(_debate(client, many, shape).astream(values, client.config))

    return Round(apps=[App(key="case", run=run)])


WORKLOAD = Workload(
    name="w08",
    title="debate and judge",
    variants={f"debaters{debaters}": partial(_case, debaters=debaters) for debaters in (4, 8, 2)},
)
