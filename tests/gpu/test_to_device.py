"""What the host gives to a device while a step is launched does not wait for the device."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

import parrot_compat.gpu
from parrot_compat.gpu.drawing.sampler import filter_scores
from parrot_compat.gpu.to_device import listed

GPU = Path(parrot_compat.gpu.__file__).parent
LAUNCHED = [
    "drawing/few",
    "drawing/logprobs",
    "drawing/outcome",
    "drawing/sampler",
    "drawing/softmax",
    "drawing/penalised",
    "drawing/penalties",
    "drawing/token_bits",
    "kv/storage",
    "layers/rotary:GrowingRotary.places",
]
"""What runs while a step is launched: a module, or one function of it."""


def waiting_calls(tree: ast.AST) -> list[str]:
    """torch.tensor(…, device=…) and .to(device) copy from common memory, behind everything that was asked before. To
    what `to` goes is not seen in a text: all is a device that is not called a dtype."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            targets = [ast.unparse(value) for value in (*node.args, *given.values())]
            is_made = node.func.attr in ("tensor", "as_tensor", "asarray") and "device" in given
            is_moved = node.func.attr == "to" and not all("dtype" in each or "torch." in each for each in targets)
            if is_made or is_moved or node.func.attr == "cuda":
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("place", LAUNCHED)
def test_nothing_is_copied_in_a_way_that_waits(place: str) -> None:
    module, _, function = place.partition(":")
    tree: ast.AST = ast.parse((GPU / f"{module}.py").read_text("utf-8"))
    for name in filter(None, function.split(".")):
        [tree] = [node for node in ast.walk(tree) if getattr(node, "name", None) == name]
    assert waiting_calls(tree) == []


@pytest.mark.parametrize(
    "call",
    ["x.to(device)", "x.to(self._device, self._dtype)", "x.to(where)", "torch.tensor(a, device=d)", "x.cuda()"],
)
def test_a_copy_that_waits_is_seen_whatever_its_device_is_called(call: str) -> None:
    assert waiting_calls(ast.parse(call)) == [call]
    assert waiting_calls(ast.parse("x.to(self._dtype), x.to(torch.float32), torch.tensor(a), moved(x, device)")) == []


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
