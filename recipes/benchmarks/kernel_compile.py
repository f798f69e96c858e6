"""Compile every Triton kernel of the engine for devices that need not be there, and note what each takes.

    python -m recipes.benchmarks.kernel_compile        all dtypes, shapes, options; into results/kernel_compile.csv
    python -m recipes.benchmarks.kernel_compile --elements bf16 --quick --csv /tmp/some.csv

Shared memory, registers and spilled bytes of each kernel on sm_80, sm_90 and sm_100. It fails if one does not compile
or wants more than the device has.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "0"  # an interpreted kernel has nothing to compile

import triton

from parrot_compat.gpu.kernels.triton.catalogue import CAPABILITIES, ELEMENTS, Compiled, compiled, variants

from .gpu_rows import RESULTS, commit, merge_csv

__all__ = ["SHARED_BYTES", "main"]

SHARED_BYTES = {80: 163 << 10, 90: 227 << 10, 100: 227 << 10}
"""What one program may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line(Compiled):
    triton: str
    commit: str
    date: str


def lines(elements: Sequence[str], capabilities: Sequence[int], *, thorough: bool) -> Iterator[Line]:
    here = {"triton": triton.__version__, "commit": commit(), "date": time.strftime("%Y-%m-%d")}
    for element in elements:
        for variant in variants(element, thorough=thorough):
            for capability in capabilities:
                yield Line(**asdict(compiled(variant, capability)), **here)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--elements", default=",".join(ELEMENTS))
    parser.add_argument("--capabilities", default=",".join(map(str, CAPABILITIES)))
    parser.add_argument("--quick", action="store_true", help="one variant of each stored tile")
    parser.add_argument("--csv", type=Path, default=RESULTS / "kernel_compile.csv")
    asked = parser.parse_args(argv)
    found, too_large = [], []
    capabilities = [int(each) for each in asked.capabilities.split(",")]
    for line in lines(asked.elements.split(","), capabilities, thorough=not asked.quick):
        found.append(line)
        if line.shared_bytes > SHARED_BYTES[line.capability]:
            too_large.append(line)
        print(
            f"{line.name:58} sm_{line.capability:<4} {line.shared_bytes:7} shared {line.registers:4} registers "
            f"{line.spilled_bytes:5} spilled", flush=True,
        )  # fmt: skip
    merge_csv(found, ("name", "capability", "triton"), asked.csv)
    for line in too_large:
        print(f"{line.name} wants {line.shared_bytes} bytes of shared memory on sm_{line.capability}", file=sys.stderr)
    print(f"{len(found)} kernels compiled with triton {triton.__version__}")
    return 1 if too_large else 0


if __name__ == "__main__":
    raise SystemExit(main())
