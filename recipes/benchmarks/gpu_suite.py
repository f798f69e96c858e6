"""What the engine does on a GPU: right first, then how fast, then beside vLLM.

    python -m recipes.benchmarks.gpu_suite --part exactness        kernels beside float64, texts beside transformers,
                                                                   bits however a text is cut
    python -m recipes.benchmarks.gpu_suite --part kernels          attention alone; shared prefixes read together, apart
    python -m recipes.benchmarks.gpu_suite --part engine           steps of whole models, beside the device's limits
    python -m recipes.benchmarks.gpu_suite --part vllm             the same sequences through vLLM, if it is installed
    python -m recipes.benchmarks.gpu_suite --part identity         engines of every kind beside transformers (tests)
    python -m recipes.benchmarks.gpu_suite --part all --tiny       every line of it on a CPU, with nothing worth noting

Each part takes minutes. Where a device is lent for some, one call of several parts with a limit for each and one for
all (`--part exactness,engine,identity --budget-s exactness=80,engine=180,identity=70 --within-s 330`) makes most of
them: a part ends between two cases, and a case or a part that fails does not end the others. A device that is lost ends
them all. Rows are merged into a CSV file as they are measured (those of --tiny where --csv names one), with a table
beside it in Markdown; a summary of at most 60 lines is printed last, whatever failed. `--costs FILE` also notes the
device's numbers for the engine's own choice of what to share (`kernels/devices.json`), behind all parts: engines of a
later call choose by them. Where the part kernels is not complete, nothing is noted, and the call ends with 1.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import torch

from . import gpu_exact, gpu_kernels, gpu_models, gpu_vllm
from .gpu_budget import Budget, budgets
from .gpu_cases import FAILED, Cases, give_back, means_lost, said
from .gpu_identity import identity
from .gpu_rows import KEY, RESULTS, GpuRow, Where, merge_csv, read, table, times_s
from .gpu_shapes import SHAPES, Load
from .gpu_summary import WALL_TIME, summary

__all__ = ["main"]

PARTS = ("exactness", "engine", "identity", "kernels", "vllm")
LOST = "the device is lost"
FAMILIES = ("tiny-llama", "tiny-qwen3", "tiny-mistral", "tiny-gemma2")
OTHERS = ("tiny-gemma3", "tiny-mixtral")
"""Two rotary tables; no fast decoder."""
CUT = ("tiny-qwen3", "tiny-gemma2")
"""Norms of heads; windows and caps."""
FULL = Load(
    rows=(1, 16, 64, 256), sampled_rows=(1, 64, 256), context=1024, prompts=(2048, 8192), sequences=256,
    lengths=(100, 1024), front=8192, front_rows=(4, 16, 64), private=512, rate_prompt=512, rate_outputs=(64, 192),
    tries=5,
)  # fmt: skip
TINY = Load(
    rows=(1, 3), sampled_rows=(1, 3), context=60, prompts=(48,), sequences=3, lengths=(4, 9), front=32,
    front_rows=(2, 3), private=24, rate_prompt=30, rate_outputs=(3, 6), tries=2,
)  # fmt: skip


def measured(
    part: str, device: torch.device, where: Where, models: Sequence[str], under: Path, budget: Budget, *, is_tiny: bool
) -> Iterator[GpuRow]:
    sizes = gpu_kernels.TINY if is_tiny else gpu_kernels.FULL
    load = TINY if is_tiny else FULL
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    if part == "exactness":
        # What no device has run yet comes first: a budget leaves out the last.
        families, tokens = (FAMILIES[:1], 6) if is_tiny else (FAMILIES, 64)
        cases = Cases(part, device, where, budget)
        yield from gpu_exact.launches_that_wait(families[0], tokens, under, cases)
        yield from gpu_exact.bits_however_cut(CUT[:1] if is_tiny else CUT, under, cases)
        for name in families:
            yield from gpu_exact.texts_over_a_prefix(name, tokens, under, cases)
        yield from gpu_exact.texts_against_transformers((*families, *OTHERS), tokens, under, cases)
        yield from gpu_kernels.exactness(sizes, cases)
        cases.end()
    elif part == "identity":
        yield from identity(under, device, where, budget, is_tiny=is_tiny)
    elif part == "engine":
        if budget.allows("the device's limits, and what is measured against them"):
            limits = gpu_kernels.ceilings(device, dtype)
            yield from gpu_models.engine(models, load, limits, under, device, where, budget)
    elif part == "vllm":
        yield from gpu_vllm.vllm(models, load, under, device, where, budget)
    else:
        yield from gpu_kernels.kernels(sizes, device, where, budget)


def taken(
    part: str, device: torch.device, where: Where, models: Sequence[str], under: Path, budget: Budget, *,
    is_tiny: bool, behind: Sequence[str] = (),
) -> Iterator[GpuRow]:  # fmt: skip
    """The rows of a part and one of itself, which says whether it failed, what it left out, and whether the parts
    `behind` it are not run, because the device is lost."""
    began, notes, lost = time.perf_counter(), list[str](), ""
    try:
        with torch.inference_mode(part != "identity"):
            yield from measured(part, device, where, models, under, budget, is_tiny=is_tiny)
    except Exception as error:
        traceback.print_exc()
        notes.append(f"{FAILED}: {said(error)}")
        lost = said(error) if means_lost(error) else ""
    spent = time.perf_counter() - began
    try:
        give_back(device)  # not amid the error, whose frames hold what failed: the next part needs the memory
    except Exception as error:
        traceback.print_exc()
        lost = lost or said(error)
    if lost:
        notes.insert(0, f"{FAILED}: {LOST}: {lost}{'; not run: ' if behind else ''}{', '.join(behind)}")
    if budget.left_out:
        notes.append(f"left out {len(budget.left_out)}: {'; '.join(budget.left_out)}")
    yield GpuRow.of(where, part, "the whole part", "suite", WALL_TIME, "s", [spent], "; ".join(notes))


def all_parts(options: argparse.Namespace, device: torch.device, where: Where, under: Path) -> Iterator[GpuRow]:
    """One after another, within the time of the call, while there is a device."""
    call = Budget(options.within_s)
    models = ["tiny-qwen3"] if options.tiny else options.models.split(",")
    for number, part in enumerate(options.part, 1):
        budget = Budget(min(options.budget_s.get(part, math.inf), call.left_s))
        behind = options.part[number:]
        for row in taken(part, device, where, models, under, budget, is_tiny=options.tiny, behind=behind):
            yield row
        if row.metric == WALL_TIME and LOST in row.note:
            return


def launch_s(device: torch.device) -> float:
    """Of one more small kernel in a row of them."""
    x = torch.zeros(1, device=device)

    def many() -> None:
        for _ in range(100):
            x.add_(1)

    return min(times_s(many, device, 10)) / 100


def note_costs(rows: Sequence[GpuRow], device: torch.device, place: Path, *, is_tiny: bool) -> None:
    """Into the engine's file, in place of what it says of this device."""
    is_cuda = device.type == "cuda"
    properties = torch.cuda.get_device_properties(device) if is_cuda else None
    cache, processors = (properties.L2_cache_size, properties.multi_processor_count) if properties else (0, 1)
    dtype = "bfloat16" if is_cuda else "float32"
    sizes = gpu_kernels.TINY if is_tiny else gpu_kernels.FULL
    found = gpu_kernels.costs_of(rows, sizes, dtype, cache, launch_s(device), processors)
    stored = json.loads(place.read_text(encoding="utf-8")) if place.exists() else []
    others = [line for line in stored if (line["device"], line["dtype"]) != (found.device, found.dtype)]
    place.write_text(json.dumps([*others, asdict(found)], indent=2) + "\n", encoding="utf-8")


def noted(rows: Sequence[GpuRow], device: torch.device, place: Path, *, is_tiny: bool) -> bool:
    """`note_costs`. False: they were not all measured, or it failed."""
    [note] = [row.note for row in rows if row.part == "kernels" and row.metric == WALL_TIME] or ["not run"]
    if note:
        print(f"the device's costs are not noted: the part kernels is not complete: {note}", file=sys.stderr)
        return False
    try:
        note_costs(rows, device, place, is_tiny=is_tiny)
    except Exception:
        print("the device's costs are not noted:", file=sys.stderr)
        traceback.print_exc()
        return False
    return True


def main(argv: Sequence[str] | None = None) -> int:
    options = asked(argv)
    if not torch.cuda.is_available() and not options.tiny:
        print("no CUDA device here; --tiny tries the suite on a CPU", file=sys.stderr)
        return 2
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    where = Where.here(device, options.commit)
    place = options.csv or (None if options.tiny else RESULTS / "gpu.csv")  # a trial is no result
    rows: list[GpuRow] = []
    is_noted = True
    try:
        with tempfile.TemporaryDirectory() if options.folder is None else nullcontext(options.folder) as under:
            for row in all_parts(options, device, where, Path(under)):
                rows.append(row)
                if place is not None:
                    merge_csv([row], KEY, place)  # what is measured stays, whatever comes next
                told = f"; {row.note}" if row.note else ""
                print(
                    f"{row.part}: {row.case}, {row.system}, {row.metric}: {row.p50:,.5g} {row.unit}{told}", flush=True
                )
        if options.costs is not None:
            is_noted = noted(rows, device, options.costs, is_tiny=options.tiny)
    finally:  # also where nobody waited for the end
        if place is not None and place.exists():
            place.with_suffix(".md").write_text(table(read(place)) + "\n", encoding="utf-8")
        print(summary(rows))
    failed = [row for row in rows if row.metric == WALL_TIME and row.note.startswith(FAILED)]
    return 1 if failed or not is_noted else 0


def asked(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", type=_parts, required=True, help=f"all, or some of {','.join(PARTS)}")
    parser.add_argument("--budget-s", type=_budgets, default={}, help="seconds: 120 for each part, or engine=240,…")
    parser.add_argument("--within-s", type=float, default=math.inf, help="seconds for all parts together")
    parser.add_argument("--models", default="qwen3-0.6b,llama-8b", help=", ".join(SHAPES))
    parser.add_argument("--tiny", action="store_true", help="smallest sizes, on a CPU too; a trial, not a measurement")
    parser.add_argument("--folder", type=Path, help="where checkpoints are written and kept (up to 20 GB)")
    parser.add_argument("--csv", type=Path, help="where rows are kept (results/gpu.csv; of --tiny nowhere)")
    parser.add_argument("--costs", type=Path, help="with the part kernels: the file to note the device's numbers in")
    parser.add_argument("--commit", help="of the code, where its history is not at hand")
    options = parser.parse_args(argv)
    if options.costs is not None and "kernels" not in options.part:
        parser.error("--costs is about what the part kernels measures")
    return options


def _parts(said: str) -> Sequence[str]:
    named = PARTS if said == "all" else tuple(said.split(","))
    if unknown := [part for part in named if part not in PARTS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: the parts are {', '.join(PARTS)}, or all")
    return named


def _budgets(said: str) -> dict[str, float]:
    try:
        return budgets(said, PARTS)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    raise SystemExit(main())
