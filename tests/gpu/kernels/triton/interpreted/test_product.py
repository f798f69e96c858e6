"""Products in a fixed order: right, and the same bits for a row whatever other rows there are."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from parrot_compat.gpu.kernels.triton.product import fixed_linear

from .conftest import DTYPES, TOLERANCE


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width", "columns"), [(1, 64, 64), (5, 80, 70), (70, 33, 130)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_products_are_those_of_torch(
    dtype: torch.dtype, rows: int, width: int, columns: int, has_bias: bool, device: str
) -> None:
    x, weight = (torch.randn(shape, device=device).to(dtype) for shape in ((rows, width), (columns, width)))
    bias = torch.randn(columns, device=device).to(dtype) if has_bias else None
    expected = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    relative, absolute = TOLERANCE[dtype]
    found = fixed_linear(x, weight, bias)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=relative, atol=absolute * width**0.5)


def test_a_row_has_the_same_bits_alone_and_in_any_company(device: str) -> None:
    x, weight = torch.randn(67, 96, device=device), torch.randn(50, 96, device=device)
    together = fixed_linear(x, weight, None)
    for row in (0, 31, 32, 66):
        assert torch.equal(fixed_linear(x[row : row + 1], weight, None)[0], together[row])


def test_no_rows_are_no_rows(device: str) -> None:
    assert fixed_linear(torch.randn(0, 8, device=device), torch.randn(4, 8, device=device), None).shape == (0, 4)
