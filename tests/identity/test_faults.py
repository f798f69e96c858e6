"""The test of the test: every planted fault makes the identity check find differences; without it there are none."""

from __future__ import annotations

import pytest

from .faults import FAULTS, Fault
from .measure import Lab
from .scenarios import SCENARIOS


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "_"))
async def test_a_planted_fault_is_found(lab: Lab, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    healthy = (await lab.run(fault.shape, fault.scenario)).comparison
    assert not healthy.differences, str(healthy)
    with monkeypatch.context() as patch:
        fault.plant(patch)
        answers = await SCENARIOS[fault.scenario](lab.bench(fault.shape, fault.scenario))
    assert lab.oracle(fault.shape).compare(answers).differences, f"not found: {fault.name}"


def test_every_family_has_a_fault_of_its_own() -> None:
    assert {fault.shape for fault in FAULTS} == {"llama", "llama-tied", "mistral", "qwen2", "qwen3"}
