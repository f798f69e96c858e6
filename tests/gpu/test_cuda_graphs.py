"""A step's CUDA graph without a device: when it is captured, and what a capture that failed leaves behind."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from parrot_compat.gpu.cuda_graphs import _FixedStep
from parrot_compat.gpu.kernels.triton.step import Capacity, Partials


class Graph:
    def __init__(self) -> None:
        self.replayed = 0

    def replay(self) -> None:
        self.replayed += 1


@contextmanager
def captured(graph: Graph, **asked: Any) -> Iterator[None]:
    yield


streams: list[str] = []
"""Those that were set back."""
collected: list[bool] = []
"""Of each computation, whether garbage might have been collected amid it."""


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    streams.clear()
    collected.clear()


def step_of(patch: pytest.MonkeyPatch, *given: Tensor | Exception) -> tuple[Any, Callable[[], Tensor]]:
    """A step whose decoder gives these states one after another."""
    patch.setattr(torch.cuda, "CUDAGraph", Graph)
    patch.setattr(torch.cuda, "graph", captured)
    patch.setattr(torch.cuda, "current_stream", lambda: "the step's stream")
    patch.setattr(torch.cuda, "set_stream", streams.append)
    answers = iter(given)

    def compute(self: _FixedStep, decoder: Any, storage: Any) -> Tensor:
        answer = next(answers)
        collected.append(gc.isenabled())
        if isinstance(answer, Exception):
            raise answer
        return answer

    patch.setattr(_FixedStep, "_compute", compute)
    step: Any = object.__new__(_FixedStep)
    step._graph, step._states, step._may_capture, step.tables = None, None, True, SimpleNamespace(capacity="two rows")
    return step, lambda: step.run(None, None, None)


@pytest.mark.parametrize("tokens", [1, 2, 12])
def test_what_a_triton_kernel_reads_begins_at_16_bytes_in_the_buffers_of_a_graph_too(tokens: int) -> None:
    capacity = Capacity(direct=0, private=1, shared=0, tokens=tokens, members=4, split_tokens=1, slots=4, pages=4)
    batch = _FixedStep(capacity, 16, 64, torch.device("cpu"), Partials())._batch
    for tensor in (batch.positions, batch.attention.slots):
        assert tensor.storage_offset() * tensor.element_size() % 16 == 0


def test_the_first_step_runs_the_second_is_captured_and_the_rest_are_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = torch.zeros(1), torch.ones(1)
    step, run = step_of(monkeypatch, first, second)
    assert [run() is first, run() is second, run() is second] == [True] * 3
    assert step._graph.replayed == 2


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("no room for the graph"),
        torch.AcceleratorError("CUDA error: out of memory"),  # a capture that cannot be ended
    ],
)
def test_a_graph_that_the_memory_has_no_room_for_fails_no_row_and_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    first, third, fourth = torch.zeros(1), torch.ones(1), torch.full((1,), 2.0)
    step, run = step_of(monkeypatch, first, error, third, fourth)
    assert [run() is first, run() is third, run() is fourth] == [True] * 3
    assert step._graph is None and streams == ["the step's stream"]


def test_what_a_capture_that_failed_left_is_never_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the device's own errors the engine is told: it answers nothing any more."""
    first = torch.zeros(1)
    step, run = step_of(monkeypatch, first, torch.AcceleratorError("an illegal memory access"))
    assert run() is first
    with pytest.raises(torch.AcceleratorError):
        run()
    assert step._graph is None and step._states is first
    assert streams == ["the step's stream"]


@pytest.mark.parametrize(
    "outcome",
    [
        torch.ones(1),
        torch.OutOfMemoryError("no room for the graph"),
        torch.AcceleratorError("an illegal memory access"),
        RuntimeError("no such kernel"),  # it fails its rows, and the engine goes on
    ],
    ids=["captured", "no room", "device", "other"],
)
@pytest.mark.parametrize("is_on", [True, False])
def test_no_garbage_is_collected_amid_a_capture_and_all_is_as_before_behind_it(
    monkeypatch: pytest.MonkeyPatch, outcome: Tensor | Exception, is_on: bool
) -> None:
    """What is garbage may be the graphs of an engine that was closed."""
    _, run = step_of(monkeypatch, torch.zeros(1), outcome, torch.ones(1))
    (gc.enable if is_on else gc.disable)()
    try:
        run()
        with suppress(torch.AcceleratorError, RuntimeError):
            run()
        after = gc.isenabled()
    finally:
        gc.enable()
    assert collected[:2] == [is_on, False] and after == is_on
    assert streams == ["the step's stream"] * isinstance(outcome, Exception)


def test_a_capture_that_cannot_be_begun_sets_the_stream_back(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def not_begun(graph: Graph, **asked: Any) -> Iterator[None]:
        raise RuntimeError("another capture is under way")
        yield

    _, run = step_of(monkeypatch, torch.zeros(1))
    monkeypatch.setattr(torch.cuda, "graph", not_begun)
    run()
    with pytest.raises(RuntimeError):
        run()
    assert streams == ["the step's stream"] and gc.isenabled()


def test_nothing_is_captured_before_a_step_has_run_through(monkeypatch: pytest.MonkeyPatch) -> None:
    second = torch.zeros(1)
    step, run = step_of(monkeypatch, torch.OutOfMemoryError("no room for the step"), second)
    with pytest.raises(torch.OutOfMemoryError):
        run()
    assert run() is second and step._graph is None
