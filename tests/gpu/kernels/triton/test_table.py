"""Which kernels a device gets, and that a machine without triton still has all of parrot_compat.gpu."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from parrot_compat.gpu.kernels.table import REFERENCE, choose

from .cases import RowSpec, make_case


def test_a_cuda_device_gets_the_triton_kernels() -> None:
    pytest.importorskip("triton")
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert choose(torch.device("cuda"), dtype).name == "triton"


def test_where_a_row_is_to_have_the_same_bits_in_any_company_no_prefix_is_read_for_several() -> None:
    pytest.importorskip("triton")
    plain, alone = (choose(torch.device("cuda"), torch.float32, deterministic=asked) for asked in (False, True))
    assert (plain.shares_prefixes, plain.is_fixed_order, plain.can_be_captured) == (True, False, True)
    assert (alone.shares_prefixes, alone.is_fixed_order, alone.can_be_captured) == (False, True, True)


@pytest.mark.parametrize("deterministic", [True, False])
def test_there_attention_is_one_kind_of_strip_and_fuses_no_product_where_only_some_keys_are_masked(
    deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    from parrot_compat.gpu.kernels.triton import step  # late: there may be no triton

    launched: list[tuple[bool, bool]] = []

    class Kernel:
        def __getitem__(self, grid: object) -> Callable[..., None]:
            return self.launch

        def launch(self, *given: object, **asked: bool) -> None:
            if "DIRECT" in asked:  # else it merges
                launched.append((asked["DIRECT"], asked["enable_fp_fusion"]))

    monkeypatch.setattr(step.kernels, "attend_strips", Kernel())
    monkeypatch.setattr(step.kernels, "merge_partials", Kernel())
    case = make_case([RowSpec(keys=300), RowSpec(keys=40, queries=40)], page=16)
    table = choose(torch.device("cuda"), torch.float32, deterministic=deterministic)
    table.attention(case.query, case.keys, case.values, table.prepare(case.inputs), scale=1.0)
    assert launched == ([(True, False)] if deterministic else [(False, True), (True, True)])
    table.attention(case.query, case.keys, case.values, table.prepare(case.inputs), scale=1.0, window=20)
    # with a window all keys are masked, and a fused product is fused for all of them
    assert launched[-1] == (True, True)


def test_a_device_that_nothing_is_written_for_gets_the_reference() -> None:
    assert choose(torch.device("meta"), torch.float32) is REFERENCE


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_heads_that_are_wider_than_the_kernels_hold_get_the_reference(device: str) -> None:
    assert choose(torch.device(device), torch.float32, head_dim=257) is REFERENCE


def test_everything_imports_and_chooses_without_triton() -> None:
    program = """
import sys
sys.modules["triton"] = None
import torch
import parrot_compat.gpu.engine, parrot_compat.gpu.kernels.costs, parrot_compat.gpu.kernels.strips
from parrot_compat.gpu.kernels.table import choose
print(choose(torch.device("cuda"), torch.float32).name)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "torch"
