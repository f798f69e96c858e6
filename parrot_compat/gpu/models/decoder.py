"""The fast decoder: one forward pass for every family of `families.FAMILIES`, over packed tokens and paged KV.

It knows tensors and kernels, nothing of sequences or scheduling. Projections that read the same input are one product,
what lies between two products is one kernel, and logits are computed for drawing rows only.

The invariant: the logits of a row are those of Hugging Face's model on that row's tokens alone (rounding happens where
its modules round), and the same bits whatever other rows are in the step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from parrot_compat.gpu.batch import Batch
from parrot_compat.gpu.kernels import AllLayers, Kernels, NormWeight, Positions
from parrot_compat.gpu.kernels.table import MOST_HEAD_DIM, choose
from parrot_compat.gpu.kv.storage import KvStorage
from parrot_compat.gpu.layers.linear import Linear, can_pack, linear
from parrot_compat.gpu.layers.rotary import GrowingRotary, Rotary, rotary
from parrot_compat.gpu.models.plan import DecoderPlan, LayerPlan, plan_decoder
from parrot_compat.gpu.models.reading import read_config
from parrot_compat.gpu.models.tensors import EMBEDDING, HEAD, CheckpointTensors

__all__ = ["LOGITS_AT_ONCE", "FastDecoder", "Layer", "why_not_deterministic"]

LOGITS_AT_ONCE = 256
"""Tokens whose logits are held at one time: of a vocabulary of 150,000 they are 150 MB in float32."""


@dataclass(slots=True, kw_only=True)
class Layer:
    """The weights of one layer."""

    plan: LayerPlan
    before_attention: NormWeight
    query_norm: NormWeight | None
    key_norm: NormWeight | None
    qkv: Linear
    output: Linear
    after_attention: NormWeight | None
    """Of what attention gave, before it is added (Gemma 2 and 3)."""
    before_mlp: NormWeight
    gate_up: Linear
    down: Linear
    after_mlp: NormWeight | None


class FastDecoder:
    """A causal language model on one device."""

    def __init__(
        self,
        plan: DecoderPlan,
        embedding: Tensor,
        layers: list[Layer],
        last_norm: NormWeight,
        head: Linear,
        kernels: Kernels,
    ) -> None:
        self.plan = plan
        self.layers = layers
        self.kernels = kernels
        self.embedding = embedding
        self._last_norm = last_norm
        self._head = head
        dtype, device = embedding.dtype, embedding.device
        self.rotary: Mapping[str, Rotary | GrowingRotary] = {
            kind: rotary(plan.config, kind, dtype, device)
            for kind in dict.fromkeys(layer.rope for layer in plan.layers)
        }
        scale = plan.embedding_scale
        self._embedding_scale = None if scale is None else torch.tensor(scale).to(dtype).to(device)

    @classmethod
    def load(
        cls, path: Path, dtype: torch.dtype, device: torch.device, *, deterministic: bool = False
    ) -> FastDecoder | None:
        """`None`: this family has no row. Errors: `ModelRefused`, naming the file or the tensors that are wrong."""
        plan = plan_decoder(read_config(path))
        if plan is None:
            return None
        tensors = CheckpointTensors(path, plan.tensors(), tied=plan.is_tied)
        with torch.inference_mode():
            return _Loader(plan, tensors, dtype, device, deterministic).decoder()

    def cover(self, tokens: int) -> None:
        """Have the rotary positions of texts of so many tokens; else they are made when the first such text comes."""
        for scaling in self.rotary.values():
            if isinstance(scaling, Rotary):
                scaling.cover(tokens + 1)

    def logits(self, batch: Batch, storage: KvStorage) -> Tensor | None:
        """Compute the step: [drawing rows, vocabulary] of each drawing row's last token; `None` if no row draws."""
        step = self.kernels.prepare(batch.attention)
        x, mixed = self._through_layers(batch, storage, step, only_last=True)
        return self.head(self._last_normed(x, mixed)) if batch.drawn else None

    def head(self, states: Tensor) -> Tensor:
        """Last states [tokens, hidden], after the last norm → [tokens, vocabulary]."""
        logits = self._head(states)
        cap = self.plan.final_soft_cap
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def states(self, batch: Batch, storage: KvStorage, step: Any = None) -> Tensor:
        """Compute the step: [tokens, hidden], the last states of all its tokens, after the last norm.

        `step`: what `kernels.prepare` made of the batch, if it is there already. Kernels are launched and never waited
        for, so that a CUDA graph can hold it.
        """
        x, mixed = self._through_layers(batch, storage, step or self.kernels.prepare(batch.attention))
        return self._last_normed(x, mixed)

    def all_logits(self, batch: Batch, storage: KvStorage) -> Iterator[Tensor]:
        """Compute the step: [some tokens, vocabulary] after each other, the logits of all its tokens."""
        for states in torch.split(self.states(batch, storage), LOGITS_AT_ONCE):
            yield self.head(states)

    def _last_normed(self, x: Tensor, mixed: Tensor) -> Tensor:
        return self.kernels.add_norm(x, mixed, self._last_norm)[1]

    def _through_layers(
        self, batch: Batch, storage: KvStorage, step: Any, *, only_last: bool = False
    ) -> tuple[Tensor, Tensor]:
        """What enters the last layer's MLP, and what that adds to it: of all tokens, or of each drawing row's last. In
        the last layer all others leave their keys and values; nothing else of them will ever be asked for."""
        kernels = self.kernels
        wanted = batch.last_tokens if only_last and len(batch.drawn) < len(batch.token_ids) else None
        last_step = step if wanted is None else kernels.for_tokens(step, wanted)
        places = self._places(batch)
        x = self.embedding.index_select(0, batch.token_ids)
        if self._embedding_scale is not None:
            x = x * self._embedding_scale
        if (at_once := self._all_layers) is not None and x.shape[0] <= at_once.most_tokens:
            return at_once(x, last_step, places, storage.keys, storage.values, wanted)
        normed = kernels.norm(x, self.layers[0].before_attention)
        for number, layer in enumerate(self.layers):
            is_last = number + 1 == len(self.layers)
            at = places[layer.plan.rope]
            attended = self._attend(layer, number, normed, at, last_step if is_last else step, storage)
            if is_last and wanted is not None:
                if not len(wanted):
                    return x[:0], x[:0]
                x, attended = x.index_select(0, wanted), attended.index_select(0, wanted)
            mixed = layer.output(attended)
            if layer.after_attention is not None:
                mixed = kernels.norm(mixed, layer.after_attention)
            x, normed = kernels.add_norm(x, mixed, layer.before_mlp)
            mixed = layer.down(kernels.gated(layer.gate_up(normed), self.plan.activation))
            if layer.after_mlp is not None:
                mixed = kernels.norm(mixed, layer.after_mlp)
            if not is_last:
                x, normed = kernels.add_norm(x, mixed, self.layers[number + 1].before_attention)
        return x, mixed

    @cached_property
    def _all_layers(self) -> AllLayers | None:
        make = self.kernels.all_layers
        return None if make is None else make(self.plan, self.layers)

    def _attend(
        self, layer: Layer, number: int, normed: Tensor, at: Positions, step: Any, storage: KvStorage
    ) -> Tensor:
        plan, kernels = self.plan, self.kernels
        qkv = layer.qkv(normed).view(-1, plan.heads + 2 * plan.kv_heads, plan.dim)
        keys, values = storage.keys[number], storage.values[number]
        query = kernels.rotate(qkv, plan.heads, keys, values, step, at, layer.query_norm, layer.key_norm)
        attended = kernels.attention(
            query, keys, values, step, scale=plan.scale, window=layer.plan.window, soft_cap=plan.soft_cap
        )
        return attended.view(-1, plan.query_width)

    def _places(self, batch: Batch) -> dict[str, Positions]:
        return {kind: rotary.places(batch) for kind, rotary in self.rotary.items()}


def why_not_deterministic(decoder: FastDecoder | None, dtype: torch.dtype, device: torch.device) -> str | None:
    """Why the bits of a row of this model may hang on more than its text; `None`: they do not. `decoder`: loaded as
    `deterministic`; `None`: transformers' modules compute it."""
    if decoder is None:
        return "its family has no fast decoder"
    if not decoder.kernels.is_fixed_order:
        if device.type == "cuda":
            return "no Triton kernels hold its heads"
        if decoder.plan.dim > MOST_HEAD_DIM:
            return f"no C++ kernels hold its heads of {decoder.plan.dim}"
        return "there are no C++ kernels for it (PARROT_CPU_KERNELS=torch, or no compiler that can build them)"
    if device.type == "cpu" and not can_pack(dtype):
        return f"there is no packed product for {str(dtype).removeprefix('torch.')}, as there may be for another dtype"
    return None


class _Loader:
    """Makes a decoder of a checkpoint's tensors, layer by layer."""

    def __init__(
        self,
        plan: DecoderPlan,
        tensors: CheckpointTensors,
        dtype: torch.dtype,
        device: torch.device,
        deterministic: bool,
    ) -> None:
        self._plan = plan
        self._deterministic = deterministic
        self._tensors = tensors
        self._dtype = dtype
        self._device = device

    def decoder(self) -> FastDecoder:
        plan = self._plan
        read = self._tensors.get(EMBEDDING, self._dtype)
        embedding = read.to(self._device)
        own = self._tensors.head(read, self._dtype) if plan.is_tied else self._tensors.get(HEAD, self._dtype)
        head = embedding if own is read else own.to(self._device)
        return FastDecoder(
            plan,
            embedding,
            [self._layer(number) for number in range(len(plan.layers))],
            self._norm("model.norm"),
            linear(head, None, deterministic=self._deterministic),
            choose(self._device, self._dtype, head_dim=plan.dim, deterministic=self._deterministic),
        )

    def _layer(self, number: int) -> Layer:
        plan, row, at = self._plan, self._plan.row, f"model.layers.{number}"
        qkv = ["qkv"] if row.packed_files else ["q", "k", "v"]
        gate_up = ["gate_up"] if row.packed_files else ["gate", "up"]
        between = "pre_feedforward_layernorm" if row.sandwich else "post_attention_layernorm"
        return Layer(
            plan=plan.layers[number],
            before_attention=self._norm(f"{at}.input_layernorm"),
            query_norm=self._norm(f"{at}.self_attn.q_norm") if row.head_norms else None,
            key_norm=self._norm(f"{at}.self_attn.k_norm") if row.head_norms else None,
            qkv=self._linear([f"{at}.self_attn.{name}_proj" for name in qkv], plan.qkv_bias),
            output=self._linear([f"{at}.self_attn.o_proj"], plan.output_bias),
            after_attention=self._norm(f"{at}.post_attention_layernorm") if row.sandwich else None,
            before_mlp=self._norm(f"{at}.{between}"),
            gate_up=self._linear([f"{at}.mlp.{name}_proj" for name in gate_up], plan.mlp_bias),
            down=self._linear([f"{at}.mlp.down_proj"], plan.mlp_bias),
            after_mlp=self._norm(f"{at}.post_feedforward_layernorm") if row.sandwich else None,
        )

    def _linear(self, names: list[str], has_bias: bool) -> Linear:
        weight = self._tensors.joined([f"{name}.weight" for name in names], self._dtype).to(self._device)
        if not has_bias:
            return linear(weight, None, deterministic=self._deterministic)
        bias = self._tensors.joined([f"{name}.bias" for name in names], self._dtype).to(self._device)
        return linear(weight, bias, deterministic=self._deterministic)

    def _norm(self, name: str) -> NormWeight:
        weight = self._tensors.get(f"{name}.weight", self._dtype).float()
        is_gemma = self._plan.row.is_gemma
        weight = (1.0 + weight if is_gemma else weight).to(self._device)
        return NormWeight(weight=weight, eps=self._plan.eps, rounds_first=not is_gemma)
