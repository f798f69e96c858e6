"""The model families that are served, how each differs, and why another checkpoint is not.

A family stands in the table once its tiny twin was found equal to Hugging Face on our paged attention
(tests/gpu/test_runner.py runs every row of it). Any other decoder that transformers can run with our attention must
pass the probe when it is loaded (`probe`). The rest is refused by name: a model that runs almost right is worse than
one that does not run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from parrot_compat.core.errors import ModelRefused
from parrot_compat.gpu.config import RopeGrowth
from parrot_compat.gpu.layers.rotary import GROWING

__all__ = ["DECODERS", "FAMILIES", "MULTIMODAL", "FamilyRow", "check_family", "position_limit", "rope_growth"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyRow:
    """How a family differs from Llama."""

    architecture: str
    """What is served of it, as config.json calls it."""
    windows: Literal["none", "all", "by_layer_type"] = "none"
    attention_bias: bool | None = None
    """Of the query, key and value projections; `None`: as `attention_bias` of the config says."""
    output_bias: bool | None = None
    mlp_bias: bool = False
    """Only Llama has them, where its config says so."""
    head_norms: bool = False
    """Queries and keys are normalised head by head."""
    is_gemma: bool = False
    """Norms multiply by 1 + weight, in float32, and embeddings are scaled."""
    sandwich: bool = False
    """The results of attention and of the MLP are normalised, too, before they are added."""
    scaled_by_config: bool = False
    """Scores are scaled by `query_pre_attn_scalar`, not by the head's size."""
    soft_cap: bool = False
    """Scores are soft-capped by `attn_logit_softcapping`."""
    packed_files: bool = False
    """Its files hold query, key and value as one tensor, and gate and up as one."""
    activation: str = "hidden_act"


FAMILIES: Mapping[str, FamilyRow] = {
    "llama": FamilyRow(architecture="LlamaForCausalLM", mlp_bias=True),
    "mistral": FamilyRow(architecture="MistralForCausalLM", windows="all", attention_bias=False, output_bias=False),
    "qwen2": FamilyRow(
        architecture="Qwen2ForCausalLM", windows="by_layer_type", attention_bias=True, output_bias=False,
    ),
    "qwen3": FamilyRow(architecture="Qwen3ForCausalLM", windows="by_layer_type", head_norms=True),
    "gemma": FamilyRow(architecture="GemmaForCausalLM", is_gemma=True),
    "gemma2": FamilyRow(
        architecture="Gemma2ForCausalLM", is_gemma=True, windows="by_layer_type", sandwich=True, scaled_by_config=True,
        soft_cap=True, activation="hidden_activation",
    ),
    "gemma3_text": FamilyRow(
        architecture="Gemma3ForCausalLM", is_gemma=True, windows="by_layer_type", sandwich=True, scaled_by_config=True,
        head_norms=True, activation="hidden_activation",
    ),
    "phi3": FamilyRow(
        architecture="Phi3ForCausalLM", windows="all", attention_bias=False, output_bias=False, packed_files=True,
    ),
}  # fmt: skip
"""By model_type of config.json."""

DECODERS: Mapping[str, str] = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
"""All that transformers calls causal language models, by model_type. `models/probe.py` decides about each."""
MULTIMODAL = frozenset({"gemma3"})
"""Those multimodal ones of which the text is served: that of Gemma 3 is a `gemma3_text`."""
LAYER_TYPES = frozenset({"full_attention", "sliding_attention"})
STATIC_ROPE = frozenset({"default", "linear", "llama3", "yarn"})
"""Rotary scalings whose frequencies are fixed when the model is loaded."""


def check_family(path: str, config: Mapping[str, Any]) -> None:
    """Refuse what we do not run exactly. `config` is config.json as transformers reads it (`to_dict`)."""
    where = f"{path}/config.json"
    model_type = str(config.get("model_type"))
    row = FAMILIES.get(model_type)
    served = DECODERS.get(model_type) if row is None else row.architecture
    if config.get("text_config") and model_type not in MULTIMODAL:
        raise ModelRefused(
            f"{where}: model_type {model_type!r} is a multimodal checkpoint; only those of text alone are served, and "
            f"the text of {', '.join(sorted(MULTIMODAL))}"
        )
    if served is None or config.get("is_encoder_decoder"):
        raise ModelRefused(
            f"{where}: model_type {model_type!r} is not served; served are {', '.join(sorted(FAMILIES))}, "
            "and decoders of transformers that our probe finds equal"
        )
    architectures = config.get("architectures") or [served]
    if served not in architectures:
        raise ModelRefused(f"{where}: architectures {architectures} are not served; served is {served}")
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "unknown")
        raise ModelRefused(f"{where}: quantized weights ({method}) are not served; use the unquantized checkpoint")
    if config.get("use_bidirectional_attention"):
        raise ModelRefused(f"{where}: use_bidirectional_attention is set; only causal models are served")
    if kinds := sorted(set(config.get("layer_types") or ()) - LAYER_TYPES):
        raise ModelRefused(f"{where}: layers of type {kinds[0]!r} are not served")
    ropes = _ropes(config)
    for rope in ropes:
        kind = rope.get("rope_type", "default")
        if kind not in STATIC_ROPE | GROWING:
            served = ", ".join(sorted(STATIC_ROPE | GROWING))
            raise ModelRefused(f"{where}: rope scaling {kind!r} is not served; served are {served}")
        if kind in GROWING and len(ropes) > 1:
            raise ModelRefused(f"{where}: rope scaling {kind!r} in one type of layer only is not served")
        # transformers' own modules take it from the longest text of a step: a neighbour would change an answer.
        if kind in GROWING and model_type not in FAMILIES:
            raise ModelRefused(f"{where}: rope scaling {kind!r} is not served for model_type {model_type!r}")


def rope_growth(config: Mapping[str, Any]) -> RopeGrowth | None:
    """How the rotary scaling depends on the length of the text, if it does."""
    rope = _ropes(config)[0]
    match rope.get("rope_type"):
        case "dynamic":
            return RopeGrowth("dynamic", int(config["max_position_embeddings"]))
        case "longrope":
            return RopeGrowth("longrope", int(rope["original_max_position_embeddings"]))
    return None


def position_limit(config: Mapping[str, Any]) -> int:
    """Most tokens that the positions of a checkpoint stand for, scaled as vLLM does it: `linear` and `dynamic` stretch
    max_position_embeddings, `yarn` the length it was trained with; the others state the stretched length."""
    most = int(config["max_position_embeddings"])
    rope, *others = _ropes(config)
    if others:  # Gemma 3: only some layers are stretched
        return most
    if rope.get("rope_type") in ("linear", "dynamic"):
        return int(most * float(rope.get("factor", 1.0)))
    if rope.get("rope_type") == "yarn":
        trained = int(rope.get("original_max_position_embeddings") or most)
        return max(most, int(trained * float(rope.get("factor", 1.0))))
    return most


def _ropes(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The scalings in use: one for the model, or one for each type of layer."""
    rope = config.get("rope_parameters") or {}
    per_layer_type = [value for value in rope.values() if isinstance(value, Mapping)]
    return per_layer_type or [rope]
