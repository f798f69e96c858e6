"""What a CUDA device does only once, done before an engine says that it is ready: Triton's kernels are compiled, and
those of libraries loaded. Amid service all streams would stand still for it.

Made-up rows go through the model, over a few pages of their own: a prompt's chunk, rows that draw, and rows that read a
prefix together, which are all the kinds of attention there are (`kernels/strips.py`).

It knows decoders, batches and draws, nothing of runners or sequences. The invariant: nothing of it is left but what was
loaded; the pages that an engine serves from are not there yet.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace

import torch

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.core.errors import ModelRefused
from parrot_compat.gpu.batch import BatchRow, PackedRows
from parrot_compat.gpu.config import CheckpointFacts
from parrot_compat.gpu.drawing.draw import Draw
from parrot_compat.gpu.drawing.sampler import sample
from parrot_compat.gpu.kernels.forest import SharedPrefix
from parrot_compat.gpu.kv.storage import KvStorage
from parrot_compat.gpu.models.probe import Decoder

__all__ = ["warm_up"]

logger = logging.getLogger(__name__)

CHUNK = 64
"""Tokens of the made-up prompt: more than a row may have that is split over its keys, which is 16 at most."""
GREEDY = Draw(sampling=ResolvedSampling(max_tokens=1), index=0)
FILTERED = Draw(
    sampling=ResolvedSampling(max_tokens=1, temperature=1.0, top_k=20, top_p=0.9, min_p=0.1, seed=0), index=0
)


def warm_up(decoder: Decoder, facts: CheckpointFacts, dtype: torch.dtype, device: torch.device, page_size: int) -> None:
    """Call it before free memory is measured, which what is loaded takes of. Errors: `ModelRefused` where the weights
    leave no room for it."""
    logger.info("compiling and loading kernels")
    began_s = time.monotonic()
    try:
        _run(decoder, facts, dtype, device, page_size)
    except torch.OutOfMemoryError as error:
        said = str(error).partition("\n")[0]
        raise ModelRefused(f"{facts.path} leaves no room on the device for a step: {said}") from error
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
    logger.info("kernels were ready after %.1f s", time.monotonic() - began_s)


@torch.inference_mode()
def _run(decoder: Decoder, facts: CheckpointFacts, dtype: torch.dtype, device: torch.device, page_size: int) -> None:
    pages = max(3, -(-CHUNK // page_size))
    storage = KvStorage(facts.layers, pages, page_size, facts.kv_heads, facts.head_dim, dtype, device)
    for packed in _steps(facts, page_size, pages):
        logits = decoder.logits(packed.to(device), storage)
        assert logits is not None
        sample(logits, packed.draws, facts.eos_token_ids)


def _steps(facts: CheckpointFacts, page_size: int, pages: int) -> Iterator[PackedRows]:
    chunk = min(CHUNK, facts.max_position_embeddings)
    prompt = BatchRow(tokens=[0] * chunk, start=0, pages=range(pages), draw=GREEDY, prompt_tokens=chunk)
    yield PackedRows.of([prompt], page_size)
    if page_size < facts.max_position_embeddings:  # else no text has a page that another can share
        rows = [
            BatchRow(tokens=[0], start=page_size, pages=[0, 1 + row], draw=draw, prompt_tokens=page_size)
            for row, draw in enumerate((GREEDY, FILTERED))
        ]
        packed = PackedRows.of(rows, page_size)
        yield packed
        yield replace(packed, shared=(SharedPrefix(rows=(0, 1), first_page=0, end_page=1),))
