"""The probe: does a decoder that no test of ours knows give the same logits over paged KV as transformers by itself?

It is asked once, when a checkpoint of such a family is loaded. Two short texts are computed as transformers does it,
and then as an engine does: in chunks, side by side, token by token at the end. Windows are longer than any probe, so
they are looked at where they are handed to the attention function.

The invariant: a model that passes reads nothing but its own tokens through our attention, and all of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AttentionInterface

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.core.errors import ModelRefused
from parrot_compat.gpu.batch import Batch, BatchRow
from parrot_compat.gpu.config import CheckpointFacts
from parrot_compat.gpu.drawing.draw import Draw
from parrot_compat.gpu.kv.storage import KvStorage

__all__ = ["PROBING", "Decoder", "Probe", "takes_our_attention"]

PROBING = "parrot_probe"
"""The name under which transformers finds the attention function that also notes windows."""
# transformers is typed in parts
_registry: Any = AttentionInterface
_classes: Any = MODEL_FOR_CAUSAL_LM_MAPPING
TOKENS = 24
CHUNKS = (10, 13, 1)
PAGE = 4
TOLERANCE: Mapping[torch.dtype, float] = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Of the logits' own spread, both as root mean squares. A wrong key or position changes all of them by much more."""


def takes_our_attention(config: Any, where: str) -> None:
    """Errors: `ModelRefused` where the model's own modules compute attention by themselves."""
    model: Any = _classes[type(config)]
    if not getattr(model, "_supports_attention_backend", False):
        raise ModelRefused(
            f"{where}: {model.__name__} cannot run with another attention than its own, so it is not served"
        )


class Decoder(Protocol):
    def logits(self, batch: Batch, storage: KvStorage) -> Tensor | None: ...


@dataclass(frozen=True, slots=True)
class Probe:
    where: str
    model: Any
    texts: tuple[tuple[int, ...], tuple[int, ...]]
    right: tuple[Tensor, Tensor]
    """[tokens, vocabulary] float32 of each text, by transformers' own attention."""

    @classmethod
    def of(cls, model: Any, where: str) -> Probe:
        """Errors: `ModelRefused`."""
        name = type(model).__name__
        vocabulary = model.config.vocab_size
        texts = tuple(tuple((step * at * at + 7 * at + step) % vocabulary for at in range(TOKENS)) for step in (3, 11))
        attention = model.config._attn_implementation
        try:
            model.set_attn_implementation("eager")
            with torch.inference_mode():
                right = [model(torch.tensor([ids], device=model.device), use_cache=False).logits[0] for ids in texts]
        except Exception as error:  # whatever it is, this model does not run here
            raise ModelRefused(f"{where}: {name} does not run: {type(error).__name__}: {error}") from error
        finally:
            model.set_attn_implementation(attention)
        return cls(where, model, (texts[0], texts[1]), (right[0].float(), right[1].float()))

    def check(self, decoder: Decoder, facts: CheckpointFacts, dtype: torch.dtype, device: torch.device) -> None:
        """Errors: `ModelRefused` where the paged logits, or the windows, are not the model's own."""
        name = type(self.model).__name__
        attention = self.model.config._attn_implementation
        windows: dict[int, int | None] = {}
        _registry.register(PROBING, _noting(windows, attention))
        try:
            self.model.set_attn_implementation(PROBING)
            with torch.inference_mode():
                error = self._error(decoder, facts, dtype, device)
        except Exception as failure:  # shapes that do not fit, arguments that do not arrive
            reason = f"{type(failure).__name__}: {failure}"
            raise ModelRefused(f"{self.where}: {name} does not run over paged KV: {reason}") from failure
        finally:
            self.model.set_attn_implementation(attention)
        if not error <= TOLERANCE[dtype]:
            raise ModelRefused(
                f"{self.where}: {name} gives other logits over paged KV than by itself (off by {error:.2g} of their "
                f"spread, at most {TOLERANCE[dtype]:.2g} is rounding), so it is not served"
            )
        for layer, window in _windows(self.model.config, facts.layers).items():
            if windows.get(layer, window) != window:
                raise ModelRefused(
                    f"{self.where}: layer {layer} of {name} attends with window {windows[layer]}, its config.json "
                    f"says {window}, so it is not served"
                )

    def _error(self, decoder: Decoder, facts: CheckpointFacts, dtype: torch.dtype, device: torch.device) -> float:
        """How far a row's logits are off at most, as a share of their spread; infinite where that is no number."""
        pages = -(-TOKENS // PAGE)
        storage = KvStorage(facts.layers, 2 * pages, PAGE, facts.kv_heads, facts.head_dim, dtype, device)
        tables = tuple(range(0, 2 * pages, 2)), tuple(range(1, 2 * pages, 2))
        draw, start, worst = Draw(sampling=ResolvedSampling(max_tokens=1), index=0), 0, 0.0
        for count in CHUNKS:
            end = start + count
            rows = [
                BatchRow(tokens=text[start:end], start=start, pages=table, draw=draw)
                for text, table in zip(self.texts, tables, strict=True)
            ]
            logits = decoder.logits(Batch.build(rows, PAGE, device), storage)
            assert logits is not None
            for own, right in zip(logits.float(), self.right, strict=True):
                off = float((own - right[end - 1]).std() / right[end - 1].std())
                worst = max(worst, off if math.isfinite(off) else math.inf)  # `max` would pass over a NaN
            start = end
        return worst


def _noting(windows: dict[int, int | None], attention: str) -> Any:
    function = _registry()[attention]

    def noting(module: Any, *tensors: Any, **options: Any) -> Any:
        windows[module.layer_idx] = options.get("sliding_window")
        return function(module, *tensors, **options)

    return noting


def _windows(config: Any, layers: int) -> dict[int, int | None]:
    """The window of each layer by the config alone; nothing of layers that it says nothing about."""
    window = getattr(config, "sliding_window", None)
    if window is None or not getattr(config, "use_sliding_window", True):
        return dict.fromkeys(range(layers))
    types = getattr(config, "layer_types", None) or ["sliding_attention"] * layers
    return {layer: window if kind == "sliding_attention" else None for layer, kind in enumerate(types)}
