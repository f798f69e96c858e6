"""Planted faults: the mistakes that an engine like this one makes, each as a small patch of the live code.

They know the engine's insides on purpose; the identity check that must find them does not.
A patch goes in before the engine starts and out after it: what is drawn in between must differ from Hugging Face.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from parrot_compat.gpu.batch import Batch, BatchRow, PackedRows
from parrot_compat.gpu.drawing.drawn import Drawn
from parrot_compat.gpu.kernels import AttentionInputs, Kernels
from parrot_compat.gpu.kv import begun
from parrot_compat.gpu.kv.context import Context
from parrot_compat.gpu.kv.contexts import Contexts
from parrot_compat.gpu.kv.radix import RadixTree
from parrot_compat.gpu.kv.storage import KvStorage
from parrot_compat.gpu.layers.rotary import Rotary
from parrot_compat.gpu.models import decoder
from parrot_compat.gpu.models.decoder import FastDecoder
from parrot_compat.gpu.models.tensors import CheckpointTensors
from parrot_compat.gpu.runner import Flight, ModelRunner
from parrot_compat.gpu.sequence import Sequence as Sequence_
from parrot_compat.gpu.step import PlannedRow
from parrot_compat.gpu.step_rows import Row, StepRows
from parrot_compat.gpu.wanted import Read

__all__ = ["FAULTS", "Fault"]

Patch = pytest.MonkeyPatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """`plant` it and the checkpoint called `shape` must answer wrongly in the scenario."""

    name: str
    shape: str
    plant: Callable[[Patch], None]
    scenario: str


# ---- the batch: positions and lengths --------------------------------------------------------------


def _positions_one_off_after_the_first_chunk(patch: Patch) -> None:
    """Only later chunks and decoding are shifted: rotary positions are relative, so moving all of them is no fault."""

    def change(batch: Batch, rows: Sequence[BatchRow]) -> Batch:
        starts = torch.tensor(batch.attention.query_starts)
        late = torch.tensor([int(row.start > 0) for row in rows])
        return replace(batch, positions=batch.positions + late.repeat_interleave(starts.diff()))

    _patch_batches(patch, change)


def _decoding_misses_its_own_token(patch: Patch) -> None:
    """The key of the token being computed is not attended to."""

    def change(inputs: AttentionInputs) -> AttentionInputs:
        lengths = [length - (length > 1 and queries == 1) for length, queries in _with_queries(inputs)]
        return replace(inputs, kv_lengths=tuple(lengths))

    _patch_attention(patch, change)


def _drawn_from_the_wrong_token(patch: Patch) -> None:
    """Where a chunk has several tokens, the logits are those of the last but one."""

    def change(batch: Batch, rows: Sequence[BatchRow]) -> Batch:
        several = torch.tensor([len(rows[number].tokens) > 1 for number in batch.drawn], dtype=torch.int64)
        return replace(batch, last_tokens=batch.last_tokens - several)

    _patch_batches(patch, change)


def _tokens_handed_to_the_wrong_rows(patch: Patch) -> None:
    """Where two rows or more draw, each gets its neighbour's token."""
    right = ModelRunner.collect

    def collect(self: ModelRunner, flight: Flight) -> list[Drawn | Read | None]:
        drawn = right(self, flight)
        drawing = [row for row, token in enumerate(drawn) if token is not None]
        turned = list(drawn)
        for row, other in zip(drawing, drawing[1:] + drawing[:1], strict=True):
            turned[row] = drawn[other]
        return turned

    patch.setattr(ModelRunner, "collect", collect)


def _rows_ahead_get_their_neighbours_token(patch: Patch) -> None:
    """Where a step is launched before the tokens of the one before are known."""
    right = ModelRunner._drawn_before
    patch.setattr(ModelRunner, "_drawn_before", lambda self, rows, after: right(self, rows, after).roll(1))


# ---- pages -----------------------------------------------------------------------------------------


def _copied_page_is_stale(patch: Patch) -> None:
    """A fork's copy of a shared page keeps what the target page held before."""
    patch.setattr(KvStorage, "copy_pages", lambda self, pairs: None)


def _copied_page_is_half_copied(patch: Patch) -> None:
    """Keys are copied, values are not."""

    def copy_keys(self: KvStorage, pairs: Sequence[tuple[int, int]]) -> None:
        for source, target in pairs:
            for keys in self.keys:
                pages = keys.view(self.pages, -1)
                pages[target] = pages[source]

    patch.setattr(KvStorage, "copy_pages", copy_keys)


def _last_slot_of_each_page_is_never_written(patch: Patch) -> None:
    def change(right: Kernels) -> Kernels:
        seen: list[AttentionInputs] = []

        def prepare(inputs: AttentionInputs) -> Any:
            seen[:] = [inputs]
            return right.prepare(inputs)

        def rotate(qkv: Tensor, heads: int, keys: Tensor, values: Tensor, *rest: Any) -> Tensor:
            [inputs] = seen
            lost = inputs.slots[(inputs.slots + 1) % inputs.page_size == 0]
            before = keys[lost], values[lost]
            query = right.rotate(qkv, heads, keys, values, *rest)
            keys[lost], values[lost] = before
            return query

        return replace(right, prepare=prepare, rotate=rotate)

    _patch_kernels(patch, _one_by_one(change))


def _prefix_hit_ignores_the_end_of_a_page(patch: Patch) -> None:
    """The tree takes pages for equal whose first tokens are, as a hash over less than the whole text would."""

    def beginnings(self: RadixTree, tokens: Sequence[int]) -> Iterator[tuple[int, ...]]:
        size = self._pool.page_size
        for start in range(0, len(tokens) - size + 1, size):
            yield (*tokens[start : start + size // 2], *[0] * (size - size // 2))

    patch.setattr(RadixTree, "_full_pages", beginnings)


def _begun_page_is_taken_for_its_place_alone(patch: Patch) -> None:
    """Whoever is inside a page after the same pages is thought to have the same text there."""
    patch.setattr(begun, "_common", lambda some, others: min(len(some), len(others)))


def _cut_context_keeps_its_old_keys(patch: Patch) -> None:
    """After a cut inside a page the rest of that page still counts as computed, though other tokens stand there."""
    truncate, extend = Contexts.truncate, Contexts.extend
    stale: dict[int, int] = {}

    def cut(self: Contexts, context: Context, tokens: int) -> None:
        size = self._pool.page_size
        stale[context.id] = min(context.computed, -(-tokens // size) * size)
        truncate(self, context, tokens)

    def extended(self: Contexts, context: Context, *given: Any, **rest: Any) -> None:
        extend(self, context, *given, **rest)
        old = min(stale.pop(context.id, 0), len(context.tokens) - 1)
        context.computed = max(context.computed, old)

    patch.setattr(Contexts, "truncate", cut)
    patch.setattr(Contexts, "extend", extended)


def _preempted_counts_as_computed(patch: Patch) -> None:
    """Who lost his pages goes on in others as if they held what he had computed; they hold keys of another text."""
    preempt, prepare = StepRows._preempt, StepRows._prepare
    computed: dict[int, int] = {}

    def preempted(self: StepRows, sequence: Sequence_) -> None:
        computed[sequence.context.id] = sequence.context.computed
        preempt(self, sequence)

    def prepared(self: StepRows, sequence: Sequence_, planned: PlannedRow) -> Row:
        _, row = prepare(self, sequence, planned)
        lost = max(0, min(len(row.tokens), computed.get(sequence.context.id, 0) - row.start))
        return sequence, replace(row, tokens=(*[0] * lost, *row.tokens[lost:]))

    patch.setattr(StepRows, "_preempt", preempted)
    patch.setattr(StepRows, "_prepare", prepared)


# ---- attention -------------------------------------------------------------------------------------


def _row_reads_its_neighbours_first_page(patch: Patch) -> None:
    def change(inputs: AttentionInputs) -> AttentionInputs:
        pages = inputs.pages
        if len(pages) < 2:
            return inputs
        leaked = (torch.cat([pages[1][:1], pages[0][1:]]), *pages[1:])
        return replace(inputs, pages=leaked)

    _patch_attention(patch, change)


def _row_reads_one_key_too_many(patch: Patch) -> None:
    """One slot beyond the row's own tokens: zero, or what the page's last holder left there."""

    def change(inputs: AttentionInputs) -> AttentionInputs:
        lengths = [
            min(length + 1, len(pages) * inputs.page_size)
            for length, pages in zip(inputs.kv_lengths, inputs.pages, strict=True)
        ]
        return replace(inputs, kv_lengths=tuple(lengths))

    _patch_attention(patch, change)


def _window_changed_by(tokens: int) -> Callable[[Patch], None]:
    return lambda patch: _patch_window(patch, lambda window: window + tokens)


def _window_ignored(patch: Patch) -> None:
    _patch_window(patch, lambda window: None)


# ---- weights ---------------------------------------------------------------------------------------


def _without_bias(suffix: str) -> Callable[[Patch], None]:
    def plant(patch: Patch) -> None:
        right = CheckpointTensors.get

        def get(self: CheckpointTensors, name: str, dtype: torch.dtype) -> Tensor:
            tensor = right(self, name, dtype)
            return torch.zeros_like(tensor) if name.endswith(suffix) else tensor

        patch.setattr(CheckpointTensors, "get", get)

    return plant


def _without_norm(field: str) -> Callable[[Patch], None]:
    def drop(model: FastDecoder) -> None:
        for layer in model.layers:
            assert getattr(layer, field) is not None
            setattr(layer, field, None)

    return lambda patch: _patch_model(patch, drop)


def _without_rope_scaling(patch: Patch) -> None:
    def drop(model: FastDecoder) -> None:
        [(kind, scaled)] = model.rotary.items()
        plain = 10000.0 ** -(torch.arange(0, scaled.rotated, 2, dtype=torch.float32) / scaled.rotated)
        model.rotary = {kind: Rotary(plain, 1.0, torch.float32, torch.device("cpu"))}
        assert not torch.allclose(scaled.cos, model.rotary[kind].cos)

    _patch_model(patch, drop)


_ELSEWHERE = {_rows_ahead_get_their_neighbours_token: "steps_overlapped", _preempted_counts_as_computed: "preemption"}
"""What a little of everything does not come to."""
FAULTS = tuple(
    Fault(name=name, shape=shape, plant=plant, scenario=_ELSEWHERE.get(plant, "a_little_of_everything"))
    for name, shape, plant in (
        ("positions one off after the first chunk", "llama", _positions_one_off_after_the_first_chunk),
        ("decoding misses its own token", "llama-tied", _decoding_misses_its_own_token),
        ("drawn from the wrong token", "qwen2", _drawn_from_the_wrong_token),
        ("tokens handed to the wrong rows", "mistral", _tokens_handed_to_the_wrong_rows),
        ("copied page is stale", "llama", _copied_page_is_stale),
        ("copied page is half copied", "qwen3", _copied_page_is_half_copied),
        ("last slot of each page is never written", "mistral", _last_slot_of_each_page_is_never_written),
        ("prefix hit ignores the end of a page", "qwen2", _prefix_hit_ignores_the_end_of_a_page),
        ("begun page is taken for its place alone", "qwen2", _begun_page_is_taken_for_its_place_alone),
        ("cut context keeps its old keys", "llama-tied", _cut_context_keeps_its_old_keys),
        ("row reads its neighbour's first page", "qwen3", _row_reads_its_neighbours_first_page),
        ("row reads one key too many", "llama", _row_reads_one_key_too_many),
        ("window one too wide", "mistral", _window_changed_by(1)),
        ("window one too narrow", "mistral", _window_changed_by(-1)),
        ("window ignored", "mistral", _window_ignored),
        ("query bias dropped", "qwen2", _without_bias("q_proj.bias")),
        ("key bias dropped", "qwen2", _without_bias("k_proj.bias")),
        ("value bias dropped", "qwen2", _without_bias("v_proj.bias")),
        ("output bias dropped", "llama-tied", _without_bias("o_proj.bias")),
        ("mlp bias dropped", "llama-tied", _without_bias("down_proj.bias")),
        ("query norm dropped", "qwen3", _without_norm("query_norm")),
        ("key norm dropped", "qwen3", _without_norm("key_norm")),
        ("rope scaling dropped", "llama", _without_rope_scaling),
        ("rows ahead get their neighbour's token", "qwen3", _rows_ahead_get_their_neighbours_token),
        ("preempted counts as computed", "qwen2", _preempted_counts_as_computed),
    )
)


# ---- where the patches go --------------------------------------------------------------------------


def _patch_batches(patch: Patch, change: Callable[[Batch, Sequence[BatchRow]], Batch]) -> None:
    pack, to = PackedRows.of.__func__, PackedRows.to  # type: ignore[attr-defined]
    last: list[Sequence[BatchRow]] = []

    def packed(cls: type[PackedRows], rows: Sequence[BatchRow], *rest: Any) -> PackedRows:
        last[:] = [rows]
        return pack(cls, rows, *rest)  # type: ignore[no-any-return]

    patch.setattr(PackedRows, "of", classmethod(packed))
    patch.setattr(PackedRows, "to", lambda self, device: change(to(self, device), last[0]))


def _patch_kernels(patch: Patch, change: Callable[[Kernels], Kernels]) -> None:
    right = decoder.choose
    patch.setattr(decoder, "choose", lambda *device, **how: change(right(*device, **how)))


def _patch_attention(patch: Patch, change: Callable[[AttentionInputs], AttentionInputs]) -> None:
    """What attention is told; where keys are stored (`slots`) stays right."""
    _patch_kernels(patch, lambda right: replace(right, prepare=lambda inputs: right.prepare(change(inputs))))


def _one_by_one(change: Callable[[Kernels], Kernels]) -> Callable[[Kernels], Kernels]:
    """A kernel that is changed must be the one that runs, not what has it inside."""
    return lambda right: replace(change(right), all_layers=None)


def _patch_window(patch: Patch, change: Callable[[int], int | None]) -> None:
    def changed(right: Kernels) -> Kernels:
        def attention(*given: Any, window: int | None = None, **rest: Any) -> Tensor:
            return right.attention(*given, window=None if window is None else change(window), **rest)

        return replace(right, attention=attention)

    _patch_kernels(patch, _one_by_one(changed))


def _patch_model(patch: Patch, change: Callable[[FastDecoder], None]) -> None:
    load = FastDecoder.load.__func__  # type: ignore[attr-defined]

    def loaded(cls: type[FastDecoder], *given: Any, **how: Any) -> FastDecoder:
        model = load(cls, *given, **how)
        change(model)
        return model  # type: ignore[no-any-return]

    patch.setattr(FastDecoder, "load", classmethod(loaded))


def _with_queries(inputs: AttentionInputs) -> list[tuple[int, int]]:
    starts = inputs.query_starts
    return [(length, starts[row + 1] - starts[row]) for row, length in enumerate(inputs.kv_lengths)]
