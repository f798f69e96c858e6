"""Every kernel with every stored choice, as Triton's compiler wants it: what can be compiled without a device.

It knows kernels, dtypes and tiles, and stands for the models that are served: head dims, heads to a kv head and
widths that occur. The invariant: what a wrapper launches for such a model is in here.
"""
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import compiler as nvidia
from triton.compiler import ASTSource

from parrot_compat.gpu.kernels.strips import HeadShape, padded
from parrot_compat.gpu.kernels.triton import attention, elementwise, product, rotary
from parrot_compat.gpu.kernels.triton.step import MERGED_SLOTS
from parrot_compat.gpu.kernels.triton.tiles import Kind, tile

__all__ = ["CAPABILITIES", "Compiled", "Variant", "attention_variant", "built", "compiled", "variants"]

CAPABILITIES = (80, 90, 100)
"""Ampere, Hopper, Blackwell."""
ELEMENTS = {"bf16": 2, "fp16": 2, "fp32": 4}
HEADS = ((32, 8, 128), (14, 2, 64), (8, 4, 256), (32, 32, 96))
"""(heads, kv heads, dim): Llama 3 and Qwen 3 8B; Qwen 2.5 0.5B, whose 7 heads are padded; Gemma 2 2B; Phi 3."""
WIDTH = 4096
PAGE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    name: str
    kernel: Any
    arguments: Mapping[str, str]
    """Name → pointer or number type, in order."""
    constants: Mapping[str, Any]
    warps: int
    stages: int
    fuses: bool = True
    """A product and the sum behind it may become one instruction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    name: str
    capability: int
    shared_bytes: int
    registers: int
    """Of a thread; 255 is all there are, what does not fit is spilled."""
    spilled_bytes: int


def variants(element: str, *, thorough: bool) -> Iterator[Variant]:
    """For one dtype. Not `thorough`: only the shapes that choose different tiles, with every option on at once."""
    for heads, kv_heads, dim in HEADS if thorough else HEADS[:3:2]:
        shape = HeadShape(heads=heads, kv_heads=kv_heads, dim=dim, element_bytes=ELEMENTS[element])
        options = [(False, False), (True, False), (False, True), (True, True)] if thorough else [(False, False)]
        if not thorough and dim > 128:
            options = [(True, True)]  # Gemma 2 has both
        for kind in get_args(Kind):
            for has_window, has_cap in options:
                yield attention_variant(element, kind, shape, has_window, has_cap)
                if kind == "direct" and not has_window:  # a deterministic engine's, as `run_strips` launches it
                    yield attention_variant(element, kind, shape, has_window, has_cap, fuses=False)
        yield _merge(element, shape)
        yield _rotary(element, shape)
    yield from _others(element, thorough)


def compiled(variant: Variant, capability: int) -> Compiled:
    """Errors: Triton's own, if the kernel is wrong or does not fit the device."""
    found = built(variant, capability)
    registers, spilled = _resources(found.asm["cubin"])
    return Compiled(
        name=variant.name, capability=capability, shared_bytes=found.metadata.shared, registers=registers,
        spilled_bytes=spilled,
    )  # fmt: skip


def built(variant: Variant, capability: int) -> Any:
    """As `compiled`: Triton's own result, which has the text of every stage (`asm`)."""
    signature = {**variant.arguments, **dict.fromkeys(variant.constants, "constexpr")}
    # Every tensor begins at a multiple of 16 bytes, as the launcher finds out for itself: loads are wide.
    aligned = {(at,): [["tt.divisibility", 16]] for at, kind in enumerate(variant.arguments.values()) if "*" in kind}
    source = ASTSource(fn=variant.kernel, signature=signature, constexprs=dict(variant.constants), attrs=aligned)
    options = {"num_warps": variant.warps, "num_stages": variant.stages, "enable_fp_fusion": variant.fuses}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers and stack bytes of the only function in it, as NVIDIA's own tool reads them."""
    tool = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
    with TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        said = subprocess.run([tool, "-res-usage", file], capture_output=True, text=True, check=True).stdout
    fields = dict(field.split(":", 1) for field in said.split() if field.count(":") == 1 and field[-1] != ":")
    return int(fields["REG"]), int(fields["STACK"])


def attention_variant(
    element: str, kind: Kind, shape: HeadShape, has_window: bool = False, has_cap: bool = False, *, fuses: bool = True
) -> Variant:
    """`fuses`: as `run_strips` has it."""
    size, direct = tile(kind, shape), kind == "direct"
    named = ((" window", has_window), (" cap", has_cap), (" not fused", not fuses))
    options = "".join(name for name, on in named if on)
    return Variant(
        name=f"attend_strips {kind} {element} {shape.heads}/{shape.kv_heads}x{shape.dim}{options}",
        kernel=attention.attend_strips,
        arguments={
            **dict.fromkeys(("query", "key_cache", "value_cache"), f"*{element}"),
            **dict.fromkeys(("strips", "members", "lengths", "slot_starts", "pages"), "*i32"),
            "out": f"*{element}" if direct else "*fp32",
            "lse": "*fp32",
            "scale": "fp32",
            "window": "i32",
            "soft_cap": "fp32",
        },
        constants={
            "PAGE": PAGE, "HEADS": shape.heads, "KV_HEADS": shape.kv_heads, "DIM": shape.dim,
            "DIM_PADDED": padded(shape.dim), "GROUP_PADDED": shape.group, "ROWS": size.rows, "KEYS": size.keys,
            "DIRECT": direct, "HAS_WINDOW": has_window, "HAS_CAP": has_cap, "KEEPS_LSE": False,
        },
        warps=size.warps,
        stages=size.stages,
        fuses=fuses,
    )  # fmt: skip


def _merge(element: str, shape: HeadShape) -> Variant:
    return Variant(
        name=f"merge_partials {element} {shape.heads}x{shape.dim}",
        kernel=attention.merge_partials,
        arguments={
            "partial": "*fp32", "partial_lse": "*fp32", "slot_starts": "*i32", "tokens": "*i32", "out": f"*{element}",
            "lse": "*fp32",
        },
        constants={
            "HEADS": shape.heads, "DIM": shape.dim, "DIM_PADDED": padded(shape.dim), "SLOTS": MERGED_SLOTS,
            "KEEPS_LSE": False,
        },
        warps=1,
        stages=3,
    )  # fmt: skip


def _rotary(element: str, shape: HeadShape) -> Variant:
    return Variant(
        name=f"rotate_and_store {element} {shape.heads}/{shape.kv_heads}x{shape.dim}",
        kernel=rotary.rotate_and_store,
        arguments={
            **dict.fromkeys(("qkv", "cos", "sin"), f"*{element}"),
            **dict.fromkeys(("positions", "slots"), "*i64"),
            **dict.fromkeys(("query_weight", "key_weight"), "*fp32"),
            **dict.fromkeys(("query", "key_cache", "value_cache"), f"*{element}"),
            **dict.fromkeys(("query_eps", "key_eps"), "fp32"),
        },
        constants={
            "HEADS": shape.heads, "KV_HEADS": shape.kv_heads, "DIM": shape.dim, "DIM_PADDED": padded(shape.dim),
            "HALF": shape.dim // 2, "QUERY_NORM": True, "KEY_NORM": True, "ROUNDS_FIRST": True,
        },
        warps=1,
        stages=3,
    )  # fmt: skip


def _others(element: str, thorough: bool) -> Iterator[Variant]:
    here = f"*{element}"
    for adds in (False, True):
        yield Variant(
            name=f"normalise {element} {WIDTH}{' adds' if adds else ''}",
            kernel=elementwise.normalise,
            arguments={"x": here, "added": here, "total": here, "weight": "*fp32", "out": here, "eps": "fp32"},
            constants={"WIDTH": WIDTH, "PADDED": padded(WIDTH), "ADDS": adds, "ROUNDS_FIRST": adds},
            warps=elementwise.norm_warps(WIDTH),
            stages=3,
        )
    for name, kind in elementwise.ACTIVATIONS.items():
        if thorough or name != "gelu":
            yield Variant(
                name=f"gate {element} {name}",
                kernel=elementwise.gate,
                arguments={"gate_up": here, "out": here},
                constants={"INNER": 3 * WIDTH, "KIND": kind, "BLOCK": elementwise.GATED_BLOCK},
                warps=4,
                stages=3,
            )
    yield Variant(
        name=f"store_pairs {element}",
        kernel=rotary.store_pairs,
        arguments={**dict.fromkeys(("key", "value", "key_cache", "value_cache"), here), "slots": "*i64"},
        constants={"WIDTH": 1024, "PADDED": 1024},
        warps=4,
        stages=3,
    )
    tile = product.tile_of(ELEMENTS[element])
    warps, stages = tile.pop("num_warps"), tile.pop("num_stages")
    yield Variant(
        name=f"multiply {element}",
        kernel=product.multiply,
        arguments={**dict.fromkeys(("x", "weight", "bias", "out"), here), "rows": "i32"},
        constants={"WIDTH": WIDTH, "COLUMNS": 3 * WIDTH, "HAS_BIAS": True, **tile},
        warps=warps,
        stages=stages,
    )
    yield Variant(
        name=f"merge_pair {element}",
        kernel=attention.merge_pair,
        arguments={"out_a": here, "lse_a": "*fp32", "out_b": here, "lse_b": "*fp32", "out": here, "lse": "*fp32"},
        constants={"DIM": 128, "DIM_PADDED": 128},
        warps=1,
        stages=3,
    )
