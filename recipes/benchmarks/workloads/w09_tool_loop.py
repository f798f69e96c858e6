"""W9, agent loops with tools: the history only grows, and between two turns a tool takes its time.

A plain loop over OpenAI's SDK, as agents are written by hand: no graph is declared, every turn is its own request.
"""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import dataclass
from functools import partial

from ..clients import Client
from ..text import FreshText
from .workload import App, Round, Shape, Workload

__all__ = ["WORKLOAD"]

SYSTEM, ACTION, ANSWER = 1500, 60, 200
LEAST_TURNS, MOST_TURNS = 10, 40
LEAST_RESULT, MOST_RESULT = 100, 400
LEAST_GAP_S, MOST_GAP_S = 0.1, 30.0


@dataclass(frozen=True, slots=True)
class _Tool:
    """What one use of a tool will say, and how long it takes."""

    result: str
    takes_s: float


def _agents(shape: Shape, text: FreshText, *, agents: int) -> Round:
    system = text.passage(shape.length(SYSTEM))
    apps = []
    for number in range(shape.count(agents, least=2)):
        drawn = random.Random(f"w09 {number}")
        turns = shape.count(drawn.randint(LEAST_TURNS, MOST_TURNS), least=3)
        uses = [
            _Tool(
                text.passage(shape.length(drawn.randint(LEAST_RESULT, MOST_RESULT))),
                shape.tool_s * math.exp(drawn.uniform(math.log(LEAST_GAP_S), math.log(MOST_GAP_S))),
            )
            for _ in range(turns - 1)
        ]
        question = text.passage(shape.length(60))
        run = partial(_agent, system=system, question=question, uses=uses, shape=shape)
        apps.append(App(key=f"agent-{number}", run=run))
    return Round(apps=apps)


async def _agent(client: Client, *, system: str, question: str, uses: list[_Tool], shape: Shape) -> str:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    for number, use in enumerate(uses):
        said = await client.ask(messages, shape.length(ACTION), name=f"turn-{number}")
        await asyncio.sleep(use.takes_s)
        client.waited_s += use.takes_s
        messages.append({"role": "assistant", "content": said})
        messages.append({"role": "user", "content": f"The tool says:\n{use.result}"})
    return await client.ask(messages, shape.length(ANSWER), name="answer", awaited=True)


WORKLOAD = Workload(
    name="w09",
    title="agent loops with tools",
    variants={f"agents{agents}": partial(_agents, agents=agents) for agents in (8, 1, 4, 16)},
    notes="The time of the tools is the same in every lane; app time is reported with it, model time without.",
)
