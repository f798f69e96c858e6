"""Loading: worker processes make segments without end; a batch is a few segments side by side, on the device.

It knows processes and tensors. Where the workers are slower than the device, segments of the last minutes are used
again, in another company (`echoes` counts them), so that the device never waits.

The invariant: worker `n` of a run with seed `s` gives the same segments in the same order, for the same progress.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor

from recipes.train_builtin import mixture, packing
from recipes.train_builtin.corpus import Document
from recipes.train_builtin.packing import SEGMENT, Segment

_PATIENCE_S = 0.05
"""A segment may be on its way through the pipe."""
_KEPT = 400
"""Segments that may be used again."""


@dataclass(frozen=True, slots=True)
class Batch:
    ids: Tensor
    """[tokens]"""
    positions: Tensor
    rows: list[tuple[int, int]]
    places: Tensor
    """[counted]: the tokens after which the next one is foretold, and counts."""
    labels: Tensor
    weights: Tensor


def batch(segments: Sequence[Segment], device: torch.device) -> Batch:
    ids = _moved(np.concatenate([one.ids for one in segments]).view(np.int16), device).long()
    starts = range(0, len(segments) * SEGMENT, SEGMENT)
    places = np.concatenate([one.places + np.int32(start) for start, one in zip(starts, segments, strict=True)])
    at = _moved(places, device).long()
    positions = torch.cat([_positions(one.width, device) for one in segments])
    weights = _moved(np.concatenate([one.weights for one in segments]), device).float() / 64
    # the place after the last one is padding: its weight is 0
    labels = ids[(at + 1).clamp(max=len(ids) - 1)]
    return Batch(ids, positions, [(SEGMENT // one.width, one.width) for one in segments], at, labels, weights)


def _moved(values: npt.NDArray[Any], device: torch.device) -> Tensor:
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


@cache
def _positions(width: int, device: torch.device) -> Tensor:
    return torch.arange(width, device=device).repeat(SEGMENT // width)


def work(
    documents: Sequence[Document],
    tokenizer: str,
    seed: int,
    wish: mixture.Wish,
    in_prompt: int,
    progress: Any,
    out: multiprocessing.Queue[Any],
) -> None:  # pragma: no cover
    """A worker: segments, until it is ended."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.nice(5)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # that of the parent, if it has one, is not meant for a worker
    examples = mixture.examples(documents, seed, lambda: float(progress.value), wish)
    rows = packing.rows(Tokenizer.from_str(tokenizer), examples, in_prompt)
    for segment in packing.segments(rows, np.random.default_rng(seed)):
        out.put(segment)


class Loader:
    """Owns the workers. To be made before the device is first used: they are forks, and share the documents."""

    def __init__(
        self,
        documents: Sequence[Document],
        tokenizer: str,
        *,
        seed: int,
        workers: int,
        device: torch.device,
        tokens: int,
        wish: mixture.Wish = mixture.USUAL,
        in_prompt: int = packing.IN_PROMPT,
    ) -> None:
        context = multiprocessing.get_context("fork")
        trained = [document for document in documents if not document.is_held_out]
        self._progress = context.Value("d", 0.0, lock=False)
        self._queue: Any = context.Queue(maxsize=8 * workers + 16)
        self._segments, self._device = tokens // SEGMENT, device
        self._random = Random(seed)
        self._kept: list[Segment] = []
        self.echoes = 0
        self.taken = 0
        self._workers = [
            context.Process(
                target=work,
                args=(trained, tokenizer, seed * 1000 + number, wish, in_prompt, self._progress, self._queue),
                daemon=True,
            )
            for number in range(workers)
        ]
        for worker in self._workers:
            worker.start()

    def batch(self, progress: float) -> Batch:
        return batch([self.segment(progress) for _ in range(self._segments)], self._device)

    def segment(self, progress: float) -> Segment:
        self._progress.value = progress
        return self._next()

    def _next(self) -> Segment:
        self.taken += 1
        try:
            return self._keep(self._queue.get(timeout=_PATIENCE_S))
        except queue.Empty:
            if len(self._kept) < 8 * self._segments:  # too few to meet in ever other company: wait
                return self._keep(self._queue.get(timeout=120))
        self.echoes += 1
        return self._random.choice(self._kept)

    def _keep(self, segment: Segment) -> Segment:
        if len(self._kept) < _KEPT:
            self._kept.append(segment)
        else:
            self._kept[self._random.randrange(_KEPT)] = segment
        return segment

    def close(self) -> None:
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            worker.join()
        self._queue.cancel_join_thread()
        self._queue.close()
