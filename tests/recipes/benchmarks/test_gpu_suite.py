"""The GPU suite runs on a CPU, every line that does not launch a kernel, and refuses to call that a measurement."""

from __future__ import annotations

import csv
import gc
import json
import re
import subprocess
import sys
import weakref
from contextlib import nullcontext
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from parrot_compat.gpu.kernels.costs import device_costs
from parrot_compat.gpu.kernels.cpu.table import cpu_kernels
from parrot_compat.gpu.runner import ModelRunner
from recipes.benchmarks import (
    gpu_exact,
    gpu_identity,
    gpu_kernels,
    gpu_models,
    gpu_rates,
    gpu_shapes,
    gpu_suite,
    gpu_vllm,
)
from recipes.benchmarks.gpu_budget import Budget, budgets
from recipes.benchmarks.gpu_cases import Cases, CasesFailed
from recipes.benchmarks.gpu_rows import GpuRow, Where, read
from recipes.benchmarks.gpu_steps import Launches
from tests.identity import measure
from tests.identity.oracle import Comparison

WHERE = Where(device="d", versions="v", commit="c", date="2026-01-01")


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "gpu.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class KnowingLab:
    """It need not run the engines of a checkpoint, which takes half a minute, to say what came out."""

    def __init__(self, folder: Path, device: str) -> None:
        assert not torch.is_inference_mode_enabled()

    async def run(self, shape: str, scenario: str) -> SimpleNamespace:
        return SimpleNamespace(comparison=Comparison(answers=7, exact=7, tokens=70))


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu-suite")
    (folder / "devices.json").write_text(json.dumps([{"device": "other", "dtype": "float32"}]))
    files = ["--csv", str(folder / "gpu.csv"), "--costs", str(folder / "devices.json"), "--folder", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "Lab", KnowingLab)
        assert gpu_suite.main(["--part", "all", "--tiny", *files, "--commit", "abc"]) == 0
    return folder


def test_every_part_leaves_rows_that_say_where_they_come_from(dry_run: Path) -> None:
    rows = rows_of(dry_run)
    assert {row["part"] for row in rows if row["metric"] == "wall time"} == set(gpu_suite.PARTS)
    assert {"exactness", "kernels", "engine", "identity"} <= {row["part"] for row in rows if row["system"] != "suite"}
    assert all(row["commit"] == "abc" and "torch" in row["versions"] and row["date"] for row in rows)
    assert {row["p50"] for row in rows if row["metric"] == "failures"} == {"0.0"}
    assert {row["case"].split()[0] for row in rows if row["part"] == "exactness" and row["unit"] == "1"} == {
        "decode", "prefill", "forest", "tiny-llama", "tiny-qwen3", "tiny-gemma3", "tiny-mixtral",
    }  # fmt: skip
    read = [row for row in rows if row["metric"] == "KV bytes asked for / unique"]
    # two and three rows over 32 keys in common and 16 of their own
    assert [float(row["p50"]) for row in read] == [2 * 48 / 64, 3 * 48 / 80]


def test_sampled_texts_are_decoded_beside_greedy_ones(dry_run: Path) -> None:
    rates = {(row["case"].split()[2], row["system"]) for row in rows_of(dry_run) if row["metric"] == "rate"}
    sampled = {"ours, sampled", "ours, sampled, top_p 0.9"}
    assert {("1", system) for system in sampled | {"ours"}} | {("3", system) for system in sampled | {"ours"}} <= rates


def test_launches_of_every_way_to_draw_are_looked_at_and_no_claim_is_made_without_a_device(dry_run: Path) -> None:
    rows = [row for row in rows_of(dry_run) if row["metric"] == "launches that wait for the device"]
    assert [row["case"].partition(", ")[2] for row in rows] == sorted(
        ["greedy", "sampled", "sampled, top_p 0.9", "top_k, min_p", "penalties", "logit bias", "log probabilities"]
    )
    if not torch.cuda.is_available():
        assert {row["note"] for row in rows} == {"not watched: no CUDA device"}


def test_steps_over_a_prefix_are_timed_together_and_apart(dry_run: Path) -> None:
    rows = rows_of(dry_run)
    cases = {
        "tiny-qwen3 decode 2 rows 32 shared 24 private",
        "tiny-qwen3 decode 3 rows 32 shared 24 private",
        "tiny-qwen3 decode 2 groups of 3 rows and 1 row, 32 shared 24 private",
    }
    for metric in ("time of a step", "prefixes read together"):
        found = {(row["case"], row["system"]) for row in rows if row["part"] == "engine" and row["metric"] == metric}
        assert found == {(case, system) for case in cases for system in ("ours, together", "ours, apart")}
    assert {row["case"] for row in rows if row["part"] == "engine" and row["metric"] == "speedup"} == cases
    texts = {row["system"] for row in rows if row["case"] == "tiny-llama float32 over a prefix"}
    assert texts == {"ours, together", "ours, together, no graphs", "ours, apart"}


def test_texts_over_a_prefix_are_compared_with_graphs_and_without(dry_run: Path) -> None:
    found = {row["case"]: row["p50"] for row in rows_of(dry_run) if row["metric"] == "texts changed by graphs"}
    assert found == {f"tiny-qwen3 texts of {rows} rows over 32 shared": "0.0" for rows in (2, 3)}
    told = {(row["case"], row["system"]) for row in rows_of(dry_run) if row["metric"] == "launches that share a prefix"}
    assert {(case, system) for case in found for system in ("ours, together", "ours, together, no graphs")} <= told


@pytest.mark.parametrize(
    ("together", "plain", "apart", "sizes", "said"),
    [
        ([0, 1, 1, 1], [1, 1], [0, 0], 1, None),
        ([0, 1, 1, 1], [1, 1], [0, 1], 1, "not read together where they should be"),
        ([0, 1, 1, 1], [0, 0], [0, 0], 1, "not read together where they should be"),
        ([0, 1, 1, 0], [1, 1], [0, 0], 1, "nothing says that a graph"),
        ([0, 1, 1, 1], [1, 1], [0, 0], 0, "nothing says that a graph"),
    ],
)
def test_a_device_that_shared_or_replayed_nothing_is_an_error(
    together: list[int], plain: list[int], apart: list[int], sizes: int, said: str | None
) -> None:
    counts = {"together": together, "together, no graphs": plain, "apart": apart}
    told = {system: gpu_exact.Told([], shared) for system, shared in counts.items()}
    with nullcontext() if said is None else pytest.raises(AssertionError, match=said):
        gpu_exact._check_shared("m", told, sizes)


class WaitingRunner:
    """Its first launch waits for the device, and torch says so if it is asked to."""

    config = None
    collect = copy_pages = check_device = staticmethod(lambda *given: None)

    def __init__(self, error: RuntimeError, modes: list[str], kind: str = "cuda") -> None:
        self.device = torch.device(kind)
        self._errors = [error]
        self._modes = modes
        self.seen: list[list[str]] = []

    def launch(self, rows: list[Any], after: Any = None) -> Any:
        self.seen.append(list(self._modes))
        if self._errors:
            raise self._errors.pop()
        return SimpleNamespace(packed=SimpleNamespace(shared=("prefix",)))


def test_a_launch_that_waits_is_noted_and_done_again_with_torch_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    runner: Any = WaitingRunner(RuntimeError("called a synchronizing CUDA operation"), modes)
    launches = Launches(runner, are_watched=True)
    launches.launch([])
    assert runner.seen == [["error"], ["error", "default"]] and launches.shared == [1]
    assert launches.waited == ["called a synchronizing CUDA operation"]
    launches.launch([])
    assert modes == ["error", "default"] * 2 and len(launches.waited) == 1


@pytest.mark.parametrize(("kind", "are_watched"), [("cuda", False), ("cpu", True)])
def test_launches_that_are_not_watched_leave_torch_and_their_errors_alone(
    kind: str, are_watched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    runner: Any = WaitingRunner(RuntimeError("out of memory"), modes, kind)
    launches = Launches(runner, are_watched=are_watched)
    with pytest.raises(RuntimeError, match="out of memory"):
        launches.launch([])
    assert modes == launches.waited == []


def test_an_error_of_the_device_is_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    runner: Any = WaitingRunner(torch.AcceleratorError("illegal address"), modes)
    with pytest.raises(torch.AcceleratorError):
        Launches(runner, are_watched=True).launch([])
    assert modes == ["error", "default"]


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
    assert {path.name for path in tmp_path.iterdir()} == {"mine.csv", "mine.md"}


Prompts = set[tuple[int, ...]]


def all_but_the_last_met_nothing_of_it(runs: list[Prompts]) -> bool:
    *earlier, counted = runs
    return bool(earlier) and len(counted) == gpu_suite.TINY.sequences and not counted & set().union(*earlier)


@pytest.fixture
def asked_of_vllm(monkeypatch: pytest.MonkeyPatch) -> list[Prompts]:
    """What a vLLM is asked that answers at once, and that is in this process."""
    runs: list[Prompts] = []

    class LLM:
        def __init__(self, *given: object, **options: object) -> None:
            pass

        def generate(self, prompts: list[dict[str, list[int]]], sampling: list[object], *, use_tqdm: bool) -> None:
            assert len(sampling) == len(prompts)
            runs.append({tuple(prompt["prompt_token_ids"]) for prompt in prompts})
            assert len(runs[-1]) == len(prompts)

    made = ModuleType("vllm")
    made.__spec__ = ModuleSpec("vllm", None)
    made.LLM, made.SamplingParams = LLM, SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", made)
    monkeypatch.setattr(gpu_vllm.subprocess, "run", lambda command, **options: gpu_vllm.main(command[3:]))
    return runs


def test_vllm_and_ours_are_measured_by_one_method_ours_before_and_behind(
    asked_of_vllm: list[Prompts], tmp_path: Path
) -> None:
    rows = list(gpu_vllm.vllm(["tiny-qwen3"], gpu_suite.TINY, tmp_path, torch.device("cpu"), WHERE, Budget()))
    systems = {"vllm": 2, "ours": 4, "ours / vllm": 1, "ours, after / before": 1}
    cases = {f"tiny-qwen3 {number} rows, prompts of 30" for number in (1, 3)}
    rates = {(row.case, row.metric, row.system, row.tries) for row in rows if row.case in cases}
    metrics = "decode rate", "prompt rate"
    assert rates == {(case, metric, *tried) for case in cases for metric in metrics for tried in systems.items()}
    mixed = {row.system: row.tries for row in rows if row.case == "tiny-qwen3 3 sequences"}
    assert mixed == {"vllm": 1, "ours": 2, "ours / vllm": 1, "ours, after / before": 1}
    assert all(row.p50 > 0 for row in rows)


def test_vllm_is_timed_on_prompts_that_its_cache_has_not_met(asked_of_vllm: list[Prompts], tmp_path: Path) -> None:
    list(gpu_vllm.vllm(["tiny-qwen3"], gpu_suite.TINY, tmp_path, torch.device("cpu"), WHERE, Budget()))
    assert sum(map(len, asked_of_vllm)) == len(set().union(*asked_of_vllm))
    assert all_but_the_last_met_nothing_of_it(asked_of_vllm)


def test_a_decode_rate_has_neither_prompts_nor_the_cost_of_a_call_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0

    def run(asked: gpu_rates.Asked) -> None:
        nonlocal now_s
        now_s += 7.0 + sum(len(prompt) for prompt, _ in asked) * 0.5 + asked[0][1] * 0.25

    monkeypatch.setattr(gpu_rates.time, "perf_counter", lambda: now_s)
    found = {(rate.case, rate.metric): rate.values for rate in gpu_rates.rates(run, gpu_suite.TINY, 512, Budget())}
    assert found["3 rows, prompts of 30", "decode rate"] == [3 / 0.25] * 2
    assert found["3 rows, prompts of 30", "prompt rate"] == [90 / (7.0 + 90 * 0.5 + 0.25)] * 2


def test_every_system_is_timed_in_the_same_way() -> None:
    runs: list[Prompts] = []

    def run(asked: gpu_rates.Asked) -> None:
        runs.append({tuple(prompt) for prompt, _ in asked})

    assert gpu_rates.mixed_rate(run, gpu_suite.TINY, 512) > 0
    assert all_but_the_last_met_nothing_of_it(runs)


def test_a_kernel_that_is_wrong_fails_the_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    right = gpu_kernels.attention
    monkeypatch.setattr(gpu_kernels, "attention", lambda *a, **k: lambda: right(*a, **k)() + 0.1)
    cases = Cases("exactness", torch.device("cpu"), WHERE, Budget())
    rows = list(gpu_kernels.exactness(gpu_kernels.TINY, cases))
    with pytest.raises(CasesFailed, match=r"27 of 27 cases failed: decode bfloat16, .* differs from float64"):
        cases.end()
    assert {row.p50 for row in rows if row.metric == "failures"} == {1.0}
    assert all(row.p50 > 0.09 for row in rows if row.metric == "largest difference to float64")


def bits_however_cut(folder: Path) -> tuple[list[GpuRow], Cases]:
    cases = Cases("exactness", torch.device("cpu"), WHERE, Budget())
    with torch.inference_mode():
        return list(gpu_exact.bits_however_cut(["tiny-gemma2"], folder, cases)), cases


def test_a_bit_that_hangs_on_how_a_text_was_cut_fails_the_suite(dry_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was not loaded as deterministic computes a drawn token in another way; bfloat16 may round that away."""
    if cpu_kernels() is None:
        pytest.skip("there is no C++ compiler")
    load = gpu_exact.FastDecoder.load
    monkeypatch.setattr(gpu_exact.FastDecoder, "load", lambda *given, **asked: load(*given))
    monkeypatch.setattr(gpu_exact, "why_not_deterministic", lambda *given: None)
    _, cases = bits_however_cut(dry_run)
    with pytest.raises(CasesFailed, match=r"of 2 cases failed: .*float32 .* with 12 tokens drawn"):
        cases.end()


def test_where_a_cpu_cannot_be_deterministic_a_trial_of_the_suite_says_so(
    dry_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_exact, "why_not_deterministic", lambda *given: "it is so")
    rows, cases = bits_however_cut(dry_run)
    cases.end()
    assert {row.note for row in rows if row.metric == "cuts that change a bit"} == {"not tried: it is so"}


def test_a_part_without_time_leaves_a_file_that_names_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "gpu.csv"
    costs = ["--costs", str(tmp_path / "devices.json")]
    assert gpu_suite.main(["--part", "all", "--tiny", "--budget-s", "0", "--csv", str(place), *costs]) == 1
    rows = {row.part: row for row in read(place)}
    assert set(rows) == set(gpu_suite.PARTS) and {row.metric for row in rows.values()} == {"wall time"}
    left_out = rows["exactness"].note.partition(": ")[2].split("; ")
    assert rows["exactness"].note.startswith("left out 34: ") and len(left_out) == 34
    assert {"decode float32", "launches that wait", "tiny-llama over a prefix"} <= set(left_out)
    assert "tiny-qwen3 bfloat16 bits however cut" in left_out
    assert all(rows[part].note for part in ("engine", "identity", "kernels"))
    assert rows["kernels"].note in (tmp_path / "gpu.md").read_text()
    told = capsys.readouterr()
    assert re.search(r"^engine: \d+ s; left out 1: ", told.out, re.MULTILINE)
    assert "costs are not noted: the part kernels is not complete: left out 1: all kernels" in told.err
    assert not (tmp_path / "devices.json").exists()


def test_parts_for_which_something_is_missing_say_so(
    dry_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec("vllm") is None:
        notes = {row["note"] for row in rows_of(dry_run) if row["part"] == "vllm"}
        assert notes == {"left out 1: all of it, because vllm is not installed here"}
    monkeypatch.setattr(gpu_identity, "ROOT", tmp_path)
    assert gpu_suite.main(["--part", "identity", "--tiny", "--csv", str(tmp_path / "gpu.csv")]) == 0
    assert [row.note for row in read(tmp_path / "gpu.csv")] == ["left out 1: all of it, because the tests are not here"]


def test_a_part_that_fails_says_so_and_ends_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: object) -> list[GpuRow]:
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(gpu_exact, "launches_that_wait", fails)
    monkeypatch.setattr(gpu_kernels, "kernels", lambda *given: [GpuRow.of(WHERE, "kernels", "c", "s", "m", "1", [1])])
    place = tmp_path / "gpu.csv"
    assert gpu_suite.main(["--part", "exactness,kernels", "--tiny", "--csv", str(place)]) == 1
    notes = {(row.part, row.metric): row.note for row in read(place)}
    assert notes == {
        ("exactness", "wall time"): "failed: RuntimeError: no kernel image",
        ("kernels", "wall time"): "",
        ("kernels", "m"): "",
    }


def test_what_a_failed_part_held_is_given_back_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def fails(*given: object) -> list[GpuRow]:
        order.append("fails")
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(gpu_exact, "launches_that_wait", fails)
    monkeypatch.setattr(gpu_suite, "give_back", lambda device: order.append("given back"))
    monkeypatch.setattr(gpu_kernels, "kernels", lambda *given: order.append("next") or [])
    assert gpu_suite.main(["--part", "exactness,kernels", "--tiny", "--csv", str(tmp_path / "gpu.csv")]) == 1
    assert order == ["fails", "given back", "next", "given back"]


def test_limits_that_cannot_be_measured_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no memory is left')"]
    run = subprocess.run
    monkeypatch.setattr(gpu_kernels.subprocess, "run", lambda asked, **given: run(command, **given))
    with pytest.raises(RuntimeError, match="no memory is left"):
        gpu_kernels.ceilings(torch.device("cpu"), torch.float32)


def test_no_runner_is_held_while_the_next_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes most of the device's memory."""
    made: list[weakref.ref[ModelRunner]] = []

    def runner_of(*given: Any, **asked: Any) -> ModelRunner:
        gc.collect()
        assert [each() for each in made] == [None] * len(made)
        runner = gpu_shapes.runner_of(*given, **asked)
        made.append(weakref.ref(runner))
        return runner

    monkeypatch.setattr(gpu_models, "runner_of", runner_of)
    with torch.inference_mode():
        models, device = ["tiny-llama", "tiny-qwen3"], torch.device("cpu")
        assert list(gpu_models.engine(models, gpu_suite.TINY, (1.0, 1.0), tmp_path, device, WHERE, Budget()))
    assert len(made) == 3


def test_a_large_model_is_not_begun_where_only_its_setup_would_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_models, "made", None)
    budget = Budget(10.0, lambda: 0.0)
    rows = gpu_models.engine(["llama-8b"], gpu_suite.TINY, (1.0, 1.0), Path(), torch.device("cpu"), WHERE, budget)
    assert list(rows) == [] and budget.left_out == ["llama-8b"]


def test_a_budget_lets_what_begins_in_time_end() -> None:
    now_s = 0.0
    budget = Budget(10.0, lambda: now_s)
    assert budget.allows("first")
    now_s = 4.0
    half = budget.share(0.5)
    now_s = 9.0
    assert budget.allows("second") and not half.allows("of half")
    now_s = 30.0
    assert not budget.allows("third") and not budget.allows("fourth")
    assert budget.left_out == ["third", "fourth"] and half.left_out == ["of half"]


def test_budgets_are_for_each_part_or_for_those_named() -> None:
    assert budgets("7", ["a", "b"]) == {"a": 7, "b": 7}
    assert budgets("7,b=9.5", ["a", "b"]) == {"a": 7, "b": 9.5}
    assert budgets("b=9", ["a", "b"]) == {"b": 9}
    for wrong in ("c=9", "b=", "x"):
        with pytest.raises(ValueError):
            budgets(wrong, ["a", "b"])


@pytest.mark.parametrize("wrong", [["--part", "engin"], ["--part", "all", "--budget-s", "c=1"],
                                   ["--part", "engine", "--costs", "f.json"]])  # fmt: skip
def test_a_part_that_is_none_is_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        gpu_suite.main(["--tiny", *wrong])
