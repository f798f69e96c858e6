"""What one checkpoint's decoder computes, read from its config: sizes, and what its family does differently.

A family is a row of `families.FAMILIES`; everything else follows from the config as transformers reads it (defaults
filled in). It knows no tensors and no kernels. The invariant: a plan has every number that the decoder uses, so nothing
is decided while a step runs; a config that a row cannot express has no plan, and transformers' own modules run it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from parrot_compat.gpu.kernels import Activation
from parrot_compat.gpu.layers.heads import head_dim
from parrot_compat.gpu.models.families import FAMILIES, FamilyRow

__all__ = ["DecoderPlan", "LayerPlan", "plan_decoder", "row_and_activation"]

ACTIVATIONS: Mapping[str, Activation] = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}
"""As transformers calls them → as the kernels do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPlan:
    window: int | None
    rope: str
    """Which of the decoder's rotary tables; models with one have it under ""."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderPlan:
    row: FamilyRow
    config: Any
    """transformers' config object; only the rotary tables are made from it."""
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    dim: int
    vocabulary: int
    eps: float
    scale: float
    soft_cap: float | None
    final_soft_cap: float | None
    embedding_scale: float | None
    activation: Activation
    is_tied: bool
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    layers: tuple[LayerPlan, ...]

    @property
    def query_width(self) -> int:
        return self.heads * self.dim

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.dim

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of everything that the checkpoint's files must hold."""
        yield "model.embed_tokens.weight", (self.vocabulary, self.hidden)
        for number in range(len(self.layers)):
            for name, shape in self.layer_tensors():
                yield f"model.layers.{number}.{name}", shape
        yield "model.norm.weight", (self.hidden,)
        if not self.is_tied:
            yield "lm_head.weight", (self.vocabulary, self.hidden)

    def layer_tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        row, query, kv = self.row, self.query_width, self.kv_width
        yield "input_layernorm.weight", (self.hidden,)
        yield "post_attention_layernorm.weight", (self.hidden,)
        if row.sandwich:
            yield "pre_feedforward_layernorm.weight", (self.hidden,)
            yield "post_feedforward_layernorm.weight", (self.hidden,)
        if row.head_norms:
            yield "self_attn.q_norm.weight", (self.dim,)
            yield "self_attn.k_norm.weight", (self.dim,)
        if row.packed_files:
            linears = [("self_attn.qkv_proj", query + 2 * kv, self.hidden, self.qkv_bias)]
            linears += [("mlp.gate_up_proj", 2 * self.inner, self.hidden, self.mlp_bias)]
        else:
            linears = [(f"self_attn.{name}_proj", kv, self.hidden, self.qkv_bias) for name in "kv"]
            linears += [("self_attn.q_proj", query, self.hidden, self.qkv_bias)]
            linears += [(f"mlp.{name}_proj", self.inner, self.hidden, self.mlp_bias) for name in ("gate", "up")]
        linears += [("self_attn.o_proj", self.hidden, query, self.output_bias)]
        linears += [("mlp.down_proj", self.hidden, self.inner, self.mlp_bias)]
        for name, rows, columns, has_bias in linears:
            yield f"{name}.weight", (rows, columns)
            if has_bias:
                yield f"{name}.bias", (rows,)


def row_and_activation(config: Any) -> tuple[FamilyRow, Activation] | None:
    """Of a checkpoint; `None` where its family has no row or its activation no kernel."""
    row = FAMILIES.get(config.model_type)
    activation = None if row is None else ACTIVATIONS.get(str(getattr(config, row.activation)))
    return None if row is None or activation is None else (row, activation)


def plan_decoder(config: Any) -> DecoderPlan | None:
    """The plan of a checkpoint, if it can have one."""
    found = row_and_activation(config)
    if found is None:
        return None
    row, activation = found
    dim = head_dim(config)
    stated_bias = bool(getattr(config, "attention_bias", False))
    return DecoderPlan(
        row=row,
        config=config,
        hidden=config.hidden_size,
        inner=config.intermediate_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        dim=dim,
        vocabulary=config.vocab_size,
        eps=config.rms_norm_eps,
        scale=float(config.query_pre_attn_scalar if row.scaled_by_config else dim) ** -0.5,
        soft_cap=config.attn_logit_softcapping if row.soft_cap else None,
        final_soft_cap=getattr(config, "final_logit_softcapping", None),
        embedding_scale=config.hidden_size**0.5 if row.is_gemma else None,
        activation=activation,
        is_tied=bool(config.tie_word_embeddings),
        qkv_bias=stated_bias if row.attention_bias is None else row.attention_bias,
        output_bias=stated_bias if row.output_bias is None else row.output_bias,
        mlp_bias=row.mlp_bias and bool(getattr(config, "mlp_bias", False)),
        layers=tuple(_layers(config, row)),
    )


def _layers(config: Any, row: FamilyRow) -> Iterator[LayerPlan]:
    types = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    ropes = config.rope_parameters or {}
    has_several = any(isinstance(value, Mapping) for value in ropes.values())
    for kind in types[: config.num_hidden_layers]:
        is_windowed = row.windows == "all" or (row.windows == "by_layer_type" and kind == "sliding_attention")
        window = getattr(config, "sliding_window", None) if is_windowed else None
        yield LayerPlan(window=window, rope=kind if has_several else "")
