"""What the GPU suite leaves: rows in a file, tables that say where they come from, a summary, numbers in a document.
And what its shares are shares of."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from parrot_compat.gpu.models.plan import DecoderPlan, plan_decoder
from recipes.benchmarks import ceilings
from recipes.benchmarks.gpu_models import prompt_flops
from recipes.benchmarks.gpu_rows import KEY, RESULTS, GpuRow, Where, merge_csv, read, table
from recipes.benchmarks.gpu_shapes import SHAPES
from recipes.benchmarks.gpu_summary import MOST_CHARACTERS, MOST_LINES, summary

WHERE = Where(device="d", versions="v", commit="c", date="2026-01-01")


def test_a_later_run_replaces_its_own_rows_and_no_others(tmp_path: Path) -> None:
    row = GpuRow.of(WHERE, "kernels", "decode", "ours", "time", "s", [1.0, 3.0, 2.0])
    assert (row.p50, row.least, row.most, row.tries) == (2.0, 1.0, 3.0, 3)
    place = tmp_path / "gpu.csv"
    merge_csv([row, replace(row, device="another")], KEY, place)
    merge_csv([replace(row, p50=9.0, commit="later")], KEY, place)
    with place.open(newline="") as file:
        found = {line["device"]: (line["p50"], line["commit"]) for line in csv.DictReader(file)}
    assert found == {"d": ("9.0", "later"), "another": ("2.0", "c")}
    assert table([replace(row, note="n")]).splitlines()[-1] == "| kernels | decode | ours | time [s] | 2 | 1 | 3 | n |"


def test_the_table_says_of_each_row_which_device_and_commit_it_is_of() -> None:
    row = GpuRow.of(WHERE, "kernels", "decode", "ours", "time", "s", [1.0])
    other = replace(row, device="another")
    passed = replace(row, metric="failures", p50=0.0)
    told = table([row, other, replace(row, commit="later"), replace(row, case="prefill"), passed])
    places = {place.splitlines()[0]: place.split("\n")[6:] for place in ("\n\n" + told).split("\n\n## ")[1:]}
    line = "| kernels | decode | ours | time [s] | 1 | 1 | 1 |  |"
    assert places == {
        "d, commit c, 2026-01-01": [line, line.replace("decode", "prefill")],
        "another, commit c, 2026-01-01": [line],
        "d, commit later, 2026-01-01": [line],
    }


def committed() -> list[GpuRow]:
    """What docs/gpu.md is about; the file may have rows of other devices and runs."""
    rows = read(RESULTS / "gpu.csv")
    return [row for row in rows if (row.device, row.commit) == ("NVIDIA H100 80GB HBM3", "d62632f")]


def test_the_summary_of_what_was_measured_fits_on_a_screen() -> None:
    told = summary(committed())
    for each in (told, summary(read(RESULTS / "gpu.csv"))):
        assert len(each) < MOST_CHARACTERS and len(each.splitlines()) <= MOST_LINES
    line = "engine: qwen3-0.6b decode # rows 1024 context | ours | rate [tokens/s] 1: 718, 16: 7,373, 64: 15,438, "
    assert line in told
    assert "kernels: decode # rows 8192 shared 512 private | together | speedup [ratio] 4: 0.992, 8: 1.48, " in told
    assert "exactness: largest difference to float64: 27 cases, at most 0.01 (prefill bfloat16 window)" in told


def test_a_summary_that_does_not_fit_says_how_much_is_missing_and_keeps_what_failed() -> None:
    row = GpuRow.of(WHERE, "engine", "decode", "ours", "rate", "tokens/s", [1.0])
    many = [replace(row, case=f"{'long ' * 60}case-{number}") for number in range(500)]
    failed = replace(row, part="kernels", metric="wall time", note="failed: all of it " + "x" * 900)
    told = summary([*many, failed])
    assert len(told) < MOST_CHARACTERS and len(told.splitlines()) <= MOST_LINES
    assert told.splitlines()[1].startswith("kernels: 1 s; failed: all of it xxx")
    shown = len(told.splitlines()) - 1
    assert told.splitlines()[-1] == f"{502 - shown} lines more; the file has all rows"


def test_devices_have_lines_of_their_own_in_the_summary() -> None:
    cards = [replace(WHERE, device=name) for name in ("a", "b")]
    rows = [GpuRow.of(card, "kernels", "case", "ours", "speedup", "1", [at]) for at, card in enumerate(cards)]
    assert [line for line in summary(rows).splitlines() if "speedup" in line] == [
        "kernels: case | ours | a | speedup [1] 0", "kernels: case | ours | b | speedup [1] 1"
    ]  # fmt: skip


def test_the_document_says_what_the_file_has() -> None:
    told = " ".join((RESULTS.parents[2] / "docs/gpu.md").read_text().split())
    found = {(row.case, row.system, row.metric): row for row in committed()}

    def rate(case: str) -> float:
        return found[case, "ours", "rate"].p50

    for rows in (1, 16, 64, 256):
        small, large = (f"{name} decode {rows} rows 1024 context" for name in ("qwen3-0.6b", "llama-8b"))
        shares = [found[case, "ours", "share of memory rate"].p50 for case in (small, large)]
        assert f"| {rows} | {rate(small):,.0f} | {shares[0]:.2f} | {rate(large):,.0f} | {shares[1]:.2f} |" in told
    for name in ("qwen3-0.6b", "llama-8b"):
        shares = [found[f"{name} prefill {tokens}", "ours", "share of products"].p50 for tokens in (2048, 8192)]
        assert f"{shares[0]:.2f} / {shares[1]:.2f}" in told
        mixed = found[f"{name} 256 sequences", "ours", "output rate"]
        assert f"{mixed.p50:,.0f}" in told and mixed.tries == 1
    assert "if all weights are counted, the head's too, for every token, and attention is not" in told
    assert "The exceptions are the two rates of 256 sequences: one try each" in told
    others = [row for row in found.values() if row.metric in ("rate", "time")]
    assert {(row.part, row.tries) for row in others} == {("engine", 5), ("kernels", 10)}


# ---- what is counted ----------------------------------------------------------------------------------------


def plan_of(name: str) -> DecoderPlan:
    stated = dict(SHAPES[name])
    plan = plan_decoder(AutoConfig.for_model(stated.pop("model_type"), **stated))
    assert plan is not None
    return plan


def test_of_a_prompt_the_products_are_counted_that_a_step_computes() -> None:
    attended = 1024 * 2048 + 2 * 1024 * 1024  # query; keys and values
    behind = 2048 * 1024 + 3 * 1024 * 3072  # output; gate, up and down
    head = 151936 * 1024
    pairs = 2048 * 2049 // 2
    by_hand = 2 * (2048 * (28 * attended + 27 * behind) + behind + head) + 28 * pairs * 16 * 128 * 4
    assert prompt_flops(plan_of("qwen3-0.6b"), 2048) == by_hand


def test_keys_outside_a_window_are_in_no_product() -> None:
    plan = plan_of("tiny-mistral")
    assert [layer.window for layer in plan.layers] == [24, 24]
    whole = replace(plan, layers=tuple(replace(layer, window=None) for layer in plan.layers))
    assert prompt_flops(plan, 24) == prompt_flops(whole, 24)
    # Of 30 tokens the last six miss 1, 2, … 6 keys, in two layers of 4 heads over 16.
    assert prompt_flops(whole, 30) - prompt_flops(plan, 30) == 4 * 4 * 16 * 2 * (1 + 2 + 3 + 4 + 5 + 6)


def test_a_ceiling_on_a_device_is_taken_of_many_runs_in_one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """So neither a launch nor a wait is a part of it."""
    runs: list[int] = []

    def one_try(run: Callable[[], object], device: torch.device, tries: int) -> list[float]:
        before = len(runs)
        run()
        return [float(len(runs) - before)] * tries

    monkeypatch.setattr(ceilings, "times_s", one_try)
    for kind, repeats in (("cuda", ceilings.CUDA_REPEATS), ("cpu", 1)):
        runs.clear()
        assert ceilings._best_s(lambda: runs.append(1), torch.device(kind)) == 1.0
        assert len(runs) == repeats
