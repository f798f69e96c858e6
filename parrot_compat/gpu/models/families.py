"""The model families that are served, and why another checkpoint is not.

A family stands in the table once its tiny twin was found equal to Hugging Face on our paged attention
(tests/gpu/test_runner.py runs every row of it). Anything else is refused by name: a model that runs almost
right is worse than one that does not run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from parrot_compat.core.errors import ModelRefused

__all__ = ["FAMILIES", "check_family"]

FAMILIES: Mapping[str, str] = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
}
"""model_type of config.json → the architecture that is served of it."""

STATIC_ROPE = frozenset({"default", "linear", "llama3", "yarn"})
"""Rotary scalings whose frequencies are fixed when the model is loaded."""


def check_family(path: str, config: Mapping[str, Any]) -> None:
    """Refuse what we do not run exactly. `config` is config.json as transformers reads it (`to_dict`)."""
    where = f"{path}/config.json"
    model_type = str(config.get("model_type"))
    if model_type not in FAMILIES:
        raise ModelRefused(
            f"{where}: model_type {model_type!r} is not served; served are {', '.join(sorted(FAMILIES))}"
        )
    architectures = config.get("architectures") or [FAMILIES[model_type]]
    if FAMILIES[model_type] not in architectures:
        raise ModelRefused(
            f"{where}: architectures {architectures} do not generate text; served is {FAMILIES[model_type]}"
        )
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "unknown")
        raise ModelRefused(f"{where}: quantized weights ({method}) are not served; use the unquantized checkpoint")
    if config.get("use_bidirectional_attention"):
        raise ModelRefused(f"{where}: use_bidirectional_attention is set; only causal models are served")
    for rope in _rope_types(config):
        # "dynamic" and "longrope" compute their frequencies from the longest position of the batch, so a
        # neighbour would change a text; fixing them at admission needs a rotary layer of our own.
        if rope not in STATIC_ROPE:
            raise ModelRefused(
                f"{where}: rope scaling {rope!r} depends on the length of the text and is not served; "
                f"served are {', '.join(sorted(STATIC_ROPE))}"
            )


def _rope_types(config: Mapping[str, Any]) -> list[str]:
    """The scalings in use: one for the model, or one for each type of layer."""
    rope = config.get("rope_parameters") or {}
    per_layer_type = [value for value in rope.values() if isinstance(value, Mapping)]
    return [str(item.get("rope_type", "default")) for item in (per_layer_type or [rope])]
