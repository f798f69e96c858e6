"""Result files: what is written is what was measured, and says where and how."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipes.benchmarks.measured import COLUMNS, Measured, read, update, write


def test_a_file_has_the_command_the_columns_and_a_row_per_quantity(tmp_path: Path) -> None:
    measurements = [
        Measured("chain of 10, 50 ms", "planner off", "completion", "s", [0.9, 0.5, 0.7]),
        Measured('a "quoted", name', "planner on", "completion", "s", [0.1]),
    ]
    path = write("mine", measurements, command=["python", "-m", "recipes.x", "--rtt-ms", "a b"], folder=tmp_path)
    first, header, *_ = path.read_text().splitlines()
    assert first == "# python -m recipes.x --rtt-ms 'a b'"
    assert header == "workload,system,metric,unit,p50,p20,p80,hardware,versions,commit,date"
    off, on = read(path)
    what = [off[column] for column in ("workload", "system", "metric", "unit")]
    assert what == ["chain of 10, 50 ms", "planner off", "completion", "s"]
    assert [float(off[column]) for column in ("p50", "p20", "p80")] == pytest.approx([0.7, 0.58, 0.82])
    assert on["workload"] == 'a "quoted", name' and float(on["p20"]) == float(on["p80"]) == 0.1
    assert all(off[column] for column in COLUMNS)


def test_writing_again_replaces_the_file(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        path = write("mine", [Measured("w", "s", "m", "s", [value])], command=["x"], folder=tmp_path)
    assert [row["p50"] for row in read(path)] == ["2"]


def test_a_quantity_without_values_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="planner on: completion"):
        Measured("chain", "planner on", "completion", "s", [])


def test_an_update_leaves_the_rows_of_other_systems_and_the_commands_that_made_them(tmp_path: Path) -> None:
    for system, value in (("ours", 1.0), ("vllm", 2.0), ("ours", 3.0)):
        command = ["x", "--name", system]
        path = update("mine", [Measured("w", system, "m", "s", [value])], command=command, folder=tmp_path)
    assert [(row["system"], row["p50"]) for row in read(path)] == [("vllm", "2"), ("ours", "3")]
    comments = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert comments == ["# vllm: x --name vllm", "# ours: x --name ours"]
