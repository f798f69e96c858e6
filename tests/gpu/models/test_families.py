"""Which models are refused, by name."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoConfig

from parrot_compat.core.errors import ModelRefused
from parrot_compat.gpu.models.families import FAMILIES, check_family
from tests.gpu.models.tiny import BASE, LLAMA3_ROPE, SPECIAL, YARN_ROPE

LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 8,
    "long_factor": [2.0] * 8,
    "original_max_position_embeddings": 64,
}


def config(family: str, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = AutoConfig.for_model(family, **{**BASE, **SPECIAL.get(family, {}), **changes}).to_dict()
    return values


def test_every_family_has_a_tiny_checkpoint_to_be_tested_with() -> None:
    assert set(FAMILIES) == set(SPECIAL)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_families_of_the_table_are_served(family: str) -> None:
    check_family("/m", config(family))


@pytest.mark.parametrize("model_type", ["gpt_oss", "mamba", "bert", "qwen3_next", None])
def test_an_unknown_model_type_is_refused_with_those_that_are_served(model_type: str | None) -> None:
    with pytest.raises(ModelRefused, match=rf"/m/config.json: model_type '{model_type}' is not served.*llama.*qwen3"):
        check_family("/m", {"model_type": model_type})


@pytest.mark.parametrize(
    "rope",
    [{"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 64}, LONG],
    ids=["dynamic", "longrope"],
)
def test_rope_scaling_that_depends_on_length_is_refused_by_name(rope: dict[str, Any]) -> None:
    """transformers computes it from the longest text of the batch: a neighbour would change the answer."""
    with pytest.raises(ModelRefused, match=f"rope scaling '{rope['rope_type']}' depends on the length"):
        check_family("/m", config("llama", rope_parameters=rope))


def test_such_a_scaling_is_refused_also_where_only_one_type_of_layer_has_it() -> None:
    ropes = {"full_attention": LONG, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}

    with pytest.raises(ModelRefused, match="'longrope'"):
        check_family("/m", {**config("gemma3_text"), "rope_parameters": ropes})


@pytest.mark.parametrize("rope", [LLAMA3_ROPE, YARN_ROPE], ids=["llama3", "yarn"])
def test_fixed_rope_scalings_are_served(rope: dict[str, Any]) -> None:
    check_family("/m", config("llama", rope_parameters=rope))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification.*do not generate text"),
        ({"quantization_config": {"quant_method": "awq"}}, r"quantized weights \(awq\)"),
        ({"use_bidirectional_attention": True}, "only causal models"),
    ],
)
def test_what_is_not_a_plain_causal_model_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelRefused, match=message):
        check_family("/m", {**config("llama"), **changes})
