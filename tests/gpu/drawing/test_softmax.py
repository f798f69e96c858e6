"""What a row's softmax is does not hang on where the row lies: a device that reads in steps is given whole ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.gpu.drawing import softmax as ours
from parrot_compat.gpu.drawing.draw import Draw
from parrot_compat.gpu.drawing.logprobs import told_logprobs
from parrot_compat.gpu.drawing.outcome import Outcome
from parrot_compat.gpu.drawing.sampler import sample
from tests.gpu.drawing.computed import Computed

KINDS = [(torch.softmax, ours.softmax), (torch.log_softmax, ours.log_softmax)]
VOCABULARY = 41


def scores(dtype: torch.dtype = torch.float32) -> Tensor:
    drawn = torch.randn(3, VOCABULARY, generator=torch.Generator().manual_seed(3), dtype=dtype) * 4
    drawn[1, 5:30] = float("-inf")
    return drawn


class Softmaxes(TorchDispatchMode):  # type: ignore[misc]  # torch has no types there
    """`rows`: the dtype, and the length of a row, of everything that a softmax is computed of."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[torch.dtype, int]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if "softmax" in str(func):
            self.rows.append((args[0].dtype, args[0].shape[-1]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("torchs", "own"), KINDS)
def test_a_cpu_computes_what_torch_does_and_nothing_more(
    torchs: Callable[..., Tensor], own: Callable[[Tensor], Tensor]
) -> None:
    expected = torchs(scores(), dim=-1)

    with Computed() as computed:
        found = own(scores())

    assert found.equal(expected) and computed.operations[-1] == f"aten._{torchs.__name__}.default"
    with Computed() as made:
        scores()
    assert len(computed.operations) == len(made.operations) + 1


@pytest.mark.parametrize("torchs", [torchs for torchs, _ in KINDS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_longer_row_has_the_shares_of_the_row(torchs: Callable[..., Tensor], dtype: torch.dtype) -> None:
    expected = torchs(scores(dtype), dim=-1)

    for missing in range(4):
        found = ours._lengthened(torchs, scores(dtype), missing)

        assert found.shape == expected.shape
        # A CPU adds a row of another length in another order.
        torch.testing.assert_close(found, expected, rtol=4 * torch.finfo(dtype).eps, atol=1e-30)


def test_whatever_is_drawn_or_told_on_a_device_is_computed_of_rows_of_whole_reads() -> None:
    """`meta` stands for any device but the CPU."""
    logits = torch.empty(3, VOCABULARY, device="meta")
    sampling = ResolvedSampling(max_tokens=9, temperature=0.8, top_p=0.9, min_p=0.1, logprobs=2)
    draws = [Draw(sampling=sampling, index=0)] * 3

    with Softmaxes() as computed:
        Outcome(sample(logits, draws, ()), logits, draws)
        with pytest.raises((RuntimeError, NotImplementedError)):
            told_logprobs([1, 2, 3], logits, [0, 0, 0])

    assert computed.rows == [
        (torch.float32, 44),  # top-p
        (torch.float32, 44),  # min-p
        (torch.float64, 42),  # the draw
        (torch.float32, 44),  # log probabilities of a step, and of a prompt
        (torch.float32, 44),
    ]
