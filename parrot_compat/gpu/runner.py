"""Runs steps: rows of token ids in, one drawn token per row out. Owns the weights and the KV tensors.

A step is launched, and collected when its tokens are wanted: in between the device works alone.

It knows nothing of sequences, contexts, prefixes or scheduling: a row says which pages it reads and writes.
The invariant: what a row draws depends on its tokens, its draw and nothing else in the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from parrot_compat.core.errors import EngineError, ModelRefused
from parrot_compat.gpu.batch import BatchRow, PackedRows
from parrot_compat.gpu.config import PAGE_SIZE, EngineConfig, ResolvedConfig, choose_dtype, resolve, threads_of
from parrot_compat.gpu.drawing.draw import Draw
from parrot_compat.gpu.drawing.drawn import Drawn
from parrot_compat.gpu.drawing.outcome import Outcome
from parrot_compat.gpu.drawing.sampler import sample
from parrot_compat.gpu.kernels.sharing import Sharing
from parrot_compat.gpu.kernels.strips import HeadShape
from parrot_compat.gpu.kv.storage import KvStorage
from parrot_compat.gpu.layers.rotary import Rotary
from parrot_compat.gpu.machine import choose_device, measure, physical_cores
from parrot_compat.gpu.models.decoder import FastDecoder, why_not_deterministic
from parrot_compat.gpu.models.transformers_models import TransformersDecoder
from parrot_compat.gpu.models.weights import locate, read_facts
from parrot_compat.gpu.states import read_scores, read_states
from parrot_compat.gpu.to_device import listed
from parrot_compat.gpu.wanted import Pool, Read, Score
from parrot_compat.gpu.warmup import warm_up

if TYPE_CHECKING:
    from parrot_compat.gpu.cuda_graphs import DecodeGraphs

__all__ = ["Flight", "ModelRunner"]


class ModelRunner:
    """One model on one device. Not thread-safe: whoever owns it steps it from one thread."""

    def __init__(self, config: EngineConfig) -> None:
        """Errors: `ModelRefused` (the checkpoint), `EngineError` (the device)."""
        path = locate(config.model)
        facts = read_facts(path)
        dtype: torch.dtype = getattr(torch, choose_dtype(config, facts))
        self.device = choose_device(config)
        if self.device.type == "cpu":  # before weights are packed, when products are tried: they run as they were tried
            torch.set_num_threads(threads_of(config, physical_cores()))
        fast = FastDecoder.load(path, dtype, self.device, deterministic=config.deterministic)
        if config.deterministic and (why := why_not_deterministic(fast, dtype, self.device)) is not None:
            kind = "a CUDA device" if self.device.type == "cuda" else "this CPU"
            raise ModelRefused(f"{path} cannot be deterministic on {kind}: {why}; without that it can be served")
        self._decoder: FastDecoder | TransformersDecoder = fast or TransformersDecoder.load(path, dtype, self.device)
        if self.device.type == "cuda":
            warm_up(self._decoder, facts, dtype, self.device, config.page_size or PAGE_SIZE)
        self.config: ResolvedConfig = resolve(config, facts, measure(self.device))
        self.sharing = self._choose_sharing(dtype) if fast is not None and fast.kernels.shares_prefixes else None
        """What its kernels read together, while `config.share_prefixes` says that they may; `None`: nothing."""
        self._storage = KvStorage(
            facts.layers,
            self.config.pages + 1,  # the last is nobody's: padding of CUDA graphs writes there
            self.config.page_size,
            facts.kv_heads,
            facts.head_dim,
            dtype,
            self.device,
        )
        self._graphs = None if fast is None or self.config.enforce_eager else self._graphs_of(fast)
        if fast is not None and self.device.type == "cuda":
            fast.cover(self.config.context_tokens)

    def run(self, rows: Sequence[BatchRow]) -> list[Drawn | Read | None]:
        """`launch` and `collect`."""
        return self.collect(self.launch(rows)) if rows else []

    def launch(self, rows: Sequence[BatchRow], after: Flight | None = None) -> Flight:
        """Begin to compute every row's tokens into its pages. On a CUDA device this does not wait for the device,
        unless rows are read.

        `after`: the step before, which rows with `drawn_by` follow; it need not be collected yet.
        """
        self._check_tokens(rows)
        # Rows that are read are forward passes of their own, so that decoding has the shapes it always has.
        reads: dict[int, Read] = {}
        for kind, compute in ((Pool, self._pool), (Score, self._score)):
            if chosen := [number for number, row in enumerate(rows) if isinstance(row.wanted, kind)]:
                reads |= zip(chosen, compute([rows[number] for number in chosen]), strict=True)
        others = [row for number, row in enumerate(rows) if number not in reads] if reads else rows
        with torch.inference_mode():
            packed = self._packed(others)
            given = None if after is None else self._drawn_before(others, after)
            logits = self._logits(packed, given) if others else None
            return Flight(len(rows), reads, packed, None if logits is None else self._drawn(logits, packed.draws))

    def collect(self, flight: Flight) -> list[Drawn | Read | None]:
        """The token drawn for each row, `None` where none was asked; a row with something `wanted` gets a `Read`, with
        both. A row whose token cannot be drawn has the error in its place; the others are none the worse for it."""
        drawn = [] if flight.outcome is None else flight.outcome.read()
        others = [number for number in range(flight.rows) if number not in flight.reads]
        answers: list[Drawn | Read | None] = [flight.reads.get(number) for number in range(flight.rows)]
        for row, token in zip(flight.packed.drawn, drawn, strict=True):
            answers[others[row]] = token
        return answers

    @torch.inference_mode()
    def _pool(self, rows: Sequence[BatchRow]) -> Sequence[Read]:
        batch = self._packed(rows).to(self.device)
        return read_states(self._decoder.states(batch, self._storage), rows)

    @torch.inference_mode()
    def _score(self, rows: Sequence[BatchRow]) -> Sequence[Read]:
        batch = self._packed(rows).to(self.device)
        scores, behind = read_scores(self._decoder.all_logits(batch, self._storage), rows)
        drawn: list[Drawn | None] = [None] * len(rows)
        for row, draw in zip(batch.drawn, batch.draws, strict=True):
            [drawn[row]] = self._drawn(behind[row][None], [draw]).read()
        return [Read(drawn=token, logprobs=told) for token, told in zip(drawn, scores, strict=True)]

    def copy_pages(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole pages, (source, target), in all layers."""
        if pairs:
            with torch.inference_mode():
                self._storage.copy_pages(pairs)

    def check_device(self) -> None:
        """Wait until the device has done what it was given. Errors: its own, where it answers nothing any more."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @property
    def graphs(self) -> DecodeGraphs | None:
        """Of the sizes of steps that it has met; `None`: it makes none."""
        return self._graphs

    def _packed(self, rows: Sequence[BatchRow]) -> PackedRows:
        sharing = self.sharing if self.config.share_prefixes else None
        return PackedRows.of(rows, self.config.page_size, sharing)

    def _logits(self, packed: PackedRows, given: Tensor | None) -> Tensor | None:
        """`given`: [tokens] on the device, in place of the ids of `packed`."""
        if self._graphs is not None and packed.is_decode and not self.config.enforce_eager:
            logits = self._graphs.logits(packed, given)
            if logits is not None:
                return logits
        batch = packed.to(self.device)
        return self._decoder.logits(batch if given is None else replace(batch, token_ids=given), self._storage)

    def _drawn(self, logits: Tensor, draws: Sequence[Draw]) -> Outcome:
        return Outcome(sample(logits, draws, self.config.checkpoint.eos_token_ids), logits, draws)

    def _drawn_before(self, rows: Sequence[BatchRow], after: Flight) -> Tensor:
        """[rows] int64 on the device: the tokens of rows that all follow rows of `after`."""
        assert after.outcome is not None and all(row.drawn_by is not None and len(row.tokens) == 1 for row in rows)
        place = {row: number for number, row in enumerate(after.packed.drawn)}
        places = [place[row.drawn_by] for row in rows if row.drawn_by is not None]
        tokens = after.outcome.tokens.clamp(min=0)  # one that could not be drawn fails its row when it is collected
        if places == list(range(len(tokens))):
            return tokens
        return tokens[listed(places, self.device)]

    def _graphs_of(self, decoder: FastDecoder) -> DecodeGraphs | None:
        """`None` where something of a step is made on the host."""
        if not decoder.kernels.can_be_captured or not all(isinstance(each, Rotary) for each in decoder.rotary.values()):
            return None
        # Late: it needs triton.
        from parrot_compat.gpu.cuda_graphs import DecodeGraphs

        spare_slot = self.config.pages * self.config.page_size
        return DecodeGraphs(decoder, self._storage, self.config, self.device, spare_slot)

    def _choose_sharing(self, dtype: torch.dtype) -> Sharing:
        facts = self.config.checkpoint
        shape = HeadShape(heads=facts.heads, kv_heads=facts.kv_heads, dim=facts.head_dim, element_bytes=dtype.itemsize)
        assert isinstance(self._decoder, FastDecoder)
        windows = [layer.window for layer in self._decoder.plan.layers]
        return Sharing.on(self.device, dtype, shape, self.config.page_size, windows)

    def _check_tokens(self, rows: Sequence[BatchRow]) -> None:
        """A bad id would be a silent wrong row on some devices and the end of the context on others."""
        vocabulary = self.config.checkpoint.vocab_size
        for number, row in enumerate(rows):
            for token in row.tokens:
                if not 0 <= token < vocabulary:
                    raise EngineError(f"row {number} of the batch has token {token}; the vocabulary has {vocabulary}")


@dataclass(frozen=True, slots=True)
class Flight:
    """A step on its way: launched, not yet collected."""

    rows: int
    reads: Mapping[int, Read]
    """By row."""
    packed: PackedRows
    """The other rows."""
    outcome: Outcome | None
    """What they drew; `None`: none of them draws."""
