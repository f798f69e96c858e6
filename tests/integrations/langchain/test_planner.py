from __future__ import annotations

from typing import Any

import pytest
from langchain_core.runnables import Runnable
from langchain_core.runnables.utils import AddableDict

from parrot_compat.integrations.langchain import ChatParrot, compile, planning
from parrot_compat.integrations.langchain.planner import planner

from .apps import APPS as PLAIN_APPS
from .plan_server import PlanServer
from .recorder import Recorder, plain

try:
    from .framework_apps import FRAMEWORK_APPS
except ImportError:  # an environment with langchain-core alone
    FRAMEWORK_APPS = {}

APPS = PLAIN_APPS | FRAMEWORK_APPS
STYLES = ("invoke", "ainvoke", "stream", "astream", "batch", "abatch")
FEWER_STYLES = ("invoke", "ainvoke", "stream", "batch")
COMPILED_STYLES = ("invoke", "astream", "batch")
RUNS = [(name, style) for name in PLAIN_APPS for style in STYLES] + [
    (name, style) for name, app in FRAMEWORK_APPS.items() for style in FEWER_STYLES if app.streams or style != "stream"
]


def total(chunks: list[Any]) -> Any:
    """What a stream adds up to. A graph's does not: it says what each node has said."""
    whole = chunks[0]
    if isinstance(whole, dict) and len(chunks) > 1 and not isinstance(whole, AddableDict):
        return sorted(chunks, key=repr)
    for chunk in chunks[1:]:
        whole = whole + chunk
    return whole


async def run(app: Runnable[Any, Any], value: Any, style: str, recorder: Recorder) -> Any:
    config: Any = {"callbacks": [recorder]}
    if style == "invoke":
        return app.invoke(value, config)
    if style == "ainvoke":
        return await app.ainvoke(value, config)
    if style == "stream":
        return total(list(app.stream(value, config)))
    if style == "astream":
        return total([chunk async for chunk in app.astream(value, config)])
    if style == "batch":
        return app.batch([value] * 2, config)
    return await app.abatch([value] * 2, config)


@pytest.mark.parametrize(("name", "style"), RUNS)
async def test_what_can_be_planned_is_and_results_callbacks_and_traces_are_those_of_the_app_without_planner(
    server: PlanServer, name: str, style: str
) -> None:
    app = APPS[name]
    made = app.make(ChatParrot(base_url=server.url, temperature=0, max_retries=0))
    expected = Recorder()
    with planning(False):
        result = await run(made, app.input, style, expected)
    asked = server.generated()
    assert not server.planned

    for runnable in (made, compile(made)) if style in COMPILED_STYLES else (made,):
        server.forget()
        seen = Recorder()
        assert plain(await run(runnable, app.input, style, seen)) == plain(result)
        assert seen.trees() == expected.trees()
        assert server.all_closed()
        assert server.generated() == asked, "other calls were made than without planner"
        assert not server.wasted
        if style == "invoke":  # of one run it is known how much of it can be planned
            stats = planner.book.stats()
            assert (stats.direct, stats.claimed, stats.wasted) == (app.direct, 0, 0)
            assert stats.pushed == stats.planned == len(asked) - app.direct
    assert not len(planner._runs), "a run that has ended is kept"


@pytest.mark.parametrize("name", ["chain", "map-reduce, declared join", "resumed", "retry"])
async def test_events_are_those_of_the_app_without_planner(server: PlanServer, name: str) -> None:
    app = APPS[name]
    made = app.make(ChatParrot(base_url=server.url, temperature=0))

    async def events() -> list[tuple[str, str, str]]:
        seen: list[tuple[str, str, str]] = []
        async for event in made.astream_events(app.input, version="v2"):
            one = (event["event"], event["name"], str(sorted(event["tags"])))
            if one not in seen or not one[0].endswith("_stream"):  # how often a stream speaks is a matter of timing
                seen.append(one)
        return sorted(seen)

    with planning(False):
        expected = await events()
    assert await events() == expected
    assert planner.book.stats().plans > 0
    assert server.all_closed()
    assert not server.wasted
