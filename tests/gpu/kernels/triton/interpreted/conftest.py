"""These tests run where Triton can: on a CUDA device, or in its interpreter, which must be chosen before Triton is
imported and would change it for all other tests. So without a device they are collected only in a process of their
own, which `tests/gpu/kernels/triton/test_interpreted.py` starts."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
collect_ignore_glob = [] if IS_INTERPRETED or torch.cuda.is_available() else ["test_*.py"]


@pytest.fixture
def device() -> str:
    return "cpu" if IS_INTERPRETED else "cuda"


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """What a kernel forgets to write is NaN: torch fills every new tensor with it."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)


DTYPES = [
    torch.float32,
    torch.float16,
    # The interpreter's bfloat16 products are silently wrong.
    pytest.param(torch.bfloat16, marks=[pytest.mark.gpu, pytest.mark.skipif(IS_INTERPRETED, reason="needs a device")]),
]
TOLERANCE = {torch.float32: (1e-4, 1e-5), torch.float16: (4e-3, 4e-3), torch.bfloat16: (3e-2, 3e-2)}
