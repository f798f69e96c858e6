"""W7, mixed: 40 chats at one a second, and 9 map-reduce jobs that arrive in bursts (figure 18)."""

from __future__ import annotations

import itertools
import random
from functools import partial

from ..clients import Client
from ..text import FreshText
from .w03_map_reduce import map_reduce_app
from .workload import App, Round, Shape, Workload

__all__ = ["WORKLOAD"]

CHATS, JOBS = 40, 9
MOST_PROMPT, MOST_TOTAL = 1024, 2048
JOB_GAPS_S = (0.5, 0.5, 10.0)


def _chat_lengths(number: int) -> list[tuple[int, int]]:
    """Tokens of prompt and of answer: log-normal with the medians of ShareGPT's, cut as the paper cut them."""
    drawn = random.Random("w07 chats")
    lengths = []
    for _ in range(number):
        prompt = max(32, min(MOST_PROMPT, round(drawn.lognormvariate(5.0, 1.0))))
        lengths.append((prompt, max(16, min(MOST_TOTAL - prompt, round(drawn.lognormvariate(5.5, 0.7))))))
    return lengths


def _mixed(shape: Shape, text: FreshText) -> Round:
    apps = []
    for number, (prompt, out) in enumerate(_chat_lengths(shape.count(CHATS, least=4))):
        run = partial(_chat, prompt=text.passage(shape.length(prompt)), out=shape.length(out))
        apps.append(App(key=f"chat-{number}", run=run, due_s=number / shape.rate, group="chat"))
    gaps = itertools.cycle(JOB_GAPS_S)
    due_s = 0.0
    for number in range(shape.count(JOBS, least=2)):
        apps.append(map_reduce_app(shape, text, f"job-{number}", due_s=due_s, group="job"))
        due_s += next(gaps) / shape.rate
    return Round(apps=apps)


async def _chat(client: Client, *, prompt: str, out: int) -> str:
    return await client.ask([{"role": "user", "content": prompt}], out, name="chat", awaited=True)


WORKLOAD = Workload(
    name="w07",
    title="chats beside map-reduce jobs",
    variants={"mixed": _mixed},
    open_loop=frozenset({"mixed"}),
    notes="The rate is chats per second; jobs come in proportion.",
)
