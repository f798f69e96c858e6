"""What the host adds to a step: measured in parts that make sense, on a small model."""

from __future__ import annotations

import pytest

from parrot_compat.gpu.kernels.cpu.build import library
from recipes.benchmarks.host import WARM, measured


def test_the_hosts_part_and_the_dispatch_of_each_step_are_told() -> None:
    if library() is None:
        pytest.skip("there is no C++ compiler, or it is not wanted")
    tokens = WARM + 6
    host, dispatch = measured("builtin:random", tokens)
    assert (host.metric, dispatch.metric, host.unit) == ("host", "dispatch", "ms")
    assert len(host.values) == len(dispatch.values) >= 5
    assert all(value > 0 for value in (*host.values, *dispatch.values))
