"""Starts the kernels' own tests in Triton's interpreter, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

HERE = Path(__file__).parent / "interpreted"
FILES = sorted(path.name for path in HERE.glob("test_*.py"))
NOT_PASSED = {"failure", "error", "skipped"}


@dataclass
class Told:
    """What the process said: of each file's cases what is in `NOT_PASSED`, or None, and the end of its output."""

    outcomes: dict[str, list[str | None]]
    output: str


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """One process for all files: in each anew, what takes longest would be loading torch and Triton."""
    pytest.importorskip("triton")
    place = tmp_path_factory.mktemp("interpreted") / "results.xml"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "not gpu", str(HERE)]
    command += ["--continue-on-collection-errors", f"--junitxml={place}", "-o", "junit_family=xunit1"]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    output = result.stdout[-8000:] + result.stderr[-2000:]
    assert place.exists(), output
    outcomes: dict[str, list[str | None]] = {file: [] for file in FILES}
    for case in ElementTree.parse(place).iter("testcase"):
        # A file that cannot be read is a case without one: its own has none then, and is told so below.
        if (file := Path(case.get("file", "")).name) in outcomes:
            outcomes[file].append(next((part.tag for part in case if part.tag in NOT_PASSED), None))
    return Told(outcomes, output)


@pytest.mark.timeout(900)  # of the first: it waits for the process
@pytest.mark.parametrize("file", FILES)
def test_kernels_compute_in_the_interpreter_what_the_reference_computes(file: str, told: Told) -> None:
    outcomes = told.outcomes[file]
    assert None in outcomes and {*outcomes} <= {None, "skipped"}, told.output
