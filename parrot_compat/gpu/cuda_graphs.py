"""Decode steps as CUDA graphs: all kernels of a step launched by one call.

A graph holds addresses and grids, so a step is put into buffers of a fixed capacity, with padding rows that write to a
slot nobody reads. A capacity that is seen for the first time runs as it is (its scratch is taken then); seen again it
is captured, unless the memory has no room for its graph: then it runs as it is for ever. The head and the draw stay
outside: they are few launches, for real rows only, while the graph runs.

It knows tables and tensors, nothing of sequences. The invariant: a replayed step computes what the same launches one by
one would have computed, bit for bit.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from parrot_compat.gpu.batch import Batch, PackedRows
from parrot_compat.gpu.config import ResolvedConfig
from parrot_compat.gpu.kernels import AttentionInputs
from parrot_compat.gpu.kernels.strips import HeadShape, Tiling, plan_decode
from parrot_compat.gpu.kernels.triton.step import Capacity, Partials, StripTables, TritonStep, device_tiling
from parrot_compat.gpu.kv.storage import KvStorage
from parrot_compat.gpu.models.decoder import FastDecoder

__all__ = ["ROW_COUNTS", "DecodeGraphs"]

logger = logging.getLogger(__name__)

ROW_COUNTS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Rows that a graph is made for; a step has the next larger one."""
MOST_GRAPHS = 128
"""Each costs a few MB of launches; the least recently used goes first."""
_CAPTURES = threading.Lock()
"""One at a time in a process: torch has one stream for all of them."""


class DecodeGraphs:
    """The graphs of one decoder over one storage."""

    def __init__(
        self, decoder: FastDecoder, storage: KvStorage, config: ResolvedConfig, device: torch.device, spare_slot: int
    ) -> None:
        """`spare_slot`: of the storage; padding rows write to it."""
        facts, size = config.checkpoint, storage.keys[0].element_size()
        shape = HeadShape(heads=facts.heads, kv_heads=facts.kv_heads, dim=facts.head_dim, element_bytes=size)
        self._decoder = decoder
        self._storage = storage
        self._context_tokens = config.context_tokens
        self._device = device
        self._spare_slot = spare_slot
        self._tiling: Tiling = device_tiling(shape, device, deterministic=config.deterministic)
        self._partials = Partials()
        self._steps: OrderedDict[Capacity, _FixedStep] = OrderedDict()
        self._pool: Any = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    def __len__(self) -> int:
        return len(self._steps)

    def logits(self, rows: PackedRows, token_ids: Tensor | None = None) -> Tensor | None:
        """Compute a decode step: [rows, vocabulary]. `None`: no graph is made for so many rows.

        `token_ids` [rows] int64 on the device: in place of those of `rows`.
        """
        count = len(rows.kv_lengths)
        padded_rows = next((size for size in ROW_COUNTS if size >= count), None)
        if padded_rows is None:
            return None
        plan = plan_decode(rows.kv_lengths, rows.page_starts[:-1], rows.page_size, self._tiling, rows.shared)
        capacity = Capacity.of(plan, len(rows.pages)).with_room(padded_rows)
        step = self._steps.get(capacity)
        if step is None:
            step = _FixedStep(capacity, rows.page_size, self._context_tokens, self._device, self._partials)
            self._steps[capacity] = step
            if len(self._steps) > MOST_GRAPHS:
                self._steps.popitem(last=False)
        self._steps.move_to_end(capacity)
        step.tables.load(plan, rows.pages)
        step.load(rows, token_ids, self._spare_slot)
        return self._decoder.head(step.run(self._decoder, self._storage, self._pool)[:count])


class _FixedStep:
    """Buffers of one capacity, and the graph over them once there is one."""

    def __init__(
        self, capacity: Capacity, page_size: int, context_tokens: int, device: torch.device, partials: Partials
    ) -> None:
        self.tables = StripTables(capacity, device, partials)
        self._host = torch.zeros(3, capacity.tokens, dtype=torch.int64, pin_memory=device.type == "cuda")
        self._inputs = torch.zeros_like(self._host, device=device)
        self._copied = torch.Event(device) if device.type == "cuda" else None
        # In this order positions and slots begin at 16 bytes for one token too, as they do in `PackedRows.to`.
        positions, token_ids, slots = self._inputs.unbind(0)
        every = tuple(range(capacity.tokens))
        self._batch = Batch(
            token_ids=token_ids,
            positions=positions,
            attention=AttentionInputs(
                page_size=page_size, slots=slots, query_starts=(*every, capacity.tokens),
                kv_lengths=(context_tokens,) * capacity.tokens, pages=(),
            ),
            drawn=every,
            draws=(),
            prompt_tokens=(0,) * capacity.tokens,
            last_tokens=torch.arange(capacity.tokens, device=device),
        )  # fmt: skip
        self._graph: torch.cuda.CUDAGraph | None = None
        self._states: Tensor | None = None
        self._may_capture = device.type == "cuda"

    def load(self, rows: PackedRows, token_ids: Tensor | None, spare_slot: int) -> None:
        count = len(rows.kv_lengths)
        if self._copied is not None:
            self._copied.synchronize()  # the last step may still be on its way out of the host's buffer
        host = self._host.numpy()
        host[:2] = 0
        host[2] = spare_slot
        columns: Sequence[object] = (rows.positions, rows.token_ids, rows.slots)
        for line, column in zip(host, columns, strict=True):
            line[:count] = column
        self._inputs.copy_(self._host, non_blocking=True)
        if self._copied is not None:
            self._copied.record()
        if token_ids is not None:
            self._batch.token_ids[:count].copy_(token_ids)

    def run(self, decoder: FastDecoder, storage: KvStorage, pool: Any) -> Tensor:
        if self._graph is None and self._states is not None and self._may_capture:
            self._capture(decoder, storage, pool)
        if self._graph is None:
            self._states = self._compute(decoder, storage)
        else:
            self._graph.replay()
        assert self._states is not None
        return self._states

    def _capture(self, decoder: FastDecoder, storage: KvStorage, pool: Any) -> None:
        """A capture computes nothing. It takes memory of its own: where that is not there none is tried again, as it
        would fail the rows of every step."""
        graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with _uncollected(), torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                states = self._compute(decoder, storage)
        except BaseException as error:
            # A capture that failed cannot be ended either: torch raises before it has set the stream back.
            torch.cuda.set_stream(before)
            if not _is_out_of_memory(error):
                raise
            self._may_capture = False
            logger.warning("no CUDA graph of %s: %s", self.tables.capacity, str(error).partition("\n")[0])
            return
        # Only now: what a failed capture leaves can be replayed, and computes the first layers only.
        self._graph, self._states = graph, states

    def _compute(self, decoder: FastDecoder, storage: KvStorage) -> Tensor:
        return decoder.states(self._batch, storage, TritonStep(self._batch.attention, self.tables))


@contextmanager
def _uncollected() -> Iterator[None]:
    """Garbage is left where it is: an engine may be among it whose graphs, destroyed amid a capture, end that."""
    with _CAPTURES:  # or the second of two would take the first one's off for what was before
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if was_enabled:
                gc.enable()


def _is_out_of_memory(error: BaseException) -> bool:
    """Ending a capture takes memory too, and says so with the other error."""
    is_of_device = isinstance(error, torch.AcceleratorError) and "out of memory" in str(error)
    return isinstance(error, torch.OutOfMemoryError) or is_of_device
