"""What the host gives to a device while a step is launched does not wait for the device."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

import parrot_compat.gpu.drawing
from parrot_compat.gpu.drawing.sampler import filter_scores
from parrot_compat.gpu.to_device import listed

DRAWING = Path(parrot_compat.gpu.drawing.__file__).parent


@pytest.mark.parametrize("module", ["sampler", "penalties", "token_bits", "logprobs", "outcome"])
def test_nothing_is_copied_in_a_way_that_waits(module: str) -> None:
    """torch.tensor(…, device=…) and .to(device) copy from common memory, behind everything that was asked before."""
    waiting = []
    for node in ast.walk(ast.parse((DRAWING / f"{module}.py").read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            is_made = node.func.attr == "tensor" and any(keyword.arg == "device" for keyword in node.keywords)
            if is_made or (node.func.attr == "to" and "device" in ast.unparse(node)):
                waiting.append(ast.unparse(node))
    assert waiting == []


def test_lists_become_tensors_of_the_type_that_is_said() -> None:
    assert listed([3, 5], "cpu").equal(torch.tensor([3, 5]))
    assert listed([0.5], "cpu", torch.float32).equal(torch.tensor([0.5]))


def test_rows_are_added_up_in_one_order_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA adds one row alone in another order; `meta` stands for any device but the CPU."""
    added: list[int] = []
    cumsum = torch.Tensor.cumsum

    def counted(self: torch.Tensor, dim: int) -> torch.Tensor:
        added.append(len(self))
        return cumsum(self, dim=dim)

    monkeypatch.setattr(torch.Tensor, "cumsum", counted)
    for rows, groups in ((1, [2]), (2, [2]), (3, [2, 2]), (129, [64, 64, 2])):
        added.clear()
        vocabulary = 32_000 if rows > 3 else 9
        scores = torch.zeros(rows, vocabulary, device="meta")
        ones = [1.0] * rows
        kept = filter_scores(scores, temperatures=ones, top_ks=[0] * rows, top_ps=[0.9] * rows, min_ps=[0.0] * rows)
        assert kept.shape == (rows, vocabulary) and added == groups
