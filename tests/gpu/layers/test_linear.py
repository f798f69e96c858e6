"""Packed linear layers: the same product, row by row the same bits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from parrot_compat.gpu.kernels.cpu import build
from parrot_compat.gpu.layers import linear as linear_module
from parrot_compat.gpu.layers.linear import PackedLinear, can_pack, linear, pack_linears

SHAPES = [(64, 128), (64, 256), (96, 40), (768, 512), (1536, 64), (2688, 128)]


def packable(dtype: torch.dtype) -> None:
    if not can_pack(dtype):
        pytest.skip(f"this torch cannot pack {dtype} on this CPU")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("width", "out"), SHAPES)
def test_a_packed_linear_is_the_linear(width: int, out: int, bias: bool) -> None:
    packable(torch.float32)
    torch.manual_seed(0)
    plain = nn.Linear(width, out, bias=bias)
    x = torch.randn(1, 33, width)

    with torch.inference_mode():
        torch.testing.assert_close(PackedLinear(plain)(x), plain(x), rtol=1e-5, atol=1e-5)


@pytest.fixture(params=["kernels of our own", "torch alone"])
def product_of_few_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.param == "torch alone":
        monkeypatch.setenv(build.SWITCH, "torch")
    build.library.cache_clear()
    yield
    build.library.cache_clear()


@pytest.mark.usefixtures("product_of_few_rows")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("width", "out"), SHAPES)
def test_a_row_is_the_same_bits_in_every_batch(dtype: torch.dtype, width: int, out: int, bias: bool) -> None:
    """Also where rounding to bfloat16 would hide it: the bias leaves the last digits of the row that is looked at."""
    packable(dtype)
    torch.manual_seed(1)
    layer = nn.Linear(width, out, bias=bias, dtype=dtype).requires_grad_(False)
    x = torch.randn(1, 300, width).to(dtype)
    if bias:
        layer.bias -= layer(x[0, 40])
    packed = PackedLinear(layer)

    with torch.inference_mode():
        whole = packed(x)
        for rows in (1, 2, 3, 5, 7, 8, 16, 17, 64, 65, 255):
            assert torch.equal(packed(x[:, 40 : 40 + rows]), whole[:, 40 : 40 + rows]), f"{rows} rows"


def test_a_tied_head_is_packed_and_the_embedding_keeps_its_weight() -> None:
    packable(torch.float32)

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(32, 16)
            self.blocks = nn.Sequential(nn.Linear(16, 16), nn.SiLU(), nn.Linear(16, 16))
            self.head = nn.Linear(16, 32, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(self.blocks(self.embedding(ids)))
            return out

    model = Tied().requires_grad_(False)
    ids = torch.arange(9)
    before = model(ids)

    assert pack_linears(model) == 3
    assert isinstance(model.head, PackedLinear) and isinstance(model.blocks[0], PackedLinear)
    assert sorted(name for name, _ in model.named_parameters()) == [
        "blocks.0.bias",
        "blocks.2.bias",
        "embedding.weight",
    ]
    with torch.inference_mode():
        torch.testing.assert_close(model(ids), before, rtol=1e-5, atol=1e-5)


class Experts(nn.Module):
    """As transformers holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(32, 16)
        self.gate_up_proj = nn.Parameter(torch.zeros(4, 32, 16))
        self.norm = nn.LayerNorm(16)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    linear_module._left_to_torch.cache_clear()
    yield caplog
    linear_module._left_to_torch.cache_clear()


def test_products_that_torch_is_left_with_are_named_once(said: pytest.LogCaptureFixture) -> None:
    packable(torch.float32)
    for _ in range(2):
        linear(torch.zeros(8, 8, dtype=torch.float64), None)
        pack_linears(nn.Sequential(nn.Linear(16, 16), Experts()))
    hangs = "the last bits of a row may hang on how many rows are computed with it"
    assert [record.getMessage() for record in said.records] == [
        f"this CPU has no packed product for torch.float64: {hangs}",
        f"Sequential has 1 weights that cannot be packed, the first 1.gate_up_proj: {hangs}",
    ]


def test_where_everything_is_packed_nothing_is_said(said: pytest.LogCaptureFixture) -> None:
    packable(torch.float32)
    linear(torch.zeros(8, 8), None)
    pack_linears(nn.Sequential(nn.Embedding(32, 16), nn.Linear(16, 16), nn.LayerNorm(16)))
    assert not said.records


def test_a_dtype_that_cannot_be_packed_stays_as_it_is() -> None:
    model = nn.Sequential(nn.Linear(8, 8, dtype=torch.float64))

    assert not can_pack(torch.float64)
    assert pack_linears(model) == 0
    assert type(model[0]) is nn.Linear
