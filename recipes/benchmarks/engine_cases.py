"""What is measured of an engine, and how far from the machine's own limits the result is.

It knows token streams and the numbers of a checkpoint, nothing of servers.

The invariant: every case draws fresh tokens from its seed, so nothing but the `repeat` case finds a cache.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from .token_streams import Streams, TokenStream

__all__ = ["CASES", "Case", "Ceilings", "Measured"]

DECODE_PROMPT, DECODE_OUT = 64, 128
SHORT, MOMENTS = 512, 9
"""Prompts this short, and those that a cache knows, take moments: they are measured so often in a round, one after the
other, and the median counts. One alone says how a core was woken."""
FIRST_ID = 300
"""Ids below are control tokens and single bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    value: float
    unit: str
    tokens: tuple[tuple[int, ...], ...]
    """Of every stream: the same in every engine where greedy decoding is exact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    kind: Literal["prefill", "first", "repeat", "decode"]
    size: int
    """Tokens of prompt, or streams at once."""

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.size}"

    @property
    def context(self) -> int:
        return self.size + 1 if self.kind != "decode" else DECODE_PROMPT + DECODE_OUT

    async def run(self, streams: Streams, seed: str, vocabulary: int, out: int = DECODE_OUT) -> Measured:
        drawn = random.Random(f"{self.name} {seed}")

        def prompt(tokens: int) -> list[int]:
            return [drawn.randrange(FIRST_ID, vocabulary - 1) for _ in range(tokens)]

        if self.kind == "decode":
            prompts = [prompt(DECODE_PROMPT) for _ in range(self.size)]
            done = await asyncio.gather(*(streams.run(ids, out) for ids in prompts))
            return Measured(value=_rate(done), unit="tokens/s", tokens=tuple(stream.tokens for stream in done))
        is_short, repeats = self.size <= SHORT, self.kind == "repeat"
        ids = prompt(self.size)
        if repeats:
            await streams.run(ids, 1)
        prompts = (ids if repeats else prompt(self.size) for _ in range(MOMENTS if is_short or repeats else 1))
        took = [await streams.run(ids, 1) for ids in prompts]
        first_s = median(stream.first_s for stream in took)
        value, unit = (self.size / first_s, "tokens/s") if self.kind == "prefill" else (first_s, "s")
        return Measured(value=value, unit=unit, tokens=tuple(stream.tokens for stream in took))


def _rate(streams: Sequence[TokenStream]) -> float:
    """Tokens per second while all of them draw: after the last first token, up to the first end."""
    begin = max(stream.arrivals[0][0] for stream in streams)
    end = min(stream.arrivals[-1][0] for stream in streams)
    if end <= begin:  # so many that the first are done before the last begin
        begin, end = min(stream.sent for stream in streams), max(stream.arrivals[-1][0] for stream in streams)
    return sum(stream.arrived_between(begin, end) for stream in streams) / (end - begin)


CASES = (
    *(Case(kind="prefill", size=size) for size in (512, 2048, 8192)),
    *(Case(kind="decode", size=size) for size in (1, 4, 16, 64)),
    Case(kind="first", size=64),
    Case(kind="repeat", size=2048),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """Of the machine: measured, not from a data sheet."""

    bytes_per_s: float
    flops: float

    def share(self, case: Case, measured: float, facts: Mapping[str, Any]) -> float | None:
        """least time that the work can take / time it took; `None` for cases that are no throughput.

        Work of a decode step: every weight read once, the KV of each stream read once, 2 operations per weight and
        stream. Of a prefill: 2 operations per weight and token, and attention over half of the square.
        """
        body, head = _weights(facts)
        size = 4 if facts["dtype"] == "float32" else 2
        pairs = 4 * facts["num_hidden_layers"] * facts["num_attention_heads"] * facts["head_dim"]
        if case.kind == "decode":
            context = DECODE_PROMPT + DECODE_OUT / 2
            moved = (body + head) * size + case.size * context * facts["kv_bytes_per_token"]
            work = case.size * (2 * (body + head) + pairs * context)
            return self._least_s(moved, work) / (case.size / measured)
        if case.kind == "prefill":
            work = 2 * body * case.size + 2 * head + pairs * case.size**2 / 2
            moved = (body + head) * size
            return self._least_s(moved, work) / (case.size / measured)
        return None

    def _least_s(self, moved_bytes: float, operations: float) -> float:
        return max(moved_bytes / self.bytes_per_s, operations / self.flops)


def _weights(facts: Mapping[str, Any]) -> tuple[int, int]:
    """Numbers in the matrices of all layers, and in the output head."""
    hidden, inner, width = facts["hidden_size"], facts["intermediate_size"], facts["head_dim"]
    query, shared = facts["num_attention_heads"] * width, facts["num_key_value_heads"] * width
    layer = hidden * (2 * query + 2 * shared + 3 * inner)
    return layer * facts["num_hidden_layers"], facts["vocab_size"] * hidden
