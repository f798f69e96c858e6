"""How fast one step of the engine is: the runner alone, without scheduler, tokenizer or server.

    python -m recipes.benchmarks.forward l25-fp32 q125-fp32 q125-bf16 --threads 2

For each checkpoint: decode steps of 1, 4, 16 and 64 rows at two lengths of context, prefills, and of each prefill the
products with the layers' weights alone, by oneDNN (what is left is attention, norms and the like). It prints the
shortest wall time of several runs (the machine may be shared), tokens per second, CPU time of a step, and what share
of the measured bandwidth (decode) or of the measured product speed (prefill) that is. The ceilings are measured
first: reading a buffer far larger than the caches, and a product of large matrices by the engine's own linear layer.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.gpu.batch import BatchRow
from parrot_compat.gpu.config import EngineConfig
from parrot_compat.gpu.drawing.draw import Draw
from parrot_compat.gpu.layers.linear import Packed, linear
from parrot_compat.gpu.models.decoder import FastDecoder
from parrot_compat.gpu.runner import ModelRunner

from .checkpoints import facts, folder

GREEDY = Draw(sampling=ResolvedSampling(max_tokens=1), index=0)
DECODES = [(rows, context) for context in (256, 2048) for rows in (1, 4, 16, 64)]
PREFILLS = (512, 2048)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    model: str
    threads: int
    what: str
    rows: int
    context: int
    ms: float
    """The shortest of all runs."""
    cpu_ms: float
    """Of all threads together, in the run that took least."""
    tokens_per_s: float
    share: float
    """Of the ceiling: bytes read (decode) or products done (prefill)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    bytes_per_s: float
    products_per_s: float
    """Multiply-adds."""


def shortest(step: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Least wall and least CPU seconds."""
    step()
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return min(walls), min(cpus)


def ceilings(dtype: torch.dtype) -> Ceilings:
    buffer = torch.zeros(256 << 20, dtype=torch.uint8).view(torch.int64)
    read, _ = shortest(buffer.sum, 5)
    x = torch.randn(1024, 1024).to(dtype)
    product = linear(torch.randn(4096, 1024).to(dtype), None)
    with torch.inference_mode():
        multiplied, _ = shortest(lambda: product(x), 8)
    return Ceilings(bytes_per_s=(256 << 20) / read, products_per_s=1024 * 1024 * 4096 / multiplied)


def timings(name: str, threads: int | None, repeats: int) -> Iterator[Timing]:
    place = folder(name)
    stated = facts(place)
    config = EngineConfig(
        model=str(place), device="cpu", threads=threads, kv_tokens=64 * 2080, max_model_len=4096, step_tokens=4096
    )
    runner = ModelRunner(config)
    size = runner.config.page_size
    per_row = runner.config.pages // 64
    top = ceilings(getattr(torch, stated["dtype"]))
    parameters = sum(file.stat().st_size for file in place.glob("*.safetensors"))
    width = 4 if stated["dtype"] == "float32" else 2
    embedding = stated["vocab_size"] * stated["hidden_size"] * width
    weights = parameters - (0 if stated["tie_word_embeddings"] else embedding)

    def timing(what: str, rows: list[BatchRow], context: int) -> Timing:
        wall, cpu = shortest(lambda: runner.run(rows), repeats)
        tokens = sum(len(row.tokens) for row in rows)
        if what == "decode":
            share = (weights + len(rows) * context * stated["kv_bytes_per_token"]) / wall / top.bytes_per_s
        else:
            share = tokens * weights / width / wall / top.products_per_s
        return Timing(
            model=name, threads=runner.config.threads, what=what, rows=len(rows), context=context, ms=wall * 1e3,
            cpu_ms=cpu * 1e3, tokens_per_s=tokens / wall, share=share,
        )  # fmt: skip

    for count, context in DECODES:
        pages = [range(row * per_row, row * per_row + -(-context // size)) for row in range(count)]
        start = context - 1
        rows = [BatchRow(tokens=[7 + row], start=start, pages=pages[row], draw=GREEDY) for row in range(count)]
        yield timing("decode", rows, context)
    for context in PREFILLS:
        tokens = [number % 8000 for number in range(context)]
        yield timing(
            "prefill", [BatchRow(tokens=tokens, start=0, pages=range(-(-context // size)), draw=GREEDY)], context
        )
        if (found := products(runner, context)) is not None:
            wall, cpu = shortest(found, repeats)
            yield Timing(
                model=name, threads=runner.config.threads, what="products", rows=1, context=context, ms=wall * 1e3,
                cpu_ms=cpu * 1e3, tokens_per_s=context / wall,
                share=context * weights / width / wall / top.products_per_s,
            )  # fmt: skip


def products(runner: ModelRunner, tokens: int) -> Callable[[], None] | None:
    """Those of all layers, but what the last one is spared; `None` of other decoders than ours, or unpacked weights."""
    decoder = runner._decoder
    if not isinstance(decoder, FastDecoder):
        return None
    *whole, last = [(layer.qkv, layer.output, layer.gate_up, layer.down) for layer in decoder.layers]
    found = [*(each for four in whole for each in four), last[0]]
    packed = [(each, each.few) for each in found if isinstance(each, Packed)]
    states = [(each, torch.randn(tokens, few.into).to(few.dtype)) for each, few in packed if few is not None]
    if len(states) < len(found):
        return None

    @torch.inference_mode()
    def run() -> None:
        for product, x in states:
            product(x)

    return run


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["l25-fp32", "q125-fp32", "q125-bf16"])
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--csv", type=Path, help="append the rows to this file")
    asked = parser.parse_args(arguments)
    print("     model thr step     rows context        ms    cpu ms     tok/s  share")
    found = []
    for name in asked.models:
        for row in timings(name, asked.threads, asked.repeats):
            found.append(row)
            print(
                f"{row.model:>10} {row.threads:3} {row.what:8} {row.rows:4} {row.context:7} {row.ms:9.2f} "
                f"{row.cpu_ms:9.2f} {row.tokens_per_s:9.0f} {row.share:6.0%}", flush=True,
            )  # fmt: skip
    if asked.csv:
        is_new = not asked.csv.exists()
        with asked.csv.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Timing)])
            if is_new:
                writer.writeheader()
            writer.writerows(asdict(row) for row in found)


if __name__ == "__main__":
    main(sys.argv[1:])
