"""The graph: edges, readiness, cycles, groups; and random graphs against a plain model of what a graph is."""

from __future__ import annotations

import gc
import sys
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_compat.core.call import Call, CallId, VariableName
from parrot_compat.core.errors import AlreadySettled, CallerError, CycleInGraph, UnknownVariable
from parrot_compat.core.graph import Graph
from parrot_compat.core.prompt import ChatPrompt, Constant, Input, Message, Segment, TextPrompt


def call(id: str, *inputs: str, output: str | None = None, opening: str = "") -> Call:
    segments: list[Segment] = [Constant(opening)] if opening else []
    segments += [Input(name) for name in inputs]
    return Call(id=CallId(id), prompt=TextPrompt(tuple(segments)), output=VariableName(output or f"out-{id}"))


def test_a_call_without_inputs_is_ready_at_once() -> None:
    graph = Graph()
    assert graph.add([call("a")]) == ("a",)
    graph.check()


def test_a_call_is_ready_when_its_last_input_has_its_value() -> None:
    graph = Graph()
    graph.add([call("a"), call("b")])
    assert graph.add([call("c", "out-a", "out-b")]) == ()
    assert graph.settle("out-a") == ()
    assert graph.missing(CallId("c")) == {"out-b"}
    assert graph.settle("out-b") == ("c",)
    graph.check()


def test_an_input_read_twice_by_one_call_counts_once() -> None:
    graph = Graph()
    graph.add([call("a"), call("b", "out-a", "out-a")])
    assert graph.consumers("out-a") == ("b",)
    assert graph.settle("out-a") == ("b",)
    graph.check()


def test_one_output_read_by_two_consumers_readies_both_in_order() -> None:
    graph = Graph()
    graph.add([call("a"), call("c", "out-a"), call("b", "out-a")])
    assert graph.settle("out-a") == ("c", "b")
    assert graph.producer("out-a") == "a"


def test_calls_of_one_submit_may_come_in_any_order() -> None:
    graph = Graph()
    assert graph.add([call("c", "out-b"), call("b", "out-a"), call("a")]) == ("a",)
    graph.check()


def test_an_output_may_be_bound_to_a_variable_declared_before() -> None:
    graph = Graph()
    graph.declare("essay")
    graph.add([call("reader", "essay")])
    assert graph.add([call("writer", output="essay")]) == ("writer",)
    assert graph.producer("essay") == "writer"
    graph.check()


def test_an_unknown_input_is_refused_by_name() -> None:
    graph = Graph()
    with pytest.raises(UnknownVariable, match="'b' reads variable 'nobody'"):
        graph.add([call("a"), call("b", "nobody")])
    assert len(graph) == 0 and not graph.has_variable("out-a")
    graph.check()


def test_a_variable_has_one_producer() -> None:
    graph = Graph()
    graph.add([call("a", output="x")])
    with pytest.raises(AlreadySettled, match="the output of call 'a'"):
        graph.add([call("b", output="x")])
    with pytest.raises(AlreadySettled):
        graph.add([call("c", output="y"), call("d", output="y")])
    assert not graph.has_variable("y")
    graph.check()


def test_a_settled_variable_takes_no_producer() -> None:
    graph = Graph()
    graph.declare("x")
    graph.settle("x")
    with pytest.raises(AlreadySettled):
        graph.add([call("a", output="x")])


def test_an_id_is_used_once() -> None:
    graph = Graph()
    graph.add([call("a")])
    with pytest.raises(CallerError, match="'a' exists already"):
        graph.add([call("a", output="other")])


def test_a_call_that_reads_its_own_output_is_a_cycle() -> None:
    with pytest.raises(CycleInGraph, match="'a' → 'a'"):
        Graph().add([call("a", "x", output="x")])


def test_a_cycle_is_named_and_nothing_of_the_submit_is_taken() -> None:
    graph = Graph()
    graph.add([call("free")])
    with pytest.raises(CycleInGraph) as refusal:
        graph.add([call("a", "out-c"), call("b", "out-a"), call("c", "out-b")])
    assert str(refusal.value) == "calls would wait for each other: 'c' → 'a' → 'b' → 'c'"
    assert len(graph) == 1
    graph.check()


def test_a_cycle_over_variables_declared_before_is_refused_too() -> None:
    graph = Graph()
    graph.declare("x")
    graph.add([call("a", "x"), call("b", "out-a"), call("side", "out-a")])
    with pytest.raises(CycleInGraph):
        graph.add([call("c", "out-b", output="x")])
    graph.add([call("d", "out-side", output="z")])
    graph.check()


@pytest.mark.parametrize("closes", [False, True])
def test_the_middle_of_a_long_chain_may_come_last(closes: bool) -> None:
    graph, length = Graph(), 2000
    graph.declare("v0")
    graph.declare("v1000")
    graph.add([call(f"c{n}", f"v{n}", output=f"v{n + 1}") for n in range(length) if n != 999])
    if closes:
        graph.add([call("closing", f"v{length}", output="v0")])
    tracemalloc.start()
    try:
        if closes:
            with pytest.raises(CycleInGraph) as told:
                graph.add([call("c999", "v999", output="v1000")])
            names = [name.strip("'") for name in str(told.value).partition(": ")[2].split(" → ")]
            around = ["c999", *(f"c{n}" for n in range(1000, length)), "closing", *(f"c{n}" for n in range(1000))]
            assert names == around
        else:
            graph.add([call("c999", "v999", output="v1000")])
        assert tracemalloc.get_traced_memory()[1] < 1_000 * length, "each step costs the same"
    finally:
        tracemalloc.stop()
    graph.check()


def test_calls_that_begin_with_the_same_text_are_alike() -> None:
    graph = Graph()
    graph.declare("x")
    graph.declare("y")
    calls = [call("a", "x", opening="Translate: "), call("b", "y", opening="Translate: "), call("c", "y", opening="No")]
    graph.add(calls)
    assert set(graph.alike([call.id for call in calls])) == {"a", "b"}


def test_calls_that_share_nothing_before_their_first_input_are_not_alike() -> None:
    graph = Graph()
    graph.declare("x")
    calls = [call("a", "x"), call("b", "x")]
    graph.add(calls)
    assert graph.alike([call.id for call in calls]) == {}


def test_prefix_hashes_are_equal_up_to_the_first_difference() -> None:
    graph = Graph()
    for name in ("x", "y", "z"):
        graph.declare(name)
    system = Message.of("system", "You are terse.")

    def chat(id: str, first: str, second: str) -> Call:
        user = Message("user", (Constant("one: "), Input(first), Constant(" two: "), Input(second)))
        return Call(id=CallId(id), prompt=ChatPrompt((system, user)), output=VariableName(f"out-{id}"))

    graph.add([chat("a", "x", "y"), chat("b", "x", "z"), chat("c", "y", "z")])
    a, b, c = (graph.prefix_hashes(CallId(id), lambda variable: variable) for id in "abc")
    assert len(a) == 3
    assert a[:2] == b[:2] and a[2] != b[2]
    assert a[0] == c[0] and a[1] != c[1]
    same_text = graph.prefix_hashes(CallId("c"), {"x": "1", "y": "1", "z": "2"}.__getitem__)
    assert same_text == graph.prefix_hashes(CallId("b"), {"x": "1", "y": "1", "z": "2"}.__getitem__)


@pytest.mark.parametrize("is_backwards", [False, True])
def test_a_chain_costs_the_same_per_call_however_long_it_is(is_backwards: bool) -> None:
    def operations(calls: int) -> int:
        graph, count = Graph(), 0
        for number in range(calls + 1):
            graph.declare(f"v{number}")
        chain = [call(str(number), f"v{number}", output=f"v{number + 1}") for number in range(calls)]

        def note(frame: object, event: str, argument: object) -> None:
            nonlocal count
            count += 1

        gc.disable()  # what other tests left behind would be finalised here, and counted
        sys.setprofile(note)  # counts every function and method that is called: no clock decides
        try:
            for link in reversed(chain) if is_backwards else chain:
                graph.add([link])
        finally:
            sys.setprofile(None)
            gc.enable()
        return count

    assert operations(400) <= 4 * operations(100) + 100


# ---- random graphs ---------------------------------------------------------------------------------------------------

names = st.integers(0, 7).map(lambda number: f"v{number}")
submits = st.lists(st.tuples(names, st.lists(names, max_size=3)), min_size=1, max_size=3)


class Model:
    """What a graph is, without any cleverness."""

    def __init__(self) -> None:
        self.calls: dict[str, Call] = {}
        self.known: set[str] = set()
        self.settled: set[str] = set()

    def accepts(self, calls: list[Call]) -> bool:
        known = self.known | {call.output for call in calls}
        together = [*self.calls.values(), *calls]
        outputs = [call.output for call in together]
        if len(set(outputs)) < len(outputs) or any(call.output in self.settled for call in calls):
            return False
        if any(name not in known for call in calls for name in call.prompt.inputs()):
            return False
        done = known - set(outputs) | self.settled
        while ready := [call for call in together if call.output not in done and done.issuperset(call.prompt.inputs())]:
            done |= {call.output for call in ready}
        return done.issuperset(outputs)

    def ready(self, settled: set[str]) -> set[str]:
        return {call.id for call in self.calls.values() if settled.issuperset(call.prompt.inputs())}


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(submits, names, names.map(lambda name: (name,))), max_size=14))
def test_a_graph_is_what_its_plain_model_says(steps: list[object]) -> None:
    graph, model, number = Graph(), Model(), 0
    for step in steps:
        if isinstance(step, str):
            graph.declare(step)
            model.known.add(step)
        elif isinstance(step, tuple):
            (name,) = step
            if name in model.known and name not in model.settled:
                before, after = model.ready(model.settled), model.ready(model.settled | {name})
                assert set(graph.settle(name)) == after - before
                model.settled.add(name)
        elif isinstance(step, list):
            calls = [call(str(number + index), *inputs, output=output) for index, (output, inputs) in enumerate(step)]
            number += len(calls)
            if model.accepts(calls):
                ready = graph.add(calls)
                model.calls |= {call.id: call for call in calls}
                model.known |= {call.output for call in calls}
                assert set(ready) == model.ready(model.settled) & {call.id for call in calls}
            else:
                with pytest.raises(CallerError):
                    graph.add(calls)
        graph.check()
        for name in model.known:
            consumers = [call.id for call in model.calls.values() if name in call.prompt.inputs()]
            assert list(graph.consumers(name)) == consumers
