"""Linear layers on a CPU, with their weight packed once for oneDNN.

The packed product is 2-3 times faster than `F.linear` at fp32 on CPUs that MKL does not favour, and, unlike it,
row i of the result is the same bits whatever other rows are in the batch: batching changes no greedy token. The one
exception (measured, oneDNN 3.12): a row that is alone adds in another order where there are more than 1024 inputs. So
one row never reaches oneDNN: few rows go through a kernel of our own, or one row is computed twice.
What cannot be packed (a dtype that this CPU has no product for, the experts and routers of mixtures, which are no
`nn.Linear`) is left to torch, which promises no such thing, and the log says so.
It knows nothing of models beyond `torch.nn.Linear`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parrot_compat.gpu.kernels.cpu.product import FEW, few_rows

__all__ = ["Linear", "Packed", "PackedLinear", "can_pack", "linear", "pack_linears"]

logger = logging.getLogger(__name__)

Linear = Callable[[Tensor], Tensor]
"""[tokens, in] → [tokens, out]"""


def linear(weight: Tensor, bias: Tensor | None, *, deterministic: bool = False) -> Linear:
    """The product with `weight` [out, in], packed where that can be. `deterministic`: a row has the same bits whatever
    other rows there are, which only a CUDA device's libraries do not give anyway."""
    if deterministic and weight.device.type == "cuda":
        # Late: only a machine with a CUDA device needs triton.
        from parrot_compat.gpu.kernels.triton.product import fixed_linear

        return lambda x: fixed_linear(x, weight, bias)
    if weight.device.type == "cpu":
        if can_pack(weight.dtype):
            return Packed(weight, bias)
        _left_to_torch(f"this CPU has no packed product for {weight.dtype}")
    return lambda x: F.linear(x, weight, bias)


class Packed:
    """The product with a weight in oneDNN's form. The plain weight is not kept."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        self._bias = bias
        self._product = torch.ops.mkldnn._linear_pointwise.default
        self._none: list[float] = []
        self.few = few_rows(self._packed, bias, (weight.shape[0], weight.shape[1]), self._many)
        """The same for at most `FEW` rows, straight from oneDNN's memory, where that can be."""

    def __call__(self, x: Tensor) -> Tensor:
        if self.few is not None and x.shape[0] <= FEW:
            return self.few(x.contiguous())
        if x.shape[0] == 1:
            return self._many(x.expand(2, -1), self._bias)[:1]
        return self._many(x, self._bias)

    def _many(self, x: Tensor, added: Tensor | None) -> Tensor:
        out: Tensor = self._product(x, self._packed, added, "none", self._none, "")
        return out


class PackedLinear(nn.Module):
    """`nn.Linear` for inference on a CPU. The plain weight is not kept."""

    def __init__(self, linear_: nn.Linear) -> None:
        super().__init__()
        self.in_features = linear_.in_features
        self.out_features = linear_.out_features
        self.bias = None if linear_.bias is None else nn.Parameter(linear_.bias.detach(), requires_grad=False)
        # What it holds, an opaque oneDNN tensor, can be neither moved nor saved, so it is no buffer.
        self._product = linear(linear_.weight.detach(), self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self._product(x.reshape(-1, self.in_features)).view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def can_pack(dtype: torch.dtype) -> bool:
    """Whether this build of torch, on this CPU, has the packed product for `dtype`."""
    if not torch._C._has_mkldnn or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return False
    if dtype is torch.float32:
        return True
    if dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if dtype is torch.float16:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    return False


def pack_linears(module: nn.Module) -> int:
    """Replace every plain `nn.Linear` under `module` that can be packed; how many were. The log names what else has a
    product there."""
    packed = _pack_under(module)
    if left := _other_products(module):
        _left_to_torch(f"{type(module).__name__} has {len(left)} weights that cannot be packed, the first {left[0]}")
    return packed


def _pack_under(module: nn.Module) -> int:
    packed = 0
    for name, child in list(module.named_children()):
        if type(child) is nn.Linear and child.weight.device.type == "cpu" and can_pack(child.weight.dtype):
            setattr(module, name, PackedLinear(child))
            packed += 1
        else:
            packed += _pack_under(child)
    return packed


def _other_products(module: nn.Module) -> list[str]:
    """The names of weights that are matrices and no tables."""
    holders = [(name, each) for name, each in module.named_modules() if not isinstance(each, nn.Embedding)]
    return [
        f"{holder}.{name}".lstrip(".")
        for holder, each in holders
        for name, weight in each.named_parameters(recurse=False)
        if weight.dim() > 1
    ]


@cache
def _left_to_torch(why: str) -> None:
    """Said once in a process: every layer has the same reason."""
    logger.warning("%s: the last bits of a row may hang on how many rows are computed with it", why)
