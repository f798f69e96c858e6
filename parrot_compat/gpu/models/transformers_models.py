"""Runs a checkpoint with transformers' own modules, our paged attention plugged in.

It knows transformers and the KV storage; nothing of sequences or scheduling. Everything a step needs is passed
as arguments through the model to the attention function: there is no current batch, so two models in one
process never meet.

The invariant: the logits of a row are those of Hugging Face's model on that row's tokens alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AutoModelForCausalLM
from transformers.utils import logging

from parrot_compat.core.errors import ModelRefused
from parrot_compat.gpu.batch import Batch
from parrot_compat.gpu.kernels import AttentionInputs
from parrot_compat.gpu.kv.storage import KvStorage
from parrot_compat.gpu.layers.attention import attend
from parrot_compat.gpu.layers.linear import pack_linears
from parrot_compat.gpu.models.decoder import LOGITS_AT_ONCE
from parrot_compat.gpu.models.plan import row_and_activation
from parrot_compat.gpu.models.probe import Probe, takes_our_attention
from parrot_compat.gpu.models.reading import read_config
from parrot_compat.gpu.models.tensors import TEXT_NAMES
from parrot_compat.gpu.models.weights import check_files, read_facts

__all__ = ["TransformersDecoder"]

ATTENTION = "parrot_paged"

# transformers is typed in parts; these two are used as Any.
_loader: Any = AutoModelForCausalLM
_logging: Any = logging


def _paged(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    parrot_storage: KvStorage,
    parrot_inputs: AttentionInputs,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function: [1, heads, tokens, dim] in, [1, tokens, heads, dim] out. The mask is ours
    to make (none is registered under our name), dropout is off in inference."""
    attended = attend(
        module.layer_idx,
        query[0].transpose(0, 1).contiguous(),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        parrot_storage,
        parrot_inputs,
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        window=sliding_window,
        soft_cap=softcap,
    )
    return attended[None], None


AttentionInterface.register(ATTENTION, _paged)


class TransformersDecoder:
    """A causal language model on one device."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @classmethod
    def load(cls, path: Path, dtype: torch.dtype, device: torch.device) -> TransformersDecoder:
        """Errors: `ModelRefused`, naming the file or the tensors that are wrong."""
        check_files(path)
        config = read_config(path)
        takes_our_attention(config, str(path))
        try:
            with _no_progress_bar():
                model, info = _loader.from_pretrained(
                    str(path),
                    config=config,
                    key_mapping=dict(TEXT_NAMES),
                    dtype=dtype,
                    attn_implementation=ATTENTION,
                    use_safetensors=True,
                    trust_remote_code=False,
                    local_files_only=True,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,  # refused below, by name
                )
        except Exception as error:  # transformers raises all kinds; every one means these files cannot be served
            raise ModelRefused(f"transformers cannot load {path}: {error}") from error
        # transformers fills what is absent with random numbers: it must never be served.
        for problem in ("missing_keys", "mismatched_keys"):
            if info[problem]:
                some = ", ".join(sorted(str(key) for key in info[problem])[:3])
                raise ModelRefused(f"the weights of {path} do not match its config.json: {problem} {some}")
        model.eval().requires_grad_(False).to(device)
        probe = None if row_and_activation(model.config) else Probe.of(model, str(path))
        if device.type == "cpu":
            pack_linears(model)
        decoder = cls(model)
        if probe is not None:
            probe.check(decoder, read_facts(path), dtype, device)
        return decoder

    @property
    def module(self) -> nn.Module:
        module: nn.Module = self._model
        return module

    def logits(self, batch: Batch, storage: KvStorage) -> Tensor | None:
        """Compute the step: [drawing rows, vocabulary] of each drawing row's last token; `None` if no row draws."""
        if not batch.drawn:
            self.states(batch, storage)  # only the keys and values matter
            return None
        logits: Tensor = self._model(**_step(batch, storage), logits_to_keep=batch.last_tokens).logits[0]
        return logits

    def states(self, batch: Batch, storage: KvStorage) -> Tensor:
        """Compute the step: [tokens, hidden], the last states of all its tokens, after the last norm."""
        states: Tensor = self._model.base_model(**_step(batch, storage)).last_hidden_state[0]
        return states

    def all_logits(self, batch: Batch, storage: KvStorage) -> Iterator[Tensor]:
        """Compute the step: [some tokens, vocabulary] after each other, the logits of all its tokens."""
        yield from torch.split(self._model(**_step(batch, storage)).logits[0], LOGITS_AT_ONCE)


def _step(batch: Batch, storage: KvStorage) -> dict[str, Any]:
    return {
        "input_ids": batch.token_ids[None],
        "position_ids": batch.positions[None],
        "use_cache": False,
        "parrot_storage": storage,
        "parrot_inputs": batch.attention,
    }


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """An engine's output is a log, not a terminal."""
    shown = _logging.is_progress_bar_enabled()
    _logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            _logging.enable_progress_bar()
