"""Where the planner stays out, and what it tells of itself."""

from __future__ import annotations

import asyncio
import copy
import importlib.metadata
import pickle
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.globals import set_llm_cache
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import Runnable, RunnableLambda, RunnableParallel, RunnablePassthrough

from parrot_compat.integrations.langchain import ChatParrot, PlanRecord, compile, listen, planning, records
from parrot_compat.integrations.langchain import stats as counted
from parrot_compat.integrations.langchain.planner import HELD_ON, planner

from .apps import APPS, DOCS, ONE, P, S
from .plan_server import GRAPHS, PlanServer


def chain(server: PlanServer, **settings: Any) -> Runnable[Any, Any]:
    return APPS["chain"].make(ChatParrot(base_url=server.url, max_retries=0, **settings))


@pytest.mark.parametrize("word", ["off", "0", "FALSE", " no "])
def test_the_environment_turns_planning_off(server: PlanServer, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv("PARROT_PLANNING", word)
    chain(server).invoke(ONE)
    compile(chain(server)).invoke(ONE)
    assert not server.asked(GRAPHS)


def test_the_environment_can_leave_planning_to_compiled_chains_and_no_frame_is_looked_at(
    server: PlanServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looked(inputs: object) -> None:
        raise AssertionError("a frame was looked at")

    monkeypatch.setenv("PARROT_PLANNING", "compiled")
    monkeypatch.setattr("parrot_compat.integrations.langchain.invocations.calling_frames", looked)
    chain(server).invoke(ONE)
    assert not server.asked(GRAPHS)
    compile(chain(server)).invoke(ONE)
    assert "".join(compile(chain(server)).stream(ONE))
    compile(APPS["resumed"].make(ChatParrot(base_url=server.url))).invoke(ONE)
    # what is streamed is claimed where the push comes later than the app's patience: which, is the machine's load
    assert (counted().plans, counted().pushed + counted().claimed) == (3, 10)


WAYS: dict[str, Callable[[Runnable[Any, Any]], Awaitable[Any]]] = {
    "ainvoke": lambda app: app.ainvoke(ONE),
    "astream": lambda app: all_of(app.astream(ONE)),
    "events": lambda app: all_of(app.astream_events(ONE, version="v2")),
    "as it comes": lambda app: asyncio.to_thread(lambda: list(app.batch_as_completed([ONE]))),
    "as it comes, async": lambda app: all_of(app.abatch_as_completed([ONE])),
    "a step": lambda app: (RunnablePassthrough() | app).ainvoke(ONE),
    "a streamed step": lambda app: all_of((RunnablePassthrough() | app).astream(ONE)),
    "a streamed step, sync": lambda app: asyncio.to_thread(lambda: list((RunnablePassthrough() | app).stream(ONE))),
}


async def all_of(chunks: AsyncIterator[Any]) -> list[Any]:
    return [chunk async for chunk in chunks]


@pytest.mark.parametrize("way", WAYS)
async def test_a_compiled_chain_is_planned_however_it_is_run(
    server: PlanServer, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setenv("PARROT_PLANNING", "compiled")
    await WAYS[way](compile(chain(server)))
    assert counted().plans == 1


@pytest.mark.parametrize("is_compiled", [True, False])
def test_a_compiled_map_in_a_streamed_chain_is_planned_with_what_follows_it(
    server: PlanServer, is_compiled: bool
) -> None:
    llm = ChatParrot(base_url=server.url)
    maps = (P("map {x}") | llm | S).map()
    step = compile(maps) if is_compiled else maps
    opaque = RunnableLambda(lambda text: [{"x": "a"}, {"x": "b"}])
    app = opaque | step | RunnableLambda(lambda texts: {"y": "".join(texts)}) | P("join {y}") | llm | S
    assert "".join(app.stream("x")) == app.invoke("x")
    assert {len(plan["calls"]) for plan in server.asked(GRAPHS)} == {2}


def test_a_block_of_code_turns_planning_off(server: PlanServer) -> None:
    with planning(False):
        chain(server).invoke(ONE)
        with planning():
            chain(server).invoke(ONE)
        chain(server).invoke(ONE)
    assert len(server.asked(GRAPHS)) == 1


def test_metadata_turns_planning_off_for_a_chain_or_a_part_of_it(server: PlanServer) -> None:
    off = {"metadata": {"parrot_planning": False}}
    chain(server).with_config(off).invoke(ONE)
    chain(server).invoke(ONE, off)
    assert not server.asked(GRAPHS)
    llm = ChatParrot(base_url=server.url)
    inner = (P("in {y}") | llm | S | P("in two {y}") | llm | S).with_config(off)
    (P("A {x}") | llm | S | P("B {y}") | llm | S | inner).invoke(ONE)
    assert [len(plan["calls"]) for plan in server.asked(GRAPHS)] == [2]


def test_nothing_is_planned_behind_a_cache_or_a_limiter_or_for_several_choices(server: PlanServer) -> None:
    limiter = InMemoryRateLimiter(requests_per_second=1000, check_every_n_seconds=0.001)
    chain(server, rate_limiter=limiter).invoke(ONE)
    chain(server, cache=InMemoryCache()).invoke(ONE)
    chain(server, model_kwargs={"n": 2}).invoke(ONE)
    set_llm_cache(InMemoryCache())
    try:
        chain(server).invoke(ONE)
        assert not server.asked(GRAPHS)
        chain(server, cache=False).invoke(ONE)
        assert len(server.asked(GRAPHS)) == 1
    finally:
        set_llm_cache(None)


def test_a_request_with_more_than_a_body_is_not_planned(server: PlanServer) -> None:
    llm = ChatParrot(base_url=server.url)
    for arguments in ({"extra_headers": {"x-a": "b"}}, {"timeout": 60}, {"extra_body": {"parrot": {"v": 1}}}):
        (P("A {x}") | llm.bind(**arguments) | S | P("B {y}") | llm.bind(**arguments) | S).invoke(ONE)
    assert not server.asked(GRAPHS)


def test_one_call_is_no_plan_and_a_map_group_is(server: PlanServer) -> None:
    summarise = P("sum {doc}") | ChatParrot(base_url=server.url) | S
    summarise.invoke({"doc": "a"})
    assert not server.asked(GRAPHS)
    summarise.map().invoke(DOCS["docs"])
    summarise.batch(DOCS["docs"])
    plans = server.asked(GRAPHS)
    assert [len(plan["calls"]) for plan in plans] == [5, 5]
    for plan in plans:
        stages = [call["stage"] for call in plan["calls"]]
        assert len({stage["group"] for stage in stages}) == 1
        assert [(stage["kind"], stage["index"], stage["size"]) for stage in stages] == [("map", n, 5) for n in range(5)]


def test_templates_whose_plans_do_not_come_true_are_not_planned_any_more(server: PlanServer) -> None:
    llm = ChatParrot(base_url=server.url)
    # The chain is planned as it is written, but code in a callback changes what is asked.
    app = P("unstable {x}") | llm | S | P("after {y}") | llm | S

    class Changing(BaseCallbackHandler):
        raise_error = True

        def on_chat_model_start(self, serialized: Any, messages: Any, *, parent_run_id: Any, **kwargs: Any) -> None:
            for message in messages[0]:
                message.content += "!"
            run = planner._runs.get(parent_run_id)
            assert run is not None
            # A run that is over before its plan was accepted says nothing of its templates.
            opened = [plan for sent in run.plans_around() for plan in sent._open.values()]
            assert server.until(lambda: all(plan.was_accepted for plan in opened))

    for _ in range(4):
        app.invoke(ONE, {"callbacks": [Changing()]})
    assert len(server.asked(GRAPHS)) == 2
    (P("another {x}") | llm | S | P("one {y}") | llm | S).invoke(ONE)
    assert len(server.asked(GRAPHS)) == 3


def test_no_marker_leaves_the_planner(server: PlanServer) -> None:
    for app in APPS.values():
        app.make(ChatParrot(base_url=server.url)).invoke(app.input)
    assert len(server.asked(GRAPHS)) > 25
    assert not any("\ue000" in str(body) for _, body in server.line.posted)
    assert not any("\ue000" in prompt for prompt in server.generated())


def test_plans_await_what_no_planned_call_reads(server: PlanServer) -> None:
    APPS["map-reduce, declared join"].make(ChatParrot(base_url=server.url)).invoke(DOCS)
    (plan,) = server.asked(GRAPHS)
    assert plan["await"] == [plan["calls"][-1]["id"]]
    parts = plan["calls"][-1]["request"]["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["text", *["parrot:ref", "text"] * 4, "parrot:ref"]
    functions = [call["function"] for call in plan["calls"]]
    assert len({*functions[:5]}) == 1
    assert functions[5] not in functions[:5]


def test_what_came_of_a_plan_is_told(server: PlanServer) -> None:
    told: list[PlanRecord] = []
    silence = listen(told.append)
    try:
        chain(server).invoke(ONE, {"run_name": "my app"})
    finally:
        silence()
    chain(server).invoke(ONE)
    assert told == list(records()[:1])
    record = told[0]
    assert record.run == "my app"
    assert [call.source for call in record.calls] == ["pushed"] * 4
    assert [len(call.reads) for call in record.calls] == [0, 1, 1, 1]
    for call in record.calls:
        assert call.taken_s is not None and call.settled_s is not None


# ---- streams and their ends ----------------------------------------------------------------------


async def test_a_stream_that_is_left_ends_its_plan(server: PlanServer) -> None:
    app = chain(server)
    for chunk in app.stream(ONE):
        assert chunk is not None
        break
    chunks = app.astream(ONE)
    await anext(chunks)
    await chunks.aclose()  # type: ignore[attr-defined]
    assert len(server.asked(GRAPHS)) == 2
    assert await asyncio.to_thread(server.until, lambda: server.planned == 8), "a plan is still open"


async def test_a_cancelled_run_ends_its_plan(server: PlanServer) -> None:
    server.stall()
    try:
        running = asyncio.create_task(chain(server).ainvoke(ONE))
        assert await asyncio.to_thread(server.until, lambda: bool(server.asked(GRAPHS)))
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await asyncio.to_thread(server.until, lambda: server.planned == 4)
    finally:
        server.resume()
    assert not len(planner._runs)


async def test_a_streamed_answer_comes_live_though_it_is_planned(server: PlanServer) -> None:
    llm = ChatParrot(base_url=server.url)
    app = P("A {x}") | llm | S | RunnableLambda(lambda text: text) | P("B {y}") | llm | S | P("C {y}") | llm | S
    with planning(False):
        expected = app.invoke(ONE)
    server.stall()
    seen: list[str] = []
    reader = threading.Thread(target=lambda: seen.extend(app.stream(ONE)))
    reader.start()
    server.resume()
    reader.join(30)
    assert "".join(seen) == expected


def test_runs_in_many_threads_keep_apart(server: PlanServer) -> None:
    app = chain(server)
    with planning(False):
        expected = [app.invoke({"x": str(n)}) for n in range(12)]
    results: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda n=n: results.__setitem__(n, app.invoke({"x": str(n)}))) for n in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [results[n] for n in range(12)] == expected
    assert counted().pushed == 48


def test_an_input_that_goes_on_into_a_step_is_not_taken_for_its_equal_in_the_batch(server: PlanServer) -> None:
    llm = ChatParrot(base_url=server.url, max_retries=0)
    app = compile(RunnableParallel(a=P("A {x}") | llm | S | P("B {y}") | llm | S, c=P("C {x}") | llm | S))
    one_by_one: Any = {"max_concurrency": 1}
    with planning(False):
        expected = app.batch([ONE, ONE], one_by_one)
    server.forget()
    assert app.batch([ONE, ONE], one_by_one) == expected
    assert (counted().plans, counted().pushed, counted().direct, counted().wasted) == (1, 6, 0, 0)
    assert server.all_closed() and server.planned == 6


# ---- the hook ------------------------------------------------------------------------------------


def test_the_handler_is_one_however_it_is_copied() -> None:
    assert copy.deepcopy(planner) is planner
    assert pickle.loads(pickle.dumps(planner)) is planner


async def test_canary_langchain_still_shows_what_the_planner_looks_at(server: PlanServer) -> None:
    """When this fails, LangChain has moved its frames, its tags or the order of its callbacks: apps still work, but
    fewer of their calls are planned. Look at `runs.calling_frames` and `runs.child_of`, then raise HELD_ON."""
    app = chain(server)
    where = f"langchain-core {importlib.metadata.version('langchain-core')}; it last held on {HELD_ON}"
    app.invoke(ONE)
    assert counted().pushed == 4, f"invoke is not planned: {where}"
    await app.ainvoke(ONE)
    assert counted().pushed == 8, f"ainvoke is not planned: {where}"
    list(app.stream(ONE))
    assert counted().pushed + counted().claimed == 12, f"stream is not planned: {where}"
    assert [chunk async for chunk in app.astream(ONE)]
    assert counted().pushed + counted().claimed == 16, f"astream is not planned: {where}"
    app.batch([ONE, ONE])
    await app.abatch([ONE, ONE])
    assert (counted().pushed + counted().claimed, counted().plans) == (32, 6), f"a batch is not one plan: {where}"
    resumed = APPS["resumed"].make(ChatParrot(base_url=server.url))
    resumed.invoke(ONE)
    assert counted().plans == 7, f"planning does not resume after an opaque step: {where}"
