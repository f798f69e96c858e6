"""What this machine can do at most: bytes moved and multiplications done per second, by torch's own best.

    python -m recipes.benchmarks.ceilings --dtype float32 --threads 2

Run in a process of its own, so that preloads and threads are those of the servers. It prints one line of JSON.

The invariant: a ceiling is the best of several tries, never the mean: a roofline is above everything.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial

import torch

from .gpu_rows import times_s

__all__ = ["main"]

TRIES = 7
CUDA_REPEATS = 10
"""In one try: a copy takes some 200 us there, and the wait for the launch of one alone would be percents of that."""
COPY_BYTES = 512 << 20
"""Far more than any cache holds."""
SIZES = {"cpu": ((2048, 2048, 2048), (512, 4096, 4096)), "cuda": ((8192, 8192, 8192), (4096, 4096, 16384))}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The machine's ceilings.")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    with torch.inference_mode():
        print(json.dumps({"bytes_per_s": _bandwidth(device), "flops": _multiplications(device, dtype)}))
    return 0


def _best_s(run: Callable[[], object], device: torch.device) -> float:
    repeats = CUDA_REPEATS if device.type == "cuda" else 1

    def several() -> None:
        for _ in range(repeats):
            run()

    return min(times_s(several, device, TRIES)) / repeats


def _bandwidth(device: torch.device) -> float:
    """The better of reading, and of reading and writing."""
    source = torch.ones(COPY_BYTES // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    copied = 2 * COPY_BYTES / _best_s(lambda: target.copy_(source), device)
    read = COPY_BYTES / _best_s(lambda: source.sum(), device)
    return max(copied, read)


def _multiplications(device: torch.device, dtype: torch.dtype) -> float:
    """The best of torch's matrix product and, on a CPU, of oneDNN's with a packed weight."""
    best = 0.0
    for rows, inner, columns in SIZES[device.type]:
        left = torch.randn(rows, inner, device=device).to(dtype)
        right = torch.randn(columns, inner, device=device).to(dtype)
        runs: list[Callable[[], object]] = [partial(torch.nn.functional.linear, left, right)]
        if device.type == "cpu" and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
            packed = torch.ops.mkldnn._reorder_linear_weight(right)
            runs.append(partial(torch.ops.mkldnn._linear_pointwise, left, packed, None, "none", [], ""))
        work = 2.0 * rows * inner * columns
        best = max(best, *(work / _best_s(run, device) for run in runs))
    return best


if __name__ == "__main__":
    raise SystemExit(main())
