"""Penalties, taken off the scores of the tokens that a text has: in two ways, which give the same numbers.

On a CPU row by row, by numpy, which reads a history where it is. Elsewhere for all rows at once: what a history has
seen is kept on the device, and a step brings there what is new in it. In both what a row costs the host hangs on what
its text has gained; only the scores of all its different tokens have to be read and written, where the scores are.

It knows scores and draws, nothing of filters, sequences or models. The invariant: a row is penalised by its own history
alone, each operation in float32, rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from parrot_compat.gpu.drawing.draw import Draw
from parrot_compat.gpu.drawing.history import History, Seen
from parrot_compat.gpu.to_device import moved

__all__ = ["penalise_at_once", "penalise_by_row"]


def penalise_by_row(scores: npt.NDArray[np.float32], draws: Sequence[Draw]) -> None:
    """`scores` [rows, vocabulary], written in place; rows without a history stay as they are."""
    with np.errstate(all="ignore"):  # as torch does: infinite is a score like any other
        for row, draw in zip(scores, draws, strict=True):
            if draw.history is not None:
                tokens, counts = draw.history.seen()
                row[tokens] = _penalised(row[tokens], counts, draw)


def _penalised(values: npt.NDArray[np.float32], counts: npt.NDArray[np.float32], draw: Draw) -> npt.NDArray[np.float32]:
    """What is not asked for would change nothing: times 1, less 0."""
    sampling = draw.sampling
    if sampling.repetition_penalty != 1.0:
        repetition = np.float32(sampling.repetition_penalty)
        values = np.where(values < 0, values * repetition, values / repetition)
    if sampling.frequency_penalty:
        values = values - np.float32(sampling.frequency_penalty) * counts
    if sampling.presence_penalty:
        values = values - np.float32(sampling.presence_penalty) * (counts > 0).astype(np.float32)
    return values


def penalise_at_once(scores: Tensor, draws: Sequence[Draw]) -> None:
    """`scores` [rows, vocabulary], float32 on any device, written in place. Nothing here waits for the device."""
    penalised = [(row, draw.sampling, draw.history) for row, draw in enumerate(draws) if draw.history is not None]
    (tokens, counts), sizes = _kept([history for _, _, history in penalised], scores.device)
    rows, lengths = moved(torch.tensor([[row for row, _, _ in penalised], sizes]), scores.device)
    asked = [
        [one.repetition_penalty for _, one, _ in penalised],
        [one.frequency_penalty for _, one, _ in penalised],
        [one.presence_penalty for _, one, _ in penalised],
    ]
    # of each token its row's; told how many there are, the device need not be asked
    each = torch.repeat_interleave(lengths, output_size=sum(sizes))
    repetition, frequency, presence = moved(torch.tensor(asked, dtype=torch.float32), scores.device)[:, each]
    where = (rows[each], tokens)
    values = scores[where]
    values = torch.where(values < 0, values * repetition, values / repetition)
    values = values - frequency * counts
    values = values - presence * (counts > 0)
    scores.index_put_(where, values)


def _kept(histories: Sequence[History], device: torch.device) -> tuple[Tensor, list[int]]:
    """[2, tokens] int64 on `device`: what each history has seen, one behind another; and how much that is."""
    seen = [history.seen() for history in histories]
    places = [
        history.changed if history.kept is not None and history.kept.device == device else slice(0, len(ids))
        for history, (ids, _) in zip(histories, seen, strict=True)
    ]
    news = np.concatenate([_numbers(each, place) for each, place in zip(seen, places, strict=True)], axis=1)
    brought = torch.split(moved(torch.from_numpy(news), device), [place.stop - place.start for place in places], dim=1)
    for history, (ids, _), place, part in zip(histories, seen, places, brought, strict=True):
        history.keep(_written(history.kept, part, place, len(ids)))
    sizes = [len(ids) for ids, _ in seen]
    kept = [history.kept[:, :size] for history, size in zip(histories, sizes, strict=True) if history.kept is not None]
    return torch.cat(kept, dim=1), sizes


def _numbers(seen: Seen, place: slice) -> npt.NDArray[np.int64]:
    ids, counts = seen
    return np.stack((ids[place], counts[place].astype(np.int64)))


def _written(kept: Tensor | None, part: Tensor, place: slice, size: int) -> Tensor:
    """`kept` [2, room] with `part` at `place`, in place where there is room for `size`; else longer."""
    if kept is None or kept.device != part.device:
        kept = part.new_empty(2, 0)
    if size > kept.shape[1]:
        kept = torch.cat((kept, kept.new_empty(2, size)), dim=1)
    kept[:, place] = part
    return kept
