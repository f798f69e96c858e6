"""Norms, gates, rotary positions and cache writes against the reference."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch

from parrot_compat.gpu.kernels import Activation, NormWeight, Positions
from parrot_compat.gpu.kernels.reference import elementwise as reference
from parrot_compat.gpu.kernels.reference.attention import write_kv as reference_write
from parrot_compat.gpu.kernels.triton.rotary import write_kv
from parrot_compat.gpu.kernels.triton.table import TRITON

from ..cases import RowSpec, fresh_generator, make_case
from .conftest import DTYPES, TOLERANCE


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    rtol, atol = TOLERANCE[expected.dtype]
    torch.testing.assert_close(actual, expected, rtol=rtol / 4, atol=atol / 4)


def weight(width: int, generator: torch.Generator, device: str, *, rounds_first: bool) -> NormWeight:
    return NormWeight(weight=torch.randn(width, generator=generator).to(device), eps=1e-5, rounds_first=rounds_first)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rounds_first", [True, False])
@pytest.mark.parametrize("width", [16, 100, 1030])
def test_norms(width: int, rounds_first: bool, dtype: torch.dtype, device: str) -> None:
    generator = fresh_generator()
    x, y = torch.randn(2, 5, width, generator=generator).to(device, dtype)
    by = weight(width, generator, device, rounds_first=rounds_first)
    close(TRITON.norm(x, by), reference.norm(x, by))
    total, normed = reference.add_norm(x.clone(), y, by)
    triton_total, triton_normed = TRITON.add_norm(x.clone(), y, by)
    assert torch.equal(triton_total, total)
    close(triton_normed, normed)


def test_a_norm_of_many_heads_is_one_of_each(device: str) -> None:
    generator = fresh_generator()
    x = torch.randn(3, 4, 16, generator=generator).to(device)
    by = weight(16, generator, device, rounds_first=True)
    assert torch.equal(TRITON.norm(x, by)[1, 2], TRITON.norm(x[1, 2][None], by)[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", get_args(Activation))
def test_gates(activation: Activation, dtype: torch.dtype, device: str) -> None:
    # 1 + erf(x) keeps few digits far below zero: about 1e-7 of x are lost there, in both.
    gate_up = torch.randn(3, 2 * 1100, generator=fresh_generator()).to(device, dtype)
    close(TRITON.gated(gate_up, activation), reference.gated(gate_up, activation))


def test_gates_of_numbers_far_from_zero_are_finite(device: str) -> None:
    gate_up = torch.tensor([[-200.0, 200.0, -1e4, 1e4, 1.0, 1.0, 1.0, 1.0]], device=device)
    for activation in get_args(Activation):
        close(TRITON.gated(gate_up, activation), reference.gated(gate_up, activation))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("query_norm", "key_norm"), [(False, False), (True, True), (False, True)])
@pytest.mark.parametrize(("dim", "half"), [(16, 8), (24, 12), (20, 4)])
def test_rotated_queries_and_what_is_in_the_cache(
    dim: int, half: int, query_norm: bool, key_norm: bool, dtype: torch.dtype, device: str
) -> None:
    generator = fresh_generator()
    case = make_case([RowSpec(keys=9, queries=3), RowSpec(keys=30)], heads=(4, 2, dim), generator=generator)
    step = case.on(device, dtype).inputs
    qkv = torch.randn(4, 8, dim, generator=generator).to(device, dtype)
    positions = torch.tensor([6, 7, 8, 29], device=device)
    angles = torch.randn(40, half, generator=generator)
    at = Positions(positions=positions, cos=angles.cos().to(device, dtype), sin=angles.sin().to(device, dtype))
    norms = [weight(dim, generator, device, rounds_first=True) if on else None for on in (query_norm, key_norm)]
    caches = [torch.full((2, *case.keys.shape), math.nan).to(device, dtype) for _ in range(2)]
    expected = reference.rotate(qkv, 4, *caches[0], step, at, *norms)
    rotated = TRITON.rotate(qkv, 4, *caches[1], TRITON.prepare(step), at, *norms)
    close(rotated, expected)
    written = torch.zeros(len(case.keys), dtype=torch.bool, device=device)
    written[step.slots] = True
    for mine, other in zip(caches[1], caches[0], strict=True):
        close(mine[written], other[written])
        assert mine[~written].isnan().all(), "a slot that is not the step's was written"


@pytest.mark.parametrize("dtype", DTYPES)
def test_keys_and_values_go_to_their_slots_and_nowhere_else(dtype: torch.dtype, device: str) -> None:
    generator = fresh_generator()
    case = make_case([RowSpec(keys=9, queries=3), RowSpec(keys=30)], heads=(6, 3, 20), generator=generator)
    step = case.on(device, dtype).inputs
    key, value = torch.randn(2, 4, 3, 20, generator=generator).to(device, dtype)
    caches = [torch.full((2, *case.keys.shape), math.nan).to(device, dtype) for _ in range(2)]
    reference_write(key, value, *caches[0], step)
    write_kv(key, value, *caches[1], step)
    assert torch.equal(caches[0].nan_to_num(7.0), caches[1].nan_to_num(7.0))
