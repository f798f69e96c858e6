"""Every stored tile compiles for the devices we serve, without one."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("element", "capabilities"),
    # float32 is for proofs, and slow to compile: one device here, all of them in scripts/test-matrix.
    [("bf16", ("80", "90", "100")), ("fp32", ("90",))],
)
def test_every_stored_tile_compiles_and_spills_nothing(
    element: str, capabilities: tuple[str, ...], tmp_path: Path
) -> None:
    pytest.importorskip("triton")
    place = tmp_path / "compiled.csv"
    command = [sys.executable, "-m", "recipes.benchmarks.kernel_compile", "--quick", "--elements", element]
    command += ["--capabilities", ",".join(capabilities), "--csv", str(place)]
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-5000:]
    with place.open(newline="") as file:
        lines = list(csv.DictReader(file))
    kinds = {(line["name"].split(f" {element}")[0], line["capability"]) for line in lines}
    attention = {f"attend_strips {kind}" for kind in ("direct", "private", "shared")}
    others = {"merge_partials", "merge_pair", "multiply", "normalise", "gate", "rotate_and_store", "store_pairs"}
    assert kinds == {(name, capability) for name in attention | others for capability in capabilities}
    spilled = [line for line in lines if int(line["spilled_bytes"]) > 0]
    assert not spilled
    assert all(0 < int(line["registers"]) <= 255 for line in lines)
