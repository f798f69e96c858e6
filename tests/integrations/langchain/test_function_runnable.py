"""A semantic function is a LangChain Runnable in every way that LangChain uses one."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("langchain_core")

from langchain_core._api import LangChainBetaWarning
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.output_parsers import CommaSeparatedListOutputParser, StrOutputParser
from langchain_core.runnables import Runnable, RunnableLambda, RunnableParallel, RunnablePassthrough

from parrot_compat.core.errors import BadTemplate, EngineError
from parrot_compat.core.events import Event, FirstToken
from parrot_compat.integrations.application.functions import semantic_function
from parrot_compat.integrations.application.outputs import Outputs
from parrot_compat.integrations.application.variable import Variable
from tests.integrations.worlds import World, world


@semantic_function
def write(task: str | Variable, language: str = "Python") -> Outputs:
    """{{input:language}} for {{input:task}} {{output:code}}"""


@semantic_function
def judge(code: str) -> Outputs:
    """Judge {{input:code}} {{output:mark}} Why? {{output:why}}"""


@pytest.fixture(params=["remote", "embedded"])
def there(request: pytest.FixtureRequest) -> Iterator[World]:
    with world(request.param) as made:
        yield made


@pytest.fixture(scope="module")
def here() -> Iterator[World]:
    with world("embedded") as made:
        yield made


class Traces(BaseCallbackHandler):
    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    def on_chain_start(self, serialized: Any, inputs: Any, *, name: str | None = None, **more: Any) -> None:
        self.heard.append((f"start {name}", inputs))

    def on_chain_end(self, outputs: Any, **more: Any) -> None:
        self.heard.append(("end", outputs))

    def on_chain_error(self, error: BaseException, **more: Any) -> None:
        self.heard.append(("error", type(error)))


def test_it_is_a_runnable_that_takes_names_or_the_one_input_that_is_open(there: World) -> None:
    assert isinstance(write, Runnable)
    assert write.invoke({"task": "x", "language": "C"}) == "<C for x>"
    assert write.bind(language="C").invoke("x") == "<C for x>"
    assert judge.invoke("x") == {"mark": "<Judge x>", "why": "<Why?>"}
    there.until(lambda: not there.manager.sessions())


def test_it_is_piped_from_and_into(here: World) -> None:
    chain = RunnablePassthrough.assign(language=lambda _: "C") | write | StrOutputParser()
    assert chain.invoke({"task": "x"}) == "<C for x>"
    assert (RunnableLambda(lambda text: {"task": text}) | write | CommaSeparatedListOutputParser()).invoke("a, b") == [
        "<Python for a",
        "b>",
    ]
    assert ({"code": operator.itemgetter("given")} | judge).invoke({"given": "x"})["why"] == "<Why?>"
    both = RunnableParallel(one=write, other=write.bind(language="C"))
    assert both.invoke({"task": "x"}) == {"one": "<Python for x>", "other": "<C for x>"}


def test_a_batch_is_one_group_in_one_session(there: World) -> None:
    assert write.bind(language="C").batch(["a", {"task": "b"}]) == ["<C for a>", "<C for b>"]
    assert judge.batch([]) == []
    with there.application.open_session() as session:
        assert write.batch([{"task": "a"}, {"task": "b"}]) == ["<Python for a>", "<Python for b>"]
        first, second = session.describe()["calls"]
        assert first["group"] == second["group"] is not None
    there.until(lambda: not there.manager.sessions())


def test_of_a_batch_one_may_fail_and_the_others_do_not(there: World) -> None:
    there.inside(lambda: there.engine.fail_next(EngineError("out of paper")))
    results = judge.batch(["a", "b"], return_exceptions=True)
    assert sorted(isinstance(result, EngineError) for result in results) == [False, True]
    there.inside(lambda: there.engine.fail_next(EngineError("out of paper")))
    with pytest.raises(EngineError, match="out of paper"):
        judge.batch(["a", "b"])


@pytest.mark.parametrize("is_async", [False, True])
def test_of_a_batch_one_input_may_be_wrong_and_the_others_are_answered(there: World, is_async: bool) -> None:
    inputs: list[Any] = ["a", {"text": "b", "extra": 1}, None, "c"]
    expected = judge.batch(["a", "c"])

    def ask(**more: Any) -> list[Any]:
        return asyncio.run(judge.abatch(inputs, **more)) if is_async else judge.batch(inputs, **more)

    first, extra, nothing, last = ask(return_exceptions=True)
    assert [first, last] == expected
    assert isinstance(extra, BadTemplate) and isinstance(nothing, BadTemplate)
    with pytest.raises(BadTemplate):
        ask()


def test_a_stream_is_the_text_in_pieces_also_through_a_chain(there: World) -> None:
    chain = write.bind(language="some language") | StrOutputParser()
    pieces = list(chain.stream({"task": "something"}))
    assert len(pieces) > 2 and "".join(pieces) == "<some language for something>"
    several = list(judge.stream("something long"))
    assert sum(several[1:], several[0]) == {"mark": "<Judge something long>", "why": "<Why?>"}
    assert len(several) > 3


def test_all_of_it_can_be_awaited(there: World) -> None:
    async def run() -> list[Any]:
        return [
            await write.ainvoke({"task": "x"}),
            await judge.abatch(["a", "b"]),
            [piece async for piece in write.astream({"task": "something"})],
            await (write | StrOutputParser()).ainvoke({"task": "y"}),
        ]

    invoked, batch, pieces, chained = asyncio.run(run())
    assert invoked == "<Python for x>" and chained == "<Python for y>"
    assert [one["mark"] for one in batch] == ["<Judge a>", "<Judge b>"]
    assert len(pieces) > 1 and "".join(pieces) == "<Python for something>"
    there.until(lambda: not there.manager.sessions())


def test_a_reader_that_leaves_a_stream_ends_its_call(there: World) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, FirstToken):
            there.engine.stall()  # the rest is not there yet, however late this test looks

    there.inside(lambda: there.manager.events.subscribe(stop))
    pieces = write.stream({"task": "x" * 500})
    next(pieces)
    assert there.inside(lambda: there.manager.open_calls) == 1
    pieces.close()  # type: ignore[attr-defined]
    there.until(lambda: not there.manager.sessions() and not there.manager.open_calls)


def test_callbacks_hear_of_it_as_of_any_runnable(here: World) -> None:
    traces = Traces()
    config: Any = {"callbacks": [traces], "run_name": "mine"}
    write.invoke({"task": "x"}, config)
    assert traces.heard == [("start mine", {"task": "x"}), ("end", "<Python for x>")]
    traces.heard.clear()
    judge.batch(["a", "b"], {"callbacks": [traces]})
    assert [what for what, _ in traces.heard] == ["start judge", "start judge", "end", "end"]
    traces.heard.clear()
    with pytest.raises(BadTemplate):
        write.invoke({"tusk": "x"}, {"callbacks": [traces]})
    assert traces.heard == [("start write", {"tusk": "x"}), ("error", BadTemplate)]


def test_config_retries_and_fallbacks_are_langchains(here: World) -> None:
    here.inside(lambda: here.engine.fail_next(EngineError("out of paper")))
    assert write.with_retry(stop_after_attempt=2, wait_exponential_jitter=False).invoke({"task": "x"}) == (
        "<Python for x>"
    )
    here.inside(lambda: here.engine.fail_next(EngineError("out of paper")))
    assert write.with_fallbacks([RunnableLambda(lambda _: "else")]).invoke({"task": "x"}) == "else"


def test_it_joins_the_session_of_what_it_reads(here: World) -> None:
    session = here.application.open_session()
    made = write(session.variable("x"))
    assert judge.invoke({"code": made.code})["mark"] == "<Judge <Python for x>>"
    assert [call["function"] for call in session.describe()["calls"]] == ["write", "judge", "judge"]


def test_inputs_that_do_not_fit_are_refused_by_name() -> None:
    with pytest.raises(BadTemplate, match="no input tusk"):
        write.invoke({"task": "x", "tusk": "y"})
    with pytest.raises(BadTemplate, match="inputs task, language: give them by name"):
        write.invoke("x")


def test_it_tells_its_types_and_is_a_tool() -> None:
    assert judge.get_name() == "judge" and judge.OutputType == dict[str, str] and write.OutputType is str
    schema = write.get_input_schema().model_json_schema()
    assert schema["required"] == ["task"] and schema["properties"]["language"]["default"] == "Python"
    with pytest.warns(LangChainBetaWarning):
        assert write.as_tool().name == "write"


def test_without_lists_map_is_langchains(here: World) -> None:
    assert write.map().invoke([{"task": "a"}, {"task": "b"}]) == ["<Python for a>", "<Python for b>"]
    assert [made.code.get() for made in write.map(["a"])] == ["<Python for a>"]
