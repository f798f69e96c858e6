"""Planner off and on: the same answers, the same prompts run, the same spans, and nothing drawn for nobody."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from llama_index.core.instrumentation.span import SimpleSpan
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index_instrumentation import get_dispatcher

from parrot_compat.integrations.llamaindex import planning, records, stats
from tests.integrations.langchain.plan_server import GRAPHS, PlanServer

from .apps import APPS, App, query_engine

QUERY = "what is it?"


def whole(app: App, url: str) -> str:
    return str(app.synthesizer(url).get_response(QUERY, app.texts, **app.values))


def streamed(app: App, url: str) -> str:
    response = app.synthesizer(url, streaming=True).get_response(QUERY, app.texts, **app.values)
    return response if isinstance(response, str) else "".join(str(piece) for piece in response)


async def awaited(app: App, url: str) -> str:
    return str(await app.synthesizer(url).aget_response(QUERY, app.texts, **app.values))


async def astreamed(app: App, url: str) -> str:
    response: Any = await app.synthesizer(url, streaming=True).aget_response(QUERY, app.texts, **app.values)
    return response if isinstance(response, str) else "".join([str(piece) async for piece in response])


def queried(app: App, url: str) -> str:
    return str(query_engine(app, url).query(QUERY))


async def aqueried(app: App, url: str) -> str:
    return str(await query_engine(app, url).aquery(QUERY))


STYLES: dict[str, Callable[[App, str], str] | Callable[[App, str], Awaitable[str]]] = {
    "whole": whole,
    "streamed": streamed,
    "awaited": awaited,
    "astreamed": astreamed,
    "queried": queried,
    "aqueried": aqueried,
}

CASES = [
    pytest.param(app, style, id=f"{app}, {style}")
    for number, app in enumerate(APPS)
    for style in STYLES
    if (app.streams or "stream" not in style)
    and ("queried" not in style or number % 4 == 0)  # an engine adds nothing but the way there
]


def run(style: str, app: App, url: str) -> str:
    answer = STYLES[style](app, url)
    return answer if isinstance(answer, str) else asyncio.run(_awaited(answer))


async def _awaited(answer: Awaitable[str]) -> str:
    return await answer


@pytest.mark.parametrize(("app", "style"), CASES)
def test_a_planned_app_answers_as_an_unplanned_one(app: App, style: str, server: PlanServer) -> None:
    with planning(False):
        plain = run(style, app, server.url)
    asked = server.generated()
    assert stats().plans == 0 and server.asked(GRAPHS) == []

    server.forget()
    assert run(style, app, server.url) == plain
    assert server.all_closed()
    assert server.generated() == asked, "the planned app had other prompts run"
    counts = stats()
    assert (counts.plans, counts.planned) == (app.plans, app.planned)
    assert counts.pushed + counts.claimed == app.planned
    assert counts.direct == len(asked) - app.planned
    assert counts.wasted == 0 and server.wasted == 0


class Told(SimpleSpanHandler):
    """The names of spans, in the order in which they began and ended."""

    def span_enter(self, id_: str, *args: Any, **kwargs: Any) -> None:
        self.names.append(_name(id_))

    def span_exit(self, id_: str, *args: Any, **kwargs: Any) -> None:
        self.names.append("/" + _name(id_))

    @property
    def names(self) -> list[str]:
        found: list[str] = self.__dict__.setdefault("_names", [])
        return found

    def new_span(self, *args: Any, **kwargs: Any) -> SimpleSpan:
        raise AssertionError("not reached")


def _name(id: str) -> str:
    return re.sub(r"-[0-9a-f-]{36}$", "", id)


@pytest.mark.parametrize("app", [APPS[0], APPS[6], APPS[11]], ids=str)
def test_other_span_handlers_are_told_the_same(app: App, server: PlanServer) -> None:
    traces = []
    for on in (False, True):
        told = Told()
        dispatcher = get_dispatcher()
        dispatcher.add_span_handler(told)
        try:
            with planning(on):
                queried(app, server.url)
        finally:
            dispatcher.span_handlers.remove(told)
        traces.append(told.names)
    assert traces[0] == traces[1] and len(traces[0]) > 10


def test_a_tree_whose_summaries_may_not_fit_is_planned_level_by_level(server: PlanServer) -> None:
    """A level that depends on how long answers turn out is planned when they are there."""
    app = replace(APPS[0], texts=words_for_levels(), window=150)
    with planning(False):
        plain = whole(app, server.url)
    asked = server.generated()
    server.forget()
    assert whole(app, server.url) == plain
    assert server.all_closed() and server.generated() == asked
    assert stats().plans >= 1 and stats().wasted == 0 and server.wasted == 0
    assert stats().pushed == stats().planned >= len(asked) - 1


def words_for_levels() -> list[str]:
    return [f"part {number} " + "word " * 60 for number in range(6)]


def test_a_refine_chain_whose_chunks_an_answer_may_cut_is_planned_up_to_there(server: PlanServer) -> None:
    app = replace(APPS[6], llm={"max_tokens": 200})
    with planning(False):
        plain = whole(app, server.url)
    server.forget()
    assert whole(app, server.url) == plain
    assert server.all_closed() and server.wasted == 0 and stats().wasted == 0


def test_the_calls_of_a_map_are_one_stage(server: PlanServer) -> None:
    whole(APPS[0], server.url)
    (plan,) = server.asked(GRAPHS)
    stages = [call.get("stage") for call in plan["calls"]]
    assert len({stage["group"] for stage in stages[:-1]}) == 1
    assert [stage["index"] for stage in stages[:-1]] == [0, 1, 2] and stages[-1] is None
    assert {stage["size"] for stage in stages[:-1]} == {3}


def test_every_planned_call_is_named_for_its_template(server: PlanServer) -> None:
    whole(APPS[6], server.url)
    (record,) = records()
    functions = [call.function for call in record.calls]
    assert functions[0] != functions[1] and len(set(functions[1:])) == 1
    assert [len(call.reads) for call in record.calls] == [0, 1, 1, 1, 1, 1]
