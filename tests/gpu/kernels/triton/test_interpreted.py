"""Starts the kernels' own tests in Triton's interpreter, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "interpreted"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("file", sorted(path.name for path in HERE.glob("test_*.py")))
def test_kernels_compute_in_the_interpreter_what_the_reference_computes(file: str) -> None:
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "-m", "not gpu", str(HERE / file)]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]
    assert " passed" in result.stdout
