"""What a failed step means: its rows end, or the device is lost and its engine with it, whoever heard of it first."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from parrot_compat.core.engine_front import Command
from parrot_compat.core.errors import EngineError, EngineLost
from parrot_compat.gpu.runner import ModelRunner
from tests.gpu.paged_runner import PagedRunner, answer, expected, generate, paged_stepper, prompt, resolved, started

GONE = torch.AcceleratorError("CUDA error: unspecified launch failure")
"""What a lost device answers to everything."""
HEARD_FIRST = [
    RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"),
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    torch.AcceleratorError("CUDA error: out of memory"),
]
SURVIVED = [
    RuntimeError("Triton Error [CUDA]: out of resource: shared memory"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
    torch.AcceleratorError("CUDA error: out of memory"),
    ValueError("a mistake of ours"),
]


class Breaking(PagedRunner):
    """It breaks as its second step is launched, or collected."""

    error: Exception
    breaks_at: str
    asked = 0
    """How often somebody wanted to know whether the device is there."""

    def launch(self, rows: Any, after: Any = None) -> Any:
        if self.breaks_at == "launch" and len(self.steps) == 1:
            self.fails.append(self.error)
        return super().launch(rows, after)

    def collect(self, flight: Any) -> Any:
        if self.breaks_at == "collect" and len(self.steps) == 2:
            self.breaks_at = ""
            raise self.error
        return super().collect(flight)

    def check_device(self) -> None:
        self.asked += 1
        super().check_device()


def breaking(error: Exception, at: str, **config: Any) -> Breaking:
    runner = Breaking(resolved(**config))
    runner.error, runner.breaks_at = error, at
    return runner


at_launch_and_collect = pytest.mark.parametrize("at", ["launch", "collect"])


@at_launch_and_collect
@pytest.mark.parametrize("is_ahead", [False, True])
@pytest.mark.parametrize("error", HEARD_FIRST, ids=lambda error: str(error)[:24])
def test_a_lost_device_ends_the_engine_whoever_heard_of_it_first(error: Exception, at: str, is_ahead: bool) -> None:
    runner = breaking(error, at, async_scheduling=is_ahead)
    runner.lost = GONE
    stepper = paged_stepper(runner)
    with pytest.raises(torch.AcceleratorError) as said:
        stepper.step([Command(n, generate(n, prompt(5, n), 10)) for n in (1, 2)])
        while stepper.has_work:
            stepper.step(())
    assert said.value in (GONE, error)


@at_launch_and_collect
@pytest.mark.parametrize("is_ahead", [False, True])
@pytest.mark.parametrize("error", SURVIVED, ids=lambda error: str(error)[:24])
def test_what_the_device_survives_fails_the_rows_of_the_step_and_nobody_else(
    error: Exception, at: str, is_ahead: bool
) -> None:
    runner = breaking(error, at, async_scheduling=is_ahead)
    stepper = paged_stepper(runner)
    updates = list(stepper.step([Command(n, generate(n, prompt(5, n), 10)) for n in (1, 2)]).updates)
    while stepper.has_work:
        updates += stepper.step(()).updates
        stepper.check()
    failed = [update for update in updates if isinstance(update.answer, Exception)]
    assert [update.command for update in failed] == [1, 2] and runner.asked == 1
    assert all(type(update.answer) is EngineError and update.answer.__cause__ is error for update in failed)
    runner.breaks_at = ""
    drawn = list(stepper.step([Command(3, generate(3, prompt(5, 3), 10))]).updates)
    while stepper.has_work:
        drawn += stepper.step(()).updates
    assert tuple(token for update in drawn for token in update.answer.tokens) == expected(prompt(5, 3), 10)


async def test_calls_of_a_lost_device_hear_that_their_engine_is_lost_so_that_they_are_asked_elsewhere() -> None:
    engine = await started()
    engine.runner.fails.append(HEARD_FIRST[0])
    engine.runner.lost = GONE
    with pytest.raises(EngineLost, match="unspecified launch failure"):
        await answer(engine, 1, prompt(3, 1), 6)
    await engine.close()


def test_a_runner_asks_a_cuda_device_by_waiting_for_it_and_a_cpu_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    runner = object.__new__(ModelRunner)
    for device in ("cpu", "cuda"):
        runner.device = torch.device(device)
        runner.check_device()
    assert waited == [torch.device("cuda")]
