"""The weights of a checkpoint, read straight from its safetensors files.

It knows names, shapes and files, nothing of what the tensors are for. The invariant: what is asked for is there with
the shape that config.json implies, and nothing else is, or the checkpoint is refused by the tensor's name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from parrot_compat.core.errors import ModelRefused
from parrot_compat.gpu.models.weights import check_files

__all__ = ["EMBEDDING", "HEAD", "TEXT_NAMES", "CheckpointTensors"]

DERIVED = re.compile(r"rotary_emb\.inv_freq$|\.masked_bias$|\.attn\.bias$")
"""Buffers that old versions saved beside the weights; they follow from config.json."""
TEXT_NAMES: Mapping[str, str] = {
    r"^(?:model\.)?language_model\.lm_head\.": "lm_head.",
    r"^(?:model\.)?language_model\.(?:model\.)?": "model.",
}
"""How versions of transformers name the text model inside of a multimodal one → as it is named alone."""
OTHER_PARTS = re.compile(r"^(?:model\.)?(?:vision_tower|multi_modal_projector)\.")
HEAD, EMBEDDING, _MODEL = "lm_head.weight", "model.embed_tokens.weight", "model."
_open: Any = safe_open


class CheckpointTensors:
    """All tensors of one folder, by the names of the whole model; each is read when it is asked for, so that two copies
    exist of one at a time."""

    def __init__(self, path: Path, expected: Iterable[tuple[str, tuple[int, ...]]], *, tied: bool) -> None:
        """Errors: `ModelRefused`, naming file or tensor. `tied`: the files need no `lm_head.weight`."""
        check_files(path)
        self._path = path
        where = _where(path)
        opened = {file: _open(str(file), framework="pt") for file in set(where.values())}
        self._names = _as_of_the_whole_model(where, tied=tied)
        self._files = {name: opened[where[own]] for name, own in self._names.items()}
        there = {name for name in self._names if not DERIVED.search(name)}
        if tied:
            there.discard(HEAD)
        shapes = dict(expected)
        for problem, names in (("missing_keys", shapes.keys() - there), ("unexpected_keys", there - shapes.keys())):
            if names:
                self._refuse(f"{problem} {', '.join(sorted(names)[:3])}")
        if tied and HEAD in self._names and EMBEDDING in shapes:
            shapes[HEAD] = shapes[EMBEDDING]
        for name, shape in shapes.items():
            found = tuple(self._files[name].get_slice(self._names[name]).get_shape())
            if found != shape:
                self._refuse(f"mismatched_keys {name} is {list(found)}, not {list(shape)}")

    def get(self, name: str, dtype: torch.dtype) -> Tensor:
        tensor: Tensor = self._files[name].get_tensor(self._names[name])
        return tensor.to(dtype)

    def joined(self, names: Iterable[str], dtype: torch.dtype) -> Tensor:
        """The tensors one below another."""
        parts = [self.get(name, dtype) for name in names]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def head(self, embedding: Tensor, dtype: torch.dtype) -> Tensor:
        """Of a checkpoint whose config.json ties it to the embedding: that, unless the files have a head of their own
        that differs, as fine-tuning may leave one. Hugging Face does the same."""
        if HEAD not in self._names or self._names[HEAD] == self._names[EMBEDDING]:
            return embedding
        own = self.get(HEAD, dtype)
        return embedding if torch.equal(own, embedding) else own

    def _refuse(self, problem: str) -> None:
        raise ModelRefused(f"the weights of {self._path} do not match its config.json: {problem}")


def _as_of_the_whole_model(there: Iterable[str], *, tied: bool) -> dict[str, str]:
    """Name as the whole model has it → name in the files. Some hold the model without its head (Qwen3-Embedding), some
    a tied embedding under the head's name, some what sees beside what writes (Gemma 3)."""
    names = {_as_text_alone(name): name for name in there}
    if any(own != name for name, own in names.items()):
        names = {name: own for name, own in names.items() if not OTHER_PARTS.match(own)}
    if EMBEDDING.removeprefix(_MODEL) in names and EMBEDDING not in names:
        names = {name if name.startswith("lm_head.") else _MODEL + name: name for name in names}
    if tied and HEAD in names and EMBEDDING not in names:
        names[EMBEDDING] = names[HEAD]
    return names


def _as_text_alone(name: str) -> str:
    for inside, alone in TEXT_NAMES.items():
        name = re.sub(inside, alone, name)
    return name


def _where(path: Path) -> dict[str, Path]:
    """tensor → the file that holds it."""
    file = path / "model.safetensors"
    if not file.exists():  # Hugging Face's order: a folder that was saved over may still have the index of before
        index = path / "model.safetensors.index.json"
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {name: path / shard for name, shard in weight_map.items()}
    with _open(str(file), framework="pt") as tensors:
        return dict.fromkeys(tensors.keys(), file)
