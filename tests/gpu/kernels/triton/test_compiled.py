"""Every stored tile compiles for the devices we serve, without one, and what bits hang on is among what it becomes."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]

Arithmetic = dict[int, Counter[str]]
"""Of each line of the source, the instructions on float32 numbers that compute something."""


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


def arithmetic_of_both_loops(element: str, *, has_cap: bool = False, fuses: bool) -> tuple[Arithmetic, Arithmetic]:
    """Of the attention of a prompt's chunk, on sm_90: over keys that all its tokens see, and over those that need a
    mask. Heads are small, so that it is soon compiled."""
    triton = pytest.importorskip("triton")
    if tuple(map(int, triton.__version__.split(".")[:2])) > (3, 6):
        pytest.skip("of code that was inlined, this Triton's PTX does not say in its comments where it was called from")
    # Late: there may be no triton.
    from parrot_compat.gpu.kernels.strips import HeadShape
    from parrot_compat.gpu.kernels.triton import catalogue

    shape = HeadShape(heads=2, kv_heads=1, dim=32, element_bytes=catalogue.ELEMENTS[element])
    variant = catalogue.attention_variant(element, "direct", shape, has_cap=has_cap, fuses=fuses)
    found: dict[int, Arithmetic] = {}
    lines: list[int] = []
    for text in catalogue.built(variant, 90).asm["ptx"].splitlines():
        if ".loc" in text:  # of `_extend`, in one of the two places that it is called from, which come last
            lines = [int(line) for line in re.findall(r"attention\.py:(\d+):", text)][-2:]
        elif len(lines) == 2 and (named := re.match(r"\s*(?:@\S+ )?(add|sub|mul|div|neg|fma|ex2|max)\.\S*f32\b", text)):
            line, place = lines
            found.setdefault(place, {}).setdefault(line, Counter())[named[1]] += 1
    unmasked, masked = (found[place] for place in sorted(found))
    return unmasked, masked


@pytest.mark.parametrize(("element", "has_cap"), [("bf16", False), ("bf16", True), ("fp32", False)])
def test_a_deterministic_prompt_is_computed_by_the_same_instructions_where_it_is_masked_and_where_not(
    element: str, has_cap: bool
) -> None:
    """Which of its keys are masked hangs on the other tokens of the tile: a token alone, as decode computes it, has
    others than amid a chunk."""
    unmasked, masked = arithmetic_of_both_loops(element, has_cap=has_cap, fuses=False)
    assert unmasked == masked
    assert sum(count["ex2"] for count in unmasked.values()) > 1


def test_products_fused_with_the_sum_behind_them_are_what_it_must_do_without() -> None:
    """The test of the test above."""
    unmasked, masked = arithmetic_of_both_loops("bf16", fuses=True)
    assert unmasked.keys() == masked.keys()
    [differs] = [line for line in unmasked if unmasked[line] != masked[line]]
    assert unmasked[differs]["fma"] and not masked[differs]["fma"] and masked[differs]["sub"]
