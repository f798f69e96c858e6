"""Runs steps: rows of token ids in, one drawn token per row out. Owns the weights and the KV tensors.

It knows nothing of sequences, contexts, prefixes or scheduling: a row says which pages it reads and writes.
The invariant: what a row draws depends on its tokens, its draw and nothing else in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType

import torch

from parrot_compat.core.errors import EngineError
from parrot_compat.gpu.batch import Batch, BatchRow, Drawn
from parrot_compat.gpu.config import EngineConfig, ResolvedConfig, choose_dtype, resolve
from parrot_compat.gpu.kernels.sharing import Sharing
from parrot_compat.gpu.kernels.strips import HeadShape
from parrot_compat.gpu.kv.storage import KvStorage
from parrot_compat.gpu.logprobs import with_logprobs
from parrot_compat.gpu.machine import choose_device, measure
from parrot_compat.gpu.models.decoder import FastDecoder
from parrot_compat.gpu.models.transformers_models import TransformersDecoder
from parrot_compat.gpu.models.weights import locate, read_facts
from parrot_compat.gpu.reading import Pool, Read, Score
from parrot_compat.gpu.sampler import sample
from parrot_compat.gpu.states import read_scores, read_states

__all__ = ["ModelRunner"]


class ModelRunner:
    """One model on one device. Not thread-safe: whoever owns it steps it from one thread."""

    def __init__(self, config: EngineConfig) -> None:
        """Errors: `ModelRefused` (the checkpoint), `EngineError` (the device)."""
        path = locate(config.model)
        facts = read_facts(path)
        dtype: torch.dtype = getattr(torch, choose_dtype(config, facts))
        self.device = choose_device(config)
        self._decoder: FastDecoder | TransformersDecoder = FastDecoder.load(
            path, dtype, self.device
        ) or TransformersDecoder.load(path, dtype, self.device)
        self.config: ResolvedConfig = resolve(config, facts, measure(self.device))
        if self.device.type == "cpu":
            torch.set_num_threads(self.config.threads)
        self._sharing = self._choose_sharing(dtype)
        self._storage = KvStorage(
            facts.layers,
            self.config.pages,
            self.config.page_size,
            facts.kv_heads,
            facts.head_dim,
            dtype,
            self.device,
        )

    def run(self, rows: Sequence[BatchRow]) -> list[Drawn | Read | None]:
        """Compute every row's tokens into its pages; the token drawn for each row, `None` where none was asked. A row
        with a `reading` gets a `Read`, which has both."""
        if not rows:
            return []
        self._check_tokens(rows)
        # Rows that are read are forward passes of their own, so that decoding has the shapes it always has.
        answers: list[Drawn | Read | None] = [None] * len(rows)
        for kind, compute in ((NoneType, self._run), (Pool, self._pool), (Score, self._score)):
            chosen = [number for number, row in enumerate(rows) if isinstance(row.reading, kind)]
            for number, answer in zip(chosen, compute([rows[number] for number in chosen]), strict=True):
                answers[number] = answer
        return answers

    @torch.inference_mode()
    def _pool(self, rows: Sequence[BatchRow]) -> Sequence[Read]:
        if not rows:
            return []
        batch = Batch.build(rows, self.config.page_size, self.device, self._sharing)
        return read_states(self._decoder.states(batch, self._storage), rows)

    @torch.inference_mode()
    def _score(self, rows: Sequence[BatchRow]) -> Sequence[Read]:
        if not rows:
            return []
        batch = Batch.build(rows, self.config.page_size, self.device, self._sharing)
        scores, behind = read_scores(self._decoder.all_logits(batch, self._storage), rows)
        drawn: list[Drawn | None] = [None] * len(rows)
        for row, draw in zip(batch.drawn, batch.draws, strict=True):
            logits = behind[row][None]
            [drawn[row]] = with_logprobs(sample(logits, [draw], self.config.eos_token_ids), logits, [draw])
        return [Read(drawn=token, logprobs=told) for token, told in zip(drawn, scores, strict=True)]

    def _run(self, rows: Sequence[BatchRow]) -> Sequence[Drawn | None]:
        if not rows:
            return []
        with torch.inference_mode():
            batch = Batch.build(rows, self.config.page_size, self.device, self._sharing)
            logits = self._decoder.logits(batch, self._storage)
            drawn: Sequence[Drawn] = ()
            if logits is not None:
                tokens = sample(logits, batch.draws, self.config.eos_token_ids)
                drawn = with_logprobs(tokens, logits, batch.draws)
        answers: list[Drawn | None] = [None] * len(rows)
        for row, token in zip(batch.drawn, drawn, strict=True):
            answers[row] = token
        return answers

    def copy_pages(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole pages, (source, target), in all layers."""
        if pairs:
            with torch.inference_mode():
                self._storage.copy_pages(pairs)

    def _choose_sharing(self, dtype: torch.dtype) -> Sharing | None:
        """Only the Triton kernels read a prefix once for several rows."""
        if not isinstance(self._decoder, FastDecoder) or self._decoder.kernels.name != "triton":
            return None
        config = self.config
        shape = HeadShape(
            heads=config.heads, kv_heads=config.kv_heads, dim=config.head_dim, element_bytes=dtype.itemsize
        )
        return Sharing.on(self.device, dtype, shape, config.page_size)

    def _check_tokens(self, rows: Sequence[BatchRow]) -> None:
        """A bad id would be a silent wrong row on some devices and the end of the context on others."""
        for number, row in enumerate(rows):
            for token in row.tokens:
                if not 0 <= token < self.config.vocab_size:
                    raise EngineError(
                        f"row {number} of the batch has token {token}; the vocabulary has {self.config.vocab_size}"
                    )
