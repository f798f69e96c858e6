"""The GPU suite runs on a CPU, every line that does not launch a kernel, and refuses to call that a measurement."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from parrot_compat.gpu.kernels.costs import device_costs
from recipes.benchmarks import gpu_kernels, gpu_models, gpu_suite
from recipes.benchmarks.gpu_rows import KEY, GpuRow, Where, merge_csv, table

WHERE = Where(device="d", versions="v", commit="c", date="2026-01-01")


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu-suite")
    (folder / "devices.json").write_text(json.dumps([{"device": "other", "dtype": "float32"}]))
    files = ["--csv", str(folder / "gpu.csv"), "--costs", str(folder / "devices.json"), "--folder", str(folder)]
    assert gpu_suite.main(["--part", "all", "--tiny", *files, "--commit", "abc"]) == 0
    return folder


def test_every_part_leaves_rows_that_say_where_they_come_from(dry_run: Path) -> None:
    with (dry_run / "gpu.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"exactness", "kernels", "engine"} <= {row["part"] for row in rows}
    assert all(row["commit"] == "abc" and "torch" in row["versions"] and row["date"] for row in rows)
    assert {row["case"].split()[0] for row in rows if row["part"] == "exactness"} == {
        "decode", "prefill", "forest", "tiny-llama",
    }  # fmt: skip
    read = [row for row in rows if row["metric"] == "KV bytes asked for / unique"]
    # two and three rows over 32 keys in common and 16 of their own
    assert [float(row["p50"]) for row in read] == [2 * 48 / 64, 3 * 48 / 80]


def test_the_devices_costs_are_noted_for_the_engine_beside_other_devices(dry_run: Path) -> None:
    stored = json.loads((dry_run / "devices.json").read_text())
    assert stored[0]["device"] == "other" and len(stored) == 2
    (dry_run / "ours.json").write_text(json.dumps(stored[1:]))
    found = device_costs(stored[1]["device"], stored[1]["dtype"], dry_run / "ours.json")
    assert found is not None and found.memory_bytes_per_s > 0 and found.launch_s > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="a device is there")
def test_without_a_device_only_a_trial_is_possible(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_suite.main(["--part", "kernels"]) == 2
    assert "--tiny" in capsys.readouterr().err


def test_a_trial_that_names_no_file_leaves_the_results_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = GpuRow.of(WHERE, "kernels", "decode", "ours", "time", "s", [1.0])
    monkeypatch.setattr(gpu_suite, "measured", lambda *given, **more: iter([row]))
    monkeypatch.setattr(gpu_suite, "RESULTS", tmp_path)
    assert gpu_suite.main(["--part", "kernels", "--tiny", "--commit", "abc"]) == 0
    assert list(tmp_path.iterdir()) == []
    assert gpu_suite.main(["--part", "kernels", "--tiny", "--csv", str(tmp_path / "mine.csv")]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["mine.csv"]


Prompts = set[tuple[int, ...]]


def all_but_the_last_met_nothing_of_it(runs: list[Prompts]) -> bool:
    *earlier, counted = runs
    return bool(earlier) and len(counted) == gpu_suite.TINY.sequences and not counted & set().union(*earlier)


def test_vllm_is_timed_on_prompts_that_its_cache_has_not_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[Prompts] = []

    class LLM:
        def __init__(self, *given: object, **options: object) -> None:
            pass

        def generate(self, prompts: list[dict[str, list[int]]], sampling: list[object], *, use_tqdm: bool) -> None:
            assert len(sampling) == len(prompts)
            runs.append({tuple(prompt["prompt_token_ids"]) for prompt in prompts})

    made = ModuleType("vllm")
    made.__spec__ = ModuleSpec("vllm", None)
    made.LLM, made.SamplingParams = LLM, SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", made)
    (row,) = gpu_models.vllm(["tiny-qwen3"], gpu_suite.TINY, tmp_path, torch.device("cpu"), WHERE)
    assert row.case == "tiny-qwen3 3 sequences" and row.p50 > 0
    assert all_but_the_last_met_nothing_of_it(runs)


def test_every_system_is_timed_in_the_same_way() -> None:
    runs: list[Prompts] = []

    def run(asked: gpu_models.Asked) -> None:
        runs.append({tuple(prompt) for prompt, _ in asked})

    assert gpu_models.mixed_rate(run, gpu_suite.TINY, 512) > 0
    assert all_but_the_last_met_nothing_of_it(runs)


def test_a_kernel_that_is_wrong_stops_the_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    right = gpu_kernels.attention
    monkeypatch.setattr(gpu_kernels, "attention", lambda *a, **k: lambda: right(*a, **k)() + 0.1)
    with pytest.raises(AssertionError, match="differs from float64"):
        list(gpu_kernels.exactness(gpu_kernels.TINY, torch.device("cpu"), WHERE))


def test_a_later_run_replaces_its_own_rows_and_no_others(tmp_path: Path) -> None:
    row = GpuRow.of(WHERE, "kernels", "decode", "ours", "time", "s", [1.0, 3.0, 2.0])
    assert (row.p50, row.least, row.most, row.tries) == (2.0, 1.0, 3.0, 3)
    place = tmp_path / "gpu.csv"
    merge_csv([row, replace(row, device="another")], KEY, place)
    merge_csv([replace(row, p50=9.0, commit="later")], KEY, place)
    with place.open(newline="") as file:
        found = {line["device"]: (line["p50"], line["commit"]) for line in csv.DictReader(file)}
    assert found == {"d": ("9.0", "later"), "another": ("2.0", "c")}
    assert table([row]).splitlines()[2] == "| kernels | decode | ours | time [s] | 2 | 1 | 3 |"
