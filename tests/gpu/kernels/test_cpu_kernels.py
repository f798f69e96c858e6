"""The C++ kernels against their specification in torch, and what happens where they cannot be built."""

from __future__ import annotations

import itertools
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_compat.gpu.kernels import Kernels, NormWeight, Positions
from parrot_compat.gpu.kernels.cpu import build
from parrot_compat.gpu.kernels.cpu.table import cpu_kernels
from parrot_compat.gpu.kernels.table import REFERENCE, choose
from tests.gpu.kernels.test_reference_attention import PAGE, make_inputs

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
CLOSE = {
    torch.float32: {"rtol": 2e-5, "atol": 2e-6},
    torch.bfloat16: {"rtol": 2e-2, "atol": 2e-2},
    torch.float16: {"rtol": 3e-3, "atol": 3e-3},
}
SLOTS = 1024 * PAGE


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    found = cpu_kernels()
    if found is None:
        pytest.skip("there is no C++ compiler")
    return found


def weight(width: int, *, rounds_first: bool) -> NormWeight:
    return NormWeight(weight=torch.randn(width), eps=1e-5, rounds_first=rounds_first)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rounds_first", [True, False])
@pytest.mark.parametrize("width", [8, 40, 64, 384])
def test_norms_are_those_of_torch(kernels: Kernels, dtype: torch.dtype, rounds_first: bool, width: int) -> None:
    torch.manual_seed(0)
    by = weight(width, rounds_first=rounds_first)
    x, y = torch.randn(2, 130, width).to(dtype)

    torch.testing.assert_close(kernels.norm(x, by), REFERENCE.norm(x, by), **CLOSE[dtype])
    expected_sum, expected = REFERENCE.add_norm(x.clone(), y, by)
    total, normed = kernels.add_norm(x.clone(), y, by)
    assert torch.equal(total, expected_sum)
    torch.testing.assert_close(normed, expected, **CLOSE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["silu", "gelu_tanh", "gelu"])
def test_gated_activations_are_those_of_torch(kernels: Kernels, dtype: torch.dtype, activation: str) -> None:
    torch.manual_seed(0)
    x = torch.cat([torch.randn(40, 2 * 50) * 4, torch.full((1, 100), -200.0), torch.full((1, 100), 200.0)]).to(dtype)

    found = kernels.gated(x, activation)  # type: ignore[arg-type]
    # torch's 1 + tanh(x) loses what is left of it near -1; ours does not
    close = CLOSE[dtype] | {"atol": max(CLOSE[dtype]["atol"], 5e-6)}
    torch.testing.assert_close(found, REFERENCE.gated(x, activation), **close)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("dim", "rotated"), [(16, 16), (64, 64), (96, 48), (80, 20)])
@pytest.mark.parametrize("normed", [True, False])
def test_queries_and_keys_are_turned_as_in_torch(
    kernels: Kernels, dtype: torch.dtype, dim: int, rotated: int, normed: bool
) -> None:
    torch.manual_seed(0)
    heads, kv_heads = 6, 2
    inputs = make_inputs([(5, 9), (13, 1), (0, 30)])
    tokens = inputs.query_starts[-1]
    angles = torch.randn(40, rotated // 2)
    at = Positions(positions=torch.arange(tokens), cos=angles.cos().to(dtype), sin=angles.sin().to(dtype))
    norms = [weight(dim, rounds_first=True) if normed else None for _ in range(2)]
    qkv = torch.randn(tokens, heads + 2 * kv_heads, dim).to(dtype)
    found = []
    for table in (kernels, REFERENCE):
        keys, values = torch.zeros(2, SLOTS, kv_heads, dim, dtype=dtype)
        query = table.rotate(qkv.clone(), heads, keys, values, table.prepare(inputs), at, *norms)
        found.append((query, keys, values))
    for mine, expected in zip(*found, strict=True):
        torch.testing.assert_close(mine, expected, **CLOSE[dtype])
    if not normed:
        assert all(torch.equal(mine, expected) for mine, expected in zip(*found, strict=True)), "rounding differs"


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from([0, 1, 25, 127, 255, 256, 300, 513]), st.sampled_from([1, 1, 2, 7, 40, 130])),
        min_size=1,
        max_size=4,
    ),
    shape=st.sampled_from([(4, 2, 8), (4, 4, 16), (6, 2, 64), (6, 1, 40), (2, 2, 96)]),
    window=st.sampled_from([None, 1, 3, 100, 300]),
    cap=st.sampled_from([None, 0.5, 30.0]),
    dtype=st.sampled_from(DTYPES),
)
def test_attention_is_that_of_torch(
    kernels: Kernels,
    rows: list[tuple[int, int]],
    shape: tuple[int, int, int],
    window: int | None,
    cap: float | None,
    dtype: torch.dtype,
) -> None:
    heads, kv_heads, dim = shape
    torch.manual_seed(0)
    inputs = make_inputs(rows, pages=1024)
    keys, values = torch.randn(2, SLOTS, kv_heads, dim).to(dtype)
    query = torch.randn(inputs.query_starts[-1], heads, dim).to(dtype)
    asked = {"scale": dim**-0.5, "window": window, "soft_cap": cap}

    found = kernels.attention(query, keys, values, kernels.prepare(inputs), **asked)  # type: ignore[arg-type]

    wide = [tensor.float() for tensor in (query, keys, values)]
    expected = REFERENCE.attention(*wide, inputs, **asked)  # type: ignore[arg-type]
    torch.testing.assert_close(found.float(), expected, **CLOSE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_row_is_the_same_bits_alone_in_a_batch_in_chunks_and_on_any_number_of_threads(
    kernels: Kernels, dtype: torch.dtype, threads: int
) -> None:
    torch.manual_seed(0)
    rows = [(0, 200), (700, 1), (22, 1), (300, 45), (0, 1), (130, 2)]
    inputs = make_inputs(rows, pages=1024)
    keys, values = torch.randn(2, SLOTS, 2, 64).to(dtype)
    query = torch.randn(inputs.query_starts[-1], 6, 64).to(dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = kernels.attention(query, keys, values, kernels.prepare(inputs), scale=0.125)
    finally:
        torch.set_num_threads(before)

    for row, (_, new) in enumerate(rows):
        first, last = inputs.query_starts[row], inputs.query_starts[row + 1]
        cuts = [first, last] if new < 10 else [first, first + 3, first + new // 2, last]
        for start, end in itertools.pairwise(cuts):
            alone = replace(
                inputs,
                slots=inputs.slots[start:end],
                query_starts=(0, end - start),
                kv_lengths=(inputs.kv_lengths[row] - (last - end),),
                pages=inputs.pages[row : row + 1],
            )
            out = kernels.attention(query[start:end], keys, values, kernels.prepare(alone), scale=0.125)
            assert torch.equal(out, together[start:end]), f"row {row}, its tokens {start - first} to {end - first}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_in_blocks_a_token_alone_is_the_same_bits_as_among_several(dtype: torch.dtype) -> None:
    kernels = cpu_kernels(dtype, in_blocks=True)
    if kernels is None:
        pytest.skip("there is no C++ compiler")
    torch.manual_seed(0)
    inputs = make_inputs([(0, 200), (700, 1), (300, 45), (130, 2)], pages=1024)
    keys, values = torch.randn(2, SLOTS, 2, 64).to(dtype)
    query = torch.randn(inputs.query_starts[-1], 6, 64).to(dtype)
    together = kernels.attention(query, keys, values, kernels.prepare(inputs), scale=0.125)
    for row, token in ((0, 0), (0, 199), (2, 0), (2, 44), (3, 0), (3, 1)):
        first, last = inputs.query_starts[row], inputs.query_starts[row + 1]
        at = first + token
        alone = replace(
            inputs,
            slots=inputs.slots[at : at + 1],
            query_starts=(0, 1),
            kv_lengths=(inputs.kv_lengths[row] - (last - at - 1),),
            pages=inputs.pages[row : row + 1],
        )
        found = kernels.attention(query[at : at + 1], keys, values, kernels.prepare(alone), scale=0.125)
        assert torch.equal(found, together[at : at + 1]), f"row {row}, token {token}"


def test_what_only_some_tokens_attend_to_is_the_same_bits_as_among_all(kernels: Kernels) -> None:
    torch.manual_seed(0)
    inputs = make_inputs([(0, 200), (700, 1), (22, 1), (300, 45), (130, 2)], pages=1024)
    keys, values = torch.randn(2, SLOTS, 2, 64)
    query = torch.randn(inputs.query_starts[-1], 6, 64)
    step = kernels.prepare(inputs)
    all_of_them = kernels.attention(query, keys, values, step, scale=0.125)

    for chosen in ([199, 200, 246], [201], [], list(range(inputs.query_starts[-1]))):
        tokens = torch.tensor(chosen, dtype=torch.int64)
        found = kernels.attention(query, keys, values, kernels.for_tokens(step, tokens), scale=0.125)
        assert torch.equal(found[tokens], all_of_them[tokens])


@pytest.fixture
def no_kernels_yet() -> Iterator[None]:
    build.library.cache_clear()
    yield
    build.library.cache_clear()


@pytest.mark.usefixtures("no_kernels_yet")
def test_without_a_compiler_torch_is_used_and_the_log_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with caplog.at_level(logging.WARNING):
        assert choose(torch.device("cpu"), torch.float32) is REFERENCE
        assert choose(torch.device("cpu"), torch.float32) is REFERENCE
    assert [record.message for record in caplog.records if "no C++ compiler" in record.message] != []
    assert len(caplog.records) == 1


@pytest.mark.usefixtures("no_kernels_yet")
def test_a_build_that_fails_is_logged_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path, kernels: Kernels
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-fno-such-flag"))
    with caplog.at_level(logging.WARNING):
        assert choose(torch.device("cpu"), torch.float32) is REFERENCE
    assert "no-such-flag" in caplog.text
    assert list((tmp_path / "parrot_compat" / "kernels").iterdir()) == []


@pytest.mark.usefixtures("no_kernels_yet")
def test_without_a_home_folder_torch_is_used(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def nobodys() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nobodys)
    with caplog.at_level(logging.WARNING):
        assert choose(torch.device("cpu"), torch.float32) is REFERENCE
    assert "home directory" in caplog.text


@pytest.mark.usefixtures("no_kernels_yet")
def test_a_compiler_that_cannot_build_them_leaves_it_to_the_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kernels: Kernels
) -> None:
    old = tmp_path / "old"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo old 1 && exit 0\nexit 1\n')
    old.chmod(0o755)
    monkeypatch.setenv("CXX", str(old))
    assert choose(torch.device("cpu"), torch.float32).name == "c++"


def test_kernels_that_were_cut_short_are_built_again(tmp_path: Path, kernels: Kernels) -> None:
    program = """
import pathlib, torch
from parrot_compat.gpu.kernels.cpu import build
build.FLAGS = tuple(flag.replace("-O3", "-O0") for flag in build.FLAGS)  # they are not run
if not list(pathlib.Path(__import__("os").environ["XDG_CACHE_HOME"]).rglob("*.so")):
    build.library()
else:
    print(build.library() is not None)
"""
    for _ in range(2):
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
        told = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        (made,) = tmp_path.rglob("*.so")
        whole = made.stat().st_size
        assert whole > 0
        if not told.stdout:
            os.truncate(made, 0)
    assert told.stdout.strip() == "True"


@pytest.mark.usefixtures("no_kernels_yet")
def test_the_kernels_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.SWITCH, "torch")

    assert choose(torch.device("cpu"), torch.float32) is REFERENCE
